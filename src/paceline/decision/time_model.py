"""One linear, Gaussian model of the logarithm of time, for lanes that are compared with each other.

    log(seconds per token) =   machine                         a plain step's seconds
                             + cost[lane]                      a step's cost, in plain steps
                             + load[lane, concurrency]         what others cost it
                             + cost shape[lane] * content      how much dearer this group's verification is
                             - length[lane]                    tokens per step
                             - shape[lane] * strength          how predictable this group's answers are
                             - tilt shape[lane] * tilt         and of lookups, whether long ones gain more
                             - shape[lane] * conversation
                             + residual[task, lane]            what nothing else explains
                             + noise

Logarithms of times are sums, so one Kalman filter learns all unknowns together, with their uncertainties and with what
is known of one through another. Each term is a sum of independent unknowns (``tuning.Prior`` has their deviations):
what all drafters of an engine have in common, what is a drafter's, what is a lane's own. So a lane, a drafter or a
group that is new starts from what the others know. An engine that counts gives two observations, the length alone and
the time without it; one that counts by position gives the lengths of all shorter lanes, too; another gives their sum.
"""

from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from math import log, sqrt
from typing import NamedTuple, TypeAlias

import numpy as np
from msgspec import Struct

from paceline.decision import controlled
from paceline.decision.arrays import Floats
from paceline.decision.belief import Belief, Name
from paceline.decision.changes import Changes, Recent, Variances
from paceline.decision.feeling import (
    LENGTH,
    Context,
    Feeling,
    LaneId,
    Lanes,
    Sum,
    context_of,
    depth_of,
    feeling_of,
    number_of,
    unknowns_of,
)
from paceline.decision.groups import (
    Alike,
    Asked,
    Leaf,
    asked_of,
    changing_group,
    leaf_of,
)
from paceline.decision.load import load_of
from paceline.decision.shapes import PLAIN, Shape, draft_length, looks_up, shape_of
from paceline.decision.tuning import (
    ALWAYS_FADING,
    HAZARD_FADING,
    HAZARD_WEIGHT,
    LOADS,
    LOOKUP_SHARE,
    MAX_CONVERSATIONS,
    MAX_GROUPS,
    MAX_HAZARD,
    MAX_LANES,
    MAX_MACHINES,
    MAX_MISS,
    MAX_UNKNOWNS,
    PRIOR,
    RECENT_REQUESTS,
    SHARED_JUMP,
)
from paceline.types import DraftCounts, Signals, Task

MAX_CONTEXTS = 256
"""That are remembered; a matter of time alone."""
MORE = 1.25
"""Times as many as are remembered there may be, before those too many are forgotten together."""
SMALL = 0.02**2
"""Variance of a length's logarithm that counts don't explain."""


class Counts(NamedTuple):
    """What an engine counted over an answer."""

    tokens: float
    steps: float
    """Each yields one token of the model's own, and what was accepted of its draft."""
    verification_steps: int | None
    """Those that verified a draft; ``None`` where the engine did not report them."""
    by_position: Sequence[float]
    """How often each position of a draft was accepted; empty where the engine did not report it."""
    by_drafter: Mapping[str, DraftCounts] = {}
    """Of a controlled lane, by kind; empty where the engine did not report it."""

    @property
    def length(self) -> float:
        """Logarithm of the acceptance length."""
        return log(self.tokens / self.steps)


Untold: TypeAlias = Recent[tuple[float, float]]
"""By part and key: what was added to its sums; of what is no sum, zeros."""


class Told(NamedTuple):
    """What was expected of a controlled lane for a request."""

    time: float
    """Logarithm of seconds per token."""
    variance: float
    """Of that, but for the noise of measuring."""
    acceptance: Mapping[str, Sequence[float]]
    """By kind of drafter and position: what the engine was told; empty where it was told nothing."""


class Situation(NamedTuple):
    """What a lane's time was seen in."""

    among: tuple[LaneId, ...]
    """The lanes that it was chosen among."""
    kinds: tuple[str, ...]
    """Of their drafters."""
    asked: Asked
    beside: float
    """Others that were decoded meanwhile."""
    mean_draft: float | None
    """Tokens that a request of the batch drafted at each step, on average over all; ``None`` where that is not
    known."""


class Expected(Struct, frozen=True):
    """What is expected of the lanes of one choice for a request; items are in the order of the lanes."""

    shapes: Sequence[Shape]
    times: list[float]
    """Logarithms of seconds per token, of their mean, which is above the mean of logarithms by half the spread."""
    machine: list[float]
    """Logarithm of a plain step's seconds."""
    cost: list[float]
    """Logarithm of a step's cost, in plain steps made alone."""
    length: list[float]
    """Logarithm of the acceptance length, over all steps."""
    covariance: list[list[float]]
    """Of what is known of the times."""
    variances: list[float]
    """Of what is not known of each: of the time, or before any was measured, of the time in plain steps."""
    spreads: list[float]
    """Variance between requests."""
    noise: float
    """Variance of measuring."""
    leaves: list[Leaf]
    is_measured: bool
    """Whether any time was."""
    rates: list[float]
    """Of lookups, share of the steps that verify a draft; 1 for other drafters."""


