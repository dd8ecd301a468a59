"""Three gateways, two engines and a Redis, each a process of its own that may be killed; and a network between one of
the gateways and the Redis that may be cut."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
from tests.conftest import NGRAM
from tests.patient import wait_until
from tests.running_redis import RunningRedis

from paceline.engines.bundled_model import bundled_model
from paceline.paths import cache_directory
from paceline.processes.launch import free_port

GATEWAYS = 3
UP_WITHIN_S = 60.0
TRIES_S = 30.0
"""For which a client tries one gateway after another, as a load balancer would."""
MAX_TOKENS = 16
PROMPTS = (
    "Write a story about a fox who crosses a river.",
    "Repeat this list three times: red, green, blue, red, green, blue, red, green, blue.",
    "Fix this function: def add(a, b): return a - b",
)


class Network:
    """A way to a port of this machine that can be cut, and healed."""

    def __init__(self, port: int) -> None:
        self.is_cut = False
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.is_cut = True
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        self.is_cut = False

    def _accept(self) -> None:
        while True:
            near, _ = self._listening.accept()
            if self.is_cut:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while not self.is_cut and (some := source.recv(65536)):
                sink.sendall(some)
        for each in (source, sink):
            self._open.discard(each)
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Gateway:
    """``paceline serve`` at a port of its own, which it keeps."""

    def __init__(self, configuration: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        folder.mkdir()
        (folder / "paceline.toml").write_text(configuration)
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "paceline.cli", "serve", "--port", str(self.port)]
        command += ["--config", str(self._folder / "paceline.toml")]
        with (self._folder / "serve.log").open("ab") as out:
            environment = os.environ | {"XDG_STATE_HOME": str(self._folder)}
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    def is_up(self) -> bool:
        """Whether it takes requests, since an engine is up."""
        with suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200
        return False

    def kill(self) -> None:
        """As by ``kill -9``."""
        self.process.kill()
        self.process.wait()

    def lanes(self) -> Any:
        return httpx2.get(f"{self.url}/paceline/lanes", trust_env=False, timeout=10).json()

    def requests(self) -> dict[str, int]:
        """By lane, how many of all gateways' requests it knows of."""
        return {one["lane"]: one["measured"]["requests"] for one in self.lanes()["lanes"]}

    def explained(self, prompt: str) -> Any:
        """What it would decide now."""
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS}
        url = f"{self.url}/paceline/explain/v1/chat/completions"
        return httpx2.post(url, json=body, trust_env=False, timeout=10).json()

    def times(self, prompt: str) -> dict[str, float]:
        """By lane, what it expects a token to take, in milliseconds; empty before anything was measured."""
        predictions = self.explained(prompt)["predictions"]
        return {lane: each["ms_per_token"] for lane, each in predictions.items() if each["ms_per_token"]}


class Engine:
    """The embedded engine with the bundled model."""

    def __init__(self, folder: Path, name: str, *flags: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "paceline.engines.embedded", "--model", str(bundled_model(cache_directory()))]
        command += ["--alias", "m", "--port", str(port), "--parallel", "4", "--ctx-size", "8192", "--threads", "1"]
        with (folder / f"{name}.log").open("wb") as out:
            self.process = subprocess.Popen([*command, *flags], stdin=subprocess.PIPE, stdout=out, stderr=out)


class Stage:
    def __init__(self, folder: Path, redis_program: str) -> None:
        self.engines = [Engine(folder, "plain"), Engine(folder, "ngram", *NGRAM)]
        self.redis = RunningRedis(redis_program, folder)
        self.network = Network(self.redis.port)
        ports = [self.redis.port] * (GATEWAYS - 1) + [self.network.port]
        self.gateways = [Gateway(self._configuration(port), folder / str(n)) for n, port in enumerate(ports)]
        try:
            for gateway in self.gateways:
                wait_until(gateway.is_up, UP_WITHIN_S)
        except BaseException:
            self.close()
            raise

    def _configuration(self, redis_port: int) -> str:
        plain, ngram = self.engines
        return (
            f'sharing.store = "redis://127.0.0.1:{redis_port}/0"\nsharing.interval_s = 0.5\nrouting.exploration = 0\n'
            f'[[engine]]\nname = "plain"\nkind = "llama.cpp"\nurl = "{plain.url}"\n'
            f'[[engine]]\nname = "ngram"\nkind = "llama.cpp"\nurl = "{ngram.url}"\nstrategy = "ngram"\nn_max = 8\n'
        )

    def agree(self, requests: int | None = None) -> bool:
        """Whether all gateways know of the same requests; and of so many."""
        try:
            known = [gateway.requests() for gateway in self.gateways]
        except httpx2.HTTPError:
            return False
        return all(each == known[0] for each in known) and requests in (None, sum(known[0].values()))

    def close(self) -> None:
        processes = [gateway.process for gateway in self.gateways] + [engine.process for engine in self.engines]
        for process in processes:
            process.kill()
            process.wait()
        self.redis.kill()


class Load:
    """Clients that ask one after another of the gateways, and turn to the next where one does not answer. To be used
    as a context manager."""

    def __init__(self, gateways: list[Gateway], clients: int = 2) -> None:
        self.answered = 0
        self.lost: Counter[str] = Counter()
        self._gateways = gateways
        self._numbers = count()
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, daemon=True) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def until(self, answered: int) -> None:
        """Go on until there are so many answers more."""
        enough = self.answered + answered
        wait_until(lambda: self.answered >= enough, 120)

    def _ask_on(self) -> None:
        while not self._is_over.is_set():
            problem = self._ask(next(self._numbers))
            if problem:
                self.lost[problem] += 1
            else:
                self.answered += 1

    def _ask(self, number: int) -> str:
        """Ask until it is answered; returns what went wrong otherwise."""
        deadline_s, problem = time.monotonic() + TRIES_S, "no time"
        body = ask(PROMPTS[number % len(PROMPTS)])
        for turn in count(number):
            gateway = self._gateways[turn % len(self._gateways)]
            if time.monotonic() > deadline_s:
                return problem
            try:
                answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=body, trust_env=False, timeout=60)
            except httpx2.TransportError as error:  # the gateway is not there
                problem = type(error).__name__
                time.sleep(0.05)
                continue
            return "" if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"
        raise AssertionError


def ask(prompt: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS, "temperature": 0}
