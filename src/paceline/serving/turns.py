"""Turns on a device that several engines share.

Two processes that decode at once on all threads of one CPU slow each other to a crawl, while one process decodes
several requests together at little more than the cost of one. So one engine has the device at a time: requests for
it join as long as it has free slots, and the turn passes on when it has none left to decode, or when someone who
waits for another engine has run out of patience. Measured in docs/decisions/0003.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import sub
from time import monotonic, perf_counter
from typing import NamedTuple

MAX_UNKNOWN = 0.02
"""Share of a request's time for which others may run of which it is not known what they draft."""


class QueueFull(Exception):
    """More requests wait for the device than may."""


@dataclass(eq=False)
class _Waiter:
    engine: str
    slots: int
    since_s: float
    granted: "asyncio.Future[None]"


class Beside(NamedTuple):
    """What ran on a device beside a request, on average."""

    requests: float = 0.0
    """Others."""
    drafted: float | None = None
    """Tokens that all of these together drafted at each step; ``None`` where that is not known of all of them."""


class Turn:
    """A request's part in an engine's turn; held until :meth:`release`, which may be called twice."""

    def __init__(self, device: "Device", queued_s: float = 0.0) -> None:
        self.queued_s = queued_s
        self._device = device
        self._held = True
        self._drafts: float | None = None
        self._beside = Beside()
        device._change(0, unknown=1)
        self._began = device.so_far()

    def drafts(self, tokens: float | None) -> None:
        """Its request drafts so many tokens at each step; to be said at its beginning, and where it is known."""
        if self._held and self._drafts is None and tokens is not None:
            self._device._change(0, drafted=tokens, unknown=-1)
            self._drafts = tokens

    def beside(self) -> Beside:
        """What ran beside it from its beginning until now, or until it was released."""
        if self._held:
            self._beside = self._beside_until_now()
        return self._beside

    def _beside_until_now(self) -> Beside:
        passed_s, request_s, drafted_s, unknown_s = map(sub, self._device.so_far(), self._began)
        if passed_s <= 0:
            return Beside()
        others_unknown_s = unknown_s - passed_s * (self._drafts is None)
        is_known = others_unknown_s <= MAX_UNKNOWN * passed_s
        drafted = max(0.0, drafted_s / passed_s - (self._drafts or 0.0))
        return Beside(max(0.0, request_s / passed_s - 1), drafted if is_known else None)

    def release(self) -> None:
        """Give the place back."""
        if self._held:
            self.beside()
            self._held = False
            self._device._leave(self._drafts)


class HeldTurn:
    """A turn of which somebody watches that it is used.

    Args:
        patience_s: how long the engine may be silent.
    """

    def __init__(self, turn: Turn, patience_s: float) -> None:
        self._turn = turn
        self._patience_s = patience_s
        self._since_s = perf_counter()
        self._is_clients = False

    def waits_for_client(self) -> None:
        """The engine has sent something, which the client is to take."""
        self._since_s, self._is_clients = perf_counter(), True

    def waits_for_engine(self) -> None:
        """The client has taken it."""
        self._since_s, self._is_clients = perf_counter(), False

    def release(self) -> None:
        """It is used no longer; may be called twice."""
        self._turn.release()

    def release_if_idle(self, reader_limit_s: float, now_s: float) -> None:
        """Let others have the device, if it was waited for the client or the engine for too long."""
        if now_s - self._since_s > (reader_limit_s if self._is_clients else self._patience_s):
            self._turn.release()


