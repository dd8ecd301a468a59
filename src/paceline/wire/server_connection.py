"""One connection of a client: requests in, one at a time and in order, answers out as fast as they are taken."""

import asyncio
import contextlib
import logging
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from paceline.wire.framing import ChunkedBody
from paceline.wire.keepalive import keep_alive, set_tcp
from paceline.wire.message import CONTINUE, Refused, RequestHead, answer_head
from paceline.wire.reply import Reply
from paceline.wire.request import BodyTimedOut, BodyTooLarge, ClientLeft, HttpRequest, Incoming, Overloaded

HIGH_WATER_BYTES = 64 * 1024
"""Of an answer, this much may wait for the client; of a body that nobody reads yet and of requests behind the one
being answered, this much is read ahead. (What arrives at once, up to 256 kB in uvloop, comes on top.)"""
MAX_SURPLUS = 256
"""Connections beyond ``max_connections`` that are read as far as a head, and told that there are too many."""
STALLS = 5
"""A client that takes nothing of its answer for this many times ``body_timeout_s`` is cut off."""
LINGER_S = 5.0
"""A request that was answered before its end is read on and thrown away for this long, so that the client, still
sending, finds the answer and not a reset connection."""
MAX_LINGER_BYTES = 256 * 1024 * 1024
"""And for this many bytes at most."""
MAX_CHUNKED_BYTES = 16 * 1024
"""Of a body in chunks, so much is taken at a time: in chunks of one byte it costs 4 ms, and others wait."""
NO_PLACE = "the request bodies being served fill their place (server.max_buffered_bytes)"
_HOPELESS = re.compile(rb"\A(?!\r\Z)[^A-Z]|(?<!\r)\n|\r(?!\n|\Z)")
"""Of the beginning of a request: TLS, or rubbish, that may never end as a head does."""
log = logging.getLogger("paceline.wire")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What clients may take of this machine, before anybody knows who they are.

    Args:
        max_header_bytes: of a request's line and headers; more are answered with 431.
        max_buffered_bytes: of all bodies together, from their arrival to the end of their handlers; 503.
        max_connections: one more is answered with 503.
        header_timeout_s: from a request's first byte, or from connecting, to the end of its headers; 408.
        body_timeout_s: silence within a body; 408. A client that takes nothing of its answer has five times that.
        keep_alive_s: how long a connection may be idle between two requests.
        reserved_paths: answered beyond ``max_connections``, too: a probe must not take a crowded server for dead.
    """

    max_header_bytes: int
    max_buffered_bytes: int
    max_connections: int
    header_timeout_s: float
    body_timeout_s: float
    keep_alive_s: float = 75
    reserved_paths: tuple[str, ...] = ()


Handler = Callable[[HttpRequest, Reply], Awaitable[None]]


class Shared:
    """What all connections of a server have in common."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler, self.limits = handler, limits
        self.connections: set[ClientConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.buffered_bytes = 0
        self.is_stopping = False


class ClientConnection(asyncio.Protocol):
    """One connection. Between requests it collects a head; then a task runs the handler while the body is taken in."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._client = ""
        self._unread = bytearray()  # of heads to come; what lies behind the running request's body
        self._searched = 0  # this much of it holds no end of a head
        self._request: HttpRequest | None = None
        self._reply: Reply | None = None
        self._incoming: Incoming | None = None
        self._keep_alive = self._is_surplus = False
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading_paused = self._at_eof = self._later = False  # later: what has arrived is taken in parts
        self._linger_bytes: int | None = None  # set: all that arrives is thrown away
        self._waiting_bytes = 0  # of the answer, at the last look
        self._deadline_s = 0.0
        self._on_deadline: Callable[[], None] = self.abort

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(HIGH_WATER_BYTES)  # type: ignore[attr-defined]
        self._client = (transport.get_extra_info("peername") or ("",))[0]
        self._shared.connections.add(self)
        limits = self._shared.limits
        self._is_surplus = len(self._shared.connections) > limits.max_connections
        if len(self._shared.connections) > limits.max_connections + MAX_SURPLUS:
            self.abort()
            return
        _set_up(transport.get_extra_info("socket"))
        self._expect(limits.header_timeout_s, self._close)

    def data_received(self, data: bytes) -> None:
        if self._linger_bytes is not None:
            self._linger_bytes -= len(data)
            if self._linger_bytes < 0:
                self.abort()
            return
        incoming = self._incoming
        if incoming and not incoming.frame.is_complete:
            if len(data) > MAX_CHUNKED_BYTES and isinstance(incoming.frame, ChunkedBody):
                data, later = data[:MAX_CHUNKED_BYTES], data[MAX_CHUNKED_BYTES:]
                self._later = True
                self._pause_reading()
                self._loop.call_soon(self._take_later, later)
            data = self._take_in(incoming, data)
        if not data:
            return
        self._unread += data
        if self._request is None:
            self._next_request()
        elif len(self._unread) > HIGH_WATER_BYTES:
            self._pause_reading()

    def _take_later(self, data: bytes) -> None:
        self._later = False
        if not self._transport.is_closing():
            self.data_received(data)
            self._resume_reading()

    def eof_received(self) -> bool:
        """The client has shut down its sending side, or all: only writing can tell. What clients pass over makes a peer
        that is gone answer with a reset."""
        self._at_eof = True
        request, incoming = self._request, self._incoming
        if request is None or self._linger_bytes is not None:
            return False
        if incoming and not incoming.frame.is_complete:
            request.client_left = True
            incoming.fail(ClientLeft())
        elif self._reply:
            self._reply.probe()
        return True

    def pause_writing(self) -> None:
        self._writable.clear()
        self._waiting_bytes = self._transport.get_write_buffer_size()
        self._expect(STALLS * self._shared.limits.body_timeout_s, self._cut_if_stalled)

    def resume_writing(self) -> None:
        self._writable.set()
        if self._request is not None:
            self._expect(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.connections.discard(self)
        self._writable.set()
        if self._request is not None and self._reply is not None and not self._reply.ended:
            self._request.client_left = True
            if self._incoming and not self._incoming.frame.is_complete:
                self._incoming.fail(ClientLeft())
            if self._task and not (self._incoming and self._incoming.waiter):
                self._task.cancel()

    # For replies and the server

    @property
    def may_be_kept(self) -> bool:
        """Whether another request may follow the running one."""
        incoming = self._incoming
        is_read = incoming is not None and incoming.frame.is_complete and not incoming.problem
        awaits_more = bool(self._unread) or not self._at_eof
        return self._keep_alive and is_read and awaits_more and not self._shared.is_stopping

    @property
    def is_idle(self) -> bool:
        return self._request is None and self._linger_bytes is None

    def write(self, data: bytes) -> bool:
        """Send; whether :meth:`drain` should be awaited before there is more."""
        transport = self._transport
        if transport.is_closing():
            return True
        transport.write(data)
        return not self._writable.is_set() or transport.get_write_buffer_size() > HIGH_WATER_BYTES

    async def drain(self) -> None:
        """Wait until the client has taken enough of its answer."""
        await asyncio.sleep(0)  # uvloop writes, and says that it could not, at the end of its round
        await self._writable.wait()

    def abort(self, reset: bool = False) -> None:
        """End the connection at once, with a reset if its end could be taken for the answer's."""
        if reset and not self._transport.is_closing():
            with contextlib.suppress(OSError):
                at_once = struct.pack("ii", 1, 0)
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self._transport.abort()

    def look(self, now_s: float) -> None:
        """What is due: called a few times a second."""
        if self._at_eof and self._request is not None and _has_failed(self._transport):
            self.abort()
        elif self._deadline_s and now_s > self._deadline_s:
            self._deadline_s = 0.0
            self._on_deadline()

    def close_idle(self) -> None:
        if self.is_idle:
            self._close()

    # Requests

    def _next_request(self) -> None:
        """Begin the next request if its head is whole."""
        unread, limits = self._unread, self._shared.limits
        limit = limits.max_header_bytes
        while unread.startswith(b"\r\n"):
            del unread[:2]
        end = unread.find(b"\r\n\r\n", self._searched) + 4
        is_whole = end > 3
        if (end if is_whole else len(unread)) > limit:
            message = f"the request's line and headers are larger than {limit} bytes (server.max_header_bytes)"
            self._refuse(Refused(431, message, "headers_too_large"))
        elif is_whole:
            try:
                head = RequestHead(bytes(unread[:end]))
            except Refused as error:
                self._refuse(error)
                return
            if self._is_surplus and head.path not in limits.reserved_paths:
                self._refuse(Overloaded(f"there are {limits.max_connections} connections already"))
                return
            del unread[:end]
            self._searched = 0
            self._begin(head)
        elif self._at_eof:
            self._close()
        elif _HOPELESS.search(unread, self._searched):
            self._refuse(Refused(400, "the request is not HTTP/1.1: no method at its beginning, or CR and LF apart"))
        else:
            self._searched = max(0, len(unread) - 3)
            if unread and self._on_deadline != self._head_timed_out:
                self._expect(limits.header_timeout_s, self._head_timed_out)

    def _begin(self, head: RequestHead) -> None:
        self._expect(0)
        self._request = request = HttpRequest(head, self._client, self._body, self._hold)
        self._reply = reply = Reply(self, head)
        self._incoming = incoming = Incoming(head)
        self._keep_alive = head.keep_alive and not self._is_surplus
        if self._unread and not incoming.frame.is_complete:
            data = bytes(self._unread)
            self._unread.clear()
            self.data_received(data)
        self._task = self._loop.create_task(self._answer(request, reply))
        self._shared.tasks.add(self._task)
        self._task.add_done_callback(self._finish)

    async def _answer(self, request: HttpRequest, reply: Reply) -> None:
        problem: Refused | None = None
        try:
            await self._shared.handler(request, reply)
            if not reply.ended and not request.client_left:
                log.error("%s %s: the handler left without an answer", request.method, request.path)
        except asyncio.CancelledError:
            problem = Refused(503, "the server is stopping", "stopping", 5)
        except Refused as error:
            problem = error
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
        if not reply.started:
            if problem is None:
                problem = ClientLeft() if request.client_left else Refused(500, "internal error", "internal_error")
            headers, body = problem.answer()
            await reply.start(problem.status, headers)
            await reply.end(body)

    def _finish(self, task: asyncio.Task[None]) -> None:
        """The request is done: go on to the next, or end the connection."""
        incoming = self._incoming
        reply = self._reply
        assert incoming is not None and reply is not None
        is_read = incoming.frame.is_complete
        self._release(incoming)
        self._shared.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a request's end failed", exc_info=error)
        if not reply.ended:
            reply.abort()
        self._request = self._reply = self._incoming = self._task = None
        if self._transport.is_closing():
            return
        if not reply.keep_alive or self._shared.is_stopping:
            if is_read and not self._unread:
                self._close()
            else:
                self._linger()
            return
        if self._reading_paused:
            self._resume_reading()
        self._expect(self._shared.limits.keep_alive_s, self._close)
        if self._unread:
            self._next_request()
        elif self._at_eof:
            self._close()

    # Bodies

    def _take_in(self, incoming: Incoming, data: bytes) -> bytes:
        """Add to the running request's body; returns what lies behind its end."""
        if incoming.problem:
            return b""
        limits = self._shared.limits
        try:
            content, rest = incoming.frame.feed(data)
        except Refused as error:
            incoming.fail(error)
            return b""
        incoming.add(content)
        self._shared.buffered_bytes += len(content)
        if self._shared.buffered_bytes > limits.max_buffered_bytes:
            incoming.fail(Overloaded(NO_PLACE))
        elif incoming.max_bytes is None:
            if incoming.held_bytes > HIGH_WATER_BYTES:
                self._pause_reading()
        elif incoming.held_bytes > incoming.max_bytes:
            incoming.fail(BodyTooLarge(incoming.max_bytes))
        elif incoming.frame.is_complete:
            incoming.wake()
        else:
            self._expect(limits.body_timeout_s, self._body_timed_out)
        if incoming.problem:
            self._release(incoming)
        return rest

    def _hold(self, more_bytes: int) -> None:
        assert self._incoming is not None
        self._incoming.held_bytes += more_bytes
        self._shared.buffered_bytes += more_bytes
        if self._shared.buffered_bytes > self._shared.limits.max_buffered_bytes:
            raise Overloaded(NO_PLACE)

    def _release(self, incoming: Incoming) -> None:
        self._shared.buffered_bytes -= incoming.held_bytes
        incoming.drop()

    async def _body(self, max_bytes: int) -> bytes:
        incoming = self._incoming
        assert incoming is not None
        incoming.max_bytes = max_bytes
        if max(incoming.length, incoming.held_bytes) > max_bytes:
            incoming.fail(BodyTooLarge(max_bytes))
        if not incoming.frame.is_complete and not incoming.problem:
            if incoming.must_ask:
                self.write(CONTINUE)
            self._expect(self._shared.limits.body_timeout_s, self._body_timed_out)
            self._resume_reading()
            incoming.waiter = self._loop.create_future()
            try:
                await incoming.waiter
            finally:
                incoming.waiter = None
                self._expect(0)
        if incoming.problem:
            raise incoming.problem
        return incoming.take()

    def _body_timed_out(self) -> None:
        if self._incoming:
            self._incoming.fail(BodyTimedOut(self._shared.limits.body_timeout_s))

    # Ends

    def _expect(self, within_s: float, otherwise: Callable[[], None] | None = None) -> None:
        """Something must happen within that time; 0: nothing has to."""
        self._deadline_s = self._loop.time() + within_s if within_s else 0.0
        if otherwise:
            self._on_deadline = otherwise

    def _refuse(self, problem: Refused) -> None:
        """Answer what has not become a request, and end the connection."""
        headers, body = problem.answer()
        self.write(answer_head(problem.status, [*headers, (b"connection", b"close")]) + body)
        self._linger()

    def _head_timed_out(self) -> None:
        self._refuse(Refused(408, "the request's headers did not come in time (server.header_timeout_s)", "timeout"))

    def _linger(self) -> None:
        """End the connection when the client has, or soon; what it still sends is thrown away."""
        self._unread.clear()
        if self._at_eof or self._transport.is_closing():
            self._close()
            return
        self._linger_bytes = MAX_LINGER_BYTES
        with contextlib.suppress(OSError):
            self._transport.write_eof()
        self._resume_reading()
        self._expect(LINGER_S, self.abort)

    def _close(self) -> None:
        """End the connection when the client has taken its answer."""
        self._transport.close()
        self._waiting_bytes = self._transport.get_write_buffer_size()
        self._expect(STALLS * self._shared.limits.body_timeout_s, self._cut_if_stalled)

    def _cut_if_stalled(self) -> None:
        before, self._waiting_bytes = self._waiting_bytes, self._transport.get_write_buffer_size()
        if self._waiting_bytes >= before:
            self.abort()
        else:
            self._expect(STALLS * self._shared.limits.body_timeout_s)

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self._at_eof:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        """Read on, unless there is enough for now."""
        incoming = self._incoming
        unwanted = incoming.held_bytes if incoming and incoming.max_bytes is None else 0
        enough = self._later or unwanted > HIGH_WATER_BYTES or len(self._unread) > HIGH_WATER_BYTES
        if self._reading_paused and not enough and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()


def _set_up(connected: Any) -> None:
    keep_alive(connected)
    set_tcp(connected, "TCP_NODELAY", 1)
    # Or megabytes wait in the kernel, and a slow client seems to take nothing.
    set_tcp(connected, "TCP_NOTSENT_LOWAT", HIGH_WATER_BYTES)


def _has_failed(transport: Any) -> bool:
    """Whether the peer has answered with a reset; after its end, loops don't look any more."""
    try:
        return bool(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    except OSError:
        return True