class TimeModel:
    """What is known of some lanes' times, and how it is learned."""

    def __init__(self) -> None:
        self.belief = Belief()
        self.groups: dict[Name, None] = {}
        """Whose unknowns are in the belief, the one that was longest not met first."""
        self.conversations: dict[str, None] = {}
        self.lanes: dict[LaneId, int] = {}
        """How often each was tried, likewise, on whatever machine."""
        self.machines: dict[str, None] = {}
        """Those of lanes that have one, likewise."""
        self.tries: dict[tuple[str, str], int] = {}
        """The same by engine and kind of drafter."""
        self.residuals: Recent[tuple[float, float]] = Recent()
        """By requests alike and lane: mean and variance."""
        self.controls: Recent[tuple[float, float]] = Recent()
        """The same of controlled lanes over all requests."""
        self.hazards: Recent[tuple[float, float]] = Recent()
        """Of drafters that a control uses, by engine, kind, task (of all where that is empty) and place in a draft:
        tokens that were rejected, and that the believed acceptance let expect."""
        self.idle: Recent[int] = Recent()
        """By engine and kind of drafter: answers since its control last used it, though it might have. Not stored: it
        begins anew with the program."""
        self.unseen: Recent[float] = Recent()
        """By leaf but for its load: requests that showed no drafts since one that did; fewer are forgotten the odder
        that one was."""
        self.spreads = Variances()
        """By which requests alike differ in the strength of a kind of drafter."""
        self.noises = Variances()
        """Of measured times."""
        self.rates = Variances()
        """Of lookups, by lane: share of the steps that verify a draft."""
        self.alike: Recent[int] = Recent()
        """Requests by leaf."""
        self.always: dict[LaneId, tuple[float, float]] = {}
        """Seconds that each lane would have taken, had it served all requests, and that those took which did; fading,
        by the predictions."""
        self.seen = 0
        """Outcomes."""
        self.recent: deque[Signals] = deque(maxlen=RECENT_REQUESTS)
        """The latest requests. Not stored: it begins anew with the program."""
        self.plain_under: dict[int, int] = {}
        """After how many outcomes a plain step was last seen, by load (:func:`load_of`). Not stored either."""
        self.at_s = 0.0
        """When the latest was, in seconds since 1970."""
        self.untold: Untold | None = None
        """What was learned beside the belief since others were told; ``None`` where nobody shares."""
        self.saved: object = None
        """The model as it was stored last; ``None`` where something was learned since."""
        self._changes = Changes()
        self._contexts: dict[tuple[tuple[LaneId, ...], tuple[float, ...], Asked], Context] = {}
        self._feelings: dict[tuple[LaneId, tuple[str, ...], Asked, float], Feeling] = {}
        self._made: dict[tuple[tuple[LaneId, ...], tuple[float, ...]], Lanes] = {}

    # Predicting

    def expected(self, ids: Sequence[LaneId], signals: Signals, beside: Sequence[float]) -> Expected:
        """Changes nothing.

        Args:
            beside: for each lane, others that are decoded meanwhile.
        """
        belief = self.belief
        context = self._context(tuple(ids), tuple(beside), asked_of(signals))
        lanes = context.lanes
        leaves = {others: leaf_of(signals, others) for others in set(beside)}

        # 1. The terms.
        terms = context.means + context.terms @ belief.means(context.indexes)
        if conversation := self._of_conversation(signals):
            terms[LENGTH] -= conversation * lanes.strength
        machine, cost, shortness = terms.tolist()

        # 2. The covariance of what is known of their sum; before a plain step was measured, of their sum in such steps.
        together = belief.of(context.indexes, context.pairs, context.factors)
        if context.new is not None:
            together += (context.factors * context.new) @ context.factors.T
        is_measured = self.is_measured
        covariance = together.tolist()
        variances = [covariance[number][number] for number in range(len(ids))]
        if not is_measured:
            of_machine = covariance[-1]
            variances = [each + of_machine[-1] - 2 * of_machine[number] for number, each in enumerate(variances)]

        # 3. What single requests differ by, and what nothing else explains.
        by_kind = {(kind, others): self._spread(leaves[others], kind) for kind in lanes.kinds for others in leaves}
        alike = {others: leaf.alike for others, leaf in leaves.items()}
        times = [first + second + third for first, second, third in zip(machine, cost, shortness, strict=True)]
        spreads, rates = [], []
        for number, (lane, shape, others) in enumerate(zip(ids, lanes.shapes, beside, strict=True)):
            rates.append(self.rates.of(lane.kin, LOOKUP_SHARE) if shape.looks_up else 1.0)
            if not shape.drafts:
                spreads.append(0.0)
                continue
            spread = by_kind[shape.kind, others] * shape.feels * shape.feels
            mean, variance = self._residual(alike[others], lane)
            spreads.append(spread)
            times[number] += mean + spread / 2
            covariance[number][number] += variance
        return Expected(
            shapes=lanes.shapes,
            times=times,
            machine=machine,
            cost=cost,
            length=[-negative for negative in shortness],
            covariance=covariance,
            variances=variances,
            spreads=spreads,
            noise=self.noise,
            leaves=[leaves[others] for others in beside],
            is_measured=is_measured,
            rates=rates,
        )

    @property
    def noise(self) -> float:
        """Variance of measuring a time."""
        return self.noises.of("time", PRIOR.time_noise**2)

    @property
    def is_measured(self) -> bool:
        """Whether any time was."""
        return ("machine",) in self.belief.numbers

    def length_variances(self, ids: Sequence[LaneId], signals: Signals, beside: Sequence[float]) -> list[float]:
        """Of what is known of the logarithm of each lane's acceptance length."""
        context = self._context(tuple(ids), tuple(beside), asked_of(signals))
        factors = context.terms[LENGTH]
        together = self.belief.of(context.indexes, context.pairs, factors)
        if context.new is not None:
            together += (factors * context.new) @ factors.T
        variances: list[float] = np.maximum(0.0, together.diagonal()).tolist()
        return variances

    def control_factor(self, lane: LaneId, leaf: Leaf) -> tuple[float, float]:
        """Logarithm by which a controlled lane takes longer than the best of what its control chooses among: its mean,
        and its variance."""
        unknown, kin = (0.0, PRIOR.control**2), lane.kin
        mean, variance = self.controls.get(kin, unknown)
        of_task, its_variance = self.residuals.get((leaf.alike, kin), unknown)
        of_steps, their_variance = 0.0, PRIOR.control_step**2
        if (number := self.belief.numbers.get(_steps_of(lane))) is not None:
            of_steps, their_variance = float(self.belief.mean[number]), self.belief.variance(number)
        return mean + of_task + of_steps, variance + its_variance + their_variance

    def hazard_factors(self, engine: str, kind: str, task: Task) -> tuple[float, float]:
        """How many times as often as believed a drafter's tokens are rejected, at the first position and at later
        ones."""
        first, later = (self._hazard_factor(engine, kind, str(task), place) for place in controlled.PLACES)
        return first, later

    def _hazard_factor(self, engine: str, kind: str, task: str, place: str) -> float:
        rejected, believed = self.hazards.get((engine, kind, "", place), (0.0, 0.0))
        of_all = (HAZARD_WEIGHT + rejected) / (HAZARD_WEIGHT + believed)
        rejected, believed = self.hazards.get((engine, kind, task, place), (0.0, 0.0))
        factor = of_all * (HAZARD_WEIGHT + rejected) / (HAZARD_WEIGHT + of_all * believed)
        return max(1 / MAX_HAZARD, min(MAX_HAZARD, factor))

    def _context(self, ids: tuple[LaneId, ...], beside: tuple[float, ...], asked: Asked) -> Context:
        """What lanes feel of a request; remembered as long as the belief has the same unknowns."""
        key = ids, beside, asked
        context = self._contexts.get(key)
        if context is None or context.shape != self.belief.shape:
            if len(self._contexts) >= MAX_CONTEXTS:
                self._contexts.clear()
            context = self._contexts[key] = context_of(self._lanes(ids, beside), asked, self.belief)
        return context

    def _of_conversation(self, signals: Signals) -> float:
        """Strength of the request's conversation."""
        number = self.belief.numbers.get(("conversation", signals.conversation)) if signals.conversation else None
        return 0.0 if number is None else float(self.belief.mean[number])

    def _lanes(self, ids: tuple[LaneId, ...], beside: tuple[float, ...]) -> Lanes:
        key = ids, beside
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= MAX_LANES:
                self._made.clear()
            made = self._made[key] = Lanes(ids, beside)
        return made

    # Learning

    def learn(
        self,
        lane: LaneId,
        among: Sequence[LaneId],
        signals: Signals,
        beside: float,
        s_per_token: float,
        counts: Counts | None,
        told: Told | None = None,
        mean_draft: float | None = None,
    ) -> None:
        """Take in how long a lane took, chosen among some, and what its engine counted.

        A lane is expected to take what it would if all requests of a batch went down it, for that is what it costs
        them. Where the others did something else, a step's time tells of what all of them drafted.

        Args:
            mean_draft: tokens that a request of the batch drafted at each step, on average over all; ``None`` where
                that is not known.
            told: where the lane is controlled, what was expected.
        """
        shape, leaf, kin = shape_of(lane.strategy), leaf_of(signals, beside), lane.kin
        self.recent.append(signals)
        self.alike[leaf] = self.alike.get(leaf, 0) + 1
        self._note("alike", leaf, 1.0)
        self._tried(lane, among)
        wide = controlled.wide(tuple(among)).ids
        kinds = tuple(sorted({shape_of(other.strategy).kind for other in wide} - {PLAIN}))
        situation = Situation(wide, kinds, asked_of(signals), beside, mean_draft)
        if told is not None:
            more = self._learn_controlled(lane, situation, signals, log(s_per_token), counts)
            self._learn_factors(lane, leaf, log(s_per_token) + more, counts, told)
            return
        feeling = self._feeling(lane, situation)
        conversation = self._conversation(signals.conversation) if signals.conversation and shape.drafts else None
        if conversation is not None:
            feeling = feeling.of_conversation(conversation)
        time = log(s_per_token)
        self.belief.widen(*feeling.drifting)  # whatever an observation tells of may have changed a little
        self._widen_unseen(lane, wide)
        noise = self.noise

        # 1. A plain step shows the machine.
        if not shape.drafts:
            self.unseen[leaf[:3]] = self.unseen.get(leaf[:3], 0.0) + 1
            self.plain_under[load_of(beside)] = self.seen
            self._learn_step(feeling, situation, time, noise)
            return

        # 2. Counts show the length, and then the time shows the rest; else it shows their sum.
        residual, variance = self._residual(leaf.alike, lane)
        variance += PRIOR.residual_drift**2
        if counts and shape.looks_up and counts.verification_steps is not None:
            self.rates.learn(kin, counts.verification_steps / counts.steps)
            self._note("rates", kin, counts.verification_steps / counts.steps, 1.0)
        if counts and not shape.looks_up:
            alike = [
                self._feeling(other, situation) for other in wide if counts.by_position and _is_shorter(other, lane)
            ]
            if conversation is not None:
                alike = [other.of_conversation(conversation) for other in alike]
            self._learn_length(feeling, alike, counts, leaf, shape)
            step, noise = time + counts.length - residual, noise + variance
            miss, expected = self._learn_step(feeling, situation, step, noise)
        else:
            miss, expected = self._learn_sum(feeling, time - residual, noise + variance, leaf, shape)

        # 3. What is left.
        gain, bound = variance / expected, MAX_MISS * sqrt(expected)
        self.residuals[leaf.alike, kin] = residual + gain * max(-bound, min(bound, miss)), variance * (1 - gain)
        self._note("residuals", (leaf.alike, kin))

    def _learn_controlled(
        self, lane: LaneId, situation: Situation, signals: Signals, time: float, counts: Counts | None
    ) -> float:
        """Of a lane whose drafts differ from step to step: what each drafter's counts tell of it, and then what the
        mean of steps' times does.

        Returns:
            what is to be added to the logarithm of its time, had all requests of the batch drafted as it did.
        """
        leaf = leaf_of(signals, situation.beside)
        conversation = self._conversation(signals.conversation) if signals.conversation else None

        def feeling_of_part(part: LaneId) -> Feeling:
            feeling = self._feeling(part, situation)
            if conversation is None or not part.strategy.drafts:
                return feeling
            return feeling.of_conversation(conversation)

        plain = feeling_of_part(controlled.plain(lane))
        shares = controlled.step_shares(lane, counts.by_drafter, counts.steps) if counts else []
        drifting = dict(zip(*plain.drifting, strict=True))
        for part, _ in shares:
            drifting = dict(zip(*feeling_of_part(part).drifting, strict=True)) | drifting
        self.belief.widen(list(drifting), list(drifting.values()))

        # 1. What each drafter has accepted.
        for kind, drafted in counts.by_drafter.items() if counts else ():
            if drafted.accepted_by_position and drafted.steps and not looks_up(kind):
                known = [part for part in controlled.drafting(lane) if part.strategy.kind == kind]
                self._learn_reached(list(map(feeling_of_part, known)), drafted, leaf)
        (first, *others) = lane.strategy.among
        if counts and not others and looks_up(first.kind):
            last = feeling_of_part(shares[-1].lane if shares else controlled.drafting(lane)[-1])
            self._learn_length(last, [], counts._replace(by_position=()), leaf, shape_of(last.lane.strategy))
        elif not shares:
            self.unseen[leaf[:3]] = self.unseen.get(leaf[:3], 0.0) + 1

        # 2. What a step takes, from its parts as they are believed now.
        if not counts:
            return 0.0
        self._note_idle(lane, {part.strategy.kind for part, _ in shares})
        of_batch = _of_batch(lane, situation)
        of_batch = shares if of_batch is None else of_batch
        of_own, of_all = ([feeling_of_part(each.lane) for each in some] for some in (shares, of_batch))
        own_steps = number_of(self.belief, _steps_of(lane), PRIOR.control_step**2)
        self._learn_steps(plain, of_all, of_batch, time + counts.length, self.noise + SMALL, own_steps)
        return self._step_time(plain, of_own, shares) - self._step_time(plain, of_all, of_batch)

    def _learn_step(self, feeling: Feeling, situation: Situation, value: float, noise: float) -> tuple[float, float]:
        """Of a step's time, which is that of the batch; what it was off by, and the variance expected of that."""
        shares = _of_batch(feeling.lane, situation)
        if shares is None:
            return self._learn_time(feeling, value, noise)
        plain = self._feeling(controlled.plain(feeling.lane), situation)
        parts = [self._feeling(part, situation) for part, _ in shares]
        return self._learn_steps(plain, parts, shares, value, noise)

    def _note_idle(self, lane: LaneId, used: Collection[str]) -> None:
        """What a control left alone may be cheaper than it was when it was seen."""
        for drafter in lane.strategy.among:
            key = lane.fingerprint, drafter.kind
            if drafter.kind in used:
                self.idle[key] = 0
                continue
            self.idle[key] = self.idle.get(key, 0) + 1
            number = number_of(self.belief, ("jump", *key), (1 - SHARED_JUMP) * PRIOR.jump**2)
            if self.belief.variance(number) < PRIOR.jump**2:
                self.belief.widen([number], [PRIOR.cost_unseen**2])

    def _learn_factors(self, lane: LaneId, leaf: Leaf, time: float, counts: Counts | None, told: Told) -> None:
        """What is left: of the lane's time and of a task on it, and of what each drafter has accepted of a task."""
        expected = told.variance + self.noise
        bound = MAX_MISS * sqrt(expected)
        miss = max(-bound, min(bound, time - told.time))
        unknown, kin = (0.0, PRIOR.control**2), lane.kin
        mean, variance = self.controls.get(kin, unknown)
        of_task, its_variance = self.residuals.get((leaf.alike, kin), unknown)
        self.controls[kin] = _corrected(mean, variance, miss, expected)
        self.residuals[leaf.alike, kin] = _corrected(of_task, its_variance, miss, expected)
        self._note("controls", kin)
        self._note("residuals", (leaf.alike, kin))
        for kind, drafted in counts.by_drafter.items() if counts else ():
            if not told.acceptance.get(kind):
                continue
            factors = self.hazard_factors(lane.fingerprint, kind, leaf.task)
            seen = controlled.hazard_counts(drafted, told.acceptance[kind])
            for (place, (rejected, believed)), factor in zip(seen.items(), factors, strict=True):
                for task in ("", str(leaf.task)):
                    before = self.hazards.get((lane.fingerprint, kind, task, place), (0.0, 0.0))
                    after = HAZARD_FADING * before[0] + rejected, HAZARD_FADING * before[1] + believed / factor
                    self.hazards[lane.fingerprint, kind, task, place] = after
                    self._note("hazards", (lane.fingerprint, kind, task, place), rejected, believed / factor)

    def _learn_reached(self, feelings: Sequence[Feeling], drafted: DraftCounts, leaf: Leaf) -> None:
        """Of a drafter's acceptance lengths, as far as its drafts went.

        Args:
            feelings: at its lengths.
        """
        longest = draft_length(feelings[-1].lane.strategy)
        steps, by_position = controlled.reached(drafted, longest)
        felt = [each for each in feelings if draft_length(each.lane.strategy) <= len(by_position)]
        if not felt or steps < 1:
            return
        *shorter, last = felt
        by_position = by_position[: draft_length(last.lane.strategy)]
        counts = Counts(steps + sum(by_position), steps, None, by_position)
        self._learn_length(last, shorter, counts, leaf, shape_of(last.lane.strategy))

    def _learn_steps(
        self,
        plain: Feeling,
        parts: Sequence[Feeling],
        shares: Sequence[controlled.StepShare],
        time: float,
        noise: float,
        own: int | None = None,
    ) -> tuple[float, float]:
        """Of the logarithm of steps' mean time: a sum of times, of which the logarithm is taken to change with each as
        it does where they are believed to be.

        Args:
            own: an unknown that these steps have beside.
        """
        value, slopes = controlled.step_time(*self._believed_times(plain, parts), shares)
        factors: dict[int, float] = {}
        weights = [1.0 - sum(slopes), *slopes]
        for part, weight in zip((plain, *parts), weights, strict=True):
            for number, factor in zip(part.cost.numbers, part.cost.factors, strict=True):
                factors[number] = factors.get(number, 0.0) + weight * factor
        together = Sum()
        for number, factor in factors.items():
            together.add(number, factor)
        together.mean = value - sum(factor * float(self.belief.mean[number]) for number, factor in factors.items())
        if own is not None:
            together.add(own, 1.0)
        return self._learn_time(plain._replace(cost=together), time, noise)

    def _step_time(self, plain: Feeling, parts: Sequence[Feeling], shares: Sequence[controlled.StepShare]) -> float:
        """Its logarithm, as it is believed to be."""
        return controlled.step_time(*self._believed_times(plain, parts), shares)[0]

    def _believed_times(self, plain: Feeling, parts: Sequence[Feeling]) -> tuple[float, list[float]]:
        """Logarithms of a plain step's time, and of other steps' over it."""
        of_plain, *others = (_believed(part.cost, self.belief) for part in (plain, *parts))
        return of_plain, [other - of_plain for other in others]

    def _feeling(self, lane: LaneId, situation: Situation) -> Feeling:
        """What one lane feels of a request; what is new is added to the belief. Remembered as long as the belief's
        unknowns stand where they do."""
        kinds, asked, beside = situation.kinds, situation.asked, situation.beside
        key = lane, kinds, asked, beside
        feeling = self._feelings.get(key)
        if feeling is None or feeling.kept != self.belief.kept:
            if len(self._feelings) >= MAX_CONTEXTS:
                self._feelings.clear()
            feeling = self._feelings[key] = feeling_of(lane, kinds, asked, beside, self.belief)
        for group in feeling.keys:
            self.groups[group] = self.groups.pop(group, None)
        return feeling

    def _widen_unseen(self, lane: LaneId, among: Sequence[LaneId]) -> None:
        """Other machines may be slower or faster than when they were last seen: one that was ill is tried again."""
        for pace in {other.pace for other in among} - {lane.pace}:
            if pace not in self.belief.numbers and pace[0] == "replica":
                continue
            number = number_of(self.belief, pace, PRIOR.device**2)
            if self.belief.variance(number) < 2 * PRIOR.device**2:
                self.belief.widen([number], [PRIOR.machine_changed**2 / PRIOR.machine_unseen])

    def _learn_time(self, feeling: Feeling, value: float, noise: float) -> tuple[float, float]:
        """Of a time without the length; what it was off by, and the variance expected of that."""
        indexes, factors = feeling.cost.arrays()
        value -= feeling.cost.mean
        miss, expected = self.belief.observe(indexes, factors, value, noise)
        machine = feeling.lane.pace
        if self._changes.has(machine, miss, expected):
            self.belief.widen([self.belief.numbers[machine]], [PRIOR.machine_changed**2])
            self.belief.observe(indexes, factors, value, noise)
        square = _without(miss, expected, self.noise)
        self.noises.learn("time", square)
        self._note("noises", "time", square, 1.0)
        return miss, expected

    def _learn_length(
        self, feeling: Feeling, shorter: Sequence[Feeling], counts: Counts, leaf: Leaf, shape: Shape
    ) -> None:
        """Of the acceptance length that was counted; and where it was counted by position, of those that the drafts
        would have had at shorter lanes' caps."""
        spread, steps = self._spread(leaf, shape.kind) * shape.feels**2, counts.steps
        indexes, factors = feeling.length.arrays()
        value, noise = counts.length - feeling.length.mean, spread + 0.5 / steps + SMALL
        if counts.by_position:
            miss, expected = self._learn_positions([*shorter, feeling], counts, spread)
        else:
            miss, expected = self.belief.observe(indexes, factors, value, noise)
        if self._has_changed(miss, expected, leaf, shape):
            self.belief.observe(indexes, factors, value, noise)
        self._learn_spread(leaf, shape, miss, expected, spread)

    def _learn_positions(self, feelings: Sequence[Feeling], counts: Counts, spread: float) -> tuple[float, float]:
        """Of the lengths at all these caps, the whole draft's last; what that was off by."""
        felt = dict.fromkeys(number for feeling in feelings for number in feeling.length.numbers)
        columns = {number: place for place, number in enumerate(felt)}
        factors = np.zeros((len(feelings), len(columns)))
        for row, feeling in enumerate(feelings):
            for number, factor in zip(feeling.length.numbers, feeling.length.factors, strict=True):
                factors[row, columns[number]] += factor
        shapes = [shape_of(feeling.lane.strategy) for feeling in feelings]
        accepted = [sum(counts.by_position[: shape.drafted]) / counts.steps for shape in shapes]
        values = np.log1p(accepted) - [feeling.length.mean for feeling in feelings]
        feels = np.array([shape.feels for shape in shapes])
        together = (spread + 0.4 / counts.steps) / shapes[-1].feels ** 2
        noises = together * np.outer(feels, feels) + (0.1 / counts.steps + SMALL) * np.eye(len(feelings))
        misses, variances = self.belief.observe_together(np.array(list(columns), np.intp), factors, values, noises)
        return float(misses[-1]), float(variances[-1])

    def _learn_sum(self, feeling: Feeling, value: float, noise: float, leaf: Leaf, shape: Shape) -> tuple[float, float]:
        """Of a time as a whole; what it was off by, and the variance expected of that."""
        indexes, factors = feeling.cost.less(feeling.length)
        value -= feeling.cost.mean - feeling.length.mean
        spread = self._spread(leaf, shape.kind) * shape.feels**2
        miss, expected = self.belief.observe(indexes, factors, value, noise + spread)
        if self._has_changed(miss, expected, leaf, shape):
            self.belief.observe(indexes, factors, value, noise + spread)
        self._learn_spread(leaf, shape, miss, expected, spread)
        return miss, expected

    def _has_changed(self, miss: float, expected: float, leaf: Leaf, shape: Shape) -> bool:
        """Whether misses tell that a task has changed, in the application if there is one; what is known of it is then
        less."""
        key = leaf[:3], shape.kind
        has_changed = self._changes.has(key, miss, expected)
        self.unseen[leaf[:3]] = self.unseen.get(leaf[:3], 0.0) * self._changes.suspicion(key)
        number = self.belief.numbers.get(("strength", *changing_group(leaf)))
        if has_changed and number is not None:
            self.belief.widen([number], [PRIOR.changed**2])
        return has_changed

    def unseen_gain(self, expected: Expected, best: int) -> float:
        """By how much drafting could be expected to be better than a plain lane, as a logarithm of time, had the task
        changed while no drafts were seen.

        Args:
            best: number of the lane.
        """
        leaf = expected.leaves[best]
        unseen = self.unseen.get(leaf[:3], 0.0)
        if expected.shapes[best].drafts or not unseen:
            return 0.0
        key = changing_group(leaf)
        number = self.belief.numbers.get(("strength", *key))
        mean = 0.0 if number is None else float(self.belief.mean[number])
        if mean >= 0:
            return 0.0
        shapes = expected.shapes
        if_new = [time + shape.strength * mean for time, shape in zip(expected.times, shapes, strict=True)]
        return max(0.0, expected.times[best] - min(if_new)) * min(1.0, unseen / PRIOR.unseen_change)

    def _spread(self, leaf: Leaf, kind: str) -> float:
        """Variance between requests of the strength of a kind of drafter."""
        return self.spreads.of((leaf.alike, kind), PRIOR.spread**2)

    def _learn_spread(self, leaf: Leaf, shape: Shape, miss: float, expected: float, spread: float) -> None:
        square = _without(miss, expected, spread) / max(0.2, shape.feels**2)
        self.spreads.learn((leaf.alike, shape.kind), square)
        self._note("spreads", (leaf.alike, shape.kind), square, 1.0)

    def _residual(self, alike: Alike, lane: LaneId) -> tuple[float, float]:
        return self.residuals.get((alike, lane.kin)) or (0.0, PRIOR.residual**2 if lane.strategy.drafts else 0.0)

    def compared(self, times: dict[LaneId, float], taken: LaneId, tokens: int) -> None:
        """Take in what each lane was expected to take for a request, in seconds per token, and which one served."""
        taken_s = times[taken] * tokens
        fastest: dict[LaneId, float] = {}
        for each, s_per_token in times.items():
            fastest[each.kin] = min(s_per_token, fastest.get(each.kin, s_per_token))
        for lane, s_per_token in fastest.items():
            lane_s, others_s = self.always.pop(lane, (0.0, 0.0))
            self.always[lane] = ALWAYS_FADING * lane_s + s_per_token * tokens, ALWAYS_FADING * others_s + taken_s
            self._note("always", lane, s_per_token * tokens, taken_s)
        while len(self.always) > MAX_LANES:
            del self.always[next(iter(self.always))]

    def merge(self, other: "TimeModel") -> None:
        """Also know what another one has learned."""
        self.saved = None
        belief, theirs = self.belief, other.belief
        names = sorted(theirs.numbers, key=theirs.numbers.__getitem__)
        for name in names:
            if name not in belief.numbers:
                belief.add(name, float(theirs.prior[theirs.numbers[name]]))
        if names:
            belief.add_evidence(names, *theirs.evidence(names))
        belief.take_over(theirs)
        for (part, key), (first, second) in (other.untold or {}).items():
            self._note(part, key, first, second)
        self.groups |= other.groups
        self.conversations |= other.conversations
        self.machines |= other.machines
        for lane, tries in other.lanes.items():
            self.lanes[lane] = self.lanes.get(lane, 0) + tries
        for drafter, tries in other.tries.items():
            self.tries[drafter] = self.tries.get(drafter, 0) + tries
        for leaf, requests in other.alike.items():
            self.alike[leaf] = self.alike.get(leaf, 0) + requests
        for about, unseen in other.unseen.items():
            self.unseen[about] = self.unseen.get(about, 0.0) + unseen
        for lane, factor in other.controls.items():
            self.controls[lane] = min(self.controls.get(lane, factor), factor, key=lambda known: known[1])
        for place, residual in other.residuals.items():
            self.residuals[place] = min(self.residuals.get(place, residual), residual, key=lambda known: known[1])
        for ours, others in (
            (self.spreads.sums, other.spreads.sums),
            (self.noises.sums, other.noises.sums),
            (self.rates.sums, other.rates.sums),
            (self.hazards, other.hazards),
            (self.always, other.always),
        ):
            for key, (first, second) in others.items():
                own_first, own_second = ours.get(key, (0.0, 0.0))
                ours[key] = own_first + first, own_second + second
        self.seen += other.seen
        self.at_s = max(self.at_s, other.at_s)
        self.forget()

    # What others are told of it, and tell

    def share(self) -> None:
        """From now on, note what is learned for others."""
        self.belief.share()
        if self.untold is None:
            self.untold = Recent()

    def tell_all(self) -> None:
        """Have others told all that is known, as if it had been learned now."""
        self.belief.tell_all()
        self.untold = Recent()
        self._note("seen", "", float(self.seen))
        for lane, tries in self.lanes.items():
            self._note("tries", lane, float(tries))
        for leaf, requests in self.alike.items():
            self._note("alike", leaf, float(requests))
        for part, known in (("residuals", self.residuals), ("controls", self.controls)):
            for key in known:
                self._note(part, key)
        for part, sums in (
            ("spreads", self.spreads.sums),
            ("noises", self.noises.sums),
            ("rates", self.rates.sums),
            ("always", self.always),
            ("hazards", self.hazards),
        ):
            for key, (first, second) in sums.items():
                self._note(part, key, first, second)

    def _note(self, part: str, key: Hashable, first: float = 0.0, second: float = 0.0) -> None:
        """Something was learned; where it is of sums, so much was added to them."""
        if self.untold is not None:
            before = self.untold.get((part, key), (0.0, 0.0))
            self.untold[part, key] = before[0] + first, before[1] + second

    def count(self, at_s: float) -> None:
        """An outcome is being learned."""
        self.seen += 1
        self.saved = None
        self.at_s = max(self.at_s, at_s)
        self._note("seen", "", 1.0)

    def know(self, names: Sequence[Name], prior: Floats) -> None:
        """Have unknowns in the belief, with their variances before anything was observed of them."""
        for name, variance in zip(names, prior.tolist(), strict=True):
            if name not in self.belief.numbers:
                self.belief.add(name, variance)
            if name[0] in ("strength", "content", "tilt"):
                self.groups.setdefault(name[1:])
            elif name[0] == "conversation":
                self.conversations.setdefault(name[1])
            elif name[0] == "replica":
                self.machines.setdefault(name[1])

    def count_tries(self, lane: LaneId, tries: int) -> None:
        """Others have tried a lane so often."""
        self.lanes[lane] = self.lanes.get(lane, 0) + tries
        drafter = lane.fingerprint, shape_of(lane.strategy).kind
        self.tries[drafter] = self.tries.get(drafter, 0) + tries

    # Unknowns that come and go

    def _tried(self, lane: LaneId, among: Sequence[LaneId]) -> None:
        """Count a try."""
        for other in among:
            self.lanes[other.kin] = self.lanes.pop(other.kin, 0)
            if other.machine:
                self.machines[other.machine] = self.machines.pop(other.machine, None)
        kin = lane.kin
        self.lanes[kin] = self.lanes.pop(kin, 0) + 1
        self._note("tries", kin, 1.0)
        drafter = lane.fingerprint, shape_of(lane.strategy).kind
        self.tries[drafter] = self.tries.get(drafter, 0) + 1
        self.forget_some()

    def forget_some(self) -> None:
        """Where there is too much of something."""
        bounds = (
            (self.lanes, MAX_LANES),
            (self.groups, MAX_GROUPS),
            (self.conversations, MAX_CONVERSATIONS),
            (self.machines, MAX_MACHINES),
            (self.belief.numbers, MAX_UNKNOWNS),
        )
        if any(len(known) > MORE * most for known, most in bounds):
            self.forget()

    def forget(self) -> None:
        """What was not met for longest gives way, with all that only it has felt."""
        self.lanes = dict(list(self.lanes.items())[-MAX_LANES:])
        self.groups = dict(list(self.groups.items())[-MAX_GROUPS:])
        self.conversations = dict(list(self.conversations.items())[-MAX_CONVERSATIONS:])
        self.machines = dict(list(self.machines.items())[-MAX_MACHINES:])
        engines = {lane.fingerprint for lane in self.lanes}
        self.tries = {drafter: tries for drafter, tries in self.tries.items() if drafter[0] in engines}
        parts = {part for lane in self.lanes for part in controlled.parts(lane)}
        felt = {unknown.name for part in parts for unknown in (*unknowns_of(part, 2.0**LOADS), *depth_of(part, 1.0))}
        felt |= {_steps_of(lane) for lane in self.lanes if lane.strategy.among}
        felt |= {(part, machine) for machine in self.machines for part in ("replica", "replica cost")}
        groups = {(part, *key) for key in self.groups for part in ("strength", "content", "tilt")}
        self.belief.keep(felt | groups | {("conversation", name) for name in self.conversations})

    def _conversation(self, name: str) -> int:
        """Where a conversation's strength stands: of too many, in the place of the one that was longest not met."""
        belief, key, known = self.belief, ("conversation", name), self.conversations
        is_new = name not in known
        known.pop(name, None)
        known[name] = None
        if not is_new:
            return belief.numbers[key]
        if len(known) <= MAX_CONVERSATIONS:
            return belief.add(key, PRIOR.conversation**2)
        old = next(iter(known))
        del known[old]
        return belief.replace(("conversation", old), key, PRIOR.conversation**2)


