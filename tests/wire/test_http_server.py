"""The server that clients talk to, against raw sockets, on both event loops."""

import asyncio
import contextlib
import http.client
import io
import json
import logging
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
import pytest
import uvloop

from paceline.wire.framing import ChunkedBody
from paceline.wire.message import Refused
from paceline.wire.server import ClientLeft, Handler, HttpRequest, HttpServer, Limits, Reply

LIMITS = Limits(
    max_header_bytes=16_384,
    max_buffered_bytes=4_000_000,
    max_connections=50,
    header_timeout_s=5,
    body_timeout_s=5,
)
MAX_BODY_BYTES = 1_000_000
HOST = b"Host: a\r\n"
BODY = b'{"messages":[{"role":"user","content":"hi"}]}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


class Served:
    """A server in a loop and a thread of its own, and what its handler saw."""

    def __init__(self, handler: Handler, limits: Limits, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.seen: list[HttpRequest] = []
        self.cancelled = threading.Event()

        async def noting(request: HttpRequest, reply: Reply) -> None:
            self.seen.append(request)
            try:
                await handler(request, reply)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

        self.server = HttpServer(noting, limits)
        self._new_loop = new_loop
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listening.getsockname()[1]
        self.loop = new_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.call(self.server.start(self._listening))

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def stop(self) -> None:
        self.call(self.server.stop(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)


class Wire:
    """A client that writes what it likes."""

    def __init__(self, port: int, *parts: bytes | float, small_window: bool = False) -> None:
        self.socket = socket.socket()
        if small_window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(8)
        self.socket.connect(("127.0.0.1", port))
        self._file = _Kept(socket.SocketIO(self.socket, "rb"))
        self.send(*parts)

    def send(self, *parts: bytes | float) -> None:
        for part in parts:
            if isinstance(part, bytes):
                self.socket.sendall(part)
            else:
                time.sleep(part)

    def makefile(self, _: str) -> io.BufferedReader:
        return self._file

    def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """The next answer: status, headers, body."""
        response = http.client.HTTPResponse(self, method=method)  # type: ignore[arg-type]
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, response.read()

    def rest(self) -> bytes:
        """All that still comes before the connection ends."""
        return self._file.read()

    def shut(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


class _Kept(io.BufferedReader):
    def close(self) -> None:
        """Stay open: the next answer is read from it, too."""


async def echo(request: HttpRequest, reply: Reply) -> None:
    body = await request.body(MAX_BODY_BYTES)
    document = {
        "method": request.method,
        "target": request.target,
        "path": request.path,
        "query": request.query.decode("latin-1"),
        "version": request.version,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
        "body": body.decode("latin-1"),
    }
    data = msgspec.json.encode(document)
    await reply.start(200, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))])
    await reply.end(data)


async def stream(request: HttpRequest, reply: Reply) -> None:
    await reply.start(200, [(b"content-type", b"text/event-stream")])
    for number in range(5):
        await reply.send(b"data: %d\n\n" % number)
        await asyncio.sleep(0.05)
    await reply.end(b"data: [DONE]\n\n")


STREAMED = b"".join(b"data: %d\n\n" % number for number in range(5)) + b"data: [DONE]\n\n"
Serve = Callable[..., Served]


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


