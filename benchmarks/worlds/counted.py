"""Worlds of engines that draft with their own heads: what is accepted is drawn position by position."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from benchmarks.worlds.controlled import Answer, Machinery, play
from benchmarks.worlds.published import Floats, request_spread, shifted, time_noise, tokens_per_step
from benchmarks.worlds.requests import Arrivals, Mix, draw
from benchmarks.worlds.traffic import Ints, Traffic
from paceline.inside.draft_control import Drafter
from paceline.types import DraftCounts, Lane, Strategy

MAX_DEVIATIONS = 3.0
"""Standard deviations; no request is further from its kind."""

Schedule = Callable[[int, np.random.Generator], Floats]
"""A number for each request."""


class Drafting(Struct, frozen=True):
    """What a drafter does for a kind of request."""

    acceptance: Floats
    """By position in the draft."""
    coverage: Floats | None = None
    """Of a lookup: shares of the tokens that come out of drafting steps, of which each request has one; ``None`` where
    every step drafts."""


class Machine(Struct, frozen=True):
    """What steps cost."""

    plain_step_s: float
    costs: Floats
    """Of a step that verifies 0, 1, 2 ... drafted tokens, in plain steps."""
    content: Mapping[str, float] = {}
    """By kind: how much dearer a verifying step is, as in mixtures of experts."""
    slowdown: Schedule | None = None
    """By request: times slower than at first, all lanes alike."""
    extra_step_cost: Schedule | None = None
    """By request: what is added to a verifying step's cost."""


class CountedWorld(Struct, frozen=True):
    """Lanes of one engine: plain, and drafters at several lengths."""

    name: str
    about: str
    mix: Mix
    strategies: tuple[Strategy, ...]
    drafting: Mapping[str, Mapping[str, Drafting]]
    """By kind of drafter, by kind of request."""
    machine: Machine
    tells_counts: bool = True
    behaves_as: Callable[[int, np.random.Generator], Ints] | None = None
    """By request and kind: the index of the kind whose acceptance it has; by default its own."""
    changes: tuple[str, int] | None = None
    request_spread: float = request_spread()

    def traffic(self, requests: int, seed: int) -> Traffic:
        rng = np.random.default_rng(seed)
        return self.answers(draw(self.mix, requests, rng), rng)

    def answers(self, arrivals: Arrivals, rng: np.random.Generator) -> Traffic:
        """What lanes make of requests of this world's mix, wherever these come from."""
        # 1. What is true of each request on every lane.
        requests = len(arrivals.signals)
        own = np.tile(np.arange(len(self.mix.kinds)), (requests, 1))
        behaviours = own if self.behaves_as is None else self.behaves_as(requests, rng)
        slowdown = _scheduled(self.machine.slowdown, 1.0, requests, rng)
        extra = _scheduled(self.machine.extra_step_cost, 0.0, requests, rng)
        true = _True(
            kinds=arrivals.kinds,
            tokens=arrivals.tokens,
            behaves=behaviours[np.arange(requests), arrivals.kinds],
            deviation=self.request_spread * np.clip(rng.standard_normal(requests), -MAX_DEVIATIONS, MAX_DEVIATIONS),
            rank=rng.random(requests),
            step_s=self.machine.plain_step_s * slowdown,
            extra_step_cost=extra,
        )

        # 2. What each lane makes of it, and what its engine would tell.
        columns = [self._column(strategy, true, rng) for strategy in self.strategies]
        made_s = np.stack([column.made_s for column in columns], axis=1)
        counts = self.tells_counts
        return Traffic(
            lanes=[Lane(strategy.name, "engine", strategy) for strategy in self.strategies],
            signals=arrivals.signals,
            kinds=[self.mix.kinds[kind].name for kind in arrivals.kinds],
            expected_s=np.stack([column.expected_s for column in columns], axis=1),
            observed_s=made_s * np.exp(rng.normal(0, time_noise(), made_s.shape)),
            tokens=np.stack([column.tokens for column in columns], axis=1),
            drafted=np.stack([column.drafted for column in columns], axis=1) if counts else None,
            accepted=np.stack([column.accepted for column in columns], axis=1) if counts else None,
            steps=np.stack([column.steps for column in columns], axis=1) if counts else None,
            by_position=[column.by_position if counts else None for column in columns],
            by_drafter=[column.by_drafter if counts else None for column in columns],
            beside=np.zeros(requests, np.int64),
            epochs=_epochs(behaviours, slowdown, extra),
        )

    def _column(self, strategy: Strategy, true: "_True", rng: np.random.Generator) -> "_Column":
        if strategy.among:
            return self._controlled(strategy, true, rng)
        return self._drafted(strategy, true, rng) if strategy.drafts else _plain(true)

    def _controlled(self, strategy: Strategy, true: "_True", rng: np.random.Generator) -> "_Column":
        """What a lane makes of the requests whose engine decides at each step, by the mean of what its drafters do for
        all kinds: the router tells it more than that."""
        every = {
            drafter.kind: [self.drafting[drafter.kind][kind.name] for kind in self.mix.kinds]
            for drafter in strategy.among
        }
        usual = {kind: np.mean([one.acceptance for one in each], axis=0) for kind, each in every.items()}
        answers: list[tuple[Answer, Answer]] = []
        for request, (kind, behaves) in enumerate(zip(true.kinds, true.behaves, strict=True)):
            content = self.machine.content.get(self.mix.kinds[kind].name, 1.0)
            machineries = []
            for drafter in strategy.among:
                drafting, longest = every[drafter.kind][behaves], drafter.n_max or 0
                acceptance = shifted(drafting.acceptance[:longest], true.deviation[request])
                coverage = 1.0
                if drafting.coverage is not None:
                    coverage = np.sort(drafting.coverage)[int(true.rank[request] * len(drafting.coverage))]
                costs = (self.machine.costs[1 : longest + 1] + true.extra_step_cost[request]) * content
                told = Drafter(costs.tolist(), usual[drafter.kind][:longest].tolist())
                machineries.append(Machinery(drafter.kind, acceptance, coverage, costs, told))
            first, second = (play(machineries, float(true.tokens[request]), rng) for _ in range(2))
            answers.append((first, second))
        seen = [first for first, _ in answers]
        paces = [sum(one.cost for one in both) / sum(one.tokens for one in both) for both in answers]
        return _Column(
            expected_s=true.step_s * true.tokens * np.array(paces),
            made_s=true.step_s * np.array([one.cost for one in seen]),
            tokens=np.array([one.tokens for one in seen]),
            drafted=np.array([sum(counts.drafted for counts in one.by_drafter.values()) for one in seen]),
            accepted=np.array([sum(counts.accepted for counts in one.by_drafter.values()) for one in seen]),
            steps=np.array([sum(counts.steps for counts in one.by_drafter.values()) for one in seen]),
            by_drafter=[one.by_drafter for one in seen],
        )

    def _drafted(self, strategy: Strategy, true: "_True", rng: np.random.Generator) -> "_Column":
        """What a drafting lane makes of the requests."""
        length, requests = strategy.n_max or 0, len(true.kinds)
        by_kind = [self.drafting[strategy.kind][kind.name] for kind in self.mix.kinds]

        # 1. What can be expected, given how this request deviates from its kind.
        acceptance = shifted(
            np.stack([drafting.acceptance[:length] for drafting in by_kind])[true.behaves], true.deviation
        )
        covered = np.ones(requests)
        for kind, drafting in enumerate(by_kind):
            if drafting.coverage is not None:
                here = true.behaves == kind
                covered[here] = np.sort(drafting.coverage)[(true.rank[here] * len(drafting.coverage)).astype(int)]
        content = np.array([self.machine.content.get(kind.name, 1.0) for kind in self.mix.kinds])[true.kinds]
        cost = (self.machine.costs[length] + true.extra_step_cost) * content
        steps_expected = true.tokens * covered / tokens_per_step(acceptance, length)
        expected_s = true.step_s * (true.tokens * (1 - covered) + steps_expected * cost)

        # 2. What happens: as many drafting steps, and what they accept, position by position. So the answer is a little
        # longer or shorter than expected.
        steps = np.where(covered > 0, np.maximum(np.floor(steps_expected + rng.random(requests)), 1), 0)
        steps = steps.astype(np.int64)
        left, by_position = steps, []
        for position in range(length):
            left = rng.binomial(left, acceptance[:, position])
            by_position.append(left)
        accepted: Ints = np.sum(by_position, axis=0)
        plain_steps = np.round(true.tokens * (1 - covered)).astype(np.int64)
        return _Column(
            expected_s=expected_s,
            made_s=true.step_s * (plain_steps + steps * cost),
            tokens=plain_steps + steps + accepted,
            drafted=steps * length,
            accepted=accepted,
            steps=steps,
            by_position=np.stack(by_position, axis=1),
        )


