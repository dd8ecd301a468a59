"""A small HTTP/1.1 client for engines, on httptools' parser: bytes in, bytes out, nothing decoded.

A general client costs more than the rest of the gateway together (docs/decisions/0002); this one does what a
relay needs: reuse of connections, the answer's head, then its body piece by piece as it arrives, with
backpressure, and a connection that is closed at once when the answer is no longer wanted.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

import httptools

Headers = Sequence[tuple[bytes, bytes]]

HIGH_WATER_BYTES = 64 * 1024
"""Reading from the engine pauses while this much waits for the reader."""
IDLE_LIMIT_S = 4.0
"""An idle connection older than this is not reused; llama-server closes its own after 5 s."""


class ConnectFailed(Exception):
    """No connection could be made: nothing was sent."""


class ConnectionLost(Exception):
    """The connection ended before the answer was whole."""


class Answer:
    """An engine's answer: the head is there, the body arrives with :meth:`read`."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self.status: int = connection.status
        self.headers: Headers = connection.headers

    def header(self, name: bytes) -> bytes | None:
        """The value of a header by its lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    async def read(self) -> bytes:
        """What has arrived since the last call, waiting for at least one byte; ``b""`` at the end.

        Raises:
            ConnectionLost: the connection ended before the answer did.
        """
        return await self._connection.read()

    async def read_all(self) -> bytes:
        """The whole rest of the body.

        Raises:
            ConnectionLost: the connection ended before the answer did.
        """
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Give the connection back if the answer was read to its end; else close it, which tells the engine."""
        self._connection.finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Client:
    """Connections to one engine.

    Args:
        url: the engine's base URL; a path in it is put before every request's path.
        connect_timeout_s: how long a new connection may take.
        fetch_headers: sent with every :meth:`fetch`.
    """

    def __init__(self, url: str, connect_timeout_s: float = 3.0, fetch_headers: Headers = ()) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"not an http(s) URL: {url!r}")
        self._host = parts.hostname
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._authority = parts.netloc.rpartition("@")[2].encode()
        self._connect_timeout_s = connect_timeout_s
        self._fetch_headers = fetch_headers
        self._idle: deque[_Connection] = deque()
        self._open: set[_Connection] = set()

    @property
    def open_connections(self) -> int:
        """Connections that are open now, idle ones included."""
        return len(self._open)

    async def send(
        self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b""
    ) -> Answer:
        """Send a request and wait for the head of its answer.

        Cancelling the call closes the connection. Of the headers, ``host`` and ``content-length`` are written
        here. A kept connection that turns out to be closed before a byte came back is replaced once.

        Raises:
            ConnectFailed: nothing could be sent.
            ConnectionLost: the engine closed the connection before the head of its answer.
        """
        lines = [f"{method} {self._base}{path} HTTP/1.1\r\nhost: ".encode("latin-1"), self._authority]
        for name, value in headers:
            lines += (b"\r\n", name, b": ", value)
        if body or method not in ("GET", "HEAD"):
            lines.append(b"\r\ncontent-length: %d" % len(body))
        lines.append(b"\r\n\r\n")
        head = b"".join(lines)
        while True:
            connection, fresh = self._reusable(), False
            if connection is None:
                connection, fresh = await self._connect(), True
            try:
                await connection.send(head, body, method == "HEAD")
            except ConnectionLost:
                connection.abort()
                if fresh:
                    raise
                continue  # the engine closed it while it was idle
            except BaseException:
                connection.abort()
                raise
            return Answer(connection)

    async def fetch(
        self, method: str, path: str, headers: Headers = (), body: bytes = b"", timeout_s: float = 5.0
    ) -> tuple[int, bytes]:
        """Status and whole body of a small request.

        Raises:
            ConnectFailed, ConnectionLost: as :meth:`send`.
            TimeoutError: no whole answer within ``timeout_s`` seconds.
        """
        async with asyncio.timeout(timeout_s):
            async with await self.send(method, path, [*self._fetch_headers, *headers], body) as answer:
                return answer.status, await answer.read_all()

    def close(self) -> None:
        """Close all connections, running ones too."""
        for connection in list(self._open):
            connection.abort()

    def _reusable(self) -> "_Connection | None":
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < IDLE_LIMIT_S:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._idle, self._open), self._host, self._port, ssl=self._tls
                )
        except TimeoutError as error:
            raise ConnectFailed(f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            raise ConnectFailed(str(error)) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, one request at a time; also the parser's callbacks (``on_*``)."""

    def __init__(self, idle: "deque[_Connection]", opened: "set[_Connection]") -> None:
        self._idle, self._opened = idle, opened
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._head_done = self._complete = self._paused = self._no_body = self._until_close = self._keep_alive = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, head: bytes, body: bytes, no_body: bool) -> None:
        self._begin()
        self._no_body = no_body
        if body:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head)
        while not self._head_done:
            if self._error:
                raise self._error
            await self._wait()

    async def read(self) -> bytes:
        while not self._pieces:
            if self._complete:
                return b""
            if self._error:
                raise self._error
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def finish(self) -> None:
        if self._complete and not self._pieces and self._keep_alive and self.is_open:
            self.idle_since = self._loop.time()
            self._idle.append(self)
        else:
            self.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._opened.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._error = ConnectionLost(f"the answer is not HTTP/1.1: {error}")
            self.abort()
        if self._buffered > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._opened.discard(self)
        if self in self._idle:
            self._idle.remove(self)
        if self._head_done and self._until_close and exc is None:
            self._complete = True
        elif not self._complete and self._error is None:
            self._error = ConnectionLost(str(exc) if exc else "the engine closed the connection")
        self._wake()

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:
            self.headers = []
            return
        self._head_done = True
        names = {name.lower() for name, _ in self.headers}
        has_length = b"content-length" in names or b"transfer-encoding" in names
        self._until_close = not has_length and not self._no_body and self.status not in (204, 304)
        self._keep_alive = not self._until_close and self._parser.should_keep_alive()
        if self._no_body:
            self._complete = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        if self._head_done:
            self._complete = True
