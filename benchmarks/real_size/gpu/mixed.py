"""What the measured costs make of the mix of tasks: a world whose steps cost what they do on the GPU, and whose drafts
are accepted as published.

Each request pays what a step costs where all that are decoded at once draft as far as it does. In a batch of mixed
lengths, short drafts pay a little more than that, and long ones a little less.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from benchmarks.real_size.tasks import LONGEST, usual_acceptance
from benchmarks.worlds.counted import CountedWorld, Drafting, Machine
from benchmarks.worlds.policies import policy
from benchmarks.worlds.published import Floats
from benchmarks.worlds.requests import Mix, one_kind_a_task
from benchmarks.worlds.run import run
from paceline.types import Strategy

LENGTHS = (1, 2, 3, 4, LONGEST)
"""Of the static lanes' drafts."""
PLAIN, ORACLE = "plain", "oracle"
CONTROL, ROUTED, ROUTED_WITH_CONTROL = "always on, controlled", "routed", "routed, controlled"
LEARNED_AFTER = 100
"""Requests, from which on the router is looked at by itself, too."""


class Result(Struct, frozen=True):
    """One seed's requests."""

    seconds: Mapping[str, Floats]
    """By way, what each request takes."""

    @property
    def best(self) -> str:
        """The best static way: one setting for all requests."""
        static = [PLAIN, *(name for name in self.seconds if name.startswith("mtp-"))]
        return min(static, key=lambda name: float(self.seconds[name].sum()))

    def over_best(self, way: str, first: int = 0) -> float:
        """Its speed over the best static way's, from a request on."""
        return float(self.seconds[self.best][first:].sum() / self.seconds[way][first:].sum())


def results(plain_step_s: float, costs: Sequence[float], requests: int, seeds: Sequence[int]) -> list[Result]:
    """
    Args:
        costs: of steps that verify 1, 2, 3 ... drafted tokens, in plain steps; of :data:`LONGEST` at least.
    """
    machine = Machine(plain_step_s, np.array([1.0, *costs[:LONGEST]]))
    static = _world(machine, *(Strategy("mtp", length) for length in LENGTHS))
    controlled = _world(machine, Strategy("mtp", among=(Strategy("mtp", LONGEST),)))
    return [_result(static, controlled, requests, seed) for seed in seeds]


def _world(machine: Machine, *drafting: Strategy) -> CountedWorld:
    usual = usual_acceptance()
    return CountedWorld(
        name="gpu",
        about=__doc__,
        mix=Mix(one_kind_a_task(tuple(usual))),
        strategies=(Strategy(), *drafting),
        drafting={"mtp": {task: Drafting(acceptance) for task, acceptance in usual.items()}},
        machine=machine,
    )


def _result(static: CountedWorld, controlled: CountedWorld, requests: int, seed: int) -> Result:
    """The same seed draws the same requests in both worlds."""
    lanes, controls = static.traffic(requests, seed), controlled.traffic(requests, seed)
    seconds = {lane.name: lanes.expected_s[:, number] for number, lane in enumerate(lanes.lanes)}
    seconds[ORACLE] = lanes.expected_s.min(axis=1)
    seconds[CONTROL] = controls.expected_s[:, 1]
    seconds[ROUTED] = run(lanes, policy("paceline"), seed)
    seconds[ROUTED_WITH_CONTROL] = run(controls, policy("paceline"), seed)
    return Result(seconds)
