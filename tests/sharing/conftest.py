"""Stores for the tests: a folder, and a real Redis where there is one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.running_redis import RunningRedis, redis_server

from paceline.sharing import Store, open_store


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
