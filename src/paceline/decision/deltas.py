"""What one router tells others that it has learned, and whether anybody can have learned that."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from msgspec import Struct

from paceline.decision.arrays import Floats, unpacked, unpacked_triangle
from paceline.decision.belief import MAX_MEAN, Name
from paceline.decision.feeling import LaneId
from paceline.decision.groups import Alike, Leaf
from paceline.decision.observed import Sums
from paceline.types import Measured, Strategy

LARGEST = 1e12
"""Numbers from which on something is damaged, or meant to harm."""
MIN_PRIOR, MAX_PRIOR = 1e-8, 1e4
"""Between which the variances lie that unknowns are given before anything is observed."""
MAX_UNKNOWNS = 512
"""In one model's part of a delta; some three times as many as a model has."""
MAX_DRAFTED = 4096
"""Tokens in a draft; longer ones nobody makes."""


class ModelDelta(Struct, frozen=True):
    """Of one set of lanes that are compared with each other. What are sums was added since the last delta; other
    numbers are as they are now."""

    models: tuple[str, ...]
    """Under which it is kept (:attr:`LaneState.model`)."""
    names: list[Name]
    """Of its unknowns."""
    prior: bytes
    """Their variances before anything was observed; arrays are of 8-byte little-endian floats."""
    drift: bytes
    """Variances by which they were taken to have changed."""
    information: bytes
    """The lower triangle, row by row."""
    values: bytes
    at_s: float
    seen: int
    """Outcomes."""
    tries: list[tuple[LaneId, int]]
    """By lane."""
    alike: list[tuple[Leaf, int]]
    residuals: list[tuple[Alike, LaneId, float, float]]
    controls: list[tuple[LaneId, float, float]]
    spreads: list[tuple[Alike, str, float, float]]
    noises: tuple[float, float]
    rates: list[tuple[LaneId, float, float]]
    always: list[tuple[LaneId, float, float]]
    hazards: list[tuple[str, str, str, str, float, float]]

    def sums(self) -> Sums:
        return Sums(unpacked(self.drift), unpacked_triangle(self.information, len(self.names)), unpacked(self.values))

    @property
    def is_empty(self) -> bool:
        return not (self.names or self.seen or self.tries)


class Delta(Struct, frozen=True):
    """What was learned between two moments."""

    origin: str
    """Whose it is; no two routers have the same."""
    sequence: int
    """Counts the origin's deltas, from 1 on."""
    at_s: float
    """When the latest outcome in it was learned, in seconds since 1970."""
    models: tuple[ModelDelta, ...]
    measured: list[tuple[str, str, Measured]] = []
    """By fingerprint and lane."""
    drafters: list[tuple[str, str, float, float, float]] = []
    """By fingerprint and kind: tokens drafted and accepted, and when the last were, in seconds since 1970."""
    means: list[tuple[tuple[str, ...], float, float, float]] = []
    """Of answers' lengths and prompts' times: the sum of the logarithms, how many they are, and when the last was."""
    served: list[tuple[str, str, float, int]] = []
    """By conversation and engine: when its last turn was, and how many characters its prompt had."""
    decode_s: float = 0.0
    exploring_s: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether it tells nothing."""
        return not (self.models or self.measured or self.served or self.means or self.drafters)


def flaw(delta: Delta) -> str | None:
    """What shows that nobody can have learned a delta: damaged bytes may leave it readable and change its sense, and
    anybody may write into a store. ``None`` where nothing does."""
    if delta.sequence < 1 or not 1 <= len(delta.origin) <= 64:
        return "number"
    if not all(0 <= number < LARGEST for number in _counts(delta)):
        return "counts"
    if any(abs(total) > MAX_MEAN * count for _, total, count, _ in delta.means):
        return "means"
    for model in delta.models:
        if problem := _flaw_of_model(model):
            return problem
    return None


def _counts(delta: Delta) -> Iterator[float]:
    """All numbers that are never negative, and none too large."""
    yield from (delta.at_s, delta.decode_s, delta.exploring_s)
    for _, _, measured in delta.measured:
        yield from (getattr(measured, name) for name in Measured.__struct_fields__)
    for _, _, drafted, accepted, at_s in delta.drafters:
        yield from (drafted, accepted, drafted - accepted, at_s)
    for _, _, count, at_s in delta.means:
        yield from (count, at_s)
    for _, _, at_s, chars in delta.served:
        yield from (at_s, chars)
    for model in delta.models:
        yield from (model.at_s, model.seen, *model.noises)
        yield from (tries for _, tries in model.tries)
        yield from (requests for _, requests in model.alike)
        pairs: tuple[tuple[Any, ...], ...] = (*model.spreads, *model.rates, *model.always, *model.hazards)
        yield from (number for pair in pairs for number in pair[-2:])
        yield from (row[-1] for row in _means(model))


def _means(model: ModelDelta) -> tuple[tuple[Any, ...], ...]:
    """Rows that end with a mean and its variance."""
    return (*model.residuals, *model.controls)


def _flaw_of_model(model: ModelDelta) -> str | None:
    count = len(model.names)
    if count > MAX_UNKNOWNS or len(set(model.names)) != count or not all(model.names) or not model.models:
        return "names"
    sizes = {len(model.prior), len(model.drift), len(model.values)}
    if sizes != {8 * count} or len(model.information) != 4 * count * (count + 1):
        return "sizes"
    if not all(abs(row[-2]) <= MAX_MEAN for row in _means(model)):
        return "means"
    if not all(_can_be(lane.strategy) for lane in _lanes(model)):
        return "strategies"
    if not _are_sums(unpacked(model.prior), model.sums()):
        return "sums"
    return None


def _are_sums(prior: Floats, sums: Sums) -> bool:
    """Whether they can be of observations."""
    count = len(prior)
    numbers = np.concatenate([sums.drift, sums.values, sums.information.ravel()])
    if not (np.abs(numbers) < LARGEST).all() or not ((prior > MIN_PRIOR) & (prior < MAX_PRIOR)).all():
        return False
    if (sums.drift < 0).any() or (sums.drift > MAX_PRIOR).any():
        return False
    try:
        scale = 1.0 + float(sums.information.diagonal().max(initial=0.0))
        np.linalg.cholesky(sums.information + 1e-9 * scale * np.eye(count))
    except np.linalg.LinAlgError:
        return False
    return True


def _lanes(model: ModelDelta) -> Iterator[LaneId]:
    yield from (lane for lane, _ in model.tries)
    yield from (lane for _, lane, _, _ in model.residuals)
    yield from (lane for lane, _, _ in (*model.controls, *model.rates, *model.always))


def _can_be(strategy: Strategy) -> bool:
    return all(
        0 <= (one.n_max or 0) <= MAX_DRAFTED and not (one.among and one is not strategy)
        for one in (strategy, *strategy.among)
    )
