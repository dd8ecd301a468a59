"""One worker as its keeper sees it: a process, and what it tells."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Sequence

from paceline.http.sums import GatewaySums
from paceline.workers.channel import Channel, Lost, Refusal
from paceline.workers.messages import Load
from paceline.workers.turns import TurnKeeper

SUMS_TIMEOUT_S = 2.0
"""For a worker to tell what it has counted; one that is late counts with what it told last."""


class OneWorker:
    """Made by :meth:`start`.

    Args:
        index: which of the workers it is, from 0 on.
        channel: to it.
    """

    def __init__(self, index: int, channel: Channel, turns: TurnKeeper) -> None:
        self.index = index
        self.channel = channel
        self.turns = turns
        self.load = Load(0, 0, {})
        self.sums: GatewaySums | None = None
        """What it told last."""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when it serves; with an exception, where it can't."""
        self.heard_s = asyncio.get_running_loop().time()
        """When it told its load last."""
        self.generation = 0
        """Which configuration it was given, counted by the keeper."""
        self.last_request = 0
        """Number of the last of its requests that was asked for."""
        self._missed: list[tuple[str, object]] = []
        """What it is told when it serves."""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, listening: socket.socket) -> None:
        """Start its process.

        Raises:
            OSError: it can't be started.
        """
        own, its = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_command(its.fileno(), listening.fileno()),
                pass_fds=(its.fileno(), listening.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the keeper, which has the answers finished first
            )
            await self.channel.open(own)
        except BaseException:
            own.close()
            raise
        finally:
            its.close()

    @property
    def is_serving(self) -> bool:
        """Whether it has begun to serve."""
        return self.ready.done() and not self.ready.cancelled() and self.ready.exception() is None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def begins_with_all(self, generation: int) -> None:
        """It is given what is so now; what is told from here on is kept for it until it serves."""
        self.generation = generation
        self._missed = []

    def tell(self, name: str, content: object) -> None:
        """Have it know something now, or as soon as it serves."""
        if self.is_serving:
            self.channel.tell(name, content)
        else:
            self._missed.append((name, content))

    def serves(self) -> None:
        """It has begun to; it is told what it has missed."""
        self.heard_s = asyncio.get_running_loop().time()
        self.ready.set_result(None)
        for name, content in self._missed:
            self.channel.tell(name, content)
        self._missed = []

    async def ended(self) -> int:
        """Wait for its end; returns its exit status."""
        assert self._process is not None
        return await self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def refresh_sums(self) -> GatewaySums | None:
        """What it has counted by now, or else what it told last."""
        if self.is_serving:
            with contextlib.suppress(Lost, Refusal):
                self.sums = await self.channel.ask("sums", None, GatewaySums, SUMS_TIMEOUT_S)
        return self.sums


def _command(control: int, listening: int) -> Sequence[str]:
    return (sys.executable, "-P", "-m", "paceline.workers", str(control), str(listening))
