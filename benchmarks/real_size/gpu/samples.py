"""What samples tell of the costs of steps; Python's standard library alone."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from statistics import fmean, median
from typing import Any

Row = Mapping[str, Any]
"""A line of ``results.jsonl``."""

PLAIN, STATIC, CONTROL = "plain", "static", "control"
"""Ways to draft: not at all, as far as was said for the whole answer, as the engine's control decides at each step."""
ONE_DEVICE, NO_DRAFTER = "one device", "no drafter loaded"
"""Servers."""


def s_per_token(row: Row) -> float:
    """Of a sample's requests, the mean. The first token of an answer is a part of its prompt's time."""
    answers = row["answers"]
    return fmean(one["decode_ms"] / 1000 / (one["tokens"] - 1) for one in answers)


def s_per_step(row: Row) -> float:
    """Seconds from one verification to the next. A step yields one token beside what is accepted of its draft."""
    answers = row["answers"]
    return fmean(one["decode_ms"] / 1000 / (one["tokens"] - 1 - one["accepted"]) for one in answers)


def plain_step_s(rows: Iterable[Row], concurrency: int) -> float:
    """The median of the plain samples at one concurrency.

    Raises:
        statistics.StatisticsError: there are none.
    """
    return median(s_per_step(row) for row in rows if row["way"] == PLAIN and row["concurrency"] == concurrency)


def step_costs(rows: Iterable[Row], concurrency: int) -> list[float]:
    """Of steps that verify 1, 2, 3 ... drafted tokens, in plain steps, drafting included; up to the longest that was
    measured at this concurrency, and on a straight line between two lengths that were. A longer draft is never cheaper:
    where noise says so, it costs as much as the shorter one. The last draft of an answer is cut to what is left of it,
    so that long ones are a little cheaper here than in long answers. Empty where nothing was measured."""
    here = [row for row in rows if row["concurrency"] == concurrency]
    by_length: dict[int, list[float]] = {0: [1.0]}
    for row in here:
        if row["way"] == STATIC:
            by_length.setdefault(row["n_max"], []).append(s_per_step(row))
    if len(by_length) == 1 or not any(row["way"] == PLAIN for row in here):
        return []
    plain_s = plain_step_s(here, concurrency)
    lengths = sorted(by_length)
    measured, least = [1.0], 1.0
    for length in lengths[1:]:
        least = max(least, median(by_length[length]) / plain_s)
        measured.append(least)
    return [_between(lengths, measured, length) for length in range(1, lengths[-1] + 1)]


def _between(places: list[int], values: list[float], place: int) -> float:
    after = bisect_left(places, place)
    share = (place - places[after - 1]) / (places[after] - places[after - 1])
    return values[after - 1] + share * (values[after] - values[after - 1])
