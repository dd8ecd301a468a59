"""Clients that leave or are slow, and the queue that others wait in."""

import asyncio

import pytest
from tests.conftest import CHAT, StartEngine, StartGateway, lane, measured
from tests.fake_engine import ANSWER, Received, Wire, token
from tests.patient import until


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_frees_the_engine_at_once(
    streamed: bool, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def endless(received: Received, wire: Wire) -> None:
        if streamed:
            await wire.stream_head()
            await wire.chunk(token("one"))
        await asyncio.sleep(60)

    engine = await start_engine(endless)
    running = await start_gateway(lane("plain", engine.url, more='device = "cpu"'))
    client = running.gateway.fleet.engines["plain"].client
    task = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT | {"stream": streamed}))
    await until(lambda: engine.requests)
    await until(lambda: client.open_connections == 2)  # the request's, and that of the looks at its health
    task.cancel()
    await until(lambda: running.records)
    assert (running.outcome.status, running.outcome.error) == (499, "the client left")
    assert running.gateway.fleet.engines["plain"].device.running == 0
    assert running.gateway.fleet.lanes["plain"].running == 0
    assert measured(running, "plain").failures == 0
    await until(lambda: client.open_connections <= 1)


async def test_a_client_that_leaves_the_queue_is_forgotten(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    go = asyncio.Event()

    async def script(received: Received, wire: Wire) -> None:
        await go.wait()
        await wire.json(ANSWER)

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url, more='device = "cpu"\nslots = 1'))
    first = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT))
    await until(lambda: engine.requests)
    second = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT))
    device = running.gateway.fleet.engines["plain"].device
    await until(lambda: device.waiting == 1)
    second.cancel()
    await until(lambda: device.waiting == 0)
    go.set()
    assert (await first).status_code == 200
    assert len(engine.requests) == 1


async def test_a_slow_reader_does_not_fill_memory(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    """The engine wants to send 200 MB to a client that reads nothing: it must be held up long before that."""
    sent = 0
    piece = token("x" * 65_000)

    async def flood(received: Received, wire: Wire) -> None:
        nonlocal sent
        await wire.stream_head()
        for _ in range(200 * 16):
            await wire.chunk(piece)
            sent += len(piece)

    engine = await start_engine(flood)
    running = await start_gateway(lane("plain", engine.url, more='device = "cpu"'))
    async with running.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}):
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.5)
        assert 0 < sent < 30_000_000  # what the kernel's and three programs' buffers hold
        device = running.gateway.fleet.engines["plain"].device
        await until(lambda: device.running == 0)  # and it does not keep the device from others


async def test_a_queue_that_is_full_is_said(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def never(received: Received, wire: Wire) -> None:
        await asyncio.sleep(60)

    engine = await start_engine(never)
    text = lane("plain", engine.url, more='device = "cpu"\nslots = 1') + '[[device]]\nname = "cpu"\nqueue_limit = 1\n'
    running = await start_gateway(text)
    held = [asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT)) for _ in range(2)]
    device = running.gateway.fleet.engines["plain"].device
    await until(lambda: device.waiting == 1)
    refused = await running.http.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 503
    assert "wait for the device already" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) > 0
    for task in held:
        task.cancel()


async def test_embeddings_wait_for_the_device_and_a_full_queue_is_said(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def never(received: Received, wire: Wire) -> None:
        await asyncio.sleep(60)

    engine = await start_engine(never)
    text = lane("plain", engine.url, more='device = "cpu"\nslots = 1') + '[[device]]\nname = "cpu"\nqueue_limit = 1\n'
    running = await start_gateway(text)
    held = [asyncio.create_task(running.http.post("/v1/embeddings", json={"input": "x"})) for _ in range(2)]
    device = running.gateway.fleet.engines["plain"].device
    await until(lambda: (device.running, device.waiting) == (1, 1))
    refused = await running.http.post("/v1/embeddings", json={"input": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
    assert len(engine.requests) == 1
    for task in held:
        task.cancel()
    await until(lambda: (device.running, device.waiting) == (0, 0))
