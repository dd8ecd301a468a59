"""What an engine's control of drafts starts from: what steps cost here and now, and what is accepted of this request.

The control weighs drafts by the hazard of each position, -log(acceptance), with one factor on all of them that it
learns while the answer is made; its prior is a Gamma distribution with mean 1.
"""

from collections.abc import Sequence
from functools import cache
from math import exp, log, sqrt

import numpy as np

from paceline.decision.best_of_parts import Parts
from paceline.decision.controlled import verification_cost
from paceline.decision.drafting import acceptance_of
from paceline.decision.feeling import LaneId
from paceline.decision.shapes import draft_length, looks_up
from paceline.decision.time_model import TimeModel
from paceline.decision.tuning import (
    ACCEPTED_FIRST,
    ACCEPTED_LAST,
    ACCEPTED_LESS,
    IDLE_CHEAPER,
    LOGIT,
    LOOKUP_ACCEPTED,
    LOOKUP_ACCEPTED_BY_MATCH,
    LOOKUP_WEIGHT,
    MAX_CONTROL_WEIGHT,
    MIN_CONTROL_WEIGHT,
)
from paceline.types import DraftControl, DrafterControl, Signals

LEAST, MOST = 0.02, 0.99
"""Between which acceptances are told."""
DIGITS = 3
"""After the point: no belief is more precise."""
_NO_HEAD: tuple[float, ...] = ()


def control_of(model: TimeModel, lane: LaneId, parts: Parts, places: Sequence[int], signals: Signals) -> DraftControl:
    """For a request down a controlled lane.

    Args:
        places: of the lane's own parts, the plain lane's first.
    """
    (ids, _, _), beside, expected = parts
    plain, *drafting = places
    variances = model.length_variances(ids, signals, beside)
    drafters, cheapest = {}, _NO_HEAD
    for drafter in sorted(lane.strategy.among, key=lambda each: looks_up(each.kind)):
        places = [place for place in drafting if ids[place].strategy.kind == drafter.kind]
        lengths = [draft_length(ids[place].strategy) for place in places]
        over_plain = [exp(expected.cost[place] - expected.cost[plain]) for place in places]
        cheaper = exp(-IDLE_CHEAPER * model.idle.get((lane.fingerprint, drafter.kind), 0))
        costs = _costs(lengths, [cheaper * verification_cost(cost, drafter.kind) for cost in over_plain])
        factors = model.hazard_factors(lane.fingerprint, drafter.kind, signals.task)
        if looks_up(drafter.kind):
            drafters[drafter.kind] = _lookup(costs, cheapest, factors)
            continue
        acceptance = _powers(_acceptance(lengths, [exp(expected.length[place]) for place in places]), factors)
        middle = min(zip(lengths, places, strict=True), key=lambda part: abs(part[0] - 3))[1]
        weight = _weight(acceptance, variances[middle] + expected.spreads[middle])
        drafters[drafter.kind] = DrafterControl(costs=costs, acceptance=acceptance, weight=weight)
        cheapest = tuple(map(min, cheapest, costs)) if cheapest else costs
    return DraftControl(drafters=drafters)


def _lookup(costs: Sequence[float], heads: Sequence[float], factors: Sequence[float]) -> DrafterControl:
    """What a lookup finds costs nothing to draft: to verify it costs no more than what a head drafts, and nearly the
    same. So the head's costs, which are seen more often, are half of what is believed; what is longer than its drafts
    is off by as much.

    Args:
        heads: costs of the cheapest head, if there is one.
        factor: on the hazards of its tokens.
    """
    alike = [sqrt(min(cost, head) * head) for cost, head in zip(costs, heads, strict=False)]
    off = alike[-1] / costs[len(alike) - 1] if alike else 1.0
    longer = [max(alike[-1] if alike else 1.0, off * cost) for cost in costs[len(alike) :]]
    return DrafterControl(
        costs=tuple(round(cost, DIGITS) for cost in (*alike, *longer)),
        acceptance=_powers(LOOKUP_ACCEPTED, factors),
        by_match={match: _powers(curve, factors) for match, curve in LOOKUP_ACCEPTED_BY_MATCH.items()},
        weight=LOOKUP_WEIGHT,
    )


def _costs(lengths: Sequence[int], costs: Sequence[float]) -> tuple[float, ...]:
    """For each number of drafted tokens up to the longest; more tokens never cost less, nor less than none."""
    every = np.interp(range(1, lengths[-1] + 1), [0, *lengths], [1.0, *costs])
    return tuple(round(cost, DIGITS) for cost in np.maximum.accumulate(np.maximum(every, 1.0)).tolist())


def _acceptance(lengths: Sequence[int], tokens: Sequence[float]) -> list[float]:
    """By position, from what drafts of some lengths yield; constant between two of them, unless that is more than
    :func:`_fall` lets be. Where it seems so, few drafts were as long, and of those that went well."""
    acceptance: list[float] = []
    reached, yielded, most = 1.0, 1.0, MOST
    for length, with_it in zip(lengths, tokens, strict=True):
        accepted = acceptance_of(max(0.0, with_it - yielded) / reached, length - len(acceptance))
        while len(acceptance) < length:
            each = max(LEAST, min(most, accepted))
            reached *= each
            acceptance.append(each)
            most = each ** _fall(len(acceptance))
        yielded = with_it
    return acceptance


@cache
def _fall(position: int) -> float:
    """How many times as large the hazard is, at least, at a position from 1 on as at the one before: published heads
    fall, from nearly not at all to twice what is believed of them."""
    before, after = (max(ACCEPTED_LAST, ACCEPTED_FIRST - ACCEPTED_LESS * place) for place in (position - 1, position))
    return sqrt(log(after) / log(before))


def _powers(curve: Sequence[float], factors: Sequence[float]) -> tuple[float, ...]:
    """Acceptances whose hazards are so many times as large, at the first position and at all later ones."""
    first, later = factors
    moved = [accepted ** (later if place else first) for place, accepted in enumerate(curve)]
    return tuple(round(max(LEAST, min(MOST, accepted)), DIGITS) for accepted in moved)


def _weight(acceptance: Sequence[float], variance: float) -> float:
    """Drafted tokens that a prior counts for, by the variance of a request's strength about it: a Gamma distribution
    with mean 1 has the inverse of its variance as its shape, and each token adds its hazard to that.

    The logarithm of -log(a) changes by (1 - a) / log(a) with the logit of a, and that by 1 / LOGIT with the strength.
    """
    first = acceptance[: min(3, len(acceptance))]
    hazards = [-log(accepted) for accepted in first]
    hazard, accepted = sum(hazards) / len(hazards), sum(first) / len(first)
    change = (1 - accepted) / hazard / LOGIT
    weight = 1 / (variance * change * change * hazard)
    return round(max(MIN_CONTROL_WEIGHT, min(MAX_CONTROL_WEIGHT, weight)), 1)
