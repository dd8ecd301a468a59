"""Servers on both event loops."""

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import uvloop
from tests.wire.serving import LIMITS, Serve, Served, echo

from paceline.wire.server import Handler


@pytest.fixture(params=["uvloop", "asyncio"])
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    started: list[Served] = []

    def start(handler: Handler = echo, **limits: Any) -> Served:
        new_loop = uvloop.new_event_loop if request.param == "uvloop" else asyncio.SelectorEventLoop
        started.append(Served(handler, msgspec.structs.replace(LIMITS, **limits), new_loop))
        return started[-1]

    yield start
    for served in started:
        served.stop()
        assert served.server.in_flight == served.server.buffered_bytes == served.server.connections == 0
