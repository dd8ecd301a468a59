"""What a strategy is, before anything was measured: its step's cost, its acceptance length, and how much it feels of
what drafters, groups of requests and load have in common."""

from functools import cache, lru_cache
from math import log, log1p, log2

import numpy as np
from msgspec import Struct

from paceline.decision.arrays import Floats
from paceline.decision.tuning import (
    ACCEPTED_AT,
    ACCEPTED_FIRST,
    ACCEPTED_LAST,
    ACCEPTED_LESS,
    LOADS,
    LONGEST_FEELING,
    LOOKUP_LENGTHS,
    LOOKUP_SHARE,
    NEAR,
    STEP_COST_SLOPE,
    TILT_MIDDLE,
    TILT_SCALE,
    USUAL_LENGTH,
    USUAL_LENGTHS,
)
from paceline.types import Strategy

PLAIN = ""
"""The kind of drafter of a lane that has none."""
KNOTS = tuple(log1p(n) for n in (1, 2.6, 5.6, 11, 21))
"""Logarithms of draft lengths at which what a drafter's length is off by may differ."""


class Shape(Struct, frozen=True):
    """Of one strategy."""

    kind: str
    """Of drafter; :data:`PLAIN` for none."""
    drafts: bool
    drafted: int
    """Tokens of a draft."""
    looks_up: bool
    cost: float
    """Mean logarithm of the step's cost, in plain steps; what content and load add is in proportion to it."""
    length: float
    """Mean logarithm of the acceptance length, in tokens a step."""
    feels: float
    """By how much that changes with its own drafter's strength."""
    strength: float
    """The same with a strength of all drafters."""
    tilt: float
    """By how much with a tilt towards long drafts; only lookups feel it."""
    knots: tuple[float, ...]
    """By how much with what its drafter is off by at each of :data:`KNOTS`."""


@lru_cache(maxsize=1024)
def shape_of(strategy: Strategy, drafted_token_cost: float | None = None) -> Shape:
    """
    Args:
        drafted_token_cost: what each drafted token adds to a step, in plain steps; ``None`` for what is usual.
    """
    if not strategy.drafts:
        return Shape(PLAIN, False, 0, False, 0.0, 0.0, 0.0, 0.0, 0.0, (0.0,) * len(KNOTS))
    kind, drafted = strategy.kind, draft_length(strategy)
    place = log1p(drafted)
    if looks_up(kind):
        length, feels = _lookup(place)
        strength, tilt = feels * LOOKUP_SHARE, feels * LOOKUP_SHARE * (place - TILT_MIDDLE) / TILT_SCALE
    else:
        length, feels = _length(drafted), _sensitivity(drafted) / _sensitivity(3)
        strength, tilt = feels, 0.0
    return Shape(
        kind=kind,
        drafts=True,
        drafted=drafted,
        looks_up=looks_up(kind),
        cost=log1p((STEP_COST_SLOPE if drafted_token_cost is None else drafted_token_cost) * drafted)
        * (LOOKUP_SHARE if looks_up(kind) else 1.0),
        length=length,
        feels=feels,
        strength=strength,
        tilt=tilt,
        knots=tuple(min(strength, LONGEST_FEELING) * felt for felt in _smooth(place, KNOTS, NEAR)),
    )


def may_look_up(strategy: Strategy) -> bool:
    """Whether one of a lane's drafters does."""
    return any(looks_up(drafter.kind) for drafter in strategy.among or (strategy,))


def looks_up(kind: str) -> bool:
    """Whether drafters of a kind look up what stands in the text already: all whose kind begins with ``ngram``."""
    return kind.startswith("ngram")


def draft_length(strategy: Strategy) -> int:
    """Tokens in a draft: the cap, or what is usual where it is not known."""
    kind = "ngram" if looks_up(strategy.kind) else strategy.kind
    return strategy.n_max or USUAL_LENGTHS.get(kind, USUAL_LENGTH)


@lru_cache(maxsize=256)
def load_shape(beside: float) -> tuple[float, tuple[float, ...]]:
    """Of so many others that are decoded meanwhile: the logarithm of the concurrency, and how much is felt of what
    single concurrencies add (1, 3, 7 ... others; between two of them in proportion to the logarithm)."""
    place = min(log2(1 + beside), float(LOADS))
    below = int(place)
    shares = np.zeros(LOADS)
    for knot, share in ((below - 1, 1 - (place - below)), (below, place - below)):
        if knot >= 0 and share > 0:
            shares[knot] = share * (knot + 1) * log(2)
    doublings = tuple(log(2) * (knot + 1) for knot in range(LOADS))
    return log(2) * place, tuple(shares @ _root(doublings, 1.0))


def _smooth(place: float, knots: tuple[float, ...], near: float) -> list[float]:
    """How much a smooth function (a Gaussian process) feels, at a place, of its independent parts."""
    distances = np.subtract(place, knots) / near
    felt: list[float] = np.linalg.solve(_root(knots, near), np.exp(-0.5 * distances**2)).tolist()
    return felt


@cache
def _root(knots: tuple[float, ...], near: float) -> Floats:
    """Of the covariance between the knots, the lower triangle whose square it is."""
    covariance = np.exp(-0.5 * (np.subtract.outer(knots, knots) / near) ** 2)
    return np.linalg.cholesky(covariance + 1e-6 * np.eye(len(knots))).astype(np.float64)


def _length(drafted: int) -> float:
    """Mean logarithm of a head's acceptance length."""
    reached, total = 1.0, 1.0
    for position in range(drafted):
        reached *= max(ACCEPTED_LAST, ACCEPTED_FIRST - ACCEPTED_LESS * position)
        total += reached
    return log(total)


def _lookup(place: float) -> tuple[float, float]:
    """Mean logarithm of a lookup's acceptance length, and how much of its strength it feels; by the logarithm of 1 +
    the drafted tokens."""
    places = [log1p(drafted) for drafted in LOOKUP_LENGTHS]
    lengths, feels = zip(*LOOKUP_LENGTHS.values(), strict=True)
    return float(np.interp(place, places, lengths)), float(np.interp(place, places, feels))


@cache
def _sensitivity(drafted: int) -> float:
    """Change of the logarithm of 1 + a + ... + a^n with the logit of a."""
    powers = [ACCEPTED_AT**power for power in range(drafted + 1)]
    change = sum(power * value for power, value in enumerate(powers)) * (1 - ACCEPTED_AT)
    return change / sum(powers)
