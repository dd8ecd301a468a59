"""Lanes whose engine decides at each step whether to draft, by which drafter and how far: what such a control chooses
among, and what its counts tell of that."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import exp, expm1, log
from typing import NamedTuple

from msgspec.structs import replace

from paceline.decision.feeling import LaneId
from paceline.decision.shapes import draft_length, looks_up
from paceline.decision.tuning import CONTROL_LENGTHS, CONTROL_LOOKUPS, LOOKUP_SHARE
from paceline.types import DraftCounts, Strategy

MIN_REACHED = 0.25
"""Share of the drafts that could have had a position and had it, below which it is not learned of: a control that stops
early drafts on where it is sure."""


@lru_cache(maxsize=1024)
def drafting(lane: LaneId) -> tuple[LaneId, ...]:
    """A controlled lane's drafters at the lengths at which they are looked at, each as a lane of its own."""
    found = []
    for drafter in lane.strategy.among:
        longest = draft_length(drafter)
        usual = CONTROL_LOOKUPS if looks_up(drafter.kind) else CONTROL_LENGTHS
        lengths = sorted({length for length in usual if length < longest} | {longest})
        found += [replace(lane, strategy=Strategy(drafter.kind, length)) for length in lengths]
    return tuple(found)


def plain(lane: LaneId) -> LaneId:
    """The plain lane of the same engine."""
    return replace(lane, strategy=Strategy())


@lru_cache(maxsize=1024)
def parts(lane: LaneId) -> tuple[LaneId, ...]:
    """What a lane's control chooses among, the plain lane first; of another lane, itself alone."""
    return (plain(lane), *drafting(lane)) if lane.strategy.among else (lane,)


class Wide(NamedTuple):
    """The lanes of a choice, with the parts of controlled ones in their place."""

    ids: tuple[LaneId, ...]
    origins: tuple[int, ...]
    """For each, the number of the first lane that it is a part of."""
    places: tuple[tuple[int, ...], ...]
    """For each lane of the choice, where its parts stand."""


@lru_cache(maxsize=1024)
def wide(ids: tuple[LaneId, ...]) -> Wide:
    own = {lane: number for number, lane in enumerate(ids) if not lane.strategy.among}
    origins: dict[LaneId, int] = {}
    for number, lane in enumerate(ids):
        for part in parts(lane):
            origins.setdefault(part, own.get(part, number))
    columns = {part: place for place, part in enumerate(origins)}
    places = tuple(tuple(columns[part] for part in parts(lane)) for lane in ids)
    return Wide(tuple(origins), tuple(origins.values()), places)


def verification_cost(over_plain: float, kind: str) -> float:
    """A step that verifies a draft, in plain steps, by how much dearer a drafter's steps are on average: lookups draft
    in a share of them only, and that share of the cost's logarithm is theirs (``shapes.py``)."""
    return over_plain ** (1 / LOOKUP_SHARE) if looks_up(kind) else over_plain


# What a control's counts tell

PLACES = FIRST, LATER = "first", "later"
"""Positions of a draft whose hazards are corrected alike: whether a lookup has found the right place, or a head knows
how the sentence goes on, shows at the first one."""


class Reached(NamedTuple):
    """A drafter's counts as those of drafts that all are equally long."""

    steps: float
    """Fewer than there were where some drafts stopped early."""
    by_position: list[float]
    """How often each position was accepted."""


def reached(counts: DraftCounts, longest: int) -> Reached:
    """What drafts would have had accepted, had each gone as far as enough of them went. A draft whose first token is
    rejected is as good as one of the longest."""
    accepted = counts.accepted_by_position
    verified = counts.verified_by_position or (counts.steps, *accepted[:-1])
    kept = survived = 1.0
    shares: list[float] = []
    for with_it, drafted, before in zip(accepted, verified, (verified[0], *accepted), strict=False):
        if not drafted or kept * drafted < MIN_REACHED * before:
            break
        kept *= min(1.0, drafted / before)
        survived *= with_it / drafted
        shares.append(survived)
        if not with_it:
            shares += [0.0] * (longest - len(shares))
            break
    steps = kept * verified[0]
    return Reached(steps, [steps * share for share in shares[:longest]])


class StepShare(NamedTuple):
    """Of all steps, those that verify drafts of one length."""

    lane: LaneId
    share: float


