"""One lane for all requests that are decoded together, where an engine decodes those of different lanes one after the
other: each of its steps then takes several, for everybody.

Which one that is, the latest requests tell. A lane of which less is known is taken for faster than it is believed to
be, by a standard deviation: so all of them try it together, and a try splits no batch either. Now and then all take
plain steps, since what others slow these by is else taken for what they slow everything by.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from paceline.decision.best_of_parts import foreseen
from paceline.decision.feeling import LaneId
from paceline.decision.load import load_of
from paceline.decision.time_model import TimeModel
from paceline.decision.tuning import MEASURED_FIRST, PLAIN_AGAIN, WORTH_A_CHANGE
from paceline.types import LaneState


def apart(
    model: TimeModel, lanes: Sequence[LaneState], ids: Sequence[LaneId], beside: Sequence[float]
) -> frozenset[int]:
    """Numbers of the lanes that would split the batches of their engines.

    Args:
        beside: for each lane, others that are decoded meanwhile.
    """
    engines: dict[str, list[int]] = {}
    for number, (state, others) in enumerate(zip(lanes, beside, strict=True)):
        if state.needs_alike and others >= 1:
            engines.setdefault(state.lane.engine, []).append(number)
    return frozenset(
        number
        for numbers in engines.values()
        for number in _others(
            model,
            numbers,
            [ids[number] for number in numbers],
            beside[numbers[0]],
            [lanes[number].running for number in numbers],
        )
    )


def _others(
    model: TimeModel, numbers: Sequence[int], ids: Sequence[LaneId], beside: float, running: Sequence[int]
) -> Iterator[int]:
    """All but the number of the best lane; none before enough is known. The lane that most are decoded on now is the
    best one, unless another is by far: most lanes are nearly as good, and a change splits a batch."""
    if model.seen < MEASURED_FIRST or not model.recent:
        return
    load = load_of(beside)  # the same for all of a batch, though each of them met another number of others
    plain = next((place for place, lane in enumerate(ids) if not lane.strategy.drafts), None)
    if plain is not None and model.seen - model.plain_under.get(load, -PLAIN_AGAIN) >= PLAIN_AGAIN:
        yield from (number for place, number in enumerate(numbers) if place != plain)
        return
    alike = [2.0**load - 1] * len(ids)
    expected = [foreseen(model, ids, signals, alike)[0] for signals in model.recent]
    times = np.exp([each.times for each in expected]).sum(axis=0)
    covariance = np.mean([np.array(each.covariance)[: len(ids), : len(ids)] for each in expected], axis=0)
    with_best = covariance[:, times.argmin()]
    variances = covariance.diagonal() + with_best[times.argmin()] - 2 * with_best
    times *= np.exp(-np.sqrt(np.maximum(0.0, variances)))
    best, current = int(times.argmin()), running.index(max(running))
    if running[current] and times[current] < WORTH_A_CHANGE * times[best]:
        best = current
    yield from (number for place, number in enumerate(numbers) if place != best)
