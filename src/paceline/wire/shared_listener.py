"""Accepts connections from a socket from which other processes accept, too."""

import asyncio
import logging
import socket
from collections.abc import Callable

GIVES_WAY_S = 0.002
"""So long a connection is left to the others, who have fewer. One that is well takes it within a tenth of that."""
RETRY_S = 0.5
"""After an error that has to do with this process, such as too many open files: the others go on meanwhile."""

log = logging.getLogger("paceline.wire")


class SharedListener:
    """Takes one connection in each turn of the event loop, so that a process that is busy takes fewer; event loops' own
    servers take all that wait.

    What is not accepted yet waits in the socket that all have: where one process ends, the others take it.

    Args:
        listening: becomes this object's.
        protocol: makes what serves a connection.
        gives_way: whether the next connection is left to others, for a moment.
    """

    def __init__(
        self, listening: socket.socket, protocol: Callable[[], asyncio.Protocol], gives_way: Callable[[], bool]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = listening
        self._protocol = protocol
        self._gives_way = gives_way
        self._gave_way = False
        self._accepted: set[asyncio.Task[object]] = set()
        self._later: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._loop.add_reader(listening, self._ready)

    def close(self) -> None:
        """Accept no more; the socket stays open where others have it."""
        if self._later:
            self._later.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _ready(self) -> None:
        assert self._socket is not None
        if not self._gave_way and self._gives_way():
            self._gave_way = True
            self._pause(GIVES_WAY_S)
            return
        self._gave_way = False
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process has it, or the client left
        except OSError as error:
            log.error("no connection can be accepted: %s", error.strerror or error)
            self._pause(RETRY_S)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection))
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)

    async def _serve(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:
            connection.close()  # it was cut meanwhile

    def _pause(self, seconds: float) -> None:
        assert self._socket is not None
        self._loop.remove_reader(self._socket)
        self._later = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._ready)
