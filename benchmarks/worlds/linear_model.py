"""Lanes are chosen by one linear, Gaussian model of the logarithm of time, which one Kalman filter learns.

    log(seconds per token) =   machine                         a plain step's seconds
                             + cost[lane]                      a step's cost, in plain steps
                             + load[lane, concurrency]         what others cost it
                             + cost shape[lane] * content      how much dearer this group's verification is
                             - length[lane]                    tokens per step
                             - shape[lane] * strength          how predictable this group's answers are
                             - tilt shape[lane] * tilt         and whether its long drafts gain more
                             - shape[lane] * conversation
                             + residual[leaf, lane]            what nothing else explains
                             + noise

Logarithms of times are sums, so all unknowns are learned together, with their uncertainties and with what is known of
one through another; what is believed beforehand is the prior covariance (``linear_prior.py``). A request belongs to
several groups at once (its task, the application at this place in its loop, the kind of drafter at this task, reasoning
on or off, the language where the task can't be told), whose unknowns add up, so that a new group starts from what the
others know. An engine that counts gives two observations, the length alone and the time without it, and one that counts
by position gives the lengths of all shorter lanes, too; another engine gives their sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from math import inf, log, log2, sqrt
from random import Random
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from benchmarks.worlds.linear_belief import Belief, Changes, Indexes, Recent, Variances
from benchmarks.worlds.linear_exploring import Horizon, explored
from benchmarks.worlds.linear_prior import LOADS, Prior, Shapes, load_shapes, task_strength
from benchmarks.worlds.published import Floats
from paceline.types import Decision, LaneState, Observation, Outcome, Request, Signals, Task

MAX_GROUPS, MAX_CONVERSATIONS = 60, 24
"""That are told apart; the one that was longest not met gives way. Bounds the time that learning takes."""
MAX_ROWS = 256
"""That are remembered; a matter of time alone."""
MIN_SHARE = 0.1
"""Probability from which on a task that may be meant counts."""
MAX_MISS = 3.0
"""Standard deviations of a miss beyond which it teaches residuals and variances no more."""

PRIOR, HORIZON = Prior(), Horizon()

TERMS = ("machine", "cost", "load", "content", "length", "strength", "tilt", "conversation", "residual")

Key = tuple[object, ...]
Name = tuple[str, ...]


class Leaf(NamedTuple):
    """The finest group."""

    application: Name | None
    """The group of the program and its turn."""
    task: Task
    reasoning: bool | None
    load: int
    """Two doublings of concurrency are one."""


class Evidence(Struct, frozen=True):
    """What was observed of an unknown, or of two together; see :meth:`Belief.evidence`."""

    name: Name
    other: Name | None
    """``None`` where it is information times the value."""
    value: float


class Chosen(Decision, frozen=True):
    """A decision with what it was made for."""

    asked: Signals | None = None


class Group(Struct, frozen=True):
    """Something that requests have in common, and how much of its unknowns a request feels: strength, tilt and content,
    in this order."""

    key: Name
    share: float
    """Probability that the request belongs to it."""
    mean: float
    """Of its strength, before anything is known."""
    deviations: tuple[float, float, float]
    kind: str = ""
    """Of drafters that it is about; all where empty."""


class Rows(Struct, frozen=True):
    """How much each lane feels of which unknowns, as a row for each lane: for a request's groups at one load."""

    groups: tuple[Group, ...]
    starts: tuple[int, ...]
    """First unknown of each group."""
    indexes: Indexes
    """Unknowns of time but for the acceptance length, then those of the length."""
    factors: Floats
    """Of the logarithm of time."""
    split: int
    """Where the length's begin."""
    terms: tuple[str, ...]
    """Of the formula, each unknown's."""

    @property
    def cost_indexes(self) -> Indexes:
        return self.indexes[: self.split]

    @property
    def length_indexes(self) -> Indexes:
        return self.indexes[self.split :]

    def cost(self, lane: int) -> Floats:
        result: Floats = self.factors[lane, : self.split]
        return result

    def length(self, lane: int) -> Floats:
        result: Floats = -self.factors[lane, self.split :]
        return result


