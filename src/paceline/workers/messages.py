"""What the keeper and its workers tell each other."""

import pickle
from typing import Any

from msgspec import Struct

from paceline.processes.followed import EngineState
from paceline.routing.budgets import Entry
from paceline.routing.remembered import Lesson, Remembered
from paceline.settings import Configuration
from paceline.workers.turns import DeviceState


class Setting(Struct, frozen=True, kw_only=True):
    """A configuration, as workers take it up."""

    pickled: bytes
    """The configuration; between two processes of one program this holds all types."""
    numbers: dict[str, int]
    """By engine that the keeper launches, the number of what looks after it: a changed engine has another one."""
    engines: dict[int, EngineState]
    devices: dict[str, DeviceState]
    """Those that take turns."""
    shares: bool
    """Whether what is learned is shared beyond this gateway, too."""

    @property
    def configuration(self) -> Configuration:
        configuration: Configuration = pickle.loads(self.pickled)
        return configuration


class Beginning(Struct, frozen=True, kw_only=True):
    """What a worker begins with."""

    setting: Setting
    spent: list[Entry]
    placement: Remembered
    """What placement has learned, of all workers and before."""
    state_directory: str | None
    log_directory: str


class EngineUse(Struct, frozen=True):
    """What a worker does with an engine that the keeper launches."""

    in_flight: int
    """Requests that it answers, or that wait for it."""
    expected_silence_s: float
    last_heard_s: float
    """By the machine's monotonic clock, which all processes have in common."""


class Load(Struct, frozen=True):
    """What a worker has to do at the moment."""

    in_flight: int
    connections: int
    engines: dict[int, EngineUse]


class Feedback(Struct, frozen=True):
    """What a client tells of an answer."""

    id: str
    good: bool
    client: str | None


class Learned(Struct, frozen=True):
    """What placement has learned in one worker."""

    lesson: Lesson


class Stop(Struct, frozen=True):
    """A worker is to end."""

    drains: bool
    at_once: bool


class RecentRequests(Struct):
    """The last requests of a worker, beyond a number."""

    last: int
    requests: list[dict[str, Any]]
