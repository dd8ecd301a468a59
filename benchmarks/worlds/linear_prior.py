"""What the linear model believes before it has seen anything: shapes over the draft's length, means and deviations."""

from collections.abc import Mapping, Sequence
from functools import cache
from math import log, log2

import numpy as np
from msgspec import Struct

from benchmarks.worlds.published import Floats
from paceline.types import Lane, Task


class Prior(Struct, frozen=True):
    """Standard deviations, unless they are said to be something else. Logarithms are natural: 0.1 is a tenth of the
    time. A strength is in logarithms of the acceptance length at 3 drafted tokens; 0.3 of it is a logit of acceptance.

    Sensitivity: half or twice any of them changes the means over all worlds by 0.002 or less, unless it is said
    (docs/decisions/0017).
    """

    # What is shared by all requests.
    machine_mean: float = -3.5
    """Mean of a plain step's seconds, as a logarithm: 33 tokens per second; the first request tells."""
    machine: float = 3.0
    cost: float = 0.6
    """Of a step cost's logarithm, as a share of it: published cards have 0.5 to 2.5 times the mean (published.toml)."""
    jump: float = 0.45
    """Of what verifying costs at all: 1.1 for a mixture of experts (GLM-4.5-Air), 0.5 on an R9700, 0 on most; most of
    it common to all drafters, which also stands for a plain lane that is slower or faster than its engine could be.
    With 0.2 a mixture of experts is not understood (0.8 instead of 0.97)."""
    own_cost: float = 0.05
    """Of a lane's step cost beside its neighbours': what the published costs deviate from a smooth curve."""
    engine: float = 0.15
    """Of another engine's time beside the first one's."""
    length: float = 0.35
    """Of a drafter's acceptance length at 3 tokens: published heads have 2.5 to 3.4 for code."""
    own_length: float = 0.03
    """Of a lane's acceptance length beside its neighbours'."""
    load: float = 0.2
    """Of what each doubling of concurrency adds to any lane's time, over its mean."""
    load_of_cost: float = 0.3
    """The same of a step's cost, as a share of it."""

    # What groups of requests have in common.
    task: float = 0.17
    """Strength of a task: deviations of mtp-bench.py's prompts, half of which the mean has. With twice as much the
    first 50 requests lose 0.006."""
    application: float = 0.16
    """At one place in its loop. Guessed, as the next two."""
    language: float = 0.08
    """Of what can't be told, by the language of people who ask by themselves. A group of the language whatever is asked
    cost 0.04 in a world where a task changes, as it took the blame."""
    reasoning: float = 0.14
    drafter: float = 0.15
    """Strength of a task for one kind of drafter, beside the others: Spec-Bench's table."""
    lookup: float = 0.3
    """The same for a lookup, which depends on what the answer copies: twice as different there."""
    conversation: float = 0.3
    """Of a conversation's strength: a logit."""
    tilt: float = 0.35
    """Of a group's tilt, as a share of its strength's deviation."""
    content: float = 0.9
    """Of how much dearer a group's verification is, as a share of both its strength's deviation and the step cost's
    logarithm: 0.15 for a task, as ggml-org/llama.cpp #22673 implies on a laptop."""

    # What is left.
    residual: float = 0.03
    """Of a leaf's time on a lane. With 0.05 there is too much to explore (-0.001)."""
    spread: float = 0.15
    """By which requests of a leaf differ in strength, then learned: half a logit (request_spread()).
    Half or twice as much costs 0.003."""
    time_noise: float = 0.07
    """Of a measured time, then learned: 4 to 8 % (published.toml)."""

    # What changes.
    machine_drift: float = 0.02
    """By request."""
    machine_changed: float = 0.5
    """By which a machine is slower or faster when it throttles or others compute."""
    drift: float = 0.003
    """Of what an observation tells of, each time. With none nothing changes: changes are told apart."""
    residual_drift: float = 0.001
    changed: float = 0.4
    """Of a group's strength when it changes: from stories to math, or to nothing."""
    unseen_change: float = 800.0
    """Requests of a task after which it may have changed where only plain was taken, which shows no drafts. With 150 a
    change from nothing is found sooner (0.85 instead of 0.7 in requests 31 to 60), and drafting that never pays costs
    0.006."""
    change_interval: float = 6.0
    """Standard deviations of misses to one side, summed up, that tell a change. With 5 false ones cost 0.001."""

    def of_group(self, strength: float) -> tuple[float, float, float]:
        """Deviations of a group's strength, tilt and content."""
        return strength, self.tilt * strength, self.content * strength

    def of_drafter(self, is_lookup: bool) -> tuple[float, float, float]:
        """The same of a kind of drafter at one task."""
        return (self.lookup if is_lookup else self.drafter), 0.03, 0.05


