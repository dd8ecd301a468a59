"""What a router has learned since it last told, for others to learn; and learning what they tell.

Observations of a linear, Gaussian model add up: what they tell of the unknowns is an information matrix, and sums of
those may be added in any order. An origin's deltas are learned in the order of their numbers, whatever order they come
in, and each once. So all that share come to know the same, but for what they forget: each router forgets fading sums by
what it sees itself.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from msgspec.structs import replace

from paceline.decision.answers import NOTHING, Mean
from paceline.decision.arrays import packed, packed_triangle, unpacked
from paceline.decision.changes import Recent
from paceline.decision.deltas import Delta, ModelDelta, flaw
from paceline.decision.knowledge import Drafted, Knowledge, Served, Totals, added, subtracted
from paceline.decision.snapshots import Snapshot, knowledge_of, snapshot_of
from paceline.decision.time_model import TimeModel
from paceline.decision.tuning import (
    LENGTH_FADING,
    MAX_KEYS,
    MAX_LANES,
    VARIANCE_FADING,
)
from paceline.types import Measured

__all__ = ["Delta", "ModelDelta", "Sharing"]

MAX_WAITING = 256
"""Deltas of an origin that wait for one before them; then that one counts as lost."""
MAX_ORIGINS = 2048
"""That are known apart; who told nothing for longest gives way."""
AS_WELL_KNOWN = 1.001
"""A number that another router knows with so many times the variance is taken over: the same, and newer."""


class Sharing:
    """Tells what a router learns, and learns what others tell.

    Args:
        origin: of this router's deltas; unique among all that share, also over restarts.
    """

    def __init__(self, knowledge: Knowledge, origin: str) -> None:
        self.origin = origin
        self._knowledge = knowledge
        self._sequence = 0
        self._known: dict[str, int] = {}
        self._waiting: dict[str, dict[int, Delta | None]] = {}
        """By origin and number: those before which others are missing; ``None`` for one that teaches nothing."""
        knowledge.share()

    @property
    def known(self) -> Mapping[str, int]:
        """By origin, the number of the last delta that was learned."""
        return dict(self._known)

    @property
    def sequence(self) -> int:
        """The number of this router's last delta."""
        return self._sequence

    def delta(self) -> Delta:
        """What was learned since the last one; it has a number of its own only if it is not empty."""
        with self._knowledge.lock:
            delta = _told(self._knowledge, self.origin, self._sequence + 1)
            if not delta.is_empty:
                self._sequence += 1
                self._note(self.origin, self._sequence)
            return delta

    def apply(self, delta: Delta, latest_s: float = inf) -> bool:
        """Learn what a router tells; whether it was new. One's own is known.

        Args:
            latest_s: what is dated later was dated by a wrong clock, and counts as of then.

        Raises:
            ValueError: nobody can have learned that; the word says where that is seen.
        """
        waiting = self._waiting.setdefault(delta.origin, {})
        if delta.sequence <= self._known.get(delta.origin, 0) or delta.sequence in waiting:
            is_new = False
        else:
            is_new, problem = True, flaw(delta)
            waiting[delta.sequence] = delta if problem is None else None
            if len(waiting) > MAX_WAITING:
                self._note(delta.origin, min(waiting) - 1)
        self._learn_waiting(delta.origin, latest_s)
        if is_new and problem is not None:
            raise ValueError(problem)
        return is_new

    def waits_for(self, origin: str) -> bool:
        """Whether there are deltas of an origin before which others are missing."""
        return origin in self._waiting

    def skip(self, origin: str, latest_s: float = inf) -> None:
        """Of an origin, deltas are lost: learn those after them."""
        if waiting := self._waiting.get(origin):
            self._note(origin, min(waiting) - 1)
            self._learn_waiting(origin, latest_s)

    def snapshot(self) -> tuple[Snapshot, Delta]:
        """All that is known; and what of it was not told yet, which is to be told, too."""
        with self._knowledge.lock:
            untold = self.delta()
            return snapshot_of(self._knowledge, dict(self._known)), untold

    def join(self, snapshot: Snapshot, latest_s: float = inf) -> Delta:
        """Know what a router knew, and nothing else; returns what was learned and not told yet. Deltas of this
        router's own that are not in the snapshot count as unknown: those are to be applied again, as others'."""
        heard = knowledge_of(snapshot, latest_s)
        with self._knowledge.lock:
            untold = self.delta()
            self._knowledge.become(heard)
        self._known = dict(snapshot.known)
        self._waiting.clear()
        return untold

    def _learn_waiting(self, origin: str, latest_s: float) -> None:
        """Those that are next.

        Raises:
            ValueError: one that nobody can have learned was among them.
        """
        waiting, problem = self._waiting[origin], None
        while (number := self._known.get(origin, 0) + 1) in waiting:
            delta = waiting.pop(number)
            self._note(origin, number)
            try:
                if delta is not None:
                    _learn(self._knowledge, delta, latest_s)
            except ValueError as error:
                problem = error
        if not waiting:
            self._waiting.pop(origin, None)
        if problem is not None:
            raise problem

    def _note(self, origin: str, sequence: int) -> None:
        self._known.pop(origin, None)
        self._known[origin] = sequence
        while len(self._known) > MAX_ORIGINS:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._waiting.pop(oldest, None)


