"""A server in a thread of its own, and a client that writes what it likes."""

import asyncio
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from tests.patient import PATIENCE_S

from paceline.wire.server import Handler, HttpRequest, HttpServer, Limits, Reply

LIMITS = Limits(
    max_header_bytes=16_384,
    max_buffered_bytes=4_000_000,
    max_connections=50,
    header_timeout_s=2 * PATIENCE_S,
    body_timeout_s=2 * PATIENCE_S,
)

MAX_BODY_BYTES = 1_000_000

HOST = b"Host: a\r\n"

BODY = b'{"messages":[{"role":"user","content":"hi"}]}'

LENGTH = b"Content-Length: %d\r\n" % len(BODY)

SECOND = b"GET /second HTTP/1.1\r\nHost: a\r\n\r\n"


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
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def stop(self) -> None:
        self.call(self.server.stop(0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_S)


class Wire:
    """A client that writes what it likes."""

    def __init__(self, port: int, *parts: bytes | float, small_window: bool = False) -> None:
        self.socket = socket.socket()
        if small_window:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(PATIENCE_S)
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

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"

Serve = Callable[..., Served]


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
