"""A gateway that stops: its streams, its engines, and what it leaves behind."""

import asyncio
import json
import sys
from pathlib import Path

import httpx2
import psutil
from tests.conftest import CHAT, RunningGateway, StartEngine, StartGateway, lane, two_lanes
from tests.fake_engine import Received, Wire, token
from tests.patient import until


async def test_a_gateway_that_stops_ends_its_streams_with_an_error_event(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one"))
        await asyncio.sleep(60)

    engine = await start_engine(script)
    running = await start_gateway("server.shutdown_grace_s = 0\n" + lane("plain", engine.url))
    async with running.http.stream("POST", "/v1/messages", json=CHAT | {"stream": True}) as answer:
        pieces = answer.aiter_raw()
        content = await anext(pieces)
        stopping = asyncio.create_task(running.gateway.stop())
        async for piece in pieces:
            content += piece
    await stopping
    assert content.startswith(token("one") + b"event: error\n")
    assert b"the gateway is stopping" in content


async def test_nothing_is_left_behind(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    """After a few hundred mixed requests no exchange, connection or task remains."""
    running, plain, _ = await two_lanes(start_engine, start_gateway)
    tasks_before = gateway_tasks()
    await asyncio.gather(*(_mixed_request(running, number) for number in range(300)))
    await running.http.aclose()
    running.http = httpx2.AsyncClient(base_url=running.url, trust_env=False)
    await until(lambda: running.gateway.pipeline.in_flight.requests == 0)
    await until(lambda: gateway_tasks() <= tasks_before)
    assert all(one.running == 0 and one.waiting == 0 for one in running.gateway.fleet.lanes.values())
    assert plain.connections <= 100


def gateway_tasks() -> int:
    """Tasks that run, without those of the fake engines' connections."""
    return sum("FakeEngine" not in repr(task.get_coro()) for task in asyncio.all_tasks())


async def _mixed_request(running: RunningGateway, number: int) -> None:
    body = CHAT | ({"tools": [{}]} if number % 2 else {})
    try:
        await running.http.post("/v1/chat/completions", json=body, timeout=0.001 if number % 10 == 0 else 30)
    except httpx2.TimeoutException:
        assert number % 10 == 0


async def test_an_engine_on_its_way_out_ends_with_the_gateway(start_gateway: StartGateway) -> None:
    """Its lane was dropped by a reload while a stream ran on it; the gateway stops before the stream ends."""
    command = [sys.executable, str(Path(__file__).parents[1] / "stand_in_server.py"), "--port", "{port}"]
    launched = f'[[engine]]\nname = "out"\nkind = "llama.cpp"\nlaunch = {json.dumps(command)}\n'
    running = await start_gateway(launched)
    handle = running.gateway.fleet.lanes["out"]
    pid = handle.engine.supervisor.pid
    assert pid
    handle.running += 1  # as if a stream were still on it
    running.text = "server.port = 0\n" + lane("other", "http://127.0.0.1:9")
    assert (await running.http.post("/paceline/reload")).json()["stopped"] == ["out"]
    assert [one["lane"] for one in (await running.http.get("/paceline/lanes")).json()["lanes"]] == ["other"]
    assert psutil.pid_exists(pid)
    await running.gateway.stop()
    assert not psutil.pid_exists(pid)
