"""What an engine's control of drafts is told to start from."""

from itertools import pairwise

import pytest
from msgspec.structs import replace
from tests.controlled_machine import BOTH, COSTS, MTP, NGRAM, PLAIN, ControlledMachine, decided, taught

from paceline.decision import Knowledge, learn
from paceline.types import DraftControl, DraftCounts, LaneState, Observation, Outcome, Signals, Task

CODE = Signals(tasks={Task.CODE: 1.0})
APART = {Task.CODE: 0.9, Task.CREATE: 0.4}


def control(knowledge: Knowledge, task: Task, lane: LaneState = BOTH) -> DraftControl:
    found = decided(knowledge, Signals(tasks={task: 1.0}), [lane]).control
    assert found is not None
    return found


def test_only_what_was_chosen_and_decides_at_each_step_is_told_anything() -> None:
    assert decided(Knowledge(), Signals(), [PLAIN]).control is None
    assert control(Knowledge(), Task.CODE, MTP).drafters.keys() == {"mtp"}
    assert control(Knowledge(), Task.CODE, NGRAM).drafters.keys() == {"ngram"}


@pytest.mark.parametrize("requests", [0, 5])
def test_it_makes_sense_whatever_is_known(requests: int) -> None:
    knowledge = taught(ControlledMachine(APART, {Task.CODE: 0.5}), requests)
    for task in Task:
        for kind, said in control(knowledge, task).drafters.items():
            assert len(said.costs) == {"mtp": 4, "ngram": 8}[kind]
            assert 1 <= said.costs[0] <= said.costs[-1] < 20
            assert all(cheaper <= dearer for cheaper, dearer in pairwise(said.costs))
            for curve in (said.acceptance, *said.by_match.values()):
                assert all(0 < accepted < 1 for accepted in curve)
            assert 2 <= said.weight <= 16
    assert list(control(knowledge, Task.CODE).drafters["ngram"].by_match) == [2, 3, 4, 7, 11]
    assert not control(knowledge, Task.CODE).drafters["mtp"].by_match


def test_costs_and_acceptance_are_learned() -> None:
    knowledge = taught(ControlledMachine(APART, {Task.CODE: 0.5, Task.CREATE: 0.5}), 25)
    for task, accepted in APART.items():
        head = control(knowledge, task).drafters["mtp"]
        assert head.acceptance[0] == pytest.approx(accepted, abs=0.12)
        assert head.costs[:3] == pytest.approx(COSTS[:3].tolist(), rel=0.2)
    lookup = control(knowledge, Task.CODE).drafters["ngram"]
    assert lookup.costs[-1] == pytest.approx(COSTS[-1], rel=0.25)
    assert sum(lookup.acceptance) / len(lookup.acceptance) == pytest.approx(0.8, abs=0.08)


def test_what_is_known_better_counts_for_more() -> None:
    before = control(Knowledge(), Task.CREATE).drafters["mtp"].weight
    after = control(taught(ControlledMachine(APART), 25), Task.CREATE).drafters["mtp"].weight
    assert after > 2 * before


def test_where_others_are_decoded_too_a_drafted_token_may_cost_more() -> None:
    busy = LaneState(MTP.lane, running=3, model="m", fingerprint="gpu")
    knowledge, machine = Knowledge(), ControlledMachine(APART)
    for _ in range(20):
        for lane, slower in ((PLAIN, 1.0), (MTP, 1.8)):
            for beside in (0.0, 3.0):
                outcome = machine.answer(Task.CODE, lane)
                observed = outcome.observed
                seconds = (observed.decode_s or 0) * (slower if beside else 1.0)
                outcome = replace(
                    outcome, observed=replace(observed, decode_s=seconds), concurrent=beside, total_s=seconds + 0.1
                )
                learn(knowledge, CODE, decided(knowledge, CODE), outcome)
    for _ in range(10):  # as many are decoded over a request's life as at its start
        knowledge.forecasts["m"].learn(3, 3.0)
    alone, together = (control(knowledge, Task.CODE, lane).drafters["mtp"] for lane in (MTP, busy))
    assert together.costs[1] > 1.1 * alone.costs[1]


def test_where_others_slow_plain_steps_a_draft_that_nobody_made_there_costs_more() -> None:
    """They fill the places of a batch that a draft had for nothing."""
    busy = LaneState(MTP.lane, running=15, model="m", fingerprint="gpu")
    costs = {}
    for slower in (1.0, 5.0):
        knowledge, machine = Knowledge(), ControlledMachine(APART)
        for _ in range(20):
            for beside in (0.0, 15.0):
                outcome = machine.answer(Task.CODE, PLAIN)
                seconds = (outcome.observed.decode_s or 0) * (slower if beside else 1.0)
                observed = replace(outcome.observed, decode_s=seconds)
                outcome = replace(outcome, observed=observed, concurrent=beside, total_s=seconds + 0.1)
                learn(knowledge, CODE, decided(knowledge, CODE), outcome)
        for _ in range(10):  # as many are decoded over a request's life as at its start
            knowledge.forecasts["m"].learn(15, 15.0)
        costs[slower] = control(knowledge, Task.CODE, busy).drafters["mtp"].costs
    assert all(dear > 1.15 * cheap for cheap, dear in zip(costs[1.0], costs[5.0], strict=True))


def test_a_drafter_that_seemed_dear_once_is_tried_again() -> None:
    knowledge = taught(ControlledMachine(APART), 3, [PLAIN])
    drafts = DraftCounts(50, 200, 150, (45, 40, 35, 30), (50, 45, 40, 35))
    dear = Observation(decode_tokens=200, decode_s=50 * 7 * 0.02, drafted=200, accepted=150, by_drafter={"mtp": drafts})
    none = Observation(decode_tokens=200, decode_s=200 * 0.02, drafted=0, accepted=0)

    def cost_after(observed: Observation) -> float:
        outcome = Outcome("gpu/mtp", 200, 8.0, observed=observed, at_s=1.8e9)
        learn(knowledge, CODE, decided(knowledge, CODE), outcome)
        return control(knowledge, Task.CODE, MTP).drafters["mtp"].costs[3]

    first = cost_after(dear)
    assert first == pytest.approx(7, rel=0.25)
    later = [cost_after(none) for _ in range(60)]
    assert later[-1] < 0.65 * first
    assert cost_after(dear) == pytest.approx(7, rel=0.25)
