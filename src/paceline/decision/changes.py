"""Numbers beside the belief that are learned by name, as many as fit: variances, counts, and misses that tell a
change."""

from collections.abc import Hashable
from math import sqrt
from typing import Any, TypeVar

from paceline.decision.tuning import CHANGE_INTERVAL, MAX_KEYS, MAX_SCORE, SLACK, VARIANCE_FADING, VARIANCE_WEIGHT

Value = TypeVar("Value")


class Recent(dict[Any, Value]):
    """A dictionary of bounded size: what was not written for the longest time gives way."""

    def __setitem__(self, key: Any, value: Value) -> None:
        self.pop(key, None)
        if len(self) >= MAX_KEYS:
            del self[next(iter(self))]
        super().__setitem__(key, value)


class Changes:
    """Tells a change by misses that go on to one side (a two-sided cumulative sum, Page 1954, Biometrika 41)."""

    def __init__(self) -> None:
        self._sums: Recent[tuple[float, float]] = Recent()

    def has(self, key: Hashable, miss: float, expected: float) -> bool:
        """Whether this miss, of which the variance ``expected`` was expected, says so together with those before under
        the same key."""
        score = max(-MAX_SCORE, min(MAX_SCORE, miss / sqrt(expected)))
        above, below = self._sums.get(key, (0.0, 0.0))
        above, below = max(0.0, above + score - SLACK), max(0.0, below - score - SLACK)
        has_changed = max(above, below) > CHANGE_INTERVAL
        self._sums[key] = (0.0, 0.0) if has_changed else (above, below)
        return has_changed

    def suspicion(self, key: Hashable) -> float:
        """How far the misses under a key are on their way to a change, up to 1."""
        return max(self._sums.get(key, (0.0, 0.0))) / CHANGE_INTERVAL


class Variances:
    """Variances by key that are learned from squares, each from a believed one that counts as so many squares."""

    def __init__(self) -> None:
        self.sums: Recent[tuple[float, float]] = Recent()

    def of(self, key: Hashable, believed: float) -> float:
        total, weight = self.sums.get(key, (0.0, 0.0))
        return (VARIANCE_WEIGHT * believed + total) / (VARIANCE_WEIGHT + weight)

    def learn(self, key: Hashable, square: float) -> None:
        total, weight = self.sums.get(key, (0.0, 0.0))
        self.sums[key] = VARIANCE_FADING * total + square, VARIANCE_FADING * weight + 1
