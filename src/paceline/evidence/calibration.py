"""Were the predictions right? What was predicted beside what came, for groups of like predictions."""

from collections.abc import Sequence
from math import log
from operator import attrgetter, itemgetter
from statistics import geometric_mean, median
from typing import NamedTuple, TypeVar

from msgspec import Struct

from paceline.decision.drafting import accepted_per_draft
from paceline.evidence.usable import LoggedRequest

Item = TypeVar("Item")

MAX_BINS = 8
"""Groups of like predictions at most: as many dots as a figure shows apart."""
MIN_REQUESTS_IN_BIN = 10
"""Of a group; with fewer, its mean is mostly noise."""


class Bin(Struct, frozen=True, kw_only=True):
    """A group of like predictions: their mean, and what came."""

    requests: int
    predicted: float
    actual: float


class Calibration(Struct, frozen=True, kw_only=True):
    """How far predictions and outcomes are apart."""

    bias: float | None
    """Median of actual over predicted time; ``None`` where no second was known yet."""
    error: float | None
    """Median of how far the two are apart, as a share."""
    times: Sequence[Bin]
    """Seconds per token, geometric means; from the fastest predictions to the slowest."""
    acceptances: Sequence[Bin]
    """Accepted per drafted token, over all tokens drafted in the group."""


def calibration(requests: Sequence[LoggedRequest]) -> Calibration:
    """Of requests that estimates can use."""
    samples = [request.sample for request in requests]
    times = [(sample.predicted[sample.lane], sample.s_per_token) for sample in samples if sample.in_seconds]
    ratios = [actual / predicted for predicted, actual in times]
    return Calibration(
        bias=median(ratios) if ratios else None,
        error=median([abs(log(ratio)) for ratio in ratios]) if ratios else None,
        times=[_of_times(part) for part in _parts(sorted(times, key=itemgetter(0)))],
        acceptances=[_of_drafts(part) for part in _parts(sorted(_drafts(requests), key=attrgetter("predicted")))],
    )


def _of_times(times: Sequence[tuple[float, float]]) -> Bin:
    return Bin(
        requests=len(times),
        predicted=geometric_mean(predicted for predicted, _ in times),
        actual=geometric_mean(actual for _, actual in times),
    )


class _Drafts(NamedTuple):
    """Of a request that drafted."""

    predicted: float
    """Acceptance per drafted token."""
    drafted: int
    accepted: int


def _of_drafts(drafts: Sequence[_Drafts]) -> Bin:
    drafted = sum(request.drafted for request in drafts)
    return Bin(
        requests=len(drafts),
        predicted=sum(request.predicted * request.drafted for request in drafts) / drafted,
        actual=sum(request.accepted for request in drafts) / drafted,
    )


def _drafts(requests: Sequence[LoggedRequest]) -> list[_Drafts]:
    drafts = []
    for request in requests:
        observed, acceptance = request.record.outcome.observed, request.prediction.acceptance
        if not observed.drafted or not observed.drafting_steps or acceptance is None:
            continue
        length = observed.drafted / observed.drafting_steps
        predicted = accepted_per_draft(acceptance, length) / length
        drafts.append(_Drafts(predicted=predicted, drafted=observed.drafted, accepted=observed.accepted or 0))
    return drafts


def _parts(ordered: Sequence[Item]) -> list[Sequence[Item]]:
    """About equal ones."""
    count = min(MAX_BINS, len(ordered) // MIN_REQUESTS_IN_BIN) or min(1, len(ordered))
    return [ordered[len(ordered) * k // count : len(ordered) * (k + 1) // count] for k in range(count)]
