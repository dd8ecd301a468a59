"""What is known: kept and restored, put together with another's, damaged, and of bounded size."""

from math import inf, isfinite, nan
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from tests.entries import entries
from tests.machines import CODE, EDIT, LADDER, NGRAM, PLAIN, START_S, STORY, Machine, forced, taught, teach

from paceline.decision import ENTRY_TYPES, Knowledge, Row, decide, learn, predict
from paceline.decision.answers import Mean
from paceline.decision.knowledge import Served, Totals
from paceline.decision.saved import SavedModel
from paceline.decision.time_model import MORE
from paceline.decision.tuning import MAX_CONVERSATIONS, MAX_GROUPS, MAX_KEYS, MAX_LANES, MAX_MODELS, MAX_SERVED
from paceline.types import Lane, LaneState, Measured, Observation, Outcome, Signals, Strategy, Task

TALK = replace(STORY, conversation="c", application="a", reasoning=True, prompt_chars=4000, turns=2)
LANES = [
    *(replace(state, drafted_token_cost=0.16) for state in LADDER),
    *(replace(state, lane=replace(state.lane, device="gpu")) for state in (PLAIN, NGRAM)),
]


def under_load(running: int) -> list[LaneState]:
    return [replace(LANES[0], running=running), *LANES[1:]]


def learned(seed: int = 1, requests: int = 40) -> Knowledge:
    """After requests of all kinds, with and without load."""
    knowledge, rng = Knowledge(), Random(seed)
    machine = Machine({Task.CODE: 0.9, Task.CREATE: 0.3, Task.EDIT: 0.9}, per_drafted=0.15, counts="by position")
    for number in range(requests):
        signals = rng.choice([CODE, TALK, EDIT])
        lane, running = rng.choice(LANES).lane, number % 3
        decision = decide(signals, under_load(running), knowledge, rng)
        learn(knowledge, signals, decision, replace(machine.answer(signals, lane), concurrent=float(running)))
    return knowledge


def stored(row: Row) -> Row:
    """As it comes back from a file."""
    entry = msgspec.msgpack.decode(msgspec.msgpack.encode(row.entry), type=ENTRY_TYPES[row.part])
    return Row(row.part, row.key, entry)


def restored(knowledge: Knowledge) -> Knowledge:
    return Knowledge.from_rows([stored(row) for row in knowledge.rows()])


def predicted(knowledge: Knowledge, *, loads: tuple[int, ...] = (0, 3)) -> list[float]:
    """Numbers that all that is known goes into."""
    numbers: list[float] = []
    for running in loads:
        lanes = under_load(running)
        for signals in (CODE, TALK, EDIT, Signals(tasks={Task.MATH: 1.0})):
            for one in predict(signals, lanes, knowledge).values():
                numbers += [one.relative, one.spread, one.request_spread, one.tokens, one.prefill_s]
                numbers += [one.plain_step_s or 0.0, one.acceptance or 0.0, one.coverage or 0.0, one.break_even or 0.0]
    return numbers


# Keeping it


def test_what_was_kept_is_restored() -> None:
    knowledge = learned()
    again = restored(knowledge)
    assert entries(again) == entries(knowledge)
    assert predicted(again) == pytest.approx(predicted(knowledge), rel=1e-9)
    for signals in (CODE, TALK, EDIT):
        found, expected = (decide(signals, LANES, each, Random(0)) for each in (again, knowledge))
        assert (found.lane, found.reason) == (expected.lane, expected.reason)
        assert found.propensities == pytest.approx(expected.propensities)


def test_what_was_restored_goes_on_learning_as_the_other_does() -> None:
    knowledge = learned()
    again = restored(knowledge)
    machines = [Machine({Task.CODE: 0.7, Task.CREATE: 0.3}, per_drafted=0.2) for _ in range(2)]
    taken = [
        teach(each, machine, LANES[:7], [CODE, TALK] * 15, exploration=0.1)
        for each, machine in zip((knowledge, again), machines, strict=True)
    ]
    assert taken[0] == taken[1]
    assert predicted(again) == pytest.approx(predicted(knowledge), rel=1e-6)


