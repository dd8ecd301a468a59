"""Were the predictions right? What was predicted beside what came, for groups of like predictions."""

from collections.abc import Sequence
from math import log
from operator import attrgetter, itemgetter
from statistics import geometric_mean, median
from typing import NamedTuple, TypeVar

from msgspec import Struct

from paceline.decision.drafting import accepted_per_draft
from paceline.evidence.usable import Usable

Item = TypeVar("Item")

GROUPS = 8
MIN_REQUESTS_IN_GROUP = 10


class Group(Struct, frozen=True):
    requests: int
    predicted: float
    actual: float


class Calibration(Struct, frozen=True):
    bias: float | None
    """Median of actual over predicted time; ``None`` where no second was known yet."""
    error: float | None
    """Median of how far the two are apart, as a share."""
    times: Sequence[Group]
    """Seconds per token, geometric means; from the fastest predictions to the slowest."""
    acceptances: Sequence[Group]
    """Accepted per drafted token, over all tokens drafted in the group."""


def calibration(requests: Sequence[Usable]) -> Calibration:
    samples = [request.sample for request in requests]
    times = [(sample.predicted[sample.lane], sample.s_per_token) for sample in samples if sample.in_seconds]
    ratios = [actual / predicted for predicted, actual in times]
    return Calibration(
        bias=median(ratios) if ratios else None,
        error=median([abs(log(ratio)) for ratio in ratios]) if ratios else None,
        times=[_of_times(part) for part in _parts(sorted(times, key=itemgetter(0)))],
        acceptances=[_of_drafts(part) for part in _parts(sorted(_drafts(requests), key=attrgetter("predicted")))],
    )


def _of_times(times: Sequence[tuple[float, float]]) -> Group:
    return Group(
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


def _of_drafts(drafts: Sequence[_Drafts]) -> Group:
    drafted = sum(one_request.drafted for one_request in drafts)
    return Group(
        requests=len(drafts),
        predicted=sum(one_request.predicted * one_request.drafted for one_request in drafts) / drafted,
        actual=sum(one_request.accepted for one_request in drafts) / drafted,
    )


def _drafts(requests: Sequence[Usable]) -> list[_Drafts]:
    found = []
    for request in requests:
        observed, acceptance = request.record.outcome.observed, request.prediction.acceptance
        if not observed.drafted or not observed.drafting_steps or acceptance is None:
            continue
        length = observed.drafted / observed.drafting_steps
        predicted = accepted_per_draft(acceptance, length) / length
        found.append(_Drafts(predicted=predicted, drafted=observed.drafted, accepted=observed.accepted or 0))
    return found


def _parts(ordered: Sequence[Item]) -> list[Sequence[Item]]:
    """About equal ones."""
    count = min(GROUPS, len(ordered) // MIN_REQUESTS_IN_GROUP) or min(1, len(ordered))
    return [ordered[len(ordered) * k // count : len(ordered) * (k + 1) // count] for k in range(count)]
