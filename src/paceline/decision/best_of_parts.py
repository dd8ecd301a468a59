"""What is expected of lanes of which some are controlled.

Such a lane is taken to be as good, for each request, as the best of what its control chooses among: plain steps, and
each drafter at each length. So it feels what the best of them feel: step costs and acceptance are learned from it for
them, and from them for it. Requests alike differ, and the control notices; so the best is taken anew where a request is
more, or less, predictable than expected (Gauss-Hermite quadrature with three points). What a control really does beside
that is learned as a factor of the lane's own, and one of a task on it.
"""

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from paceline.decision.arrays import Floats
from paceline.decision.controlled import Wide, wide
from paceline.decision.feeling import LaneId
from paceline.decision.shapes import shape_of
from paceline.decision.time_model import Expected, TimeModel
from paceline.decision.tuning import TRIES_COST
from paceline.types import Signals

POINTS: Mapping[float, float] = {-sqrt(3.0): 1 / 6, 0.0: 2 / 3, sqrt(3.0): 1 / 6}
"""Of a normal variable: values, and their weights."""


class Parts(NamedTuple):
    """What the lanes of a choice are made of, and what is expected of that."""

    wide: Wide
    beside: list[float]
    """For each part, others that are decoded meanwhile."""
    expected: Expected


def parts_of(model: TimeModel, ids: Sequence[LaneId], signals: Signals, beside: Sequence[float]) -> Parts:
    """
    Args:
        beside: for each lane, others that are decoded meanwhile.
    """
    spread = wide(tuple(ids))
    of_parts = [beside[number] for number in spread.origins]
    return Parts(spread, of_parts, model.expected(spread.ids, signals, of_parts))


def foreseen(
    model: TimeModel, ids: Sequence[LaneId], signals: Signals, beside: Sequence[float]
) -> tuple[Expected, Parts | None]:
    """What is expected of lanes; and what they are made of, where some of them are controlled.

    Args:
        beside: for each lane, others that are decoded meanwhile.
    """
    if not any(lane.strategy.among for lane in ids):
        return model.expected(ids, signals, beside), None
    parts = parts_of(model, ids, signals, beside)
    return expected(model, ids, parts), parts


def expected(model: TimeModel, ids: Sequence[LaneId], parts: Parts) -> Expected:
    """As :meth:`TimeModel.expected`, of lanes of which some are controlled."""
    spread, seen = parts.wide, parts.expected

    # 1. How much each lane is of what there is.
    shares = np.zeros((len(ids), len(spread.ids)))
    times, spreads = [], []
    for number, (lane, places) in enumerate(zip(ids, spread.places, strict=True)):
        if not lane.strategy.among:
            shares[number, places[0]] = 1.0
            times.append(seen.times[places[0]])
            spreads.append(seen.spreads[places[0]])
            continue
        best, weights = _best(seen, places)
        for place, weight in weights.items():
            shares[number, place] = weight
        mean = sum([weight * time for time, weight in best])
        factor, _ = model.control_factor(lane, seen.leaves[places[0]])
        times.append(log(sum([weight * exp(time - mean) for time, weight in best])) + mean + factor)
        spreads.append(sum([weight * (time - mean) ** 2 for time, weight in best]))

    # 2. What is not known of a sum of them, and of its own factor.
    covariance: Floats = shares @ np.array(seen.covariance)[:-1, :-1] @ shares.T  # its last row is the machine's
    unknown: Floats = (shares @ np.sqrt(np.maximum(0.0, seen.variances))) ** 2
    for number, (lane, places) in enumerate(zip(ids, spread.places, strict=True)):
        if lane.strategy.among:
            covariance[number, number] += model.control_factor(lane, seen.leaves[places[0]])[1]
    return replace(
        seen,
        shapes=[shape_of(lane.strategy, lane.drafted_token_cost) for lane in ids],
        times=times,
        machine=(shares @ seen.machine).tolist(),
        cost=(shares @ seen.cost).tolist(),
        length=(shares @ seen.length).tolist(),
        covariance=covariance.tolist(),
        variances=unknown.tolist(),
        spreads=spreads,
        leaves=[seen.leaves[places[0]] for places in spread.places],
        rates=[seen.rates[places[0]] if len(places) == 1 else 1.0 for places in spread.places],
    )


def _best(seen: Expected, places: Sequence[int]) -> tuple[list[tuple[float, float]], dict[int, float]]:
    """Logarithms of the best part's time, with the weights of the cases; and how often each part is the best.

    Args:
        places: of the parts, the plain lane's first.
    """
    plain_time = seen.times[places[0]] + TRIES_COST
    known = [(place, seen.times[place] - seen.spreads[place] / 2, sqrt(seen.spreads[place])) for place in places[1:]]
    times: list[tuple[float, float]] = []
    weights: dict[int, float] = {}
    for value, weight in POINTS.items():
        best, least = places[0], plain_time
        for place, time, deviation in known:
            if (here := time - value * deviation) < least:
                best, least = place, here
        times.append((least, weight))
        weights[best] = weights.get(best, 0.0) + weight
    return times, weights
