"""One connection to an engine: writes requests, parses answers, hands their bodies on as they come."""

import asyncio
import select
from typing import Any, Protocol

import httptools

from paceline.wire.keepalive import keep_alive

HIGH_WATER_BYTES = 64 * 1024
"""Reading from the engine pauses while this much waits for the reader."""
MAX_HEAD_BYTES = 128 * 1024
"""Of what the parser keeps to itself: an answer's head with all interim answers before it, a chunk's extension, the
trailers. Twice what Envoy lets pass."""
NO_BODY = (204, 304)
"""Statuses whose answers have none (RFC 9110, sections 15.3.5 and 15.4.5)."""


class ConnectionLost(Exception):
    """The connection ended before the answer was whole.

    Args:
        heard: whether any byte of an answer had come.
    """

    def __init__(self, message: str, *, heard: bool = False) -> None:
        super().__init__(message)
        self.heard = heard
        self.reused = False
        """Whether the connection had been kept from an earlier request."""


class Owner(Protocol):
    """What a connection tells the client that it belongs to."""

    def opened(self, connection: "EngineConnection") -> None: ...

    def heard(self, at_s: float) -> None: ...

    def lost(self, connection: "EngineConnection") -> None: ...

    def free(self, connection: "EngineConnection") -> None: ...


class EngineConnection(asyncio.Protocol):
    """One request at a time; also the parser's callbacks (``on_*``)."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self.idle_since = 0.0
        self._begin()
        self._in_use = False

    def _begin(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._unseen_bytes = 0
        """Since the last byte of a body or the end of the head: what the parser may be holding."""
        self._heard = self._head_done = self._complete = self._paused = self._no_body = False
        self.until_close = self._keep_alive = False
        self._in_use = True
        self._error: ConnectionLost | TimeoutError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_busy(self) -> bool:
        """Whether an answer is awaited or read on it."""
        return self._in_use and self.is_open

    @property
    def is_complete(self) -> bool:
        """Whether the whole answer has come; some of it may wait to be read."""
        return self._complete

    def is_reusable(self) -> bool:
        """Whether it is open, and the engine has neither closed it nor said anything meanwhile, as far as this machine
        knows: the event loop may not have read that yet."""
        if not self.is_open:
            return False
        return not self._poll.poll(0)

    async def send(self, head: bytes, body: bytes, no_body: bool, until_s: float | None) -> None:
        """Write a request and wait for the head of its answer, until then by the event loop's clock.

        Raises:
            ConnectionLost: the connection ended before.
            TimeoutError: the head has not come by then.
        """
        self._begin()
        self._no_body = no_body
        if body:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head)
        # Not asyncio.timeout: that costs three times as much.
        limit = None if until_s is None else self._loop.call_at(until_s, self._head_is_late)
        try:
            while not self._head_done:
                if self._error:
                    raise self._error
                await self._wait()
        finally:
            if limit is not None:
                limit.cancel()

    async def read(self) -> bytes:
        """What has come of the body; empty at its end."""
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
        """The answer is no longer read: the connection is free again, or closed where the answer did not end."""
        if not self._in_use:
            return
        self._in_use = False
        whole = self._complete and not self._pieces
        if whole and self._keep_alive and self.is_open and not self._transport.get_write_buffer_size():
            self.idle_since = self._loop.time()
            self._owner.free(self)
        else:
            self.abort()

    def abort(self, why: str = "the connection was closed here") -> None:
        """Close it now."""
        self._fail(why)
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, why: str) -> None:
        if self._error is None and not self._complete:
            self._error = ConnectionLost(why, heard=self._heard)
            self._wake()

    def _head_is_late(self) -> None:
        if self._error is None and not self._head_done:
            self._error = TimeoutError()
            self._wake()

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
        self._owner.opened(self)
        connected = transport.get_extra_info("socket")
        keep_alive(connected)
        self._poll = select.poll()
        self._poll.register(connected.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        self._owner.heard(self._loop.time())
        if not self._in_use:
            self.abort()  # nobody asked: this is no answer to what will be asked next
            return
        self._heard = True
        self._unseen_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.abort("the answer switches to another protocol, which was not asked for")
        except httptools.HttpParserError as error:
            if self._complete:
                self._keep_alive = False  # what follows the answer is not HTTP
            self.abort(f"the answer is not HTTP/1.1: {error}")
        if self._unseen_bytes > MAX_HEAD_BYTES and not self._complete:
            self.abort(f"the answer's head or trailers are larger than {MAX_HEAD_BYTES:,} bytes")
        if self._buffered > HIGH_WATER_BYTES and not self._paused and self.is_open:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)
        if self._head_done and self.until_close and exc is None and self._error is None:
            self._complete = True
        self._fail(str(exc) if exc else "the engine closed the connection")
        self._wake()

    # httptools' callbacks; those of a second answer that follows the first unasked count for nothing

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else it is a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._head_done:
            return
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:
            self.headers = []
            return
        if self.status < 100:
            self.abort(f"the answer is not HTTP/1.1: its status is {self.status}")
            return
        self._unseen_bytes = 0
        self._head_done = True
        names = {name.lower() for name, _ in self.headers}
        has_length = b"content-length" in names or b"transfer-encoding" in names
        bodiless = self._no_body or self.status in NO_BODY
        self.until_close = not has_length and not bodiless
        self._keep_alive = not self.until_close and self._parser.should_keep_alive()
        if bodiless:
            self._complete = True
            if self.status == 204 and has_length:
                self._keep_alive = False  # which it must not have: who knows what follows

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._unseen_bytes = 0
            self._pieces.append(body)
            self._buffered += len(body)

    def on_message_complete(self) -> None:
        if self._head_done:
            self._complete = True
