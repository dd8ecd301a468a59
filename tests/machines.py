"""Lanes, requests, and a simulated machine to learn from."""

from collections.abc import Sequence
from random import Random

from paceline.decision import Knowledge, decide, learn
from paceline.decision.drafting import accepted_per_draft
from paceline.types import Lane, LaneState, Observation, Outcome, Signals, Strategy, Task

PLAIN = LaneState(Lane("plain", "plain", Strategy(), "cpu"), model="m")
NGRAM = LaneState(Lane("ngram", "ngram", Strategy("ngram", 8), "cpu"), model="m")
LADDER = [
    LaneState(Lane(f"mtp/{cap}", "engine", Strategy("mtp", cap), "gpu"), model="m", fingerprint="engine")
    for cap in (0, 1, 2, 3, 4, 6, 8)
]
STORY = Signals(tasks={Task.CREATE: 1.0}, temperature=1.0)
EDIT = Signals(tasks={Task.EDIT: 0.94, Task.CODE: 0.06}, copy=0.8, temperature=0)
CODE = Signals(tasks={Task.CODE: 1.0}, temperature=0)
START_S = 1_700_000_000.0


class Machine:
    """An engine with a known acceptance by task, and known step costs.

    Args:
        per_drafted: what a drafted token adds to a verification step, in plain steps; 0.2 come on top.
        counts: what it reports: ``"sums"`` of drafted and accepted tokens, accepted ones ``"by position"``, too, or
            ``"none"``.
    """

    def __init__(
        self,
        acceptance: dict[Task, float],
        per_drafted: float,
        counts: str = "sums",
        plain_step_s: float = 0.02,
        noise: float = 0.03,
    ) -> None:
        self.acceptance, self.per_drafted, self.counts = acceptance, per_drafted, counts
        self.plain_step_s, self.noise = plain_step_s, noise
        self.rng = Random(0)
        self.now_s = START_S

    def s_per_token(self, task: Task, strategy: Strategy) -> float:
        if not strategy.drafts:
            return self.plain_step_s
        length = strategy.n_max or 1
        yielded = 1 + accepted_per_draft(self.acceptance[task], length)
        return self.plain_step_s * (1.2 + self.per_drafted * length) / yielded

    def answer(self, signals: Signals, lane: Lane) -> Outcome:
        task, length = signals.task, lane.strategy.n_max or 1
        tokens = 128
        drafted = accepted = steps = None
        by_position: tuple[int, ...] = ()
        if lane.strategy.drafts and self.counts != "none":
            acceptance = self.acceptance[task]
            steps = round(tokens / (1 + accepted_per_draft(acceptance, length)))
            by_position = tuple(round(steps * acceptance**position) for position in range(1, length + 1))
            drafted, accepted = steps * length, sum(by_position)
            tokens = steps + accepted
        seconds = tokens * self.s_per_token(task, lane.strategy) * (1 + self.rng.gauss(0, self.noise))
        self.now_s += seconds + 1
        observed = Observation(
            completion_tokens=tokens,
            decode_tokens=tokens,
            decode_s=seconds,
            drafted=drafted,
            accepted=accepted,
            drafting_steps=steps,
            accepted_by_position=by_position if self.counts == "by position" else (),
        )
        return Outcome(lane.name, 200, seconds + 0.1, observed=observed, at_s=self.now_s)


def teach(
    knowledge: Knowledge,
    machine: Machine,
    lanes: Sequence[LaneState],
    asked: Sequence[Signals],
    exploration: float = 0.01,
    seed: int = 1,
) -> list[str]:
    """Has some requests decided on and served; the lanes that they took."""
    rng, taken = Random(seed), []
    by_name = {state.lane.name: state.lane for state in lanes}
    for signals in asked:
        decision = decide(signals, lanes, knowledge, rng, exploration)
        learn(knowledge, signals, decision, machine.answer(signals, by_name[decision.lane]))
        taken.append(decision.lane)
    return taken


def taught(
    machine: Machine, lanes: Sequence[LaneState], asked: Sequence[Signals], exploration: float = 0.01
) -> Knowledge:
    """What is known after some requests."""
    knowledge = Knowledge()
    teach(knowledge, machine, lanes, asked, exploration)
    return knowledge


def forced(knowledge: Knowledge, machine: Machine, lanes: Sequence[LaneState], signals: Signals, lane: str) -> None:
    """Has a request served by a certain one of the lanes."""
    decision = decide(signals, lanes, knowledge, Random(0), exploration=0)
    served = next(state.lane for state in lanes if state.lane.name == lane)
    learn(knowledge, signals, decision, machine.answer(signals, served))
