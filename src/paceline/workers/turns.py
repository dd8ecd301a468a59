"""Turns on a device whose engines several processes use: one of them keeps the queue, the others ask it."""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from msgspec import Struct

from paceline.serving.turns import Device, QueueFull, Turn
from paceline.workers.channel import Channel, Lost, Refusal

_NUMBERS = count(1)
"""Of the turns that this process asks for."""


class TurnWanted(Struct, frozen=True):
    """A place in an engine's turn is asked for."""

    number: int
    """Of the turn, by the worker that asks."""
    device: str
    engine: str
    slots: int


class DeviceState(Struct, frozen=True):
    """Who has a device, as is told to all."""

    holder: str | None
    running: int
    """Requests of all workers."""


FREE = DeviceState(None, 0)
"""Nobody has it."""


class TurnKeeper:
    """The keeper's side of one worker: the turns that it has or waits for.

    Args:
        devices: those that take turns, by name.
    """

    def __init__(self, devices: Mapping[str, Device]) -> None:
        self.devices = devices
        """May be replaced."""
        self._waiting: dict[int, asyncio.Task[Turn]] = {}
        self._given_up: set[int] = set()
        """Of those that wait, those that are not wanted any more."""
        self._held: dict[int, Turn] = {}

    def grant(self, wanted: TurnWanted) -> Coroutine[Any, Any, float]:
        """Wait for a turn; what is awaited returns for how many seconds. It is known at once, so that :meth:`end` finds
        it however soon that comes.

        Raises:
            Refusal: there is no such device, or too many wait.
        """
        device = self.devices.get(wanted.device)
        if device is None:
            raise Refusal(f"there is no device {wanted.device}")
        task = asyncio.ensure_future(device.acquire(wanted.engine, wanted.slots))
        self._waiting[wanted.number] = task
        return self._granted(wanted.number, task)

    async def _granted(self, number: int, task: "asyncio.Task[Turn]") -> float:
        try:
            turn = await task
        except QueueFull as error:
            raise Refusal(str(error)) from error
        except asyncio.CancelledError:
            raise Refusal("it is no longer wanted") from None
        finally:
            del self._waiting[number]
            is_given_up = number in self._given_up
            self._given_up.discard(number)
        if is_given_up:  # it was granted at that moment
            turn.release()
            raise Refusal("it is no longer wanted")
        self._held[number] = turn
        return turn.queued_s

    def end(self, number: int) -> None:
        """A turn is over, or no longer waited for."""
        if (waiting := self._waiting.get(number)) is not None:
            self._given_up.add(number)
            waiting.cancel()
        if (turn := self._held.pop(number, None)) is not None:
            turn.release()

    def end_all(self) -> None:
        """The worker is gone."""
        for number in [*self._waiting, *self._held]:
            self.end(number)


class _AskedTurn(Turn):
    """A turn that the keeper gave."""

    def __init__(self, device: "SharedDevice", queued_s: float, number: int) -> None:
        super().__init__(device, queued_s)
        self._channel, self._number = device.channel, number

    def release(self) -> None:
        if self._held:
            self._channel.tell("turn over", self._number)
        super().release()


@dataclass(eq=False)
class SharedDevice(Device):
    """A device that takes turns, kept elsewhere."""

    name: str = ""
    channel: Channel = field(default_factory=Channel)
    state: DeviceState = FREE

    def follow(self, state: DeviceState) -> None:
        """Take up how it is."""
        self.state = state
        self.holder = state.holder

    def can_start(self, engine: str, slots: int) -> bool:
        return self.state.holder is None or (self.state.holder == engine and self.state.running < slots)

    def take(self, engine: str, slots: int) -> Turn | None:
        return None  # nobody but the keeper knows

    async def acquire(self, engine: str, slots: int) -> Turn:
        wanted = TurnWanted(next(_NUMBERS), self.name, engine, slots)
        try:
            queued_s = await self.channel.ask("turn wanted", wanted, float, within_s=None)
        except Refusal as error:
            raise QueueFull(str(error)) from error
        except Lost as error:
            raise QueueFull(f"the device's turns can't be asked for: {error}") from error
        except asyncio.CancelledError:
            self.channel.tell("turn over", wanted.number)
            raise
        self._change(1)
        return _AskedTurn(self, queued_s, wanted.number)

    def _leave(self, drafted: float | None) -> None:
        self._end(drafted)