def test_an_entry_that_has_not_changed_is_the_same_object() -> None:
    knowledge = learned()
    before, again = list(knowledge.rows()), list(knowledge.rows())
    assert all(first.entry is second.entry for first, second in zip(before, again, strict=True))
    machine = Machine({Task.CODE: 0.7}, 0.1)
    machine.now_s += 10_000
    forced(knowledge, machine, LANES[:2], CODE, "mtp/0")
    changed = {row.part for row in knowledge.rows() if row not in before}
    assert changed == {"totals", "measured", "means", "models", "served"}


def test_models_that_lanes_share_are_shared_when_they_are_restored() -> None:
    knowledge = Knowledge()
    machine = Machine({Task.CODE: 0.7}, 0.1)
    lanes = [LADDER[0], replace(LADDER[3], model="other")]
    teach(knowledge, machine, lanes, [CODE] * 3)
    again = restored(knowledge)
    assert again.models["m"] is again.models["other"]
    assert len([row for row in again.rows() if row.part == "models"]) == 1


# Putting it together


def test_merging_with_nothing_changes_nothing() -> None:
    knowledge, empty = learned(), Knowledge()
    before = predicted(knowledge)
    knowledge.merge(Knowledge())
    assert predicted(knowledge) == pytest.approx(before, rel=1e-9)
    empty.merge(knowledge)
    assert predicted(empty) == pytest.approx(before, rel=0.002, abs=1e-4)
    assert empty.measured == knowledge.measured
    assert empty.totals == knowledge.totals
    ours, theirs = empty.models["m"], knowledge.models["m"]
    for name in ("lanes", "tries", "alike", "unseen", "always", "residuals", "seen", "at_s"):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_two_know_together_about_what_one_would_that_saw_all() -> None:
    machine = Machine({Task.CODE: 0.9, Task.CREATE: 0.3}, per_drafted=0.15)
    first, second, both = Knowledge(), Knowledge(), Knowledge()
    for number in range(60):
        signals, lane = (CODE, STORY)[number % 2], LADDER[number // 2 % 7].lane
        answer = machine.answer(signals, lane)
        for knowledge in ((first, second)[number % 4 // 2], both):
            learn(knowledge, signals, decide(signals, LADDER, knowledge, Random(0), 0), answer)
    first.merge(second)
    assert first.measured.keys() == both.measured.keys()
    for place, sums in both.measured.items():
        assert first.measured[place].decode_s == pytest.approx(sums.decode_s)
        assert first.measured[place].requests == sums.requests
    assert first.totals.decode_s == pytest.approx(both.totals.decode_s)
    assert first.models["m"].lanes == both.models["m"].lanes
    for signals in (CODE, STORY):
        told, expected = predict(signals, LADDER, first), predict(signals, LADDER, both)
        for name, one in expected.items():
            assert told[name].s_per_token == pytest.approx(one.s_per_token, rel=0.1)
            assert told[name].spread == pytest.approx(one.spread, rel=0.25)
            assert told[name].tokens == pytest.approx(one.tokens, rel=0.05)


def test_the_surer_one_counts_more() -> None:
    slow, fast = (Machine({Task.CODE: 0.5}, 0.1, plain_step_s=step_s, noise=0.0) for step_s in (0.02, 0.022))
    knowledge, other = taught(slow, LADDER[:1], [CODE]), taught(fast, LADDER[:1], [CODE] * 30)
    knowledge.merge(other)
    assert predict(CODE, LADDER[:1], knowledge)["mtp/0"].s_per_token == pytest.approx(0.022, rel=0.03)


def test_what_is_shared_is_put_together_once() -> None:
    lanes = [LADDER[0], replace(LADDER[3], model="other")]
    knowledge, other = Knowledge(), Knowledge()
    teach(other, Machine({Task.CODE: 0.7}, 0.1), lanes, [CODE] * 10)
    knowledge.merge(other)
    assert knowledge.models["m"] is knowledge.models["other"]
    assert knowledge.models["m"].seen == 10
    found, expected = (predict(CODE, lanes, each)["mtp/3"] for each in (knowledge, other))
    assert (found.relative, found.spread) == pytest.approx((expected.relative, expected.spread), rel=0.002)


# What was damaged


def model_of(knowledge: Knowledge) -> Row:
    return next(row for row in knowledge.rows() if row.part == "models")


def is_sound(knowledge: Knowledge) -> bool:
    """Whether it decides, and goes on learning."""
    machine = Machine({Task.CODE: 0.7, Task.CREATE: 0.3, Task.EDIT: 0.9}, 0.1)
    for signals in (CODE, TALK, EDIT):
        decision = decide(signals, LANES, knowledge, Random(0))
        forced(knowledge, machine, LANES, signals, "mtp/3")
        for one in decision.predictions.values():
            numbers = (one.relative, one.spread, one.request_spread, one.tokens, one.prefill_s, one.plain_step_s or 1.0)
            if not all(isfinite(number) for number in numbers) or one.relative <= 0:
                return False
    return all(isfinite(number) for number in predicted(knowledge))


@pytest.mark.parametrize("field", ["prior", "mean", "covariance"])
def test_arrays_that_were_damaged_leave_their_model_out(field: str) -> None:
    row = model_of(learned())
    assert isinstance(row.entry, SavedModel)
    good: bytes = getattr(row.entry, field)
    wrong = [good[:-8], good + bytes(8), good[:-3], b""]
    for place in (0, len(good) // 2 // 8, len(good) // 8 - 1):
        for value in (nan, inf, -inf, 1e300, -1e18, *([1e3, -1e3] if field == "mean" else [])):
            array = np.frombuffer(good, "<f8").copy()
            array[place] = value
            wrong.append(array.tobytes())
    for part in wrong:
        damaged = replace(row.entry, **{field: part})
        assert not Knowledge.from_rows([Row("models", row.key, damaged)]).models


def test_other_numbers_that_can_not_be_leave_their_model_out() -> None:
    row = model_of(learned())
    entry = row.entry
    assert isinstance(entry, SavedModel)
    wrong: list[dict[str, Any]] = [
        {"at_s": nan},
        {"names": [*entry.names[:-1], entry.names[0]]},
        {"names": entry.names[:-1]},
        {"groups": [*entry.groups, ("task", "none that there is")]},
        {"conversations": [*entry.conversations, "none that there is"]},
        {"noises": (nan, 1.0)},
        {"noises": (-5.0, 1.0)},
        {"residuals": [(*entry.residuals[0][:2], 0.0, -1.0)]},
        {"residuals": [(*entry.residuals[0][:2], 1e3, 0.1)]},
        {"spreads": [(*entry.spreads[0][:2], inf, 1.0)]},
        {"spreads": [(*entry.spreads[0][:2], 1e9, 1.0)]},
        {"rates": [(entry.lanes[0][0], 1.0, -1.0)]},
        {"always": [(entry.lanes[0][0], nan, 1.0)]},
    ]
    for fields in wrong:
        assert not Knowledge.from_rows([Row("models", row.key, replace(entry, **fields))]).models, fields
    assert Knowledge.from_rows([row]).models


def test_a_damaged_byte_does_no_harm() -> None:
    """It may leave an entry readable, and change its sense."""
    rows = list(learned(requests=12).rows())
    random, read = Random(1), 0
    for number in range(400):
        row = rows[number % len(rows)] if number % 2 else next(each for each in rows if each.part == "models")
        damaged = bytearray(msgspec.msgpack.encode(row.entry))
        damaged[random.randrange(len(damaged))] = random.randrange(256)
        try:
            entry = msgspec.msgpack.decode(bytes(damaged), type=ENTRY_TYPES[row.part])
        except (msgspec.MsgspecError, ValueError):
            continue
        read += 1
        knowledge = Knowledge.from_rows([Row(row.part, row.key, entry), *(each for each in rows if each is not row)])
        assert is_sound(knowledge), (row.part, row.key)
    assert read > 50


@pytest.mark.parametrize(
    ("part", "key", "entry"),
    [
        ("totals", (), Totals(nan, 1.0, 1.0)),
        ("totals", (), Totals(1.0, inf, 1.0)),
        ("means", ("prefill", "m"), Mean(1.0, nan, 1.0)),
        ("means", ("prefill", "m"), Mean(1.0, 1e300, 1.0)),
        ("means", ("prefill", "m"), Mean(1.0, 1.0, -4.0)),
        ("means", ("tokens", "m", "code"), Mean(1.0, 1.0, -4.0)),
        ("means", ("tokens", "m", "code"), Mean(1.0, 1e300, 5.0)),
        ("served", ("c", "engine"), Served(nan, 5)),
        ("served", ("c",), Served(1.0, 5)),
        ("measured", ("engine", "mtp/0"), Measured(1, decode_s=nan)),
        ("measured", ("engine",), Measured(1)),
    ],
)
def test_entries_that_can_not_be_are_left_out(part: str, key: tuple[str, ...], entry: Any) -> None:
    knowledge = Knowledge.from_rows([Row(part, key, entry)])
    assert entries(knowledge) == entries(Knowledge())
    assert is_sound(knowledge)


# How much is remembered


def test_conversations_and_groups_that_were_not_met_for_longest_give_way() -> None:
    knowledge, machine = Knowledge(), Machine({Task.EDIT: 0.8}, 0.1)
    for number in range(3 * MAX_GROUPS):
        signals = replace(EDIT, conversation=f"talk {number}", application=f"program {number}")
        forced(knowledge, machine, LADDER, signals, LADDER[number % 7].lane.name)
    model = knowledge.models["m"]
    assert MAX_GROUPS <= len(model.groups) <= MORE * MAX_GROUPS + 5
    assert MAX_CONVERSATIONS / 2 <= len(model.conversations) <= MORE * MAX_CONVERSATIONS + 5
    names = model.belief.numbers
    assert ("conversation", f"talk {3 * MAX_GROUPS - 1}") in names
    assert ("conversation", "talk 0") not in names
    assert ("strength", "application", "program 0", "") not in names
    assert ("strength", "task", "edit") in names, "what is met again and again stays"
    assert np.linalg.eigvalsh(model.belief.covariance).min() > -1e-9
    assert len(names) < 400


def test_lanes_that_were_not_met_for_longest_give_way() -> None:
    knowledge, machine = Knowledge(), Machine({Task.CODE: 0.8}, 0.1)
    for number in range(2 * MAX_LANES):
        lane = LaneState(Lane("mtp", "e", Strategy("mtp", 3)), model="m", fingerprint=f"build {number}")
        forced(knowledge, machine, [LADDER[0], lane], CODE, "mtp" if number % 8 else "mtp/0")
    model = knowledge.models["m"]
    assert len(model.lanes) <= MORE * MAX_LANES + 1
    assert len(model.always) <= MAX_LANES
    assert len(model.tries) <= MORE * MAX_LANES + 1
    assert ("engine", f"build {2 * MAX_LANES - 1}") in model.belief.numbers
    assert ("engine", "build 1") not in model.belief.numbers
    assert predict(CODE, LADDER[:1], knowledge)["mtp/0"].s_per_token == pytest.approx(0.02, rel=0.1)


def test_prompts_in_caches_and_lengths_are_of_bounded_number() -> None:
    knowledge = Knowledge()
    observed = Observation(completion_tokens=50, decode_tokens=50, decode_s=1.0)
    decision = decide(EDIT, LADDER, knowledge, Random(0), 0)
    for number in range(MAX_KEYS + 100):
        signals = replace(EDIT, conversation=str(number), application=str(number))
        knowledge.serve((str(number), "engine"), Served(START_S + number, 5))
        knowledge.means.learn([("tokens", "m", str(number))], 50.0, START_S)
    learn(knowledge, signals, decision, Outcome("mtp/4", 200, 3.0, observed=observed, at_s=START_S + 10_000))
    assert len(knowledge.served) == MAX_SERVED
    assert (str(MAX_KEYS + 99), "engine") in knowledge.served
    assert len(knowledge.means.sums) == MAX_KEYS


def test_names_of_models_that_were_not_learned_of_for_longest_give_way() -> None:
    """Clients may choose them, where a router stands alone."""
    knowledge, machine = taught(Machine({Task.CODE: 0.8}, 0.1), LADDER, [CODE]), Machine({Task.CODE: 0.8}, 0.1)
    for number in range(2 * MAX_MODELS):
        lane = replace(PLAIN, model=f"name {number}")
        predict(CODE, [lane], knowledge)
        forced(knowledge, machine, [lane], CODE, "plain")
        if number % 20 == 0:
            forced(knowledge, machine, LADDER, CODE, "mtp/0")
    assert len(knowledge.models) == MAX_MODELS
    assert "m" in knowledge.models
    assert "name 0" not in knowledge.models


def test_a_later_turn_is_not_replaced_by_an_earlier_one() -> None:
    knowledge = Knowledge()
    for at_s, chars in ((5.0, 50), (3.0, 30), (5.0, 40)):
        knowledge.serve(("c", "e"), Served(at_s, chars))
    assert knowledge.served == {("c", "e"): Served(5.0, 50)}
