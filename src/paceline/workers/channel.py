"""Messages between two processes of ours, over a socket that nobody else has."""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from enum import IntEnum
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct

ANSWER_TIMEOUT_S = 10.0
"""For what is asked to be answered; the other side does nothing in its event loop that takes long."""
_LENGTH = struct.Struct("<I")
NOTHING = type(None)
"""The type of a message without content."""
T = TypeVar("T")

log = logging.getLogger("paceline.workers")


class Lost(Exception):
    """The other side has ended, or does not answer."""


class Refusal(Exception):
    """The other side could not do what it was asked; ``str()`` says why."""


class _Kind(IntEnum):
    TELL = 0
    ASK = 1
    ANSWER = 2
    REFUSE = 3


class _Message(Struct, array_like=True, frozen=True):
    kind: _Kind
    number: int
    """Of what is asked, by the side that asks."""
    name: str
    content: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Message)


class Channel(asyncio.Protocol):
    """One end. What is told arrives in its order; what is asked may be answered in any.

    Args:
        on_end: called once when the other side has ended.
    """

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        self._on_end = on_end
        self._handlers: dict[str, Callable[[bytes], Any]] = {}
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_open = False

    async def open(self, end: socket.socket) -> None:
        """Begin on a connected socket, which becomes the channel's. What is handled is to be known by now."""
        end.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def on(self, name: str, kind: type[T], handle: Callable[[T], Any]) -> None:
        """Have messages of a name handled. What ``handle`` returns is the answer; it may return an awaitable, and may
        raise :class:`Refusal`.

        Args:
            kind: of their content.
        """
        decoder = msgspec.msgpack.Decoder(kind)
        self._handlers[name] = lambda content: handle(decoder.decode(content))

    def tell(self, name: str, content: object = None) -> None:
        """Send a message; one that can't be sent any more is dropped."""
        self._send(_Kind.TELL, 0, name, content)

    async def ask(self, name: str, content: object, answer: type[T], within_s: float | None = ANSWER_TIMEOUT_S) -> T:
        """Send a message and wait for its answer.

        Raises:
            Lost: there is none.
            Refusal: the other side says why not.
        """
        if not self.is_open:
            raise Lost("the other process has ended")
        self._number += 1
        number, waiting = self._number, asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        self._send(_Kind.ASK, number, name, content)
        try:
            async with asyncio.timeout(within_s):
                return msgspec.msgpack.decode(await waiting, type=answer)
        except TimeoutError as error:
            raise Lost(f"the other process has not answered within {within_s:g} s") from error
        finally:
            self._asked.pop(number, None)

    def close(self) -> None:
        """End it; the other side is told by the system."""
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.close()

    # Of the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = cast(asyncio.WriteTransport, transport), True  # uvloop's is none by its type

    def connection_lost(self, _: Exception | None) -> None:
        self.is_open = False
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(Lost("the other process has ended"))
        self._on_end()

    def data_received(self, data: bytes) -> None:
        self._received += data
        at = 0
        while len(self._received) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received, at)
            end = at + _LENGTH.size + length
            if len(self._received) < end:
                break
            self._handle(_DECODER.decode(self._received[at + _LENGTH.size : end]))
            at = end
        del self._received[:at]

    def _send(self, kind: _Kind, number: int, name: str, content: object) -> None:
        if self._transport is None or not self.is_open:
            return
        message = _ENCODER.encode(_Message(kind, number, name, _ENCODER.encode(content)))
        self._transport.write(_LENGTH.pack(len(message)) + message)

    def _handle(self, message: _Message) -> None:
        if message.kind in (_Kind.ANSWER, _Kind.REFUSE):
            waiting = self._asked.get(message.number)
            if waiting is None or waiting.done():
                return  # it came too late
            if message.kind is _Kind.ANSWER:
                waiting.set_result(message.content)
            else:
                waiting.set_exception(Refusal(msgspec.msgpack.decode(message.content, type=str)))
            return
        try:
            result = self._handlers[message.name](message.content)
        except Exception as error:
            self._refuse(message, error)
            return
        if isinstance(result, Coroutine):
            task = asyncio.get_running_loop().create_task(self._finish(message, result))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif message.kind is _Kind.ASK:
            self._send(_Kind.ANSWER, message.number, message.name, result)

    async def _finish(self, message: _Message, work: Awaitable[Any]) -> None:
        try:
            result = await work
        except Exception as error:
            self._refuse(message, error)
            return
        if message.kind is _Kind.ASK:
            self._send(_Kind.ANSWER, message.number, message.name, result)

    def _refuse(self, message: _Message, error: Exception) -> None:
        """A defect is logged here; it must not end the channel."""
        if not isinstance(error, Refusal | Lost):
            log.error("handling %s failed", message.name, exc_info=error)
        if message.kind is _Kind.ASK:
            self._send(_Kind.REFUSE, message.number, message.name, str(error))