# Telling


def _told(knowledge: Knowledge, origin: str, sequence: int) -> Delta:
    untold: Mapping[Any, Any] = knowledge.untold or {}
    means: Mapping[tuple[str, ...], tuple[float, float]] = knowledge.means.untold or {}
    knowledge.untold, knowledge.means.untold = Recent(), Recent()
    models = [_told_of_model(names, knowledge.models[names[0]]) for names in knowledge.names()]
    totals, before = knowledge.totals, knowledge.totals_told
    knowledge.totals_told = totals
    delta: dict[str, list[Any]] = {"measured": [], "drafters": [], "served": []}
    for (part, key), noted in untold.items():
        if part == "measured" and key in knowledge.measured:
            delta[part].append((*key, subtracted(knowledge.measured[key], noted)))
        elif part == "drafters" and key in knowledge.drafters:
            delta[part].append((*key, *noted, knowledge.drafters[key].at_s))
        elif part == "served" and key in knowledge.served:
            turn = knowledge.served[key]
            delta[part].append((*key, turn.at_s, turn.chars))
    return Delta(
        origin=origin,
        sequence=sequence,
        at_s=totals.at_s,
        models=tuple([model for model in models if not model.is_empty]),
        means=[(key, *noted, knowledge.means.sums.get(key, NOTHING).at_s) for key, noted in means.items()],
        decode_s=totals.decode_s - before.decode_s,
        exploring_s=totals.exploring_s - before.exploring_s,
        **delta,
    )


def _told_of_model(names: list[str], model: TimeModel) -> ModelDelta:
    unknowns, prior, sums = model.belief.take_untold()
    parts: dict[str, dict[Any, tuple[float, float]]] = {}
    for (part, key), noted in (model.untold or {}).items():
        parts.setdefault(part, {})[key] = noted
    model.untold = Recent()

    def of(part: str) -> dict[Any, tuple[float, float]]:
        return parts.get(part, {})

    return ModelDelta(
        models=tuple(names),
        names=unknowns,
        prior=packed(prior),
        drift=packed(sums.drift),
        information=packed_triangle(sums.information),
        values=packed(sums.values),
        at_s=model.at_s,
        seen=int(of("seen").get("", (0.0, 0.0))[0]),
        tries=[(lane, int(tries)) for lane, (tries, _) in of("tries").items()],
        alike=[(leaf, int(requests)) for leaf, (requests, _) in of("alike").items()],
        residuals=[(*key, *model.residuals[key]) for key in of("residuals") if key in model.residuals],
        controls=[(lane, *model.controls[lane]) for lane in of("controls") if lane in model.controls],
        spreads=[(*key, *noted) for key, noted in of("spreads").items()],
        noises=of("noises").get("time", (0.0, 0.0)),
        rates=[(lane, *noted) for lane, noted in of("rates").items()],
        always=[(lane, *noted) for lane, noted in of("always").items()],
        hazards=[(*key, *noted) for key, noted in of("hazards").items()],
    )


# Learning