class _True(Struct):
    """What is true of each request, whichever lane it takes."""

    kinds: Ints
    tokens: Floats
    behaves: Ints
    """The kind whose acceptance it has."""
    deviation: Floats
    """Of its acceptance, in logits."""
    rank: Floats
    """Of its coverage among its kind's, 0 to 1."""
    step_s: Floats
    extra_step_cost: Floats


class _Column(Struct):
    """What a lane makes of each request."""

    expected_s: Floats
    made_s: Floats
    tokens: Ints
    drafted: Ints
    accepted: Ints
    steps: Ints
    by_position: Ints | None = None
    by_drafter: Sequence[Mapping[str, DraftCounts]] | None = None
    """Of a controlled lane, by request."""


def _plain(true: _True) -> _Column:
    seconds = true.tokens * true.step_s
    nothing: Ints = np.zeros(len(true.kinds), np.int64)
    return _Column(
        expected_s=seconds,
        made_s=seconds,
        tokens=true.tokens.astype(np.int64),
        drafted=nothing,
        accepted=nothing,
        steps=nothing,
    )


def _scheduled(schedule: Schedule | None, usual: float, requests: int, rng: np.random.Generator) -> Floats:
    return np.full(requests, usual) if schedule is None else schedule(requests, rng)


def _epochs(behaviours: Ints, slowdown: Floats, extra: Floats) -> Ints:
    """Numbers that go up whenever anything changes."""
    state = np.column_stack([behaviours, slowdown, extra])
    changed = np.any(state[1:] != state[:-1], axis=1)
    result: Ints = np.concatenate([[0], np.cumsum(changed)])
    return result
