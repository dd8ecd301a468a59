"""A simulated engine that decides at each step whether to draft, by which drafter and how far."""

from collections.abc import Mapping, Sequence
from random import Random

import numpy as np
from benchmarks.worlds.controlled import Answer, Machinery, play
from msgspec.structs import replace

from paceline.decision import Knowledge, decide, learn
from paceline.decision.load import Load
from paceline.decision.predict import foresee
from paceline.inside.draft_control import Drafter
from paceline.types import (
    ALL,
    Decision,
    DraftControl,
    Lane,
    LaneState,
    Observation,
    Outcome,
    Signals,
    Strategy,
    Task,
)

HEAD, LOOKUP = Strategy("mtp", 4), Strategy("ngram", 8)
LANES = [
    LaneState(Lane(f"gpu/{strategy.name}", "gpu", strategy), model="m", fingerprint="gpu")
    for strategy in (
        Strategy(),
        Strategy("mtp", among=(HEAD,)),
        Strategy("ngram", among=(LOOKUP,)),
        Strategy(ALL, among=(HEAD, LOOKUP)),
    )
]
PLAIN, MTP, NGRAM, BOTH = LANES
COSTS = np.array([1.4, 1.6, 1.8, 2.0, 2.2, 2.4, 2.6, 2.8])


class ControlledMachine:
    """
    Args:
        head: by task, acceptance of the head at every position.
        covered: by task, share of the tokens that lookups with 0.8 at every position can have; 0 where it is left out.
    """

    def __init__(
        self, head: Mapping[Task, float], covered: Mapping[Task, float] | None = None, costs: Sequence[float] = ()
    ) -> None:
        self.head, self.covered = head, covered or {}
        self.costs = np.array(costs) if costs else COSTS
        self.rng, self.now_s = np.random.default_rng(0), 1_700_000_000.0

    def made(self, task: Task, strategy: Strategy, tokens: float, control: DraftControl | None = None) -> Answer:
        """An answer of a lane that drafts, started from a control, or else from the true costs and 0.7 at each
        position."""
        machineries = []
        for drafter in strategy.among:
            longest = drafter.n_max or 0
            said = control.drafters[drafter.kind] if control else None
            usual = Drafter(self.costs[:longest].tolist(), [0.7])
            machineries.append(
                Machinery(
                    kind=drafter.kind,
                    acceptance=np.full(longest, self.head[task] if drafter is HEAD else 0.8),
                    coverage=1.0 if drafter is HEAD else self.covered.get(task, 0.0),
                    costs=self.costs[:longest],
                    told=Drafter(said.costs, said.acceptance, said.by_match, said.weight) if said else usual,
                )
            )
        return play(machineries, tokens, self.rng)

    def answer(self, task: Task, lane: LaneState, control: DraftControl | None = None, tokens: int = 200) -> Outcome:
        strategy = lane.lane.strategy
        made = self.made(task, strategy, tokens, control) if strategy.drafts else Answer(tokens, tokens, {})
        seconds = 0.02 * made.cost * float(np.exp(self.rng.normal(0, 0.03)))
        self.now_s += seconds + 1
        each = made.by_drafter.values()
        observed = Observation(
            completion_tokens=made.tokens,
            decode_tokens=made.tokens,
            decode_s=seconds,
            drafted=sum(one.drafted for one in each) if strategy.drafts else None,
            accepted=sum(one.accepted for one in each) if strategy.drafts else None,
            by_drafter=made.by_drafter,
        )
        return Outcome(lane.lane.name, 200, seconds + 0.1, observed=observed, at_s=self.now_s)


def decided(knowledge: Knowledge, signals: Signals, lanes: Sequence[LaneState] = LANES, seed: int = 0) -> Decision:
    return decide(signals, lanes, knowledge, Random(seed), exploration=0)


def served(knowledge: Knowledge, machine: ControlledMachine, signals: Signals, lane: LaneState) -> None:
    """Has a request served by one of the lanes, which is told what it would be had it been chosen, and learns from
    it."""
    foreseen = foresee(signals, LANES, knowledge, Load(LANES))
    control = foreseen.control(LANES.index(lane), signals)
    decision = replace(decided(knowledge, signals), lane=lane.lane.name, control=control)
    learn(knowledge, signals, decision, machine.answer(signals.task, lane, control))


def taught(machine: ControlledMachine, requests: int, lanes: Sequence[LaneState] = LANES) -> Knowledge:
    """What is known after so many requests of each task down each of the lanes."""
    knowledge = Knowledge()
    for _ in range(requests):
        for task in machine.head:
            for lane in lanes:
                served(knowledge, machine, Signals(tasks={task: 1.0}), lane)
    return knowledge
