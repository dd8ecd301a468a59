"""The answer to one request, framed as its client understands it."""

import asyncio
from typing import Protocol

from paceline.wire.headers import Headers
from paceline.wire.message import CONTINUE, RequestHead, answer_head


class Wire(Protocol):
    """The connection below an answer."""

    @property
    def may_be_kept(self) -> bool: ...
    def write(self, data: bytes) -> bool: ...
    async def drain(self) -> None: ...
    def abort(self, reset: bool = False) -> None: ...


class Reply:
    """The answer to one request. Its calls wait until the client has taken enough; what a client that left does not
    take is dropped."""

    def __init__(self, connection: Wire, head: RequestHead) -> None:
        self.started = self.ended = self.keep_alive = False
        self._connection = connection
        self._asked = head
        self._head = b""  # not yet written: it goes out with what follows
        self._has_body = self._chunked = True
        self._left: int | None = None

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer. Framing is decided here: only ``content-length`` is taken from the headers.

        Raises:
            ValueError: a header holds CR, LF or NUL, or the lengths contradict each other. Nothing was written.
        """
        if self.started:
            raise RuntimeError("the answer has been started")
        # 1. Of the headers, those that are no framing, and the length.
        kept: list[tuple[bytes, bytes]] = []
        wants_close = False
        length: int | None = None
        for header in headers:
            name = header[0].lower()
            if name == b"content-length":
                if not header[1].isdigit() or length not in (None, int(header[1])):
                    raise ValueError(f"no length, or two: {headers!r}")
                length = int(header[1])
            elif name == b"connection":
                wants_close = wants_close or b"close" in header[1].lower()
            elif name not in (b"transfer-encoding", b"keep-alive"):
                kept.append(header)
        # 2. How the body ends: by its length, its last chunk, or the connection's end.
        old = self._asked.version == "1.0"
        self._has_body = self._asked.method != "HEAD" and status not in (204, 304)
        self._chunked = self._has_body and length is None and not old
        self._left = length if self._has_body else None
        if length is not None and status != 204:
            kept.append((b"content-length", b"%d" % length))
        elif self._chunked:
            kept.append((b"transfer-encoding", b"chunked"))
        # 3. Whether the connection is kept after it.
        keep_alive = not wants_close and self._connection.may_be_kept
        if old and self._has_body and length is None:
            keep_alive = False
        if not keep_alive:
            kept.append((b"connection", b"close"))
        elif old:
            kept.append((b"connection", b"keep-alive"))
        # 4. The head waits for the first piece.
        self._head = answer_head(status, kept)
        self.started, self.keep_alive = True, keep_alive
        if self._has_body and length is None:  # a stream, whose first piece may be long in coming
            asyncio.get_running_loop().call_soon(self._flush_head)

    async def send(self, data: bytes) -> None:
        """Send a piece of the body.

        Raises:
            ValueError: it is more than the length announced.
        """
        if self._write(self._framed(data)):
            await self._connection.drain()

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece. An answer shorter than announced is cut off: it must not look whole."""
        framed = self._framed(data)
        self.ended = True
        if self._left:
            self.abort()
        elif self._write(framed + b"0\r\n\r\n" if self._chunked else framed):
            await self._connection.drain()

    def probe(self) -> None:
        """Send something that clients pass over, so that one that is gone answers with a reset: before the answer an
        interim one; within a chunked body a zero in front of the next chunk's length, which may have any number of
        them (RFC 9112, section 7.1)."""
        if not self.started and self._asked.version == "1.1":
            self._connection.write(CONTINUE)
        elif self.started and not self.ended and self._chunked:
            self._write(b"0")

    def abort(self) -> None:
        """Cut the connection, in a way that no client takes for the end of the answer."""
        self.ended = True
        self._flush_head()
        self._connection.abort(reset=self._has_body and not self._chunked and self._left is None)

    def _framed(self, data: bytes) -> bytes:
        if not self.started or self.ended:
            raise RuntimeError("the answer has not been started, or has ended")
        if not data or not self._has_body:
            return b""
        if self._chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is not None:
            if len(data) > self._left:
                raise ValueError(f"the answer is {len(data) - self._left} bytes longer than announced")
            self._left -= len(data)
        return data

    def _write(self, data: bytes) -> bool:
        if self._head:
            data, self._head = self._head + data, b""
        return bool(data) and self._connection.write(data)

    def _flush_head(self) -> None:
        if self._head:
            self._write(b"")
