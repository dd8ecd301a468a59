"""Were the predictions right? What was predicted beside what came, for groups of like predictions."""

from collections.abc import Sequence
from math import log
from operator import itemgetter
from statistics import geometric_mean, median
from typing import TypeVar

from msgspec import Struct

from paceline.decision.drafting import accepted_per_draft
from paceline.evidence.estimate import Logged
from paceline.evidence.usable import Entry

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


def calibration(pairs: Sequence[tuple[Entry, Logged]]) -> Calibration:
    times = [(one.predicted[one.lane], one.s_per_token) for _, one in pairs if one.in_seconds]
    ratios = [actual / predicted for predicted, actual in times]
    drafts = sorted(_drafts(pairs), key=itemgetter(0))
    return Calibration(
        median(ratios) if ratios else None,
        median([abs(log(ratio)) for ratio in ratios]) if ratios else None,
        [
            Group(len(part), geometric_mean(guess for guess, _ in part), geometric_mean(real for _, real in part))
            for part in _parts(sorted(times, key=itemgetter(0)))
        ],
        [
            Group(
                len(part),
                sum(guess * drafted for guess, drafted, _ in part) / sum(drafted for _, drafted, _ in part),
                sum(accepted for _, _, accepted in part) / sum(drafted for _, drafted, _ in part),
            )
            for part in _parts(drafts)
        ],
    )


def _drafts(pairs: Sequence[tuple[Entry, Logged]]) -> list[tuple[float, int, int]]:
    """Of the requests that drafted: predicted acceptance per drafted token, drafted, accepted."""
    found = []
    for entry, one in pairs:
        prediction, drafted, steps = entry["predictions"][one.lane], entry["drafted"], entry["drafting_steps"]
        if not drafted or not steps or prediction["acceptance"] is None:
            continue
        length = drafted / steps
        found.append((accepted_per_draft(prediction["acceptance"], length) / length, drafted, entry["accepted"] or 0))
    return found


def _parts(ordered: Sequence[Item]) -> list[Sequence[Item]]:
    """About equal ones."""
    count = min(GROUPS, len(ordered) // MIN_REQUESTS_IN_GROUP) or min(1, len(ordered))
    return [ordered[len(ordered) * k // count : len(ordered) * (k + 1) // count] for k in range(count)]
