"""What is expected of lanes whose engine decides at each step, and how it is learned."""

import msgspec
import pytest
from msgspec.structs import replace
from tests.controlled_machine import BOTH, HEAD, LANES, MTP, NGRAM, PLAIN, ControlledMachine, decided, served, taught

from paceline.decision import ENTRY_TYPES, Knowledge, Row, learn
from paceline.decision.best_of_parts import expected, parts_of
from paceline.decision.knowledge import id_of
from paceline.types import Lane, LaneState, Observation, Outcome, Signals, Strategy, Task

CODE, STORY = Signals(tasks={Task.CODE: 1.0}), Signals(tasks={Task.CREATE: 1.0})
APART = {Task.CODE: 0.9, Task.CREATE: 0.25}


def s_per_token(machine: ControlledMachine, task: Task, lane: LaneState) -> float:
    outcomes = [machine.answer(task, lane) for _ in range(20)]
    seconds = sum(outcome.observed.decode_s or 0 for outcome in outcomes)
    return seconds / sum(outcome.observed.decode_tokens or 0 for outcome in outcomes)


def test_the_fastest_kind_of_drafter_is_found_for_each_task() -> None:
    machine = ControlledMachine(APART, {Task.CREATE: 0.5})
    knowledge = taught(machine, 12)
    for signals in (CODE, STORY):
        decision = decided(knowledge, signals)
        true = {lane.lane.name: s_per_token(machine, signals.task, lane) for lane in LANES}
        assert true[decision.lane] <= 1.03 * min(true.values())
        for name, prediction in decision.predictions.items():
            assert prediction.s_per_token == pytest.approx(true[name], rel=0.12), name


def test_where_nothing_is_accepted_it_costs_little_more_than_plain_and_is_left() -> None:
    machine = ControlledMachine({Task.CREATE: 0.1})
    decision = decided(taught(machine, 10, [PLAIN, MTP]), STORY, [PLAIN, MTP])
    assert decision.lane == "gpu/plain"
    assert decision.predictions["gpu/mtp"].relative < 1.15


def test_before_anything_is_known_a_controlled_lane_is_believed_to_be_no_worse_than_plain() -> None:
    predictions = decided(Knowledge(), STORY).predictions
    plain = predictions["gpu/plain"].relative
    for name in ("gpu/mtp", "gpu/ngram", "gpu/all"):
        assert predictions[name].relative < 1.02 * plain
        assert predictions[name].acceptance is predictions[name].break_even is None


def test_what_one_lane_shows_of_a_drafter_another_one_knows() -> None:
    machine = ControlledMachine(APART)
    alone, before = taught(machine, 8, [PLAIN, MTP]), decided(Knowledge(), CODE).predictions["gpu/all"]
    prediction = decided(alone, CODE).predictions["gpu/all"]
    true = s_per_token(machine, Task.CODE, BOTH)
    assert prediction.s_per_token == pytest.approx(true, rel=0.15)
    assert prediction.spread < before.spread


def test_a_lane_with_a_cap_learns_from_a_controlled_one() -> None:
    machine = ControlledMachine({Task.CODE: 0.9})
    knowledge = taught(machine, 10, [PLAIN, MTP])
    capped = LaneState(Lane("gpu/mtp-4", "gpu", HEAD), model="m", fingerprint="gpu")
    prediction = decided(knowledge, CODE, [PLAIN, capped]).predictions["gpu/mtp-4"]
    tokens = sum(0.9**position for position in range(5))
    assert prediction.plain_steps_per_token == pytest.approx(2.0 / tokens, rel=0.1)


def test_an_engine_that_counts_nothing_teaches_the_lane_alone() -> None:
    knowledge, signals = Knowledge(), CODE
    for _ in range(30):
        for lane, seconds in ((PLAIN, 4.0), (NGRAM, 2.0)):
            observed = Observation(decode_tokens=200, decode_s=seconds)
            outcome = Outcome(lane.lane.name, 200, seconds, observed=observed, at_s=1.7e9)
            learn(knowledge, signals, decided(knowledge, signals), outcome)
    decision = decided(knowledge, signals)
    assert decision.predictions["gpu/ngram"].relative < 0.7
    assert decision.lane != "gpu/plain"


def test_it_is_stored_and_put_together_with_what_others_know() -> None:
    machine = ControlledMachine(APART, {Task.CODE: 0.6})
    knowledge = taught(machine, 4)
    rows = [
        Row(row.part, row.key, msgspec.msgpack.decode(msgspec.msgpack.encode(row.entry), type=ENTRY_TYPES[row.part]))
        for row in knowledge.rows()
    ]
    again = Knowledge.from_rows(rows)
    ours, theirs = decided(again, CODE), decided(knowledge, CODE)
    assert (ours.lane, ours.control) == (theirs.lane, theirs.control)
    for name, prediction in ours.predictions.items():
        assert prediction.relative == pytest.approx(theirs.predictions[name].relative)
    fresh = Knowledge()
    fresh.merge(again)
    merged = decided(fresh, CODE).predictions["gpu/mtp"]
    assert merged.relative == pytest.approx(theirs.predictions["gpu/mtp"].relative, rel=0.01)


def test_a_model_that_knows_no_controlled_lane_is_read() -> None:
    knowledge = taught(ControlledMachine(APART), 2, [PLAIN])
    (row,) = [row for row in knowledge.rows() if row.part == "models"]
    stored = msgspec.to_builtins(row.entry)
    del stored["controls"], stored["hazards"]
    stored["lanes"] = [
        [[*lane[:2], {"kind": lane[2]["kind"], "n_max": lane[2]["n_max"]}], n] for lane, n in stored["lanes"]
    ]
    old = msgspec.convert(stored, type=ENTRY_TYPES["models"])
    again = Knowledge.from_rows([Row("models", row.key, old)])
    assert again.models["m"].lanes.keys() >= {id_of(PLAIN)}


def test_all_lanes_of_a_choice_are_told_apart() -> None:
    knowledge = taught(ControlledMachine(APART), 3)
    ids = [id_of(lane) for lane in LANES] + [replace(id_of(PLAIN), strategy=Strategy("mtp", 2))]
    model = knowledge.models["m"]
    seen = expected(model, ids, parts_of(model, ids, CODE, [0.0] * len(ids)))
    assert len(seen.times) == len(seen.spreads) == len(seen.covariance) == len(seen.leaves) == 5
    alone = model.expected([ids[0], ids[-1]], CODE, [0.0, 0.0])
    assert seen.times[0] == pytest.approx(alone.times[0])


def test_a_forced_request_teaches_too() -> None:
    knowledge, machine = Knowledge(), ControlledMachine(APART)
    served(knowledge, machine, CODE, BOTH)
    assert knowledge.models["m"].lanes[id_of(BOTH)] == 1
