"""The client that talks to engines, against raw sockets."""

import asyncio
import socket
import sys

import pytest
from tests.conftest import StartEngine
from tests.fake_engine import Received, Wire
from tests.patient import PATIENCE_S, until

from paceline.wire.client import AnswerTooLarge, Client, ConnectFailed, ConnectionLost, without_credentials


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


@pytest.mark.parametrize("idle", [0, 1])
async def test_no_head_in_time(idle: int, start_engine: StartEngine) -> None:
    async def half_a_head(received: Received, wire: Wire) -> None:
        if received.target == "/warm-up":
            await wire.json({})
        else:
            await wire.raw(b"HTTP/1.1 200 OK\r\n")
            await asyncio.sleep(60)

    engine = await start_engine(half_a_head)
    client = Client(engine.url)
    await kept(client, idle)
    with pytest.raises(TimeoutError):
        await client.send("POST", "/late", body=b"{}", within_s=0.1)
    await until(lambda: client.open_connections == 0)
    client.close()


async def test_only_the_head_has_to_come_in_time(start_engine: StartEngine) -> None:
    async def slowly(received: Received, wire: Wire) -> None:
        await wire.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        await asyncio.sleep(0.3)
        await wire.raw(b"{}")

    engine = await start_engine(slowly)
    client = Client(engine.url)
    async with await client.send("POST", "/x", body=b"{}", within_s=0.2) as answer:
        assert await answer.read_all() == b"{}"
    client.close()


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
    await until(lambda: client.open_connections == 0)


async def test_head_has_no_body(start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.head(200, {"content-length": "100"})

    engine = await start_engine(script)
    assert await Client(engine.url).fetch("HEAD", "/x") == (200, b"")


# Each request is delivered once


async def kept(client: Client, number: int) -> None:
    """Have a client keep so many connections."""
    await asyncio.gather(*(client.fetch("GET", "/warm-up") for _ in range(number)))
    assert client.open_connections == number
    assert client.busy_connections == 0


async def dies_of_poison(received: Received, wire: Wire) -> None:
    if received.target == "/poison":
        await asyncio.sleep(0.05)
        return wire.die()
    if received.target == "/half":
        await wire.raw(b"HTTP/1.1 200 OK\r\ncontent-len")
        return wire.die()
    await asyncio.sleep(0.05)
    return await wire.json({})


@pytest.mark.parametrize(("path", "heard"), [("/poison", False), ("/half", True)])
@pytest.mark.parametrize("idle", [0, 1, 8])
async def test_what_was_sent_is_not_sent_again(path: str, heard: bool, idle: int, start_engine: StartEngine) -> None:
    engine = await start_engine(dies_of_poison)
    client = Client(engine.url)
    await kept(client, idle)
    with pytest.raises(ConnectionLost) as lost:
        await client.send("POST", path, body=b"{}")
    assert (lost.value.heard, lost.value.reused) == (heard, idle > 0)
    assert [one.target for one in engine.requests].count(path) == 1
    client.close()


async def test_only_a_fetch_replaces_a_dead_kept_connection_once(start_engine: StartEngine) -> None:
    engine = await start_engine(dies_of_poison)
    client = Client(engine.url)
    await kept(client, 5)
    with pytest.raises(ConnectionLost) as lost:
        await client.fetch("GET", "/poison")
    assert not lost.value.reused
    assert [one.target for one in engine.requests].count("/poison") == 2
    client.close()


async def test_kept_connections_that_were_closed_are_passed_over(start_engine: StartEngine) -> None:
    engine = await start_engine(dies_of_poison)
    client = Client(engine.url)
    await kept(client, 4)
    for writer in list(engine._writers):
        writer.transport.abort()
    await asyncio.sleep(0)  # the event loop has not read it yet, the kernel knows
    async with await client.send("POST", "/once", body=b"{}") as answer:
        assert answer.status == 200
    assert [one.target for one in engine.requests].count("/once") == 1
    client.close()


async def test_a_fresh_connection_may_be_asked_for(start_engine: StartEngine) -> None:
    engine = await start_engine()
    client = Client(engine.url)
    await client.fetch("GET", "/x")
    async with await client.send("GET", "/x", fresh=True) as answer:
        await answer.read_all()
    assert client.open_connections == 2
    client.close()


# What is kept, and for how long


async def test_idle_connections_are_closed_after_a_while(
    start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.wire.client.IDLE_LIMIT_S", 0.3)
    engine = await start_engine(dies_of_poison)
    client = Client(engine.url)
    await kept(client, 20)
    async with asyncio.timeout(PATIENCE_S):
        while client.open_connections > 1:  # the same one serves all the time
            await client.fetch("GET", "/x")
    await until(lambda: client.open_connections == 0)


async def test_a_vanished_peer_is_noticed_by_the_kernel(start_engine: StartEngine) -> None:
    engine = await start_engine()
    client = Client(engine.url)
    await client.fetch("GET", "/x")
    (connection,) = client._open
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if sys.platform == "linux":
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
    client.close()


async def test_who_reads_is_told_why_the_connections_were_closed(start_engine: StartEngine) -> None:
    async def stalls(received: Received, wire: Wire) -> None:
        if received.target == "/stream":
            await wire.raw(b"HTTP/1.0 200 OK\r\n\r\nhello")  # its end would be the connection's
        await asyncio.sleep(60)

    engine = await start_engine(stalls)
    client = Client(engine.url)
    waiting = asyncio.create_task(client.send("POST", "/head", body=b"{}"))
    answer = await client.send("POST", "/stream", body=b"{}")
    assert await answer.read() == b"hello"
    assert 0 < client.last_heard_s <= asyncio.get_running_loop().time()
    reading = asyncio.create_task(answer.read())
    await until(lambda: client.busy_connections == 2)
    client.close("declared down")
    assert client.busy_connections == 0
    for task in (waiting, reading):
        with pytest.raises(ConnectionLost, match="declared down"):
            await task
    assert (await asyncio.gather(waiting, return_exceptions=True))[0].heard is False  # type: ignore[union-attr]


# Nothing that is read is unbounded, nothing odd is taken for an answer


async def test_a_whole_answer_is_bounded(start_engine: StartEngine) -> None:
    async def large(received: Received, wire: Wire) -> None:
        await wire.json(b" " * 300_000)

    engine = await start_engine(large)
    client = Client(engine.url)
    with pytest.raises(AnswerTooLarge, match="larger than 200,000 bytes"):
        await client.fetch("GET", "/x", max_bytes=200_000)
    assert (await client.fetch("GET", "/x"))[1] == b" " * 300_000
    client.close()


ENDLESS = {
    "one header": (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 60_000),
    "many headers": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 1000),
    "chunk extension": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=", b"y" * 60_000),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ", b"y" * 60_000),
}