class LinearModel:
    """A policy: see the module's formula. Lanes must stay the same.

    Raises:
        ValueError: from ``choose``, for a lane that was not there at the first request.
    """

    def __init__(self, seed: int, prior: Prior = PRIOR, horizon: Horizon | None = HORIZON) -> None:
        """``horizon`` is ``None`` where nothing is to be explored."""
        self._random = Random(seed)
        self._prior, self._horizon = prior, horizon
        self._shapes: Shapes | None = None
        self._belief = Belief()
        self._load: int | None = None
        """First unknown of load; there is none before something was decoded beside something else."""
        self._starts: dict[Name, int] = {}
        """First unknown of each group, the one that was longest not met first."""
        self._conversations: dict[str, int] = {}
        self._rows: dict[Key, Rows] = {}
        self._residuals: Recent[tuple[float, float]] = Recent()
        """By leaf and lane: mean and variance."""
        self._spreads = Variances(weight=10.0, fading=0.99)
        """By which requests of a leaf differ in the strength of a kind of drafter."""
        self._noise = Variances(weight=10.0, fading=0.99)
        """Of measured times."""
        self._changes = Changes(prior.change_interval)
        self._alike: Recent[int] = Recent()
        """Requests by leaf."""
        self._tries: dict[str, int] = {}
        """Requests by kind of drafter."""
        self._seen = 0

    # --- Choosing ---

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        shapes = self._shapes or self._start(lanes)
        numbers = self._numbers_of(lanes)
        if not self._seen and (plain := [number for number in numbers if not shapes.drafts[number]]):
            name = shapes.names[plain[0]]  # every other lane's cost is told over its
            return Chosen(name, "the plain lane is measured first", propensities={name: 1.0}, asked=signals)

        # 1. What is expected of each lane, and how surely.
        beside = float(sum(state.running for state in lanes))
        leaf = _leaf(signals, beside)
        rows = self._rows_of(signals, beside, shapes)
        expected, covariance, spread = self._expected(rows, leaf, shapes)
        if signals.conversation:
            index = self._conversation(signals.conversation)
            expected = expected - shapes.strength * self._belief.mean[index]

        # 2. The best one, or one that is worth a try.
        best = min(numbers, key=expected.__getitem__)
        shares: dict[int, float] = {}
        if self._horizon:
            apart = covariance.diagonal() + covariance[best, best] - 2 * covariance[best]
            apart[best] = 0.0
            noise = self._noise.of("time", self._prior.time_noise**2) + spread
            alike = self._horizon.of_group(self._alike.get(leaf, 0), self._seen)
            horizons = [
                alike
                + self._horizon.of_drafter(self._tries.get(kind, 0), self._seen)
                + self._horizon.of_lane(self._lane_tries[lane], self._seen)
                for lane, kind in enumerate(shapes.kinds)
            ]
            shares = explored(expected - expected[best], apart, noise, horizons)
            if len(numbers) < len(shapes.names):
                shares = {lane: share for lane, share in shares.items() if lane in numbers}
        chosen, drawn = best, self._random.random()
        for lane, share in shares.items():
            drawn -= share
            if drawn < 0:
                chosen = lane
                break
        propensities = {shapes.names[lane]: share for lane, share in shares.items()}
        propensities[shapes.names[best]] = 1.0 - sum(shares.values())
        name = shapes.names[chosen]
        return Chosen(name, "", propensity=propensities[name], propensities=propensities, asked=signals)

    def explain(self, signals: Signals, lanes: Sequence[LaneState]) -> Mapping[str, Mapping[str, float]]:
        """By lane, the terms of the logarithm of its seconds per token; changes nothing."""
        model = deepcopy(self)  # groups that were never met are added to it
        shapes = model._shapes or model._start(lanes)
        beside = float(sum(state.running for state in lanes))
        rows = model._rows_of(signals, beside, shapes)
        parts = rows.factors * model._belief.mean[rows.indexes]
        terms = {name: dict.fromkeys(TERMS, 0.0) for name in shapes.names}
        for lane, name in enumerate(shapes.names):
            for term, part in zip(rows.terms, parts[lane].tolist(), strict=True):
                terms[name][term] += part
            if signals.conversation:
                index = model._conversation(signals.conversation)
                terms[name]["conversation"] = -float(shapes.strength[lane] * model._belief.mean[index])
            terms[name]["residual"] = model._residual(_leaf(signals, beside), lane, shapes)[0]
        return terms

    def _numbers_of(self, lanes: Sequence[LaneState]) -> list[int]:
        assert self._shapes is not None
        try:
            return [self._shapes.numbers[state.lane.name] for state in lanes]
        except KeyError as error:
            raise ValueError(f"lane {error.args[0]!r} was not there at the first request") from error

    def _expected(self, rows: Rows, leaf: Leaf, shapes: Shapes) -> tuple[Floats, Floats, Floats]:
        """By lane, but for the conversation: logarithm of the mean time, the covariance of what is known of it, and the
        variance between requests. The mean of times is above the mean of logarithms by half that variance."""
        expected, covariance = self._belief.of(rows.indexes, rows.factors)
        spreads = {kind: self._spreads.of((leaf, kind), self._prior.spread**2) for kind in shapes.drafting_kinds}
        spread = np.array([spreads.get(kind, 0.0) for kind in shapes.kinds]) * shapes.feels**2
        expected += 0.5 * spread
        for lane in range(len(expected)):
            mean, variance = self._residual(leaf, lane, shapes)
            expected[lane] += mean
            covariance[lane, lane] += variance
        return expected, covariance, spread

    # --- Learning ---

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        observed, shapes = outcome.observed, self._shapes
        if not isinstance(decision, Chosen) or decision.asked is None or shapes is None:
            return
        lane = shapes.numbers.get(outcome.lane)
        tokens, seconds = observed.decode_tokens, observed.decode_s
        if lane is None or not tokens or tokens < 0 or not seconds or not 0 < seconds < inf:
            return
        signals, beside = decision.asked, outcome.concurrent if 0 < outcome.concurrent < inf else 0.0
        leaf = _leaf(signals, beside)
        rows = self._rows_of(signals, beside, shapes)
        self._seen += 1
        self._alike[leaf] = self._alike.get(leaf, 0) + 1
        self._lane_tries[lane] += 1
        self._tries[shapes.kinds[lane]] = self._tries.get(shapes.kinds[lane], 0) + 1
        time = log(seconds / tokens)
        self._drift(rows, lane, shapes)

        # 1. A plain step shows the machine.
        noise = self._noise.of("time", self._prior.time_noise**2)
        if not shapes.drafts[lane]:
            self._learn_time(rows, lane, time, noise)
            return

        # 2. Counts show the length, and then the time shows the rest; else it shows their sum.
        residual, variance = self._residual(leaf, lane, shapes)
        variance += self._prior.residual_drift**2
        if observed.accepted is not None and 0 <= observed.accepted < tokens and not shapes.looks_up[lane]:
            length = self._learn_length(rows, lane, observed, signals, leaf, shapes)
            miss, expected = self._learn_time(rows, lane, time + length - residual, noise + variance)
        else:
            miss, expected = self._learn_sum(rows, lane, time - residual, noise + variance, signals, leaf, shapes)

        # 3. What is left.
        gain, bound = variance / expected, MAX_MISS * sqrt(expected)
        self._residuals[leaf, lane] = residual + gain * max(-bound, min(bound, miss)), variance * (1 - gain)

    def _drift(self, rows: Rows, lane: int, shapes: Shapes) -> None:
        """Whatever an observation tells of may have changed a little."""
        if not shapes.drafts[lane]:  # what drafters would do with this task is not seen
            changed = self._prior.changed**2 / self._prior.unseen_change
            starts = [
                start
                for group, start in zip(rows.groups, rows.starts, strict=True)
                if group.key[0] == "task" and group.share > 0.5
            ]
            self._belief.widen([0, *starts], [self._prior.machine_drift**2, *[changed] * len(starts)])
            return
        drift, kind = self._prior.drift**2, shapes.kinds[lane]
        indexes = [0, self._cost + lane, self._length + lane]
        variances = [self._prior.machine_drift**2, 0.2 * drift, 0.3 * drift]
        for group, start in zip(rows.groups, rows.starts, strict=True):
            if group.kind in ("", kind):
                indexes += (start, start + 1, start + 2)
                variances += (drift * group.share**2, 0.2 * drift, 0.2 * drift)
        self._belief.widen(indexes, variances)

    def _learn_time(self, rows: Rows, lane: int, value: float, noise: float) -> tuple[float, float]:
        """Of a time without the length; what it was off by, and the variance expected of that."""
        indexes, factors, changed = rows.cost_indexes, rows.cost(lane), self._prior.machine_changed**2
        miss, expected = self._belief.observe(indexes, factors, value, noise)
        if self._changes.has("machine", miss, expected):
            self._belief.widen([0], [changed])
            self._belief.observe(indexes, factors, value, noise)
        believed = self._noise.of("time", self._prior.time_noise**2)
        self._noise.learn("time", _without(miss, expected, believed))
        return miss, expected

    def _learn_length(
        self, rows: Rows, lane: int, observed: Observation, signals: Signals, leaf: Leaf, shapes: Shapes
    ) -> float:
        """The logarithm of the acceptance length that was counted."""
        assert observed.decode_tokens and observed.accepted is not None
        steps = observed.decode_tokens - observed.accepted
        length = log(observed.decode_tokens / steps)
        indexes, factors = self._length_of(rows, lane, signals, shapes)
        spread = self._spread(leaf, lane, shapes)
        positions: Sequence[int] = getattr(observed, "accepted_by_position", ())
        if positions and min(positions) >= 0:
            lanes = shapes.shorter[lane]
            values = np.log1p([sum(positions[: shapes.drafted[other]]) / steps for other in lanes])
            matrix = -rows.factors[lanes, rows.split :]
            if signals.conversation:
                matrix = np.column_stack([matrix, shapes.strength[lanes]])
            feels = shapes.feels[lanes]
            together = (spread + 0.4 / steps) / float(shapes.feels[lane]) ** 2
            noises = together * np.outer(feels, feels) + (0.1 / steps + 0.02**2) * np.eye(len(lanes))
            misses, variances = self._belief.observe_together(indexes, matrix, values, noises)
            miss, expected = float(misses[-1]), float(variances[-1])
        else:
            miss, expected = self._belief.observe(indexes, factors, length, spread + 0.5 / steps + 0.02**2)
        if self._has_changed(miss, expected, lane, leaf, shapes):
            self._belief.observe(indexes, factors, length, spread + 0.5 / steps + 0.02**2)
        self._learn_spread(leaf, lane, miss, expected, spread, shapes)
        return length

    def _learn_sum(
        self, rows: Rows, lane: int, value: float, noise: float, signals: Signals, leaf: Leaf, shapes: Shapes
    ) -> tuple[float, float]:
        """Of a time as a whole; what it was off by, and the variance expected of that."""
        length_indexes, length = self._length_of(rows, lane, signals, shapes)
        indexes = np.concatenate([rows.cost_indexes, length_indexes])
        factors = np.concatenate([rows.cost(lane), -length])
        spread = self._spread(leaf, lane, shapes)
        miss, expected = self._belief.observe(indexes, factors, value, noise + spread)
        if self._has_changed(miss, expected, lane, leaf, shapes):
            self._belief.observe(indexes, factors, value, noise + spread)
        self._learn_spread(leaf, lane, miss, expected, spread, shapes)
        return miss, expected

    def _has_changed(self, miss: float, expected: float, lane: int, leaf: Leaf, shapes: Shapes) -> bool:
        """Whether misses tell that what an application asks has changed, or a task where there is none; what is known
        of it is then less."""
        if not self._changes.has((leaf[:3], shapes.kinds[lane]), miss, expected):
            return False
        start = self._starts.get(leaf.application or ("task", leaf.task))
        if start is not None:
            self._belief.widen([start], [self._prior.changed**2])
        return True

    def _spread(self, leaf: Leaf, lane: int, shapes: Shapes) -> float:
        """Variance between requests, as a lane feels it."""
        spread = self._spreads.of((leaf, shapes.kinds[lane]), self._prior.spread**2)
        return spread * float(shapes.feels[lane]) ** 2

    def _learn_spread(self, leaf: Leaf, lane: int, miss: float, expected: float, spread: float, shapes: Shapes) -> None:
        felt = max(0.2, float(shapes.feels[lane]) ** 2)
        self._spreads.learn((leaf, shapes.kinds[lane]), _without(miss, expected, spread) / felt)

    def _residual(self, leaf: Leaf, lane: int, shapes: Shapes) -> tuple[float, float]:
        believed = self._prior.residual**2 if shapes.drafts[lane] else 0.0
        return self._residuals.get((leaf, lane), (0.0, believed))

    # --- Saving ---

    def evidence(self) -> list[Evidence]:
        """What was learned of all but conversations, residuals and variances, as rows that add up with another's."""
        if self._shapes is None:
            return []
        named = self._named(self._shapes)
        names, indexes = list(named), np.array(list(named.values()))
        information, values = self._belief.evidence(indexes)
        rows = [Evidence(name, None, float(value)) for name, value in zip(names, values, strict=True)]
        for number, name in enumerate(names):
            rows += [Evidence(name, names[other], float(information[number, other])) for other in range(number + 1)]
        return [row for row in rows if row.value]

    def teach(self, rows: Sequence[Evidence], lanes: Sequence[LaneState]) -> None:
        """Learns such rows; those of lanes that there are not are left out."""
        shapes = self._shapes or self._start(lanes)
        if self._load is None and any(row.name[0] == "load" for row in rows):
            self._load = self._belief.add(*shapes.load_prior(self._prior))
        for row in rows:
            if row.other is None and row.name[-1] == "strength":
                self._start_of(self._group(row.name[:-1], 1.0))
        named = self._named(shapes)
        numbers = {name: number for number, name in enumerate(named)}
        information, values = np.zeros((len(named), len(named))), np.zeros(len(named))
        for row in rows:
            if row.name in numbers and row.other is None:
                values[numbers[row.name]] += row.value
            elif row.name in numbers and row.other in numbers:
                first, second = numbers[row.name], numbers[row.other]
                information[first, second] += row.value
                information[second, first] = information[first, second]
        self._belief.add_evidence(np.array(list(named.values())), information, values)
        self._seen += 1

    def _named(self, shapes: Shapes) -> dict[Name, int]:
        """Unknowns by name, but for conversations and what a plain lane has none of."""
        unknowns: dict[Name, int] = {("machine",): 0}
        for lane, name in enumerate(shapes.names):
            if shapes.drafts[lane]:
                unknowns["cost", name] = self._cost + lane
                unknowns["length", name] = self._length + lane
            if self._load is not None:
                for knot in range(LOADS):
                    unknowns["load", str(2 ** (knot + 1) - 1), name] = self._load + knot * len(shapes.names) + lane
        for key, start in self._starts.items():
            for offset, part in enumerate(("strength", "tilt", "content")):
                unknowns[*key, part] = start + offset
        return unknowns

    # --- Unknowns ---

    def _start(self, lanes: Sequence[LaneState]) -> Shapes:
        shapes, prior, belief = Shapes([state.lane for state in lanes]), self._prior, self._belief
        belief.add(np.full(1, prior.machine_mean), np.full((1, 1), prior.machine**2))
        self._cost = belief.add(shapes.cost, shapes.cost_covariance(prior))
        self._length = belief.add(shapes.length, shapes.length_covariance(prior))
        self._lane_tries = [0] * len(lanes)
        self._shapes = shapes
        return shapes

    def _groups(self, signals: Signals, shapes: Shapes) -> Iterator[Group]:
        """What a request belongs to."""
        for task, share in signals.tasks.items():
            if share < MIN_SHARE:
                continue
            yield self._group(("task", task), share)
            if len(shapes.drafting_kinds) > 1:
                for kind in shapes.drafting_kinds:
                    yield self._group(("drafter", task, kind), share)
        if application := _application(signals):
            yield self._group(application, 1.0)
        elif (share := signals.tasks.get(Task.UNKNOWN, 0.0)) >= MIN_SHARE:
            yield self._group(("language", signals.language), share)
        if signals.reasoning is not None:
            yield self._group(("reasoning", "on" if signals.reasoning else "off"), 1.0)

    def _group(self, key: Name, share: float) -> Group:
        prior = self._prior
        match key:
            case ("task", task):
                return Group(key, share, task_strength(Task(task)), prior.of_group(prior.task))
            case ("drafter", _, kind):
                return Group(key, share, 0.0, prior.of_drafter(is_lookup=kind.startswith("ngram")), kind)
            case ("language", _):
                return Group(key, share, 0.0, prior.of_group(prior.language))
            case ("application", _, _):
                return Group(key, share, 0.0, prior.of_group(prior.application))
            case _:
                return Group(key, share, 0.0, prior.of_group(prior.reasoning))

    def _rows_of(self, signals: Signals, beside: float, shapes: Shapes) -> Rows:
        key = (*signals.tasks.items(), _application(signals), signals.language, signals.reasoning, beside)
        if rows := self._rows.get(key):
            for group in rows.groups:
                self._starts[group.key] = self._starts.pop(group.key)
            return rows
        groups = tuple(self._groups(signals, shapes))
        starts = tuple(self._start_of(group) for group in groups)
        lanes = len(shapes.names)
        each = np.eye(lanes)

        # 1. Time but for the acceptance length: machine, cost, load, content.
        indexes = [0, *range(self._cost, self._cost + lanes)]
        columns = [np.ones((lanes, 1)), each]
        terms = ["machine", *["cost"] * lanes]
        for knot, share in load_shapes(beside):
            if self._load is None:
                self._load = self._belief.add(*shapes.load_prior(self._prior))
            indexes += range(self._load + knot * lanes, self._load + (knot + 1) * lanes)
            columns.append(share * each)
            terms += ["load"] * lanes
        for group, start in zip(groups, starts, strict=True):
            indexes.append(start + 2)
            columns.append(group.share * shapes.felt(group.kind)[2][:, None])
            terms.append("content")
        split = len(indexes)

        # 2. The acceptance length: its own, and the groups' strength and tilt.
        indexes += range(self._length, self._length + lanes)
        columns.append(-np.diag(shapes.drafts))
        terms += ["length"] * lanes
        for group, start in zip(groups, starts, strict=True):
            indexes += [start, start + 1]
            columns.append(-group.share * np.stack(shapes.felt(group.kind)[:2], axis=1))
            terms += ["strength", "tilt"]
        if len(self._rows) >= MAX_ROWS:
            self._rows.clear()
        made = self._rows[key] = Rows(groups, starts, np.array(indexes), np.hstack(columns), split, tuple(terms))
        return made

    def _start_of(self, group: Group) -> int:
        """The first unknown of a group, which is added, or takes another one's place, if it is new."""
        start = self._starts.pop(group.key, None)
        if start is None:
            mean, variances = np.array([group.mean, 0.0, 0.0]), np.square(group.deviations)
            if len(self._starts) < MAX_GROUPS:
                start = self._belief.add(mean, np.diag(variances))
            else:
                start = self._starts.pop(next(iter(self._starts)))
                self._belief.forget(start, mean, variances)
                self._rows.clear()
        self._starts[group.key] = start
        return start

    def _conversation(self, name: str) -> int:
        """The unknown of a conversation, likewise."""
        index = self._conversations.pop(name, None)
        if index is None:
            mean, variances = np.zeros(1), np.full(1, self._prior.conversation**2)
            if len(self._conversations) < MAX_CONVERSATIONS:
                index = self._belief.add(mean, np.diag(variances))
            else:
                index = self._conversations.pop(next(iter(self._conversations)))
                self._belief.forget(index, mean, variances)
        self._conversations[name] = index
        return index

    def _length_of(self, rows: Rows, lane: int, signals: Signals, shapes: Shapes) -> tuple[Indexes, Floats]:
        """What a lane's acceptance length is made of, the conversation included."""
        if not signals.conversation:
            return rows.length_indexes, rows.length(lane)
        index = self._conversation(signals.conversation)
        return np.append(rows.length_indexes, index), np.append(rows.length(lane), shapes.strength[lane])


def _application(signals: Signals) -> Name | None:
    """The group of the program that asks and what the answer follows in its loop. One group for both and for all tasks,
    since several that add up would take too many requests to learn."""
    return ("application", signals.application, signals.turn) if signals.application else None


def _leaf(signals: Signals, beside: float) -> Leaf:
    return Leaf(_application(signals), signals.task, signals.reasoning, (round(log2(1 + beside)) + 1) // 2)


def _without(miss: float, expected: float, part: float) -> float:
    """What a miss tells of one part of the variance that was expected of it; at least nothing."""
    return max(0.0, min(miss * miss, MAX_MISS**2 * expected) - (expected - part))
