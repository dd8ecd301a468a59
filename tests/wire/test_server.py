"""The server that clients talk to, against raw sockets, on both event loops."""

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import msgspec
import pytest
from tests.patient import PATIENCE_S, wait_until
from tests.wire.serving import (
    BODY,
    LENGTH,
    MAX_BODY_BYTES,
    SECOND,
    STREAMED,
    Serve,
    Wire,
    assert_refused,
    body_of,
    echo,
    post,
    stream,
)

from paceline.wire.server import ClientLeft, HttpRequest, Reply


def test_header_deadline(serve: Serve) -> None:
    served = serve(header_timeout_s=0.3)
    silent = Wire(served.port)
    slow = Wire(served.port, b"GET /x HT", 0.01, b"T")
    assert_refused(slow, 408)
    assert silent.rest() == b""
    kept = Wire(served.port, SECOND)
    assert kept.answer()[0] == 200
    kept.send(0.6, SECOND, b"GET /half")  # idle for longer than a head may take
    assert kept.answer()[0] == 200
    assert_refused(kept, 408)


def test_line_ends_behind_a_body_begin_no_request(serve: Serve) -> None:
    wire = Wire(serve(header_timeout_s=0.2).port, post(LENGTH, BODY + b"\r\n"), 0.6, b"\r", b"\n" + SECOND)
    assert body_of(wire.answer()) == BODY
    assert wire.answer()[0] == 200


def test_idle_connections_are_closed(serve: Serve) -> None:
    wire = Wire(serve(keep_alive_s=0.2).port, SECOND)
    assert wire.answer()[0] == 200
    assert wire.rest() == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_body_deadline(framing: bytes, serve: Serve) -> None:
    wire = Wire(serve(body_timeout_s=0.3).port, post(framing), b"5\r\nhe", 0.01, b"l")
    assert_refused(wire, 408, "body_timeout")


