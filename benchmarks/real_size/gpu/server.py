"""A ``llama-server`` on a bare machine: nothing but Python's standard library."""

import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOG_END_CHARACTERS = 3000
POLL_S = 0.1
STOP_S = 10.0
PROMPT_TOKENS = 64
PROMPT_IDS = (1000, 40_000)
"""Words of any tokenizer that models borrow, no control tokens."""
KEPT = {
    "predicted_n": "tokens",
    "predicted_ms": "decode_ms",
    "prompt_ms": "prompt_ms",
    "draft_n": "drafted",
    "draft_n_accepted": "accepted",
    "draft_n_steps": "drafting_steps",
}
"""Of an answer's timings, and what they are called in samples."""


class NotServed(Exception):
    """A server did not start, or a request failed; with the end of its log."""


class Server:
    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self._url, self._process, self._log = url, process, log
        self.start_s = 0.0

    def wait(self, timeout_s: float) -> None:
        began_s = time.monotonic()
        while time.monotonic() - began_s < timeout_s and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self._url}/health", timeout=2):
                    self.start_s = time.monotonic() - began_s
                    return
            except OSError:
                time.sleep(POLL_S)
        raise self._not_served("it did not start")

    def together(
        self, concurrency: int, tokens: int, fields: Mapping[str, Any], seed: int, timeout_s: float
    ) -> tuple[list[dict[str, float]], float]:
        """So many requests at once: what became of each, and the seconds until all were answered."""
        began_s = time.monotonic()

        def one(number: int) -> dict[str, float]:
            return self._answer(tokens, fields, seed + number, timeout_s)

        with ThreadPoolExecutor(concurrency) as pool:
            try:
                answers = list(pool.map(one, range(concurrency)))
            except (OSError, ValueError, KeyError) as error:
                raise self._not_served(f"a request failed: {error!r}") from error
        return answers, time.monotonic() - began_s

    def _answer(self, tokens: int, fields: Mapping[str, Any], seed: int, timeout_s: float) -> dict[str, float]:
        words = random.Random(seed)
        body = {
            "prompt": [words.randrange(*PROMPT_IDS) for _ in range(PROMPT_TOKENS)],
            "n_predict": tokens,
            "ignore_eos": True,
            "cache_prompt": False,
            "temperature": 0,
            "seed": seed,  # of the dice that accept drafts
            **fields,
        }
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(f"{self._url}/completion", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            timings = json.load(answer)["timings"]
        return {ours: timings.get(theirs, 0) for theirs, ours in KEPT.items()}

    def _not_served(self, reason: str) -> NotServed:
        status = self._process.poll()
        ended = "" if status is None else f"; it ended with status {status}"
        log = self._log.read_text("utf-8", "replace")
        return NotServed(f"{reason}{ended}; the end of its log:\n{log[-LOG_END_CHARACTERS:]}")


@contextmanager
def serving(
    words: Sequence[str], log: Path, timeout_s: float, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server that is up, until the block ends.

    Args:
        words: its program and arguments, but for address and port.
        log: anew with each server.

    Raises:
        NotServed: it did not come up.
    """
    port = _free_port()
    command = [*words, "--host", "127.0.0.1", "--port", str(port)]
    known = os.environ | {"LD_LIBRARY_PATH": _libraries()} | dict(environment or {})
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=known)
    try:
        server = Server(f"http://127.0.0.1:{port}", process, log)
        server.wait(timeout_s)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _libraries() -> str:
    """Where cuBLAS and CUDA's runtime lie: in Python's packages (PyTorch brings them), or in CUDA's folder."""
    patterns = [f"{folder}lib{name}.so.1*" for folder in ("", "nvidia/*/lib/") for name in ("cublas", "cudart")]
    folders = [Path(place) for place in sys.path if place]
    folders += [Path("/usr/local/cuda/lib64"), Path("/usr/local/nvidia/lib64")]
    found = {
        str(file.parent) for folder in folders if folder.is_dir() for name in patterns for file in folder.glob(name)
    }
    return ":".join([*sorted(found), os.environ.get("LD_LIBRARY_PATH", "")]).strip(":")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
