"""An HTTP/1.1 server for a handler in this process, in whatever event loop and thread it is started."""

import asyncio
import socket
from collections.abc import Callable

from paceline.wire.message import Refused
from paceline.wire.reply import Reply
from paceline.wire.request import BodyTimedOut, BodyTooLarge, ClientLeft, HttpRequest, Overloaded
from paceline.wire.server_connection import ClientConnection, Handler, Limits, Shared
from paceline.wire.shared_listener import SharedListener

__all__ = (
    "BodyTimedOut",
    "BodyTooLarge",
    "ClientLeft",
    "Handler",
    "HttpRequest",
    "HttpServer",
    "Limits",
    "Overloaded",
    "Refused",
    "Reply",
)

LOOK_INTERVAL_S = 0.25
"""Between two looks at all connections' deadlines: one timer for all costs less than one for each request."""
LAST_WORDS_S = 2.0
"""How long cancelled handlers may take to end their answers, and clients to take them."""


class HttpServer:
    """The server.

    Args:
        handler: answers each request. It is cancelled when its client has left, or the server stops.
    """

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self._shared = Shared(handler, limits)
        self._listener: asyncio.Server | SharedListener | None = None
        self.lets_others_go_first: Callable[[], bool] = lambda: False
        """Asked for each connection that comes to an address that is shared."""
        self._look: asyncio.TimerHandle | None = None
        self._in_a_hurry = False

    @property
    def limits(self) -> Limits:
        """May be replaced while the server runs; what has begun keeps the deadlines it has."""
        return self._shared.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._shared.limits = limits

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        return len(self._shared.tasks)

    @property
    def connections(self) -> int:
        """Connections that are open, idle ones included."""
        return len(self._shared.connections)

    @property
    def buffered_bytes(self) -> int:
        """Of request bodies that are being received or served."""
        return self._shared.buffered_bytes

    async def start(self, listening: socket.socket, shares: bool = False) -> None:
        """Accept connections from a bound socket, which becomes the server's.

        Args:
            shares: whether other processes accept from the same socket, and are to get their part.
        """
        loop = asyncio.get_running_loop()
        if shares:
            self._listener = SharedListener(
                listening, lambda: ClientConnection(self._shared), self.lets_others_go_first
            )
        else:
            self._listener = await loop.create_server(
                lambda: ClientConnection(self._shared), sock=listening, backlog=2048
            )
        self._look_at_all()

    async def stop(self, grace_s: float) -> None:
        """Accept no more, let running answers finish for ``grace_s`` seconds, then cancel their handlers, which may
        still say so to their clients."""
        self._shared.is_stopping = True
        if self._listener:
            self._listener.close()
        for connection in list(self._shared.connections):
            connection.close_idle()
        await self._until_quiet(grace_s)
        for task in list(self._shared.tasks):
            task.cancel()
        self._in_a_hurry = False
        await self._until_quiet(LAST_WORDS_S)
        for connection in list(self._shared.connections):
            connection.close_idle()
        deadline_s = asyncio.get_running_loop().time() + LAST_WORDS_S
        while self._shared.connections and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(0.01)
        for connection in list(self._shared.connections):
            connection.abort()
        if self._look:
            self._look.cancel()

    def stop_now(self) -> None:
        """End the grace of a :meth:`stop` that is running, or to come."""
        self._in_a_hurry = True

    async def _until_quiet(self, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within_s
        while self.in_flight and not self._in_a_hurry and loop.time() < deadline_s:
            await asyncio.sleep(0.01)

    def _look_at_all(self) -> None:
        loop = asyncio.get_running_loop()
        self._look = loop.call_later(LOOK_INTERVAL_S, self._look_at_all)
        now_s = loop.time()
        for connection in list(self._shared.connections):
            connection.look(now_s)
