"""A real Envoy, the endpoint picker in a process of its own, and two real engines, which all tests share."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import pytest
from benchmarks.llama_server import LlamaServer
from benchmarks.scale.real_envoy import RealEnvoy, Way
from tests.patient import wait_until

from paceline.engines.llama_cpp_build import usable
from paceline.paths import cache_directory
from paceline.processes.launch import free_port

SLOTS = 2
collect_ignore_glob = [] if find_spec("grpc") and find_spec("kubernetes_validate") else ["test_*.py"]
FLAGS = ("--parallel", str(SLOTS), "--threads", "1", "--spec-type", "ngram-simple")


def llama_server(model: Path, host: str = "127.0.0.1", port: int | None = None) -> LlamaServer:
    """
    Args:
        port: a free one by default.
    """
    build = usable(cache_directory())
    assert build is not None, "build it with: paceline engine build"
    return LlamaServer(str(build.server), model, *FLAGS, host=host, port=port)


class PickerProcess:
    """``paceline endpoint-picker``; :meth:`start` may be called again after :meth:`kill`."""

    def __init__(self, *words: str, folder: Path, grpc_port: int | None = None) -> None:
        self.grpc_port, self.port = grpc_port or free_port(), free_port()
        self.grpc, self.url = f"127.0.0.1:{self.grpc_port}", f"http://127.0.0.1:{self.port}"
        self._words, self._folder = words, folder
        self.log = folder / f"picker-{self.grpc_port}.log"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "paceline", "endpoint-picker"]
        command += ["--grpc-port", str(self.grpc_port), "--port", str(self.port), *self._words]
        environment = os.environ | {"XDG_STATE_HOME": str(self._folder / f"state-{self.grpc_port}")}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    def wait_for(self, endpoints: int) -> None:
        """Until so many endpoints are up."""
        wait_until(lambda: self.process.poll() is not None or self.metric("paceline_picker_endpoints_up") == endpoints)
        assert self.process.poll() is None, self.log.read_text()

    def metric(self, name: str) -> float | None:
        """The sum of its series; ``None`` where there is none."""
        try:
            text = httpx2.get(f"{self.url}/metrics", trust_env=False, timeout=10).text
        except httpx2.TransportError:
            return None
        values = [
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.partition(" ")[0].partition("{")[0] == name
        ]
        return sum(values) if values else None

    def lanes(self) -> list[dict[str, Any]]:
        lanes: list[dict[str, Any]] = self.get("/paceline/lanes")["lanes"]
        return lanes

    def get(self, path: str) -> Any:
        return httpx2.get(self.url + path, trust_env=False, timeout=10).json()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> int:
        """Returns its exit status."""
        self.process.terminate()
        return self.process.wait(30)


StartPicker = Callable[..., PickerProcess]
StartEnvoy = Callable[..., RealEnvoy]


@pytest.fixture(scope="session")
def engines(model: Path) -> Iterator[list[LlamaServer]]:
    running = [llama_server(model), llama_server(model)]
    yield running
    for one in running:
        one.stop()


@pytest.fixture(scope="session")
def addresses(engines: list[LlamaServer]) -> list[str]:
    return [engine.address for engine in engines]


@pytest.fixture
def start_picker(tmp_path: Path) -> Iterator[StartPicker]:
    running: list[PickerProcess] = []

    def start(*words: str) -> PickerProcess:
        running.append(PickerProcess(*words, folder=tmp_path))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.kill()


@pytest.fixture
def start_envoy(tmp_path: Path) -> Iterator[StartEnvoy]:
    running: list[RealEnvoy] = []

    def start(ways: Sequence[Way], endpoints: Sequence[str], **pickers: str) -> RealEnvoy:
        folder = tmp_path / f"envoy-{len(running)}"
        folder.mkdir()
        running.append(RealEnvoy(ways, endpoints, pickers, folder))
        return running[-1]

    yield start
    for one in running:
        one.stop()


def flags_of(addresses: Sequence[str]) -> list[str]:
    """The options that name these endpoints."""
    return [word for address in addresses for word in ("--endpoint", address)]


def spread(seconds: float, action: Callable[[], object]) -> int:
    """Do something again and again for a while; returns how often."""
    until_s, count = time.monotonic() + seconds, 0
    while time.monotonic() < until_s:
        action()
        count += 1
    return count