def step_shares(lane: LaneId, by_drafter: Mapping[str, DraftCounts], steps: float) -> list[StepShare]:
    """Which steps an answer was made by, but for the plain ones; drafts between two lengths are part of both."""
    found = []
    for kind, counts in by_drafter.items():
        by_length = {draft_length(part.strategy): part for part in drafting(lane) if part.strategy.kind == kind}
        if not by_length or not counts.steps:
            continue
        length = counts.drafted / counts.steps
        below = max((known for known in by_length if known <= length), default=min(by_length))
        above = min((known for known in by_length if known >= length), default=max(by_length))
        part = (length - below) / (above - below) if above > below else 0.0
        share = counts.steps / steps
        found += [StepShare(by_length[below], share * (1 - part))]
        found += [StepShare(by_length[above], share * part)] if part > 0 else []
    return found


def head_lanes(lane: LaneId, ids: Sequence[LaneId]) -> list[LaneId]:
    """Lanes of the same engine that draft with one head, the shortest drafts first: with the lane's own, or else the
    first one. Lookups are left out: in most steps they find nothing to draft."""
    alike = [
        each
        for each in ids
        if each.fingerprint == lane.fingerprint
        and each.model == lane.model
        and each.machine == lane.machine
        and each.strategy.drafts
        and not (each.strategy.among or looks_up(each.strategy.kind))
    ]
    kinds = [each.strategy.kind for each in alike]
    own = [drafter.kind for drafter in lane.strategy.among] or [lane.strategy.kind]
    kind = next((kind for kind in (*own, *kinds) if kind in kinds), "")
    return sorted((each for each in alike if each.strategy.kind == kind), key=lambda each: draft_length(each.strategy))


def batch_shares(heads: Sequence[LaneId], drafted: float) -> list[StepShare]:
    """Steps of a batch whose requests draft so many tokens at each step on average, as those that verify drafts of
    known lengths.

    Args:
        heads: as :func:`head_lanes` has them, at least one.
    """
    lengths = [draft_length(each.strategy) for each in heads]
    if drafted <= lengths[0]:
        return [StepShare(heads[0], drafted / lengths[0])] if drafted > 0 else []
    above = next((place for place, length in enumerate(lengths) if length >= drafted), len(lengths) - 1)
    if lengths[above] <= drafted:
        return [StepShare(heads[above], 1.0)]
    part = (drafted - lengths[above - 1]) / (lengths[above] - lengths[above - 1])
    return [StepShare(heads[above - 1], 1 - part), StepShare(heads[above], part)]


def step_time(plain_time: float, over_plain: Sequence[float], shares: Sequence[StepShare]) -> tuple[float, list[float]]:
    """Logarithm of the mean time of an answer's steps, and how much it changes with each drafter's.

    Args:
        plain_time: logarithm of a plain step's.
        over_plain: logarithms of what each drafter's steps take on average, over a plain one's.
    """
    costs = [
        verification_cost(exp(over), part.lane.strategy.kind) for over, part in zip(over_plain, shares, strict=True)
    ]
    mean = 1.0 + sum(part.share * (cost - 1) for cost, part in zip(costs, shares, strict=True))
    slopes = [
        part.share * cost / mean / (LOOKUP_SHARE if looks_up(part.lane.strategy.kind) else 1.0)
        for cost, part in zip(costs, shares, strict=True)
    ]
    return plain_time + log(mean), slopes


def hazard_counts(counts: DraftCounts, acceptance: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Rejected tokens of a drafter, and how many an acceptance by position lets expect, verified or not: at the first
    position, and at all later ones.

    A token is taken to meet its position's hazard h = -log(acceptance) bit by bit. One that is accepted has met all of
    it, and one that is rejected 1 - h / (exp(h) - 1), as can be expected of an exponential distribution cut at h.
    """
    found = dict.fromkeys(PLACES, (0.0, 0.0))
    for each in (counts, counts.shadow):
        if each is None:
            continue
        accepted = each.accepted_by_position
        verified = each.verified_by_position or (each.steps, *accepted[:-1])
        for place, (reached, with_it) in enumerate(zip(verified, accepted, strict=False)):
            hazard = -log(acceptance[min(place, len(acceptance) - 1)])
            met = with_it * hazard + (reached - with_it) * (1 - hazard / expm1(hazard))
            rejected, before = found[PLACES[min(place, 1)]]
            found[PLACES[min(place, 1)]] = rejected + reached - with_it, before + met
    return found
