"""A learned number: evidence that is forgotten at several speeds at once.

A sum of weighted values that halves every ``h`` seconds forgets what is old, and still adds: two replicas' sums,
brought to the same moment, add up to the sum of one that saw both. Which ``h`` is right nobody knows beforehand, so a
cell keeps sums for several, from a minute to weeks, and decides when it is read: it trusts the slowest whose mean the
quicker ones do not contradict (Lepski's choice of a window; Lepskii 1991, Theory of Probability and its
Applications 35). A sudden change is so noticed within a few values, and a quiet hour forgets nothing.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import exp2

from msgspec import Struct

HALF_LIVES_S = tuple(30.0 * 6.0**number for number in range(7))
"""Half a minute to two weeks."""
LONGEST = len(HALF_LIVES_S) - 1
"""Index of the longest half-life."""
CONTRADICTION = 3.0
"""Standard deviations by which a quicker mean must differ from a slower one to be believed instead. Sensitivity, as in
``tuning.py``: halved +0.10, doubled -0.43."""
MIN_WEIGHT = 0.3
"""A sum that has faded below this no longer has a say."""


class Cell(Struct, frozen=True):
    """Evidence about one number."""

    at_s: float
    """The moment to which the sums have faded, in seconds since 1970."""
    weights: tuple[float, ...]
    """Sum of weights (inverse variances) by half-life."""
    sums: tuple[float, ...]
    """Sum of weighted values by half-life."""
    window: int
    """Index of the half-life that is trusted."""

    @property
    def is_sound(self) -> bool:
        """Whether its parts fit one another."""
        return len(self.weights) == len(self.sums) == len(HALF_LIVES_S) and 0 <= self.window <= LONGEST


def with_value(cell: Cell | None, value: float, weight: float, at_s: float) -> Cell:
    """The evidence with one more value; it may be older than what is known.

    Args:
        weight: inverse variance of the value.
    """
    weighted = weight * value
    if cell is None:
        return _cell(at_s, (weight,) * len(HALF_LIVES_S), (weighted,) * len(HALF_LIVES_S))
    age_s = at_s - cell.at_s
    if age_s < 0:
        return merged(cell, with_value(None, value, weight, at_s))
    fades = _fades(age_s)
    weights = [old * fade + weight for old, fade in zip(cell.weights, fades, strict=True)]
    sums = [old * fade + weighted for old, fade in zip(cell.sums, fades, strict=True)]
    return _cell(at_s, tuple(weights), tuple(sums))


def merged(first: Cell, second: Cell) -> Cell:
    """Both cells' evidence. Commutative and associative, up to rounding."""
    early, late = (first, second) if first.at_s <= second.at_s else (second, first)
    fades = _fades(late.at_s - early.at_s)
    weights = tuple([a * fade + b for a, fade, b in zip(early.weights, fades, late.weights, strict=True)])
    sums = tuple([a * fade + b for a, fade, b in zip(early.sums, fades, late.sums, strict=True)])
    return _cell(late.at_s, weights, sums)


def mean_of(cell: Cell) -> float:
    """Weighted mean of what still counts."""
    return cell.sums[cell.window] / cell.weights[cell.window]


def evidence(cell: Cell, now_s: float) -> tuple[float, float]:
    """Weighted mean of what still counts, and its weight by now."""
    window = cell.window
    weight = cell.weights[window]
    if weight <= 0:
        return 0.0, 0.0
    mean = cell.sums[window] / weight
    if cell.at_s < now_s:
        weight *= exp2((cell.at_s - now_s) / HALF_LIVES_S[window])
    return mean, weight


def estimate(
    prior: tuple[float, float], levels: Iterable[tuple[Cell | None, float]], now_s: float
) -> tuple[float, float]:
    """Mean and variance of a number known through nested levels, from the more general to the more special: each is
    the next one's prior, from which it may deviate. What a level forgot because it changed, those below it forget too.

    Args:
        prior: mean and variance before all evidence.
        levels: a cell, and the variance with which its number deviates from the level above.
    """
    mean, variance = prior
    window = LONGEST
    for cell, deviation in levels:
        variance += deviation
        if cell is not None:
            window = min(window, cell.window)
            weight = cell.weights[window]
            if weight > 0:
                gain = weight * variance
                if cell.at_s < now_s:
                    gain *= exp2((cell.at_s - now_s) / HALF_LIVES_S[window])
                mean = (mean + gain * cell.sums[window] / weight) / (1 + gain)
                variance /= 1 + gain
    return mean, variance


@lru_cache(maxsize=64)
def _fades(age_s: float) -> tuple[float, ...]:
    """What is left after a time, by half-life; kept, since the cells that an outcome adds to are mostly of one age."""
    return tuple([exp2(-age_s / half_life_s) for half_life_s in HALF_LIVES_S])


def _cell(at_s: float, weights: tuple[float, ...], sums: tuple[float, ...]) -> Cell:
    window = LONGEST
    mean = sums[window] / weights[window] if weights[window] > 0 else 0.0
    for quicker in range(window - 1, -1, -1):
        weight = weights[quicker]
        if weight < MIN_WEIGHT:
            break
        quick = sums[quicker] / weight
        if (quick - mean) * (quick - mean) * weight > CONTRADICTION**2:
            window, mean = quicker, quick
    return Cell(at_s, weights, sums, window)