def _is_shorter(other: LaneId, lane: LaneId) -> bool:
    """Whether another lane has the same drafter and shorter drafts."""
    first, second = shape_of(other.strategy), shape_of(lane.strategy)
    is_alike = other.fingerprint == lane.fingerprint and other.model == lane.model and first.kind == second.kind
    return is_alike and first.drafted < second.drafted


def _of_batch(lane: LaneId, situation: Situation) -> list[controlled.StepShare] | None:
    """Which steps a lane's batch made; ``None`` where that is not known."""
    if situation.mean_draft is None:
        return None
    heads = controlled.head_lanes(lane, situation.among)
    return controlled.batch_shares(heads, situation.mean_draft) if heads else None


def _steps_of(lane: LaneId) -> Name:
    """The unknown that is a controlled lane's steps' own."""
    return "own cost", lane.fingerprint, lane.strategy.kind, "by step"


def _corrected(mean: float, variance: float, miss: float, expected: float) -> tuple[float, float]:
    """A number's mean and variance after a sum that it is part of was off."""
    gain = variance / expected
    return mean + gain * miss, variance * (1 - gain) + PRIOR.residual_drift**2


def _believed(total: Sum, belief: Belief) -> float:
    indexes, factors = total.arrays()
    return total.mean + float(factors @ belief.mean[indexes])


def _without(miss: float, expected: float, part: float) -> float:
    """What a miss tells of one part of the variance that was expected of it; at least nothing."""
    return max(0.0, min(miss * miss, MAX_MISS**2 * expected) - (expected - part))