ACCEPTED_FIRST, ACCEPTED_LESS, ACCEPTED_LAST = 0.80, 0.045, 0.3
"""Probability that a drafted token is accepted if all before it were: of the first, how much less of each further one,
and the least. About the middle of published heads (published.toml) over all tasks."""
JUMP_SHARED = 0.7
"""Of what verifying costs at all, as variance: common to all drafters."""
STEP_COST_SLOPE = 0.3
"""Of the logarithm of a step's cost: log(1 + 0.3 n) of n drafted tokens, an RTX 3090's."""
ACCEPTED_AT = 0.72
"""Acceptance at which the lengths' sensitivity to a logit is taken: long drafts feel one twice as much. At 0.5 it
costs 0.001."""
LOOKUP_SHARE = 0.3
"""Lookups find nothing to draft in most steps: of the logarithms of a draft's cost and length, and of what a task's
strength does to it, this share is felt."""
TASK_LOGITS: Mapping[Task, float] = {
    Task.CODE: 0.0,
    Task.EDIT: 0.4,
    Task.MATH: 0.37,
    Task.SUMMARISE: 0.26,
    Task.EXTRACT: 0.2,
    Task.TOOL_CALL: 0.2,
    Task.RETRIEVE: 0.16,
    Task.ANSWER: -0.22,
    Task.REASON: -0.3,
    Task.TRANSLATE: -0.47,
    Task.CHAT: -0.4,
    Task.CREATE: -0.79,
    Task.UNKNOWN: -0.1,
}
"""Acceptance by task over code's: of mtp-bench.py's prompts (published.toml); edits, extracts, calls and chat are
guesses, and what can't be told is in the middle."""
LOGIT = 0.3
"""Strength of one logit."""
PUBLISHED_SHARE = 0.5
"""Of what was published of a task that is believed of another model's: models differ as much as tasks do."""
LOADS = 7
"""Concurrencies that are told apart: 1, 3, 7 ... 127 others."""
LOAD_MEAN, LOAD_OWN = 0.1, 0.3
"""What each doubling adds to the logarithm of time (times log 2), and how far single concurrencies deviate from what
all have in common, as a share."""
NEAR = 0.6
"""Distance of logarithms of draft lengths at which lanes have little in common."""


