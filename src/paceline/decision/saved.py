"""A time model as it can be stored: the posterior of its belief, and all else that it counts."""

import numpy as np
from msgspec import Struct

from paceline.decision.arrays import packed, packed_triangle, unpacked, unpacked_triangle
from paceline.decision.belief import MAX_MEAN, Name
from paceline.decision.feeling import LaneId
from paceline.decision.groups import Alike, Leaf
from paceline.decision.time_model import TimeModel
from paceline.types import Task


class SavedModel(Struct, frozen=True):
    """What a :class:`TimeModel` knows, at a moment."""

    at_s: float
    seen: int
    names: list[tuple[str, ...]]
    """Of its unknowns, as they stand in the arrays."""
    prior: bytes
    """Variances before anything was observed; arrays are of 8-byte little-endian floats."""
    mean: bytes
    covariance: bytes
    """The lower triangle, row by row."""
    groups: list[tuple[str, ...]]
    conversations: list[str]
    lanes: list[tuple[LaneId, int]]
    tries: list[tuple[str, str, int]]
    residuals: list[tuple[Alike, LaneId, float, float]]
    spreads: list[tuple[Alike, str, float, float]]
    noises: tuple[float, float]
    rates: list[tuple[LaneId, float, float]]
    alike: list[tuple[Leaf, int]]
    unseen: list[tuple[tuple[Name, Task, bool | None], float]]
    always: list[tuple[LaneId, float, float]]
    controls: list[tuple[LaneId, float, float]] = []
    """Files of older versions have neither these nor the next."""
    hazards: list[tuple[str, str, str, str, float, float]] = []


LARGEST = 1e15
"""Numbers from which on something was damaged."""
MAX_SQUARE = 1000.0
"""The same of squares of misses, on average."""


def saved(model: TimeModel) -> SavedModel:
    """The same object as the last time, if nothing was learned since."""
    if isinstance(model.saved, SavedModel):
        return model.saved
    belief = model.belief
    model.saved = SavedModel(
        at_s=model.at_s,
        seen=model.seen,
        names=sorted(belief.numbers, key=belief.numbers.__getitem__),
        prior=packed(belief.prior),
        mean=packed(belief.mean),
        covariance=packed_triangle(belief.covariance),
        groups=list(model.groups),
        conversations=list(model.conversations),
        lanes=list(model.lanes.items()),
        tries=[(*drafter, tries) for drafter, tries in model.tries.items()],
        residuals=[(alike, lane, *values) for (alike, lane), values in model.residuals.items()],
        spreads=[(alike, kind, *sums) for (alike, kind), sums in model.spreads.sums.items()],
        noises=model.noises.sums.get("time", (0.0, 0.0)),
        rates=[(lane, *sums) for lane, sums in model.rates.sums.items()],
        alike=list(model.alike.items()),
        unseen=list(model.unseen.items()),
        always=[(lane, *seconds) for lane, seconds in model.always.items()],
        controls=[(lane, *factor) for lane, factor in model.controls.items()],
        hazards=[(*about, *tokens) for about, tokens in model.hazards.items()],
    )
    return model.saved


def restored(entry: SavedModel) -> TimeModel | None:
    """The model that was saved; ``None`` where its numbers can't have been one's: a damaged byte may leave them
    readable and change their sense."""
    count = len(entry.names)
    sizes = (len(entry.prior), len(entry.mean), len(entry.covariance))
    if len(set(entry.names)) != count or sizes != (8 * count, 8 * count, 4 * count * (count + 1)):
        return None
    prior, mean, covariance = unpacked(entry.prior), unpacked(entry.mean), unpacked_triangle(entry.covariance, count)
    numbers = np.concatenate([prior, mean, covariance.ravel(), _others(entry)])
    if not (np.abs(numbers) < LARGEST).all() or (prior <= 0).any() or not _fits(entry):
        return None
    if (np.abs(mean) > MAX_MEAN).any():
        return None
    try:
        np.linalg.cholesky(covariance + 1e-9 * np.eye(count))
    except np.linalg.LinAlgError:
        return None
    model = TimeModel()
    model.belief.restore(entry.names, prior, mean, covariance)
    model.groups = dict.fromkeys(entry.groups)
    model.conversations = dict.fromkeys(entry.conversations)
    model.lanes = dict(entry.lanes)
    model.tries = {(engine, kind): tries for engine, kind, tries in entry.tries}
    for alike, lane, value, variance in entry.residuals:
        model.residuals[alike, lane] = value, variance
    for alike, kind, total, weight in entry.spreads:
        model.spreads.sums[alike, kind] = total, weight
    model.noises.sums["time"] = entry.noises
    for lane, total, weight in entry.rates:
        model.rates.sums[lane] = total, weight
    for where, requests in entry.alike:
        model.alike[where] = requests
    for about, unseen in entry.unseen:
        model.unseen[about] = unseen
    model.always = {lane: (lane_s, taken_s) for lane, lane_s, taken_s in entry.always}
    for lane, mean_factor, variance in entry.controls:
        model.controls[lane] = mean_factor, variance
    for engine, kind, task, place, rejected, believed in entry.hazards:
        model.hazards[engine, kind, task, place] = rejected, believed
    model.seen, model.at_s = entry.seen, entry.at_s
    return model


def _others(entry: SavedModel) -> list[float]:
    """All numbers beside the arrays."""
    numbers = [entry.at_s, entry.seen, *_means(entry)]
    numbers += [row[-1] for rows in (entry.lanes, entry.tries, entry.alike, entry.unseen) for row in rows]
    return numbers + _weights(entry)


def _means(entry: SavedModel) -> list[float]:
    """Of them those that may be negative."""
    return [*(value for _, _, value, _ in entry.residuals), *(value for _, value, _ in entry.controls)]


def _weights(entry: SavedModel) -> list[float]:
    """Of them those that are never negative."""
    numbers = [*entry.noises, *(variance for _, _, _, variance in entry.residuals)]
    numbers += [variance for _, _, variance in entry.controls]
    for *_, rejected, believed in entry.hazards:
        numbers += (rejected, believed)
    for _, _, total, weight in entry.spreads:
        numbers += (total, weight)
    for _, first, second in (*entry.rates, *entry.always):
        numbers += (first, second)
    return numbers


def _fits(entry: SavedModel) -> bool:
    """Whether every group and conversation is there, no variance is negative, and no mean too large."""
    numbers = set(entry.names)
    if any(("strength", *key) not in numbers for key in entry.groups):
        return False
    if any(("conversation", name) not in numbers for name in entry.conversations):
        return False
    if any(abs(value) > MAX_MEAN for value in _means(entry)):
        return False
    if any(total > MAX_SQUARE * weight for _, _, total, weight in entry.spreads):
        return False
    return min(_weights(entry)) >= 0