def until(what: Callable[[], Any], within_s: float = 3.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def post(headers: bytes, body: bytes = b"", path: bytes = b"/x", version: bytes = b"HTTP/1.1") -> bytes:
    return b"POST " + path + b" " + version + b"\r\n" + HOST + headers + b"\r\n" + body


def chunks(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def body_of(answer: tuple[int, dict[str, str], bytes]) -> bytes:
    assert answer[0] == 200, answer
    body: str = json.loads(answer[2])["body"]
    return body.encode("latin-1")


def assert_refused(wire: Wire, status: int, code: str | None = None) -> None:
    """An error in JSON with a length, then the end of the connection."""
    got, headers, body = wire.answer()
    error = json.loads(body)["error"]
    assert got == status, error
    assert headers["connection"] == "close" and int(headers["content-length"]) == len(body)
    assert error["message"] and error["type"] and error["param"] is None
    assert code is None or error["code"] == code
    assert wire.rest() == b""


def test_a_request_as_the_client_wrote_it(serve: Serve) -> None:
    wire = Wire(serve().port, b"\r\nPUT /a%2fb%C3%A4?q=%20&x#frag HTTP/1.1\r\nHOST: a:1\r\nX-A: 1\r\nx-a:\r\n\r\n")
    seen = json.loads(wire.answer()[2])
    assert seen["method"] == "PUT" and seen["target"] == "/a%2fb%C3%A4?q=%20&x" and seen["version"] == "1.1"
    assert seen["path"] == "/a/bä" and seen["query"] == "q=%20&x"
    assert seen["headers"] == [["host", "a:1"], ["x-a", "1"], ["x-a", ""]]


@pytest.mark.parametrize(
    ("asked", "target", "host"),
    [
        (b"http://u:p@other.example:8/x?y=1", "/x?y=1", "other.example:8"),
        (b"HTTPS://other.example", "/", "other.example"),
        (b"http://other.example?", "/?", "other.example"),
        (b"/a?", "/a?", "a"),
        (b"//v1//models", "//v1//models", "a"),
        (b"/a%00b%zz", "/a%00b%zz", "a"),
    ],
)
def test_targets(asked: bytes, target: str, host: str, serve: Serve) -> None:
    seen = json.loads(Wire(serve().port, b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % asked).answer()[2])
    assert seen["target"] == target and dict(seen["headers"])["host"] == host


OFFERS = [
    H2C,
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
    b"Connection: keep-alive, Upgrade\r\nUpgrade: a, b\r\n",
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_to_upgrade_is_passed_over(offer: bytes, later: bool, chunked: bool, serve: Serve) -> None:
    served = serve()
    body = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    framing = b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(body)
    framed = chunks(body) if chunked else body
    wire = Wire(served.port, post(framing + offer), *([0.1] if later else []), framed + SECOND + SECOND)
    assert body_of(wire.answer()) == body
    assert [json.loads(wire.answer()[2])["target"] for _ in range(2)] == ["/second", "/second"]
    wire.send(b"GET /x HTTP/1.1\r\nHost: a\r\n" + offer + b"\r\n")
    assert wire.answer()[0] == 200
    assert [request.target for request in served.seen] == ["/x", "/second", "/second", "/x"]


@pytest.mark.parametrize(
    "parts",
    [
        (post(LENGTH, BODY),),
        (post(LENGTH), 0.05, BODY[:10], 0.05, BODY[10:]),
        (post(b"Transfer-Encoding: Chunked\r\n", chunks(BODY)),),
        (post(b"Transfer-Encoding: chunked\r\n", b'%X;a=b;c="d;e"\r\n%s\r\n000\r\nT: x\r\n\r\n' % (len(BODY), BODY)),),
        (post(LENGTH + b"Expect: 100-continue\r\n"), 0.1, BODY),
        (post(LENGTH + b"Expect: foo\r\n", BODY),),
        (post(b"Content-Length:   %d  \r\n" % len(BODY), BODY),),
    ],
)
def test_bodies(parts: tuple[bytes | float, ...], serve: Serve) -> None:
    served = serve()
    wire = Wire(served.port, *parts)
    answer = wire.answer()
    assert body_of(answer) == BODY
    assert "t" not in dict(json.loads(answer[2])["headers"])
    wire.send(b"\r\n" + SECOND)
    assert wire.answer()[0] == 200


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_any_cut_of_the_bytes_means_the_same(step: int, serve: Serve) -> None:
    sent = post(b"Transfer-Encoding: chunked\r\n" + H2C, b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\n") + SECOND
    wire = Wire(serve().port)
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for position in range(0, len(sent), step):
        wire.send(sent[position : position + step], 0.001)
    assert body_of(wire.answer()) == b"hello world"
    assert wire.answer()[0] == 200


def test_chunks_cut_anywhere() -> None:
    generator = random.Random(1)
    for _ in range(300):
        pieces = [generator.randbytes(generator.choice((1, 2, 15, 16, 300))) for _ in range(generator.randrange(6))]
        sent = b"".join(b"%0*x\r\n%s\r\n" % (generator.choice((1, 4)), len(piece), piece) for piece in pieces)
        sent += b"0\r\nTrailer: x\r\n\r\n" + SECOND
        body, content, rest, position = ChunkedBody(), b"", b"", 0
        while position < len(sent) and not body.is_complete:
            step = generator.choice((1, 2, 3, 50))
            more, rest = body.feed(sent[position : position + step])
            content += more
            position += step
        assert body.is_complete and content == b"".join(pieces)
        assert rest + sent[position:] == SECOND


BAD_CHUNKS = [
    b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"5\r\nhelloXX0\r\n\r\n",
    b"5\r\nhello\n\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFF5F\r\nhello\r\n0\r\n\r\n",
    b"\r\n\r\n",
    b"5\rhello\r0\r\r",
    b"0\r\nno trailer\r\n\r\n",
    b"0\r\n folded: x\r\n\r\n",
    b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"x" * 20000,
    b"0\r\n" + b"T: x\r\n" * 5000 + b"\r\n",
    b"1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nX\r\n" * 1000 + b"0\r\n\r\n",
]


@pytest.mark.parametrize("sent", BAD_CHUNKS)
def test_broken_chunks(sent: bytes, serve: Serve) -> None:
    assert_refused(Wire(serve().port, post(b"Transfer-Encoding: chunked\r\n", sent + SECOND)), 400)


@pytest.mark.parametrize("sent", BAD_CHUNKS)
def test_broken_chunks_byte_by_byte(sent: bytes) -> None:
    body = ChunkedBody()
    with pytest.raises(Refused):  # noqa: PT012
        for byte in sent:
            body.feed(bytes([byte]))


def _with(headers: bytes, body: bytes = b"") -> bytes:
    return post(headers, body)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        *(
            (_with(b"Content-Length: " + value + b"\r\n", SECOND), 400)
            for value in (b"+5", b"-5", b"0x5", b"5, 5", b"")
        ),
        *((_with(b"Content-Length: " + value + b"\r\n", SECOND), 400) for value in (b"5 a", b"1e1", b"%d" % 2**64)),
        (_with(b"Content-Length: 0\r\nContent-Length: 5\r\n", SECOND), 400),
        (_with(b"Content-Length : 5\r\n", SECOND), 400),
        (_with(b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding: identity, chunked\r\n", chunks(SECOND)), 501),
        (_with(b"Transfer-Encoding: gzip, chunked\r\n", chunks(SECOND)), 501),
        (_with(b"Transfer-Encoding: gzip\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding: \x0bchunked\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding:\r\n chunked\r\n", chunks(SECOND)), 400),
        (_with(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunks(SECOND)), 400),
        (b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(SECOND), 400),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a b/c\r\n\r\n", 400),
        (b"GET http://a,b/@c HTTP/1.1\r\nHost: a\r\n\r\n" + b"", 200),
        (b"GET http://<a>/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + SECOND, 405),
        (b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n" + SECOND, 405),
        (b"FOO /x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"get /x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /x HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /x\r\n\r\n", 400),
        (b"DESCRIBE /x RTSP/1.0\r\nHost: a\r\n\r\n", 400),
        (b"SOURCE /x ICE/1.0\r\nHost: a\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\rHost: a\r\r", 400),
        (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX y: b\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60, 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 300 + b"\r\n", 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 200_000, 431),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 12_000 + b"\r\n\r\n", 200),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 255 + b"\r\n", 200),
    ],
)
def test_what_is_refused(sent: bytes, status: int, serve: Serve) -> None:
    served = serve()
    wire = Wire(served.port, sent)
    if status == 200:
        assert wire.answer()[0] == 200
    else:
        assert_refused(wire, status)
        assert served.seen == []


def test_a_header_that_never_ends_costs_little(serve: Serve) -> None:
    served = serve(max_header_bytes=64 * 1024)
    wire = Wire(served.port, b"GET /x HTTP/1.1\r\nHost: a\r\nX: ")
    begun_s = time.thread_time()
    with contextlib.suppress(OSError):
        for _ in range(100):
            wire.send(b"a" * 500)
            time.sleep(0.001)
        wire.send(b"a" * 40_000)
    assert_refused(wire, 431, "headers_too_large")
    assert time.thread_time() - begun_s < 1
    assert served.seen == []


def test_header_deadline(serve: Serve) -> None:
    served = serve(header_timeout_s=0.3)
    begun_s = time.monotonic()
    silent = Wire(served.port)
    slow = Wire(served.port, b"GET /x HT")
    for _ in range(4):
        slow.send(b"T", 0.1)
    assert_refused(slow, 408)
    assert silent.rest() == b""
    kept = Wire(served.port, SECOND)
    assert kept.answer()[0] == 200
    kept.send(0.6, SECOND, b"GET /half")  # idle for longer than a head may take
    assert kept.answer()[0] == 200
    assert_refused(kept, 408)
    assert time.monotonic() - begun_s < 5


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
    wire = Wire(serve(body_timeout_s=0.3).port, post(framing), 0.2, b"5\r\nhe", 0.2, b"l", 0.2, b"l")
    assert_refused(wire, 408, "body_timeout")


@pytest.mark.parametrize("framing", ["length", "chunked", "expect"])
@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 30_000_000])
def test_a_body_too_large_finds_its_answer(framing: str, size: int, serve: Serve) -> None:
    served = serve(max_buffered_bytes=100_000_000)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=8)
    body: Any = bytes(size)
    headers = {"Expect": "100-continue"} if framing == "expect" else {}
    if framing == "chunked":
        body = (bytes(100_000) for _ in range(size // 100_000 + 1))
    connection.request("POST", "/x", body, headers)
    response = connection.getresponse()
    assert response.status == 413 and json.loads(response.read())["error"]["code"] == "body_too_large"
    connection.close()
    until(lambda: served.server.buffered_bytes == 0 and served.server.connections == 0)


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
    until(lambda: served.server.buffered_bytes == 600_000)
    over = Wire(served.port, post(b"Content-Length: 500000\r\n"))
    with contextlib.suppress(OSError):
        over.send(bytes(500_000))
    status, headers, body = over.answer()
    assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
    assert int(headers["retry-after"]) > 0 and headers["connection"] == "close"
    held.send(bytes(100_000))
    assert held.answer()[0] == 200
    until(lambda: served.server.buffered_bytes == 0)


def test_bodies_stay_counted_until_their_handlers_end(serve: Serve) -> None:
    async def slow(request: HttpRequest, reply: Reply) -> None:
        await request.body(MAX_BODY_BYTES)
        await asyncio.sleep(0.3)
        await echo_nothing(reply)

    served = serve(slow)
    wire = Wire(served.port, post(LENGTH, BODY))
    until(lambda: served.server.buffered_bytes == len(BODY))
    assert served.server.in_flight == 1
    assert wire.answer()[0] == 204


async def echo_nothing(reply: Reply) -> None:
    await reply.start(204, [])
    await reply.end()


def test_a_body_that_nobody_asks_for_is_not_read(serve: Serve) -> None:
    asked = asyncio.Event()

    async def late(request: HttpRequest, reply: Reply) -> None:
        await asked.wait()
        await echo(request, reply)

    served = serve(late)
    wire = Wire(served.port, post(b"Transfer-Encoding: chunked\r\n"))
    body = b"x" * 900_000
    sender = threading.Thread(target=wire.send, args=(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),))
    sender.start()
    time.sleep(0.3)
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


def test_http_1_0(serve: Serve) -> None:
    async def either(request: HttpRequest, reply: Reply) -> None:
        await (stream if request.path == "/stream" else echo)(request, reply)

    served = serve(either)
    wire = Wire(served.port, b"GET /stream HTTP/1.0\r\n\r\n")
    head, _, body = wire.rest().partition(b"\r\n\r\n")
    assert body == STREAMED and b"transfer-encoding" not in head and b"connection: close" in head
    wire = Wire(served.port, post(LENGTH, BODY, version=b"HTTP/1.0") * 2)
    assert body_of(wire.answer()) == BODY
    assert wire.rest() == b""
    kept = b"Connection: keep-alive\r\n"
    wire = Wire(served.port, post(LENGTH + kept, BODY, version=b"HTTP/1.0") * 2)
    assert wire.answer()[1]["connection"] == "keep-alive"
    assert body_of(wire.answer()) == BODY
    wire.send(b"GET /stream HTTP/1.0\r\n" + kept + b"\r\n")
    assert wire.rest().endswith(b"\r\n\r\n" + STREAMED)
    assert_refused(Wire(served.port, b"POST /x HTTP/1.0\r\nContent-Length: x\r\n\r\n"), 400)


def test_answers_without_a_body(serve: Serve) -> None:
    async def bodiless(request: HttpRequest, reply: Reply) -> None:
        status = int(request.path[1:])
        await reply.start(status, [(b"content-length", b"5")] if status != 201 else [])
        await reply.send(b"hel")
        await reply.end(b"lo")

    wire = Wire(serve(bodiless).port)
    wire.send(b"GET /304 HTTP/1.1\r\nHost: a\r\n\r\nGET /204 HTTP/1.1\r\nHost: a\r\n\r\n")
    status, headers, _ = wire.answer()
    assert (status, headers["content-length"]) == (304, "5")
    status, headers, _ = wire.answer()
    assert status == 204 and "content-length" not in headers and "transfer-encoding" not in headers
    wire.send(b"HEAD /200 HTTP/1.1\r\nHost: a\r\n\r\nHEAD /201 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.answer("HEAD")[1]["content-length"] == "5"
    assert wire.answer("HEAD")[0] == 201
    wire.send(b"GET /200 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.answer()[2] == b"hello"


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
    wire.socket.settimeout(8)
    for _ in range(100):
        assert wire.answer()[0] == 200
    wire.close()


def test_many_small_chunks_don_t_stop_the_loop(serve: Serve) -> None:
    served = serve()
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            begun_s = time.perf_counter()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.perf_counter() - begun_s)
            await asyncio.sleep(0.001)

    watcher = asyncio.run_coroutine_threadsafe(watch(), served.loop)
    wire = Wire(served.port, post(b"Transfer-Encoding: chunked\r\n", b"1\r\nX\r\n" * 300_000 + b"0\r\n\r\n" + SECOND))
    assert body_of(wire.answer()) == b"X" * 300_000
    assert wire.answer()[0] == 200
    watcher.cancel()
    assert longest_s < 1  # a machine that is busy otherwise included; unsliced it is 2 s


async def endless(request: HttpRequest, reply: Reply) -> None:
    await reply.start(200, [])
    while True:
        await reply.send(bytes(1_000_000))


def test_a_client_that_takes_nothing_is_cut_and_nothing_piles_up(serve: Serve) -> None:
    served = serve(endless, body_timeout_s=0.1)
    wire = Wire(served.port, SECOND, small_window=True)
    until(lambda: served.server.connections == 1)
    connection = next(iter(served.server._shared.connections))
    most = 0
    deadline_s = time.monotonic() + 5
    while served.server.connections and time.monotonic() < deadline_s:
        most = max(most, connection._transport.get_write_buffer_size())
        time.sleep(0.01)
    assert most < 3_000_000
    until(lambda: served.server.connections == served.server.in_flight == 0)
    assert served.cancelled.is_set() and served.seen[0].client_left
    wire.close()


def test_a_slow_client_is_not_cut(serve: Serve) -> None:
    async def big(request: HttpRequest, reply: Reply) -> None:
        await reply.start(200, [])
        for _ in range(30):
            await reply.send(bytes(100_000))
        await reply.end()

    wire = Wire(serve(big, body_timeout_s=0.1).port, SECOND, small_window=True)
    got = 0
    begun_s = time.monotonic()
    while time.monotonic() < begun_s + 1.5:  # three times what a client may take nothing for
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
        await asyncio.sleep(30)

    served = serve(long)
    wire = Wire(served.port, sent)
    until(lambda: served.server.in_flight == 1)
    wire.socket.shutdown(socket.SHUT_RDWR)
    wire._file.detach()
    wire.close()
    assert served.cancelled.wait(1)
    assert served.seen[0].client_left
    until(lambda: served.server.in_flight == served.server.connections == 0)


def test_a_client_that_closed_is_noticed_within_a_stream(serve: Serve) -> None:
    served = serve(endless)
    wire = Wire(served.port, SECOND)
    wire.socket.recv(1000)
    wire.close()
    wire._file.detach().close()
    assert served.cancelled.wait(1)
    assert served.seen[0].client_left


async def begin_and_think(request: HttpRequest, reply: Reply) -> None:
    await reply.start(200, [(b"content-type", b"text/event-stream")])
    await reply.send(b"data: first\n\n")
    await asyncio.sleep(0.6 if request.path == "/short" else 30)
    await reply.end(b"data: second\n\n")


def test_a_client_that_closed_is_noticed_within_a_stream_that_is_silent(serve: Serve) -> None:
    served = serve(begin_and_think)
    wire = Wire(served.port, SECOND)
    until(lambda: b"first" in wire.socket.recv(1000))
    time.sleep(0.1)
    wire.close()
    wire._file.detach().close()
    assert served.cancelled.wait(1)
    assert served.seen[0].client_left


def test_a_half_closed_client_gets_the_whole_of_a_stream_that_is_silent(serve: Serve) -> None:
    wire = Wire(serve(begin_and_think).port, b"GET /short HTTP/1.1\r\nHost: a\r\n\r\n")
    time.sleep(0.1)
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
    until(lambda: served.server.in_flight == 1)
    if half:
        wire.shut()
        assert_refused(wire, 400, "body_incomplete")
    else:
        wire.close()
        wire._file.detach().close()
    until(lambda: served.server.in_flight == served.server.connections == 0)
    assert seen == [ClientLeft]


def test_failing_handlers(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/silent":
            return
        if request.path == "/later":
            await reply.start(200, [])
            await reply.send(b"half")
        raise KeyError("a fault of ours")

    served = serve(fail)
    for path in (b"/at-once", b"/silent"):
        wire = Wire(served.port, b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        status, _, body = wire.answer()
        assert status == 500 and json.loads(body)["error"]["code"] == "internal_error" and b"ours" not in body
    wire = Wire(served.port, b"GET /later HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        wire.answer()
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("length", [[], [(b"content-length", b"10")]])
def test_a_broken_answer_does_not_look_whole(
    version: bytes, length: list[tuple[bytes, bytes]], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def cut(request: HttpRequest, reply: Reply) -> None:
        await reply.start(200, length)
        await reply.send(b"half")
        if request.path == "/abort":
            reply.abort()
        elif length:
            await reply.end()
        else:
            raise Refused(502, "lost")

    served = serve(cut)
    for path in (b"/abort", b"/end"):
        wire = Wire(served.port, b"GET %s %s\r\nHost: a\r\n\r\n" % (path, version))
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            wire.answer()
    assert not caplog.records


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\nset-cookie: b")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\rb")],
        [(b"x", b"a\0b")],
        [(b"x\r\ny", b"b")],
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"-1")],
    ],
)
def test_headers_can_t_be_injected(headers: list[tuple[bytes, bytes]], serve: Serve) -> None:
    async def inject(request: HttpRequest, reply: Reply) -> None:
        with pytest.raises(ValueError, match=r"header|length"):
            await reply.start(200, headers)
        assert not reply.started
        await echo(request, reply)

    assert Wire(serve(inject).port, SECOND).answer()[0] == 200


def test_misuse_of_a_reply(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    wrong: list[BaseException] = []

    async def misuse(request: HttpRequest, reply: Reply) -> None:
        async def attempt(work: Coroutine[Any, Any, None]) -> None:
            with pytest.raises((RuntimeError, ValueError)) as caught:
                await work
            wrong.append(caught.value)

        await attempt(reply.send(b"x"))
        await reply.start(200, [(b"content-length", b"2")])
        await attempt(reply.start(200, []))
        await attempt(reply.send(b"too long"))
        await reply.end(b"ok")
        await attempt(reply.send(b"x"))

    assert Wire(serve(misuse).port, SECOND).answer()[2] == b"ok"
    until(lambda: len(wrong) == 4)


def test_the_handler_may_answer_before_the_body(serve: Serve) -> None:
    async def early(request: HttpRequest, reply: Reply) -> None:
        await reply.start(401, [(b"content-length", b"2")])
        await reply.end(b"no")

    served = serve(early)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=8)
    connection.request("POST", "/x", bytes(20_000_000))
    response = connection.getresponse()
    assert (response.status, response.getheader("connection"), response.read()) == (401, "close", b"no")
    connection.close()
    wire = Wire(served.port, post(LENGTH, BODY) * 2)  # a body that is there already is no reason to part
    assert [wire.answer()[0] for _ in range(2)] == [401, 401]
    until(lambda: served.server.buffered_bytes == 0)


def test_stopping_lets_answers_finish(serve: Serve) -> None:
    served = serve(think)
    idle, busy = Wire(served.port), Wire(served.port, SECOND)
    until(lambda: served.server.in_flight == 1)
    stopping = asyncio.run_coroutine_threadsafe(served.server.stop(5), served.loop)
    assert idle.rest() == b""
    status, headers, body = busy.answer()
    assert (status, headers["connection"], body) == (200, "close", STREAMED)
    assert busy.rest() == b""
    stopping.result(3)
    with pytest.raises(ConnectionRefusedError):
        Wire(served.port)


@pytest.mark.parametrize("hurry", [True, False])
def test_after_the_grace_handlers_say_so(hurry: bool, serve: Serve) -> None:
    async def last_words(request: HttpRequest, reply: Reply) -> None:
        await reply.start(200, [])
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            await reply.end(b"data: stopping\n\n")
            raise

    async def either(request: HttpRequest, reply: Reply) -> None:
        if request.path == "/stream":
            await last_words(request, reply)
        await asyncio.sleep(30)

    served = serve(either)
    begun_s = time.monotonic()
    streaming = Wire(served.port, b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
    whole = Wire(served.port, SECOND)
    until(lambda: served.server.in_flight == 2)
    stopping = asyncio.run_coroutine_threadsafe(served.server.stop(30 if hurry else 0.2), served.loop)
    if hurry:
        time.sleep(0.1)
        served.loop.call_soon_threadsafe(served.server.stop_now)
    assert_refused(whole, 503, "stopping")
    assert streaming.answer()[2] == b"data: stopping\n\n"
    stopping.result(3)
    assert time.monotonic() - begun_s < 3
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
from tests.wire.test_http_server import LIMITS, echo
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
        until(lambda: _is_served(port))
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
