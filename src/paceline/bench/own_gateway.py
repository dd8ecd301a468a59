"""A gateway of the bench's own, in a process beside it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from paceline.processes.launch import free_port

START_TIMEOUT_S = 600.0
"""Until no engine is starting any more: as long as a large model takes from a slow disk."""
STOP_TIMEOUT_S = 30.0
"""Until it has stopped its engines; then it is killed."""


class NotStarted(Exception):
    """The gateway did not come up; ``str()`` has the end of its log."""


class Running(NamedTuple):
    """A gateway that was started."""

    url: str
    pid: int


@contextmanager
def own_gateway(words: Sequence[str], folder: Path, state: Path | None = None) -> Iterator[Running]:
    """``paceline serve`` with these words, until the block ends; yields when no engine is starting any more.

    Args:
        folder: for its log.
        state: where what it learns is kept; by default in ``folder``, so that it begins knowing nothing.

    Raises:
        NotStarted: it ended, or did not come up in time.
    """
    port = free_port()
    log = folder / f"gateway-{port}.log"
    command = [sys.executable, "-m", "paceline.cli", "serve", "--host", "127.0.0.1", "--port", str(port), *words]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=os.environ | {"XDG_STATE_HOME": str(state or folder)}, stdout=out, stderr=out
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _has_settled(url):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise NotStarted(log.read_text("utf-8", "replace")[-3000:].strip() or "the gateway did not come up")
            time.sleep(0.1)
        yield Running(url, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _has_settled(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()  # 503: no lane is up
    except OSError:
        return False
    return "starting" not in json.loads(body)["lanes"].values()