@dataclass(eq=False)
class Device:
    """The queue of one device.

    Args:
        takes_turns: whether engines exclude one another; if not, everybody starts at once.
        patience_s: how long the oldest waiter for another engine lets requests join, in seconds.
        queue_limit: most requests that may wait.
        clock: seconds, monotonic.
    """

    takes_turns: bool
    patience_s: float = 2.0
    queue_limit: int = 256
    clock: Callable[[], float] = monotonic
    holder: str | None = None
    """The engine that has the turn."""
    running: int = 0
    """Turns that are held."""
    drafting: float = 0.0
    """Tokens that all of them together draft at each step, as far as is known."""
    _unknown: int = 0
    """Those of which it is not known."""
    _request_s: float = 0.0
    _drafted_s: float = 0.0
    _unknown_s: float = 0.0
    _counted_at_s: float = 0.0
    start_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """For engines that start: one at a time."""
    _queue: "deque[_Waiter]" = field(default_factory=deque)

    def so_far(self) -> tuple[float, float, float, float]:
        """The time, and added up over it, how many requests ran, how many tokens they drafted at each step, and of how
        many that is not known: what two readings differ by, over the time between them, are the averages."""
        self._change(0)
        return self._counted_at_s, self._request_s, self._drafted_s, self._unknown_s

    @property
    def waiting(self) -> int:
        """Requests that wait for a place."""
        return len(self._queue)

    def can_start(self, engine: str, slots: int) -> bool:
        """Whether a request for ``engine`` would start at once."""
        if not self.takes_turns or self.holder is None:
            return True
        return self.holder == engine and self.running < slots and not self._someone_is_impatient()

    def take(self, engine: str, slots: int) -> Turn | None:
        """A place in the engine's turn, if there is one at once."""
        if self.takes_turns:
            if not self.can_start(engine, slots):
                return None
            self.holder = engine
        self._change(1)
        return Turn(self)

    async def acquire(self, engine: str, slots: int) -> Turn:
        """Wait for a place in the engine's turn. Cancelling the call gives the place in the queue up.

        Raises:
            QueueFull: ``queue_limit`` requests wait already.
        """
        if (turn := self.take(engine, slots)) is not None:
            return turn
        if len(self._queue) >= self.queue_limit:
            raise QueueFull(f"{len(self._queue)} requests wait for the device already")
        waiter = _Waiter(engine, slots, self.clock(), asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self._change(-1)
                self._grant()
            else:
                if waiter in self._queue:
                    self._queue.remove(waiter)
                self._grant()  # its impatience no longer keeps others from joining
            raise
        return Turn(self, queued_s=self.clock() - waiter.since_s)

    def _change(self, by: int, drafted: float = 0.0, unknown: int = 0) -> None:
        now_s = self.clock()
        passed_s = now_s - self._counted_at_s
        self._request_s += self.running * passed_s
        self._drafted_s += self.drafting * passed_s
        self._unknown_s += self._unknown * passed_s
        self._counted_at_s = now_s
        self.running += by
        self._unknown += unknown
        self.drafting = max(0.0, self.drafting + drafted)

    def _end(self, drafted: float | None) -> None:
        """A turn is over.

        Args:
            drafted: tokens that it drafted at each step; ``None`` where that was not known.
        """
        self._change(-1, drafted=-(drafted or 0.0), unknown=-(drafted is None))

    def _leave(self, drafted: float | None) -> None:
        self._end(drafted)
        self._grant()

    def _grant(self) -> None:
        if self.running == 0:
            self.holder = next((waiter.engine for waiter in self._queue if not waiter.granted.cancelled()), None)
        refused: deque[_Waiter] = deque()
        while self._queue:
            waiter = self._queue.popleft()
            if waiter.granted.cancelled():
                continue  # it has given up, but had no time yet to leave the queue
            older_is_impatient = any(self._is_impatient(other) for other in refused if other.engine != self.holder)
            if waiter.engine == self.holder and self.running < waiter.slots and not older_is_impatient:
                self._change(1)
                waiter.granted.set_result(None)
            else:
                refused.append(waiter)
        self._queue = refused

    def _is_impatient(self, waiter: _Waiter) -> bool:
        return self.clock() - waiter.since_s >= self.patience_s

    def _someone_is_impatient(self) -> bool:
        return any(waiter.engine != self.holder and self._is_impatient(waiter) for waiter in self._queue)
