"""How long a request waits in all: for its turn, for engines that start, and over its attempts."""

import asyncio
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway, chat, lane
from tests.fake_engine import Received, Wire
from tests.patient import shortest_async_s

from paceline.processes import Health
from paceline.serving import resolver


async def test_the_whole_time_counts_over_all_attempts_and_the_queue(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def hangs(received: Received, wire: Wire) -> None:
        await asyncio.sleep(60)

    engines = [await start_engine(hangs), await start_engine(hangs)]
    running = await start_gateway(
        "server.total_timeout_s = 1\nserver.first_byte_timeout_s = 0.7\n"
        + "".join(lane(a, one.url, more='device = "cpu"') for a, one in zip("ab", engines, strict=True))
    )
    for stream in (False, True):
        body = chat(stream=stream, max_tokens=1)

        async def ask_thrice(body: dict[str, Any] = body) -> None:
            sent = [running.http.post("/v1/chat/completions", json=body) for _ in range(3)]
            assert {answer.status_code for answer in await asyncio.gather(*sent)} == {504}

        assert await shortest_async_s(ask_thrice, 2.5) < 2.5  # with a second for each attempt and turn it would take 4
    assert running.outcome.status == 504


async def test_a_request_waits_for_an_engine_that_starts_for_one_patience_and_not_two(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "START_PATIENCE_S", 1.0)
    running = await start_gateway(lane("a", (await start_engine()).url))
    starting = running.gateway.fleet.engines["a"].supervisor
    await starting.stop()
    starting.health = Health.STARTING

    async def ask() -> None:
        assert (await running.http.post("/v1/chat/completions", json=chat())).status_code == 503

    assert await shortest_async_s(ask, 1.9) < 1.9  # of twice a second
