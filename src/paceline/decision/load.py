"""What goes on on the devices at the moment of a decision."""

from collections.abc import Sequence
from math import log2

from paceline.decision.tuning import LOAD_FADING, LOAD_WEIGHT
from paceline.types import LaneState


def load_of(beside: float) -> int:
    """How many are decoded together, doubled each time.

    Args:
        beside: others.
    """
    return round(log2(1 + beside))


class Forecast:
    """How many others will be decoded over a request's life, from how many are at its start: the mean of late, and by
    how much one follows the other (a regression whose slope is believed to be 1)."""

    def __init__(self) -> None:
        self._weight = self._starts = self._lives = self._squares = self._products = 0.0

    def of(self, start: float) -> float:
        """In halves, so that few are told apart."""
        if not self._weight:
            return start
        mean_start, mean_life = self._starts / self._weight, self._lives / self._weight
        spread = self._squares - self._weight * mean_start**2
        common = self._products - self._weight * mean_start * mean_life
        slope = min(1.0, max(0.0, (common + LOAD_WEIGHT) / (spread + LOAD_WEIGHT)))
        trust = self._weight / (self._weight + LOAD_WEIGHT)
        expected = start + trust * (mean_life + slope * (start - mean_start) - start)
        return round(2 * max(0.0, expected)) / 2

    def learn(self, start: float, life: float) -> None:
        """Take in how many there were at a request's start, and on average over its life."""
        self._weight = LOAD_FADING * self._weight + 1
        self._starts = LOAD_FADING * self._starts + start
        self._lives = LOAD_FADING * self._lives + life
        self._squares = LOAD_FADING * self._squares + start * start
        self._products = LOAD_FADING * self._products + start * life


class Load:
    """The requests in flight, by device and by engine."""

    def __init__(self, lanes: Sequence[LaneState]) -> None:
        self._running: dict[str, int] = {}
        self._in_flight: dict[str, int] = {}
        self._held: set[str] = set()
        """Devices whose turn some engine has."""
        for state in lanes:
            device = state.lane.device or state.lane.engine
            self._running[device] = self._running.get(device, 0) + state.running
            self._in_flight[device] = self._in_flight.get(device, 0) + state.running + state.waiting
            if not state.has_turn:
                self._held.add(device)
        self._is_busy = any(self._running.values())

    def takes_turns(self, state: LaneState) -> bool:
        """Whether some engine holds the lane's device, so that others wait."""
        return bool(self._held) and (state.lane.device or state.lane.engine) in self._held

    def concurrent(self, state: LaneState) -> int:
        """Other requests that would be decoded in the same batch as one sent down this lane: those on its device, or
        where engines take turns, its own."""
        if not self._is_busy:
            return 0
        device = state.lane.device or state.lane.engine
        return state.running if device in self._held else self._running[device]

    def in_flight(self, state: LaneState) -> int:
        """Requests that run or wait on the lane's device."""
        return self._in_flight[state.lane.device or state.lane.engine]