def _learn(knowledge: Knowledge, delta: Delta, latest_s: float) -> None:
    """
    Raises:
        ValueError: a part of it nobody can have learned, and was left out.
    """
    with knowledge.lock:
        problem = None
        for told in delta.models:
            try:
                _learn_model(knowledge.joined(told.models), told, latest_s)
            except ValueError as error:
                problem = error
        for fingerprint, lane, sums in delta.measured:
            _learn_measured(knowledge, (fingerprint, lane), sums, latest_s)
        for fingerprint, kind, drafted, accepted, at_s in delta.drafters:
            own = knowledge.drafters.get((fingerprint, kind), Drafted())
            both = Drafted(own.drafted + drafted, own.accepted + accepted, max(own.at_s, min(at_s, latest_s)))
            _keep(knowledge.drafters, (fingerprint, kind), both)
        for key, total, count, at_s in delta.means:
            mean = knowledge.means.sums.get(key, NOTHING)
            total, count = _added((mean.total, mean.count), (total, count), LENGTH_FADING)
            knowledge.means.sums[key] = Mean(max(mean.at_s, min(at_s, latest_s)), total, count)
        for conversation, engine, at_s, chars in delta.served:
            knowledge.hear_served((conversation, engine), Served(min(at_s, latest_s), chars))
        knowledge.totals = _with_told(knowledge.totals, delta, latest_s)
        knowledge.totals_told = _with_told(knowledge.totals_told, delta, latest_s)
        knowledge.learned += 1
    if problem is not None:
        raise problem


def _learn_model(model: TimeModel, told: ModelDelta, latest_s: float) -> None:
    model.saved = None
    model.know(told.names, unpacked(told.prior))
    sums = told.sums()
    if told.names:
        model.belief.add_evidence(told.names, sums.information, sums.values, sums.drift)
    for lane, tries in told.tries:
        model.count_tries(lane, tries)
    for leaf, requests in told.alike:
        model.alike[leaf] = model.alike.get(leaf, 0) + requests
    for alike, lane, mean, variance in told.residuals:
        _take_over(model.residuals, (alike, lane), (mean, variance))
    for lane, mean, variance in told.controls:
        _take_over(model.controls, lane, (mean, variance))
    for alike, kind, total, weight in told.spreads:
        known = model.spreads.sums
        known[alike, kind] = _added(known.get((alike, kind), NONE), (total, weight), VARIANCE_FADING)
    model.noises.sums["time"] = _added(model.noises.sums.get("time", NONE), told.noises, VARIANCE_FADING)
    for lane, total, weight in told.rates:
        model.rates.sums[lane] = _added(model.rates.sums.get(lane, NONE), (total, weight), VARIANCE_FADING)
    for engine, kind, task, place, *tokens in told.hazards:
        key = engine, kind, task, place
        model.hazards[key] = _sum(model.hazards.get(key, NONE), tokens)
    for lane, *seconds in told.always:
        model.always[lane] = _sum(model.always.pop(lane, NONE), seconds)
    while len(model.always) > MAX_LANES:
        del model.always[next(iter(model.always))]
    model.seen += told.seen
    model.at_s = max(model.at_s, min(told.at_s, latest_s))
    model.forget()


NONE = 0.0, 0.0
"""Sums of nothing."""


def _added(own: tuple[float, float], theirs: tuple[float, float], fading: float) -> tuple[float, float]:
    """Sums of values and of their weights: of both, with no more weight than fading leaves of endless values."""
    total, weight = own[0] + theirs[0], own[1] + theirs[1]
    share = min(1.0, 1 / ((1 - fading) * weight)) if weight > 0 else 1.0
    return share * total, share * weight


def _sum(own: tuple[float, float], theirs: Sequence[float]) -> tuple[float, float]:
    return own[0] + theirs[0], own[1] + theirs[1]


def _take_over(known: Recent[tuple[float, float]], key: Any, told: tuple[float, float]) -> None:
    """The better known of two means, which come with their variances."""
    if key not in known or told[1] <= AS_WELL_KNOWN * known[key][1]:
        known[key] = told


def _learn_measured(knowledge: Knowledge, key: tuple[str, str], told: Measured, latest_s: float) -> None:
    told = replace(told, at_s=min(told.at_s, latest_s))
    own = knowledge.measured.get(key)
    _keep(knowledge.measured, key, told if own is None else added(own, told))
    before = knowledge.untold.get(("measured", key)) if knowledge.untold else None
    if before is not None and knowledge.untold is not None:
        knowledge.untold["measured", key] = added(before, told)


def _keep(known: dict[Any, Any], key: Any, value: Any) -> None:
    """In a dictionary that has a bound, as others may have made up its keys."""
    if key in known or len(known) < MAX_KEYS:
        known[key] = value


def _with_told(totals: Totals, delta: Delta, latest_s: float) -> Totals:
    return Totals(
        at_s=max(totals.at_s, min(delta.at_s, latest_s)),
        decode_s=totals.decode_s + delta.decode_s,
        exploring_s=totals.exploring_s + delta.exploring_s,
    )