class Shapes:
    """Of each lane: what it is, and how much of each unknown it feels. Arrays have an item for each lane."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        strategies = [lane.strategy for lane in lanes]
        self.names = [lane.name for lane in lanes]
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.engines = [lane.engine for lane in lanes]
        self.kinds = [strategy.kind if strategy.drafts else "" for strategy in strategies]
        self.drafting_kinds = sorted(set(self.kinds) - {""})
        self.drafts: Floats = np.array([float(strategy.drafts) for strategy in strategies])
        self.looks_up = np.array([kind.startswith("ngram") for kind in self.kinds])
        self.drafted = [(strategy.n_max or 5) if strategy.drafts else 0 for strategy in strategies]
        lengths = np.array(self.drafted, float)

        self.cost: Floats = np.log1p(STEP_COST_SLOPE * lengths) * np.where(self.looks_up, LOOKUP_SHARE, 1.0)
        """Mean logarithm of the step's cost; what content and load add is in proportion to it."""
        self.length: Floats = np.array(
            [
                _length(drafted, 0.0 if looks_up else ACCEPTED_LESS)
                for drafted, looks_up in zip(self.drafted, self.looks_up, strict=True)
            ]
        )
        self.length *= np.where(self.looks_up, LOOKUP_SHARE, 1.0)
        """Mean logarithm of the acceptance length."""
        feels = np.array([_sensitivity(drafted) for drafted in self.drafted]) / _sensitivity(3)
        self.feels: Floats = np.where(self.looks_up, feels / _sensitivity(8) * _sensitivity(3), feels)
        """By how much the logarithm of its acceptance length changes with its own drafter's strength."""
        self.strength: Floats = self.feels * np.where(self.looks_up, LOOKUP_SHARE, 1.0)
        """The same with a strength of all drafters."""
        logarithms, drafting = np.log1p(lengths), self.drafts > 0
        middle = logarithms[drafting].mean() if drafting.any() else 0.0
        scale = max(0.3, logarithms[drafting].std()) if drafting.any() else 1.0
        self.tilt: Floats = self.drafts * self.strength * (logarithms - middle) / scale
        """By how much with a tilt towards long drafts."""

        self.shorter = [self._shorter(lane) for lane in range(len(lanes))]
        """Lanes of the same drafter with drafts as long or shorter, whose lengths its counts by position tell; the lane
        itself is the last."""
        self._felt = {
            kind: (shape * mask, self.tilt * mask, self.cost * mask)
            for kind, shape, mask in [
                ("", self.strength, self.drafts),
                *(
                    (kind, self.feels, np.array([float(kind == other) for other in self.kinds]))
                    for kind in self.drafting_kinds
                ),
            ]
        }

        self.same: Floats = np.array([[float(a == b != "") for b in self.kinds] for a in self.kinds])
        self.near: Floats = np.exp(-0.5 * ((logarithms[:, None] - logarithms[None]) / NEAR) ** 2)
        elsewhere = np.array([float(engine != self.engines[0]) for engine in self.engines])
        same_engine = np.array([[float(a == b) for b in self.engines] for a in self.engines])
        self.elsewhere: Floats = np.outer(elsewhere, elsewhere) * same_engine

    def _shorter(self, lane: int) -> list[int]:
        alike = [
            other
            for other in range(len(self.names))
            if (self.kinds[other], self.engines[other]) == (self.kinds[lane], self.engines[lane])
            and self.drafted[other] < self.drafted[lane]
        ]
        return [*alike, lane]

    def cost_covariance(self, prior: Prior) -> Floats:
        costs = np.outer(self.cost, self.cost) * prior.cost**2 * (0.3 + 0.7 * self.same)
        jumps = prior.jump**2 * (JUMP_SHARED * np.outer(self.drafts, self.drafts) + (1 - JUMP_SHARED) * self.same)
        result: Floats = costs + jumps + np.diag(self.drafts * prior.own_cost**2) + self.elsewhere * prior.engine**2
        return result

    def length_covariance(self, prior: Prior) -> Floats:
        feels = np.minimum(self.strength, 1.5)
        kin = 0.2 * np.outer(self.drafts, self.drafts) + 0.8 * self.same
        result: Floats = prior.length**2 * np.outer(feels, feels) * self.near * kin
        return result + np.diag(self.drafts * prior.own_length**2)

    def load_prior(self, prior: Prior) -> tuple[Floats, Floats]:
        """Of what a concurrency adds to a lane's time, by concurrency and lane: mean and covariance. It mostly grows
        with the doublings."""
        costs = np.outer(self.cost, self.cost) * prior.load_of_cost**2 * (0.3 + 0.7 * self.same)
        lanes = prior.load**2 + costs + self.elsewhere * 0.1**2 + 0.02**2 * np.eye(len(self.names))
        doublings = log(2) * np.arange(1, LOADS + 1)
        apart = np.exp(-0.5 * np.subtract.outer(doublings, doublings) ** 2)
        loads = np.outer(doublings, doublings) * (1 + LOAD_OWN**2 * apart)
        return np.repeat(LOAD_MEAN * doublings, len(self.names)), np.kron(loads, lanes)

    def felt(self, kind: str) -> tuple[Floats, Floats, Floats]:
        """How much lanes feel the strength, tilt and content of a group; of one that is about a kind of drafter, if it
        is named."""
        return self._felt[kind]


def load_shapes(beside: float) -> list[tuple[int, float]]:
    """Which of the concurrencies that are told apart (1, 3, 7 ... others), and how much of each: between two of them in
    proportion to the logarithm; none where nothing else is decoded."""
    place = min(log2(1 + beside), float(LOADS))
    below = int(place)
    shares = ((below - 1, 1 - (place - below)), (below, place - below))
    return [(knot, share) for knot, share in shares if knot >= 0 and share > 0]


def task_strength(task: Task) -> float:
    """Mean of a task's strength."""
    return PUBLISHED_SHARE * LOGIT * TASK_LOGITS[task]


def _length(drafted: int, less: float) -> float:
    """Mean logarithm of a head's acceptance length."""
    reached, total = 1.0, 1.0
    for position in range(drafted):
        reached *= max(ACCEPTED_LAST, ACCEPTED_FIRST - less * position)
        total += reached
    return float(np.log(total))


@cache
def _sensitivity(drafted: int) -> float:
    """Change of the logarithm of 1 + a + ... + a^n with the logit of a."""
    powers = np.arange(drafted + 1)
    total = (ACCEPTED_AT**powers).sum()
    change = (powers * ACCEPTED_AT**powers).sum() * (1 - ACCEPTED_AT)
    return float(change / total)
