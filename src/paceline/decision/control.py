"""What an engine's control of drafts starts from: what steps cost here and now, and what is accepted of this request.

The control weighs drafts by the hazard of each position, -log(acceptance), with one factor on all of them that it
learns while the answer is made; its prior is a Gamma distribution with mean 1.
"""

from collections.abc import Sequence
from math import exp, log, sqrt

import numpy as np

from paceline.decision.best_of_parts import Parts
from paceline.decision.controlled import verification_cost
from paceline.decision.drafting import acceptance_of
from paceline.decision.feeling import COST, LENGTH, LaneId
from paceline.decision.shapes import draft_length, looks_up
from paceline.decision.time_model import TimeModel
from paceline.decision.tuning import (
    COST_OPTIMISM,
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


def control_of(model: TimeModel, lane: LaneId, parts: Parts, places: Sequence[int], signals: Signals) -> DraftControl:
    """For a request down a controlled lane.

    Args:
        places: of the lane's own parts, the plain lane's first.
    """
    (ids, _, _), beside, expected = parts
    plain, *drafting = places
    of_length = model.variances(ids, signals, beside, LENGTH)
    of_cost = model.variances(ids, signals, beside, COST, over=plain)
    drafters = {}
    for drafter in lane.strategy.among:
        places = [place for place in drafting if ids[place].strategy.kind == drafter.kind]
        lengths = [draft_length(ids[place].strategy) for place in places]
        over_plain = [
            exp(expected.cost[place] - expected.cost[plain] - COST_OPTIMISM * sqrt(of_cost[place])) for place in places
        ]
        costs = _costs(lengths, [verification_cost(cost, drafter.kind) for cost in over_plain])
        factor = model.hazard_factor(lane.fingerprint, drafter.kind, signals.task)
        if looks_up(drafter.kind):
            drafters[drafter.kind] = DrafterControl(
                costs=costs,
                acceptance=_powers(LOOKUP_ACCEPTED, factor),
                by_match={match: _powers(curve, factor) for match, curve in LOOKUP_ACCEPTED_BY_MATCH.items()},
                weight=LOOKUP_WEIGHT,
            )
            continue
        acceptance = _powers(_acceptance(lengths, [exp(expected.length[place]) for place in places]), factor)
        middle = min(zip(lengths, places, strict=True), key=lambda part: abs(part[0] - 3))[1]
        variance = of_length[middle] + expected.spreads[middle]
        drafters[drafter.kind] = DrafterControl(
            costs=costs, acceptance=acceptance, weight=_weight(acceptance, variance)
        )
    return DraftControl(drafters=drafters)


def _costs(lengths: Sequence[int], costs: Sequence[float]) -> tuple[float, ...]:
    """For each number of drafted tokens up to the longest; more tokens never cost less, nor less than none."""
    every = np.interp(range(1, lengths[-1] + 1), [0, *lengths], [1.0, *costs])
    return tuple(round(cost, DIGITS) for cost in np.maximum.accumulate(np.maximum(every, 1.0)).tolist())


def _acceptance(lengths: Sequence[int], tokens: Sequence[float]) -> list[float]:
    """By position, from what drafts of some lengths yield; constant between two of them. No head is surer of a later
    token (published curves fall): where it seems so, few drafts were as long, and of those that went well."""
    acceptance: list[float] = []
    reached, shorter, yielded, most = 1.0, 0, 1.0, MOST
    for length, with_it in zip(lengths, tokens, strict=True):
        more = length - shorter
        most = accepted = max(LEAST, min(most, acceptance_of(max(0.0, with_it - yielded) / reached, more)))
        acceptance += [accepted] * more
        reached, shorter, yielded = reached * accepted**more, length, with_it
    return acceptance


def _powers(curve: Sequence[float], factor: float) -> tuple[float, ...]:
    """Acceptances whose hazards are so many times as large."""
    return tuple(round(max(LEAST, min(MOST, accepted**factor)), DIGITS) for accepted in curve)


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