@pytest.mark.parametrize("kind", ENDLESS)
async def test_heads_and_trailers_are_bounded(kind: str, start_engine: StartEngine) -> None:
    begin, rest = ENDLESS[kind]

    async def endless(received: Received, wire: Wire) -> None:
        await wire.raw(begin)
        while True:
            await wire.raw(rest)
            await asyncio.sleep(0)

    engine = await start_engine(endless)
    client = Client(engine.url)
    with pytest.raises(ConnectionLost, match="larger than"):
        await client.fetch("GET", "/x")
    await until(lambda: client.open_connections == 0)


@pytest.mark.parametrize(
    ("answer", "status", "body", "reused"),
    [
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 204, b"", False),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304, b"", True),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1 500 X\r\ncontent-length: 1\r\n\r\nb",
            200,
            b"a",
            False,
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na, and more", 200, b"a", False),
        (b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na", 200, b"a", True),
    ],
)
async def test_odd_answers(answer: bytes, status: int, body: bytes, reused: bool, start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.raw(answer)

    engine = await start_engine(script)
    client = Client(engine.url)
    assert await client.fetch("GET", "/x") == (status, body)
    if reused:
        kept = set(client._open)
        await client.fetch("GET", "/x")
        assert set(client._open) == kept
    else:
        await until(lambda: client.open_connections == 0)
    client.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 099 What\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
    ],
)
async def test_what_is_no_answer(answer: bytes, start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.raw(answer)

    client = Client((await start_engine(script)).url)
    with pytest.raises(ConnectionLost):
        await client.fetch("GET", "/x", timeout_s=2.0)


async def test_bytes_that_nobody_asked_for_close_a_kept_connection(start_engine: StartEngine) -> None:
    async def late(received: Received, wire: Wire) -> None:
        await wire.json({})
        await asyncio.sleep(0.05)
        await wire.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad")

    client = Client((await start_engine(late)).url)
    assert await client.fetch("GET", "/x") == (200, b"{}")
    await until(lambda: client.open_connections == 0)
    assert await client.fetch("GET", "/x") == (200, b"{}")
    client.close()


async def test_trailers_are_no_headers(start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-late: 1\r\n\r\n")

    client = Client((await start_engine(script)).url)
    async with await client.send("GET", "/x") as answer:
        assert await answer.read_all() == b"a"
        assert answer.header(b"x-late") is None
    client.close()


async def test_an_answer_that_came_before_the_body_was_sent_ends_the_connection(start_engine: StartEngine) -> None:
    is_over = asyncio.Event()

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await is_over.wait()
        writer.close()

    server = await asyncio.start_server(hasty, "127.0.0.1", 0, limit=1024)
    client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with await client.send("POST", "/x", body=b"x" * 30_000_000) as answer:
        assert answer.status == 413
    await until(lambda: client.open_connections == 0)
    is_over.set()
    server.close()


# Addresses


@pytest.mark.parametrize("url", ["http://u:hunter2@", "ftp://u:hunter2@x", "http://u:hunter2@x:99999", "http://[::1"])
def test_errors_show_no_password(url: str) -> None:
    with pytest.raises(ValueError, match="not an http") as error:
        Client(url)
    assert "hunter2" not in str(error.value)


async def test_a_name_that_can_not_be_one() -> None:
    with pytest.raises(ConnectFailed):
        await Client(f"http://{'a' * 70}.example").fetch("GET", "/")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pass@host:8080/simple/", "https://host:8080/simple/"),
        ("https://user:p@ss@host/simple/", "https://host/simple/"),
        ("http://host/a@b", "http://host/a@b"),
        ("file:///a/folder", "file:///a/folder"),
        ("a/folder", "a/folder"),
        ("http://user:pass@[bad/", "a malformed url"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
