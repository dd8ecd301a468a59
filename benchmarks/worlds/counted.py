"""Worlds of engines that draft with their own heads: what is accepted is drawn position by position."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from benchmarks.worlds.published import Floats, request_spread, shifted, time_noise
from benchmarks.worlds.requests import Arrivals, Mix, draw
from benchmarks.worlds.traffic import Ints, Traffic
from paceline.types import Lane, Strategy

MAX_ACCEPTANCE_LOGIT_SHIFT = 3.0
"""In deviations of requests: no request is further from its kind."""

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
    plain_slowdown: float = 1.0
    """Times slower plain steps are on the plain lane's own engine."""


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
        arrivals = draw(self.mix, requests, rng)
        own = np.tile(np.arange(len(self.mix.kinds)), (requests, 1))
        behaviours = own if self.behaves_as is None else self.behaves_as(requests, rng)
        behaves = behaviours[np.arange(requests), arrivals.kinds]
        deviation = self.request_spread * np.clip(
            rng.standard_normal(requests), -MAX_ACCEPTANCE_LOGIT_SHIFT, MAX_ACCEPTANCE_LOGIT_SHIFT
        )
        rank = rng.random(requests)
        slowdown = self._scheduled(self.machine.slowdown, 1.0, requests, rng)
        extra = self._scheduled(self.machine.extra_step_cost, 0.0, requests, rng)
        step_s = self.machine.plain_step_s * slowdown
        columns = []
        for strategy in self.strategies:
            if not strategy.drafts:
                plain_s = arrivals.tokens * step_s * self.machine.plain_slowdown
                tokens = arrivals.tokens.astype(np.int64)
                nothing: Ints = np.zeros(requests, np.int64)
                columns.append((plain_s, plain_s, tokens, nothing, nothing, nothing, None))
            else:
                columns.append(self._drafted(strategy, arrivals, behaves, deviation, rank, extra, step_s, rng))
        expected_s, made_s, tokens, drafted, accepted, steps = (
            np.stack([column[part] for column in columns], axis=1) for part in range(6)
        )
        noise = np.exp(rng.normal(0, time_noise(), expected_s.shape))
        counts = self.tells_counts
        return Traffic(
            lanes=_lanes(self.strategies),
            signals=arrivals.signals,
            kinds=[self.mix.kinds[kind].name for kind in arrivals.kinds],
            expected_s=expected_s,
            observed_s=made_s * noise,
            tokens=tokens.astype(np.int64),
            drafted=drafted.astype(np.int64) if counts else None,
            accepted=accepted.astype(np.int64) if counts else None,
            steps=steps.astype(np.int64) if counts else None,
            by_position=[column[6] if counts else None for column in columns],
            beside=np.zeros(requests, np.int64),
            epochs=_epochs(behaviours, slowdown, extra),
        )

    def _drafted(
        self,
        strategy: Strategy,
        arrivals: Arrivals,
        behaves: Ints,
        deviation: Floats,
        rank: Floats,
        extra: Floats,
        step_s: Floats,
        rng: np.random.Generator,
    ) -> tuple[Floats, Floats, Ints, Ints, Ints, Ints, Ints]:
        """A lane's expected and real seconds, tokens, drafted, accepted, drafting steps, and accepted by position."""
        length = strategy.n_max or 0
        by_kind = [self.drafting[strategy.kind][kind.name] for kind in self.mix.kinds]
        acceptance = np.stack([one.acceptance[:length] for one in by_kind])[behaves]
        acceptance = shifted(acceptance, deviation)
        content = np.array([self.machine.content.get(kind.name, 1.0) for kind in self.mix.kinds])[arrivals.kinds]
        covered = np.ones(len(behaves))
        for kind, one in enumerate(by_kind):
            if one.coverage is not None:
                ordered = np.sort(one.coverage)
                here = behaves == kind
                covered[here] = ordered[(rank[here] * len(ordered)).astype(int)]
        cost = (self.machine.costs[length] + extra) * content
        per_step = 1 + np.cumprod(acceptance, axis=1).sum(axis=1)
        steps_expected = arrivals.tokens * covered / per_step
        # The draws make the answer a little longer or shorter on each lane; what is expected is of one length.
        plain_steps = np.floor(arrivals.tokens * (1 - covered) + 0.5)
        expected_s = step_s * (arrivals.tokens * (1 - covered) + steps_expected * cost)
        steps = np.where(covered > 0, np.maximum(np.floor(steps_expected + rng.random(len(behaves))), 1), 0)
        steps = steps.astype(np.int64)
        left = steps
        positions: Ints = np.empty((len(behaves), length), np.int64)
        for position in range(length):
            left = rng.binomial(left, acceptance[:, position])
            positions[:, position] = left
        accepted = positions.sum(axis=1)
        tokens = (plain_steps + steps + accepted).astype(np.int64)
        made_s = step_s * (plain_steps + steps * cost)
        return expected_s, made_s, tokens, steps * length, accepted, steps, positions

    @staticmethod
    def _scheduled(schedule: Schedule | None, usual: float, requests: int, rng: np.random.Generator) -> Floats:
        return np.full(requests, usual) if schedule is None else schedule(requests, rng)


def _lanes(strategies: Sequence[Strategy], engine: str = "engine") -> list[Lane]:
    return [Lane(strategy.name, engine, strategy) for strategy in strategies]


def _epochs(behaviours: Ints, slowdown: Floats, extra: Floats) -> Ints:
    state = np.column_stack([behaviours, slowdown, extra])
    changed = np.any(state[1:] != state[:-1], axis=1)
    result: Ints = np.concatenate([[0], np.cumsum(changed)])
    return result
