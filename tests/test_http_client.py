"""The client that talks to engines, against raw sockets."""

import asyncio

import pytest

from conftest import StartEngine
from fake_engine import Received, Wire
from paceline.http.client import Client, ConnectFailed, ConnectionLost


@pytest.mark.parametrize("url", ["localhost:80", "ftp://x", "http://", ""])
def test_only_http_urls(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        Client(url)


async def test_connections_are_reused(start_engine: StartEngine) -> None:
    engine = await start_engine()
    client = Client(f"{engine.url}/base/")
    for _ in range(5):
        assert (await client.fetch("POST", "/x?y=1", body=b"{}"))[0] == 200
    assert client.open_connections == 1
    assert engine.requests[0].target == "/base/x?y=1"
    client.close()


async def test_a_connection_that_died_while_idle_is_replaced(start_engine: StartEngine) -> None:
    engine = await start_engine()
    client = Client(engine.url)
    await client.fetch("POST", "/x")
    for writer in list(engine._writers):
        writer.transport.abort()
    assert (await client.fetch("POST", "/x"))[0] == 200
    client.close()


async def test_nobody_there() -> None:
    with pytest.raises(ConnectFailed):
        await Client("http://127.0.0.1:9").fetch("GET", "/")


async def test_no_answer_in_time(start_engine: StartEngine) -> None:
    async def never(received: Received, wire: Wire) -> None:
        await asyncio.sleep(60)

    engine = await start_engine(never)
    client = Client(engine.url)
    with pytest.raises(TimeoutError):
        await client.fetch("GET", "/", timeout_s=0.1)
    assert client.open_connections <= 1
    async with asyncio.timeout(5):
        while client.open_connections:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=1\r\nlo\r\n0\r\nt: x\r\n\r\n",
            b"hello",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", b"hi"),
    ],
)
async def test_framings(answer: bytes, expected: bytes, start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        for byte in answer:
            await wire.raw(bytes([byte]))

    engine = await start_engine(script)
    client = Client(engine.url)
    for _ in range(2):
        assert (await client.fetch("POST", "/x"))[1] == expected
    assert client.open_connections == 1
    client.close()


async def test_an_answer_that_ends_with_the_connection(start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.raw(b"HTTP/1.0 200 OK\r\n\r\nhello")
        wire._writer.close()

    engine = await start_engine(script)
    assert (await Client(engine.url).fetch("POST", "/x"))[1] == b"hello"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel", b"rubbish\r\n\r\n"])
async def test_half_answers_are_lost_connections(answer: bytes, start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.raw(answer)
        wire.die()

    engine = await start_engine(script)
    client = Client(engine.url)
    with pytest.raises(ConnectionLost):
        await client.fetch("POST", "/x")
    await asyncio.sleep(0.05)
    assert client.open_connections == 0


async def test_head_has_no_body(start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.head(200, {"content-length": "100"})

    engine = await start_engine(script)
    assert await Client(engine.url).fetch("HEAD", "/x") == (200, b"")