@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 30_000_000])
def test_a_body_too_large_finds_its_answer(framing: str, size: int, serve: Serve) -> None:
    served = serve(max_buffered_bytes=100_000_000)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    body: Any = bytes(size)
    headers = {"Expect": "100-continue"} if framing == "expect" else {}
    if framing == "chunked":
        body = (bytes(100_000) for _ in range(size // 100_000 + 1))
    connection.request("POST", "/x", body, headers)
    response = connection.getresponse()
    assert response.status == 413 and json.loads(response.read())["error"]["code"] == "body_too_large"
    connection.close()
    wait_until(lambda: served.server.buffered_bytes == 0 and served.server.connections == 0)


def test_expect_is_not_answered_with_continue_for_nothing(serve: Serve) -> None:
    asked = b"Content-Length: %d\r\nExpect: 100-continue\r\n" % (MAX_BODY_BYTES + 1)
    assert Wire(serve().port, post(asked)).rest().startswith(b"HTTP/1.1 413 ")
    wire = Wire(serve().port, post(LENGTH + b"Expect: 100-continue\r\n"))
    assert wire.makefile("rb").read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(BODY)
    assert body_of(wire.answer()) == BODY


def test_bytes_in_flight_are_bounded(serve: Serve) -> None:
    served = serve(max_buffered_bytes=1_000_000)
    held = Wire(served.port, post(b"Content-Length: 700000\r\n", bytes(600_000)))
    wait_until(lambda: served.server.buffered_bytes == 600_000)
    over = Wire(served.port, post(b"Content-Length: 500000\r\n"))
    with contextlib.suppress(OSError):
        over.send(bytes(500_000))
    status, headers, body = over.answer()
    assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
    assert int(headers["retry-after"]) > 0 and headers["connection"] == "close"
    held.send(bytes(100_000))
    assert held.answer()[0] == 200
    wait_until(lambda: served.server.buffered_bytes == 0)


def test_bodies_stay_counted_until_their_handlers_end(serve: Serve) -> None:
    has_read, go = threading.Event(), asyncio.Event()

    async def slow(request: HttpRequest, reply: Reply) -> None:
        await request.body(MAX_BODY_BYTES)
        has_read.set()
        await go.wait()
        await echo_nothing(reply)

    served = serve(slow)
    wire = Wire(served.port, post(LENGTH, BODY))
    assert has_read.wait(PATIENCE_S)
    assert (served.server.buffered_bytes, served.server.in_flight) == (len(BODY), 1)
    served.loop.call_soon_threadsafe(go.set)
    assert wire.answer()[0] == 204


async def echo_nothing(reply: Reply) -> None:
    await reply.start(204, [])
    await reply.end()


def test_a_body_that_nobody_asks_for_is_not_read(serve: Serve) -> None:
    asked = asyncio.Event()

    async def late(request: HttpRequest, reply: Reply) -> None:
        if request.method == "POST":
            await asked.wait()
        await echo(request, reply)

    served = serve(late)
    wire = Wire(served.port, post(b"Transfer-Encoding: chunked\r\n"))
    body = b"x" * 900_000
    sender = threading.Thread(target=wire.send, args=(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),))
    sender.start()
    other = Wire(served.port)
    for _ in range(100):  # so often the server could have read on
        other.send(SECOND)
        assert other.answer()[0] == 200
    assert served.server.buffered_bytes < 500_000
    served.loop.call_soon_threadsafe(asked.set)
    assert body_of(wire.answer()) == body
    sender.join()


def test_connections_are_bounded(serve: Serve) -> None:
    served = serve(max_connections=3)
    kept = [Wire(served.port, SECOND) for _ in range(3)]
    assert [wire.answer()[0] for wire in kept] == [200] * 3
    assert_refused(Wire(served.port, SECOND), 503, "overloaded")
    served.server.limits = msgspec.structs.replace(served.server.limits, max_connections=10)
    assert Wire(served.port, SECOND).answer()[0] == 200
    kept[0].send(SECOND)
    assert kept[0].answer()[0] == 200


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    async def slower_first(request: HttpRequest, reply: Reply) -> None:
        await asyncio.sleep(0.2 if request.path == "/0" else 0)
        await echo(request, reply)

    served = serve(slower_first)
    wire = Wire(served.port, b"".join(post(LENGTH, BODY, b"/%d" % number) for number in range(100)))
    assert [json.loads(wire.answer()[2])["path"] for _ in range(100)] == [f"/{number}" for number in range(100)]


def test_what_is_pipelined_is_not_read_without_bound(serve: Serve) -> None:
    go = asyncio.Event()

    async def wait(request: HttpRequest, reply: Reply) -> None:
        await go.wait()
        await echo(request, reply)

    served = serve(wait)
    wire = Wire(served.port)
    wire.socket.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 50_000_000:
            sent += wire.socket.send(SECOND * 1000)
    assert sent < 20_000_000
    connection = next(iter(served.server._shared.connections))
    assert len(connection._unread) < 500_000
    served.loop.call_soon_threadsafe(go.set)
    wire.socket.settimeout(PATIENCE_S)
    for _ in range(100):
        assert wire.answer()[0] == 200
    wire.close()


async def endless(request: HttpRequest, reply: Reply) -> None:
    await reply.start(200, [])
    while True:
        await reply.send(bytes(1_000_000))


def test_a_client_that_takes_nothing_is_cut_and_nothing_piles_up(serve: Serve) -> None:
    served = serve(endless, body_timeout_s=0.1)
    wire = Wire(served.port, SECOND, small_window=True)
    wait_until(lambda: served.server.connections == 1)
    connection = next(iter(served.server._shared.connections))
    piled_up: list[int] = []

    def is_cut() -> bool:
        piled_up.append(connection._transport.get_write_buffer_size())
        return served.server.connections == served.server.in_flight == 0

    wait_until(is_cut)
    assert max(piled_up) < 3_000_000
    assert served.cancelled.is_set() and served.seen[0].client_left
    wire.close()


@pytest.mark.slow
def test_a_slow_client_is_not_cut(serve: Serve) -> None:
    async def big(request: HttpRequest, reply: Reply) -> None:
        await reply.start(200, [])
        for _ in range(30):
            await reply.send(bytes(100_000))
        await reply.end()

    wire = Wire(serve(big, body_timeout_s=0.3).port, SECOND, small_window=True)
    got = 0
    begun_s = time.monotonic()
    while time.monotonic() < begun_s + 3:  # twice what a client may take nothing for
        got += len(wire.socket.recv(10_000))
        time.sleep(0.03)
    while got < 3_000_000:
        piece = wire.socket.recv(1_000_000)
        assert piece
        got += len(piece)


async def think(request: HttpRequest, reply: Reply) -> None:
    await request.body(MAX_BODY_BYTES)
    await asyncio.sleep(0.6)
    await stream(request, reply)


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_a_half_closed_client_gets_its_whole_answer(version: bytes, serve: Serve) -> None:
    served = serve(think)
    wire = Wire(served.port, post(LENGTH, BODY, version=version))
    wire.shut()
    assert wire.answer()[2] == STREAMED
    assert wire.rest() == b""
    assert not served.seen[0].client_left and not served.cancelled.is_set()


def test_a_half_closed_client_gets_all_its_answers(serve: Serve) -> None:
    wire = Wire(serve().port, post(LENGTH, BODY) * 3 + b"GET /half")
    wire.shut()
    assert [body_of(wire.answer()) for _ in range(3)] == [BODY] * 3
    assert wire.rest() == b""


@pytest.mark.parametrize("sent", [post(LENGTH, BODY), SECOND])
def test_a_client_that_closed_is_noticed_while_nothing_is_sent(sent: bytes, serve: Serve) -> None:
    async def long(request: HttpRequest, reply: Reply) -> None:
        await asyncio.sleep(2 * PATIENCE_S)

    served = serve(long)
    wire = Wire(served.port, sent)
    wait_until(lambda: served.server.in_flight == 1)
    wire.socket.shutdown(socket.SHUT_RDWR)
    wire._file.detach()
    wire.close()
    assert served.cancelled.wait(PATIENCE_S)
    assert served.seen[0].client_left
    wait_until(lambda: served.server.in_flight == served.server.connections == 0)


def test_a_client_that_closed_is_noticed_within_a_stream(serve: Serve) -> None:
    served = serve(endless)
    wire = Wire(served.port, SECOND)
    wire.socket.recv(1000)
    wire.close()
    wire._file.detach().close()
    assert served.cancelled.wait(PATIENCE_S)
    assert served.seen[0].client_left


async def begin_and_think(request: HttpRequest, reply: Reply) -> None:
    await reply.start(200, [(b"content-type", b"text/event-stream")])
    await reply.send(b"data: first\n\n")
    await asyncio.sleep(0.6 if request.path == "/short" else 2 * PATIENCE_S)
    await reply.end(b"data: second\n\n")


def test_a_client_that_closed_is_noticed_within_a_stream_that_is_silent(serve: Serve) -> None:
    served = serve(begin_and_think)
    wire = Wire(served.port, SECOND)
    wait_until(lambda: b"first" in wire.socket.recv(1000))
    wire.close()
    wire._file.detach().close()
    assert served.cancelled.wait(PATIENCE_S)
    assert served.seen[0].client_left


def test_a_half_closed_client_gets_the_whole_of_a_stream_that_is_silent(serve: Serve) -> None:
    wire = Wire(serve(begin_and_think).port, b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
    wait_until(lambda: b"first" in wire.socket.recv(1000, socket.MSG_PEEK))
    wire.shut()
    assert wire.answer()[2] == b"data: first\n\ndata: second\n\n"
    assert wire.rest() == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("half", [True, False])
def test_a_client_that_ends_within_its_body(framing: bytes, half: bool, serve: Serve) -> None:
    seen: list[type] = []

    async def read(request: HttpRequest, reply: Reply) -> None:
        try:
            await echo(request, reply)
        except Exception as error:
            seen.append(type(error))
            raise

    served = serve(read)
    wire = Wire(served.port, post(framing, b"5\r\nhel"))
    wait_until(lambda: served.server.in_flight == 1)
    if half:
        wire.shut()
        assert_refused(wire, 400, "body_incomplete")
    else:
        wire.close()
        wire._file.detach().close()
    wait_until(lambda: served.server.in_flight == served.server.connections == 0)
    assert seen == [ClientLeft]


def test_stopping_lets_answers_finish(serve: Serve) -> None:
    served = serve(think)
    idle, busy = Wire(served.port), Wire(served.port, SECOND)
    wait_until(lambda: served.server.in_flight == 1)
    stopping = asyncio.run_coroutine_threadsafe(served.server.stop(PATIENCE_S), served.loop)
    assert idle.rest() == b""
    status, headers, body = busy.answer()
    assert (status, headers["connection"], body) == (200, "close", STREAMED)
    assert busy.rest() == b""
    stopping.result(PATIENCE_S)
    with pytest.raises(ConnectionRefusedError):
        Wire(served.port)


@pytest.mark.parametrize("hurry", [True, False])
def test_after_the_grace_handlers_say_so(hurry: bool, serve: Serve) -> None:
    async def last_words(request: HttpRequest, reply: Reply) -> None:
        await reply.start(200, [])
        try:
            await asyncio.sleep(4 * PATIENCE_S)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            await reply.end(b"data: stopping\n\n")
            raise

    async def either(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/stream":
            await last_words(request, reply)
        await asyncio.sleep(4 * PATIENCE_S)

    served = serve(either)
    streaming = Wire(served.port, b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
    whole = Wire(served.port, SECOND)
    wait_until(lambda: served.server.in_flight == 2)
    stopping = asyncio.run_coroutine_threadsafe(served.server.stop(4 * PATIENCE_S if hurry else 0.2), served.loop)
    if hurry:
        served.loop.call_soon_threadsafe(served.server.stop_now)
    assert_refused(whole, 503, "stopping")
    assert streaming.answer()[2] == b"data: stopping\n\n"
    stopping.result(PATIENCE_S)
    assert not served.seen[0].client_left


def test_sockets_are_set_up(serve: Serve) -> None:
    served = serve()
    wire = Wire(served.port, SECOND)
    wire.answer()
    connected = next(iter(served.server._shared.connections))._transport.get_extra_info("socket")
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    if hasattr(socket, "TCP_KEEPIDLE"):
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert served.seen[0].client == "127.0.0.1"


FEW_DESCRIPTORS = """
import asyncio, resource, socket, sys
import uvloop
from tests.wire.serving import LIMITS, echo
from paceline.wire.server import HttpServer

async def main():
    server = HttpServer(echo, LIMITS)
    listening = socket.create_server(("127.0.0.1", 0))
    await server.start(listening)
    print(listening.getsockname()[1], flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
    await asyncio.sleep(60)

runner = uvloop.run if sys.argv[1] == "uvloop" else asyncio.run
runner(main())
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_without_file_descriptors_it_recovers(loop: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", FEW_DESCRIPTORS, loop], stdout=subprocess.PIPE, stderr=-3)
    assert process.stdout
    try:
        port = int(process.stdout.readline())
        first = Wire(port, SECOND)
        assert first.answer()[0] == 200
        crowd = [Wire(port, b"GET /half") for _ in range(30)]
        time.sleep(0.5)
        begun_s = _cpu_s(process.pid)
        time.sleep(0.5)
        assert _cpu_s(process.pid) - begun_s < 0.3
        first.send(SECOND)
        assert first.answer()[0] == 200
        for wire in crowd:
            wire.close()
            wire._file.detach().close()
        wait_until(lambda: _is_served(port))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _is_served(port: int) -> bool:
    with contextlib.suppress(ConnectionError):  # libuv turns away who comes too early
        return Wire(port, SECOND).answer()[0] == 200
    return False


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
