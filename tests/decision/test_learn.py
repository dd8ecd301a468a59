"""What outcomes teach: of lanes that were tried, of those that were not, and of changes."""

from math import inf, isfinite, log, nan
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests import controlled_machine
from tests.controlled_machine import ControlledMachine
from tests.machines import CODE, EDIT, LADDER, NGRAM, PLAIN, START_S, STORY, Machine, forced, taught, teach

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.knowledge import id_of
from paceline.types import Lane, LaneState, Observation, Outcome, Signals, Strategy, Task

CHAT = Signals(tasks={Task.CHAT: 1.0})


def best(signals: Signals, lanes: list[LaneState], knowledge: Knowledge) -> str:
    return decide(signals, lanes, knowledge, Random(0), exploration=0).lane


def relative(knowledge: Knowledge, signals: Signals, lanes: list[LaneState] = LADDER) -> dict[str, float]:
    return {name: prediction.relative for name, prediction in predict(signals, lanes, knowledge).items()}


# Lanes, tried and not


def test_a_cap_that_was_never_tried_follows_from_others() -> None:
    machine = Machine({Task.CODE: 0.95, Task.CREATE: 0.3}, per_drafted=0.08)
    knowledge = taught(machine, [LADDER[0], LADDER[2]], [CODE, STORY] * 40)
    assert best(CODE, LADDER, knowledge) in ("mtp/6", "mtp/8")
    assert best(STORY, LADDER, knowledge) in ("mtp/0", "mtp/1")
    for signals in (CODE, STORY):
        for prediction in predict(signals, LADDER, knowledge).values():
            assert prediction.s_per_token is not None
            truth = machine.s_per_token(signals.task, prediction.strategy)
            assert abs(log(prediction.s_per_token / truth)) < 1.5 * prediction.spread, "it knows how unsure it is"


@pytest.mark.parametrize("counts", ["sums", "by position", "none"])
def test_what_was_tried_is_predicted(counts: str) -> None:
    machine = Machine({Task.CODE: 0.85, Task.CREATE: 0.5}, per_drafted=0.2, counts=counts)
    knowledge = Knowledge()
    for number in range(100):
        forced(knowledge, machine, LADDER, (CODE, STORY)[number % 2], LADDER[number // 2 % len(LADDER)].lane.name)
    for signals in (CODE, STORY):
        for name, prediction in predict(signals, LADDER, knowledge).items():
            truth = machine.s_per_token(signals.task, prediction.strategy)
            assert prediction.s_per_token == pytest.approx(truth, rel=0.12), name
            if prediction.strategy.drafts:
                assert prediction.spread < 0.25, f"{name} is still as unsure as at first"


def test_engines_that_tell_no_counts_are_learned_by_time() -> None:
    machine = Machine({Task.CODE: 0.9, Task.CREATE: 0.05}, per_drafted=0.3, counts="none")
    lanes = [LADDER[0], LADDER[4]]
    knowledge = Knowledge()
    for number in range(16):
        forced(knowledge, machine, lanes, (CODE, STORY)[number % 2], lanes[number // 2 % 2].lane.name)
    assert best(CODE, lanes, knowledge) == "mtp/4"
    assert best(STORY, lanes, knowledge) == "mtp/0"


def test_counts_by_position_tell_of_shorter_drafts() -> None:
    off = {}
    for counts in ("sums", "by position"):
        knowledge = Knowledge()
        machine = Machine({Task.CODE: 0.5}, per_drafted=0.1, counts=counts, noise=0.0)
        for lane in ("mtp/0", *["mtp/8"] * 4):
            forced(knowledge, machine, LADDER, CODE, lane)
        off[counts] = abs((predict(CODE, LADDER, knowledge)["mtp/2"].acceptance or 0.0) - 0.5)
    assert off["by position"] < 0.05
    assert off["by position"] < off["sums"]


def test_acceptance_and_break_even_are_told() -> None:
    """Where a draft of 4 costs what 3 plain steps do, it breaks even with 3 tokens a step."""
    machine = Machine({Task.CODE: 0.7}, per_drafted=0.45, noise=0.0)
    knowledge = Knowledge()
    for number in range(40):
        forced(knowledge, machine, LADDER, CODE, ("mtp/0", "mtp/4")[number % 2])
    predictions = predict(CODE, LADDER, knowledge)
    assert predictions["mtp/4"].acceptance == pytest.approx(0.7, abs=0.03)
    assert predictions["mtp/4"].coverage == pytest.approx(1, abs=0.01)
    assert predictions["mtp/4"].break_even == pytest.approx(3, abs=0.15)
    plain = predictions["mtp/0"]
    assert (plain.acceptance, plain.coverage, plain.break_even) == (None, None, None)
    assert plain.plain_step_s == pytest.approx(0.02, rel=0.15)
    assert plain.s_per_token == pytest.approx(0.02, rel=0.05)


def test_a_lookup_is_learned_by_task() -> None:
    """On a CPU, where a step that verifies 8 drafts takes 4.5 plain ones: some requests draft in most of their text,
    others hardly ever."""
    rng, knowledge, now_s = Random(4), Knowledge(), START_S
    for number in range(300):
        signals, share = ((EDIT, 0.5), (CHAT, 0.05))[number % 2]
        decision = decide(signals, [PLAIN, NGRAM], knowledge, rng, 0.0)
        lane = "plain" if number % 4 < 2 else "ngram"
        verification_steps = 100 * share if lane == "ngram" else 0.0
        seconds = 0.02 * (100 - verification_steps + 4.5 * verification_steps) * (1 + rng.gauss(0, 0.03))
        tokens = 100 + round(6 * verification_steps)
        now_s += seconds
        observed = Observation(
            decode_tokens=tokens, decode_s=seconds, drafted=round(8 * verification_steps), accepted=tokens - 100
        )
        learn(knowledge, signals, decision, Outcome(lane, 200, seconds, observed=observed, at_s=now_s))
    for signals, truth in ((EDIT, (50 + 50 * 4.5) / 400), (CHAT, (95 + 5 * 4.5) / 130)):
        predicted = predict(signals, [PLAIN, NGRAM], knowledge)["ngram"]
        assert predicted.s_per_token == pytest.approx(0.02 * truth, rel=0.1)
    assert best(EDIT, [PLAIN, NGRAM], knowledge) == "ngram"


def test_caps_that_come_later_start_from_what_is_known() -> None:
    machine = Machine({Task.CODE: 0.95, Task.CREATE: 0.1}, per_drafted=0.05)
    knowledge = taught(machine, [LADDER[0], LADDER[1]], [CODE, STORY] * 30)
    before = relative(knowledge, CODE, LADDER[:2])
    assert best(CODE, LADDER, knowledge) in ("mtp/6", "mtp/8")
    assert relative(knowledge, CODE)["mtp/1"] == pytest.approx(before["mtp/1"])
    teach(knowledge, machine, LADDER, [CODE, STORY] * 30)
    assert best(CODE, LADDER, knowledge) == "mtp/8"
    assert best(STORY, LADDER, knowledge) == "mtp/0"


def test_an_engine_that_comes_later_starts_from_the_machine_and_the_groups() -> None:
    machine = Machine({Task.CODE: 0.95, Task.CREATE: 0.05}, per_drafted=0.3)
    knowledge = taught(machine, LADDER, [CODE, STORY] * 60)
    later = [replace(state, fingerprint="later", lane=replace(state.lane, engine="later")) for state in LADDER]
    known = predict(CODE, later, knowledge)["mtp/0"]
    assert known.s_per_token == pytest.approx(0.02, rel=0.1)
    by_task = [relative(knowledge, signals, later)["mtp/4"] for signals in (CODE, STORY)]
    new = [relative(Knowledge(), signals, later)["mtp/4"] for signals in (CODE, STORY)]
    assert by_task[0] / by_task[1] < 0.8 * new[0] / new[1], "stories are known to be less predictable"


def test_another_model_knows_nothing() -> None:
    knowledge = taught(Machine({Task.CODE: 0.05}, per_drafted=0.5), LADDER, [CODE] * 50)
    anew = [replace(state, fingerprint="newer", model="other") for state in LADDER]
    assert predict(CODE, anew, knowledge) == predict(CODE, anew, Knowledge())


def test_applications_are_told_apart_and_new_ones_start_from_the_tasks() -> None:
    machine = Machine({Task.CODE: 0.9, Task.CREATE: 0.1}, per_drafted=0.2)
    asked = [replace(CODE, application="agent"), replace(CODE, application="other")]
    knowledge = Knowledge()
    for number in range(80):
        machine.acceptance[Task.CODE] = 0.9 if number % 2 else 0.1
        forced(knowledge, machine, LADDER, asked[number % 2], LADDER[number // 2 % 2 * 4].lane.name)
    of_agent, of_other, of_new = (
        relative(knowledge, signals)["mtp/4"] for signals in (*asked, replace(CODE, application="new"))
    )
    assert of_other < of_new < of_agent
    assert best(asked[0], LADDER, knowledge) in ("mtp/0", "mtp/1")
    assert best(asked[1], LADDER, knowledge) in ("mtp/3", "mtp/4", "mtp/6", "mtp/8")


def test_an_outcome_counts_for_the_lane_that_served() -> None:
    knowledge = Knowledge()
    decision = decide(EDIT, [PLAIN, NGRAM], knowledge, Random(0), 0)
    assert decision.lane == "ngram"
    observed = Observation(decode_tokens=100, decode_s=1.0)
    learn(knowledge, EDIT, decision, Outcome("plain", 200, 1.2, observed=observed, at_s=START_S))
    assert predict(EDIT, [PLAIN, NGRAM], knowledge)["plain"].s_per_token == pytest.approx(0.01, rel=0.02)
    assert set(knowledge.measured) == {("plain", "plain")}
    learn(knowledge, EDIT, decision, Outcome("gone", 200, 1.2, observed=observed, at_s=START_S))
    assert knowledge.measured["gone", "gone"].requests == 1


def test_lanes_that_learned_apart_are_put_together_once_they_are_compared() -> None:
    one, other = (
        LaneState(Lane(name, name, Strategy(*kind), name), model=name)
        for name, kind in (("one", ()), ("other", ("mtp", 4)))
    )
    knowledge = Knowledge()
    machine, slower = (Machine({Task.CODE: 0.5}, 0.1, plain_step_s=step_s) for step_s in (0.02, 0.05))
    teach(knowledge, machine, [one], [CODE] * 10)
    teach(knowledge, slower, [other], [CODE] * 10)
    apart = predict(CODE, [one], knowledge)["one"].s_per_token, predict(CODE, [other], knowledge)["other"].s_per_token
    assert knowledge.models["one"] is not knowledge.models["other"]
    forced(knowledge, machine, [one, other], CODE, "one")
    assert knowledge.models["one"] is knowledge.models["other"]
    together = predict(CODE, [one, other], knowledge)
    assert (together["one"].s_per_token, together["other"].s_per_token) == pytest.approx(apart, rel=0.05)


# Changes


def test_a_drafter_that_changes_is_noticed() -> None:
    machine, knowledge = Machine({Task.CODE: 0.9}, per_drafted=0.25), Knowledge()
    taken = teach(knowledge, machine, LADDER, [CODE] * 100)
    assert set(taken[-10:]) <= {"mtp/4", "mtp/6", "mtp/8"}
    machine.acceptance[Task.CODE] = 0.1
    taken = teach(knowledge, machine, LADDER, [CODE] * 30)
    assert taken[-12:].count("mtp/0") + taken[-12:].count("mtp/1") >= 10


def test_a_machine_that_slows_down_is_noticed() -> None:
    machine = Machine({Task.CODE: 0.9}, per_drafted=0.25)
    knowledge = taught(machine, LADDER[:1], [CODE] * 200)
    machine.plain_step_s *= 3
    teach(knowledge, machine, LADDER[:1], [CODE] * 12)
    assert predict(CODE, LADDER[:1], knowledge)["mtp/0"].s_per_token == pytest.approx(0.06, rel=0.25)


def test_a_machine_that_slows_down_keeps_the_order_of_its_lanes() -> None:
    machine = Machine({Task.CODE: 0.9, Task.CREATE: 0.1}, per_drafted=0.2)
    knowledge = taught(machine, LADDER, [CODE, STORY] * 60)
    before = [best(signals, LADDER, knowledge) for signals in (CODE, STORY)]
    machine.plain_step_s *= 3
    teach(knowledge, machine, LADDER, [CODE, STORY] * 6)
    assert [best(signals, LADDER, knowledge) for signals in (CODE, STORY)] == before


def test_one_odd_time_is_soon_forgotten() -> None:
    """As where a laptop slept: the machine is taken to have changed, and then to have changed back."""
    machine = Machine({Task.CODE: 0.9}, per_drafted=0.2)
    knowledge = taught(machine, LADDER, [CODE] * 60)
    before, order = predict(CODE, LADDER, knowledge)["mtp/4"].s_per_token, best(CODE, LADDER, knowledge)
    decision = decide(CODE, LADDER, knowledge, Random(0), 0)
    accepted = machine.answer(CODE, LADDER[4].lane).observed
    odd = replace(accepted, decode_s=20 * (accepted.decode_s or 1.0))
    learn(knowledge, CODE, decision, Outcome("mtp/4", 200, 100.0, observed=odd, at_s=machine.now_s))
    assert best(CODE, LADDER, knowledge) == order
    for _ in range(3):
        forced(knowledge, machine, LADDER, CODE, order)
    assert predict(CODE, LADDER, knowledge)["mtp/4"].s_per_token == pytest.approx(before, rel=0.2)


# What engines may report


def test_an_engine_that_fails_fast_is_never_taken_for_a_fast_one() -> None:
    machine = Machine({Task.EDIT: 0.9}, per_drafted=0.1)
    knowledge = taught(machine, LADDER, [EDIT] * 20)
    before = predict(EDIT, LADDER, knowledge)
    good = machine.answer(EDIT, LADDER[0].lane).observed
    for status, error in ((500, "broken"), (200, "cut off"), (499, "the client left"), (503, "busy")):
        decision = decide(EDIT, LADDER, knowledge, Random(0), 0)
        for state in LADDER:
            failed = Outcome(state.lane.name, status, 0.001, observed=good, error=error, at_s=machine.now_s)
            learn(knowledge, EDIT, decision, failed)
    assert predict(EDIT, LADDER, knowledge) == before
    assert knowledge.measured["engine", "mtp/0"].failures == 3


def test_an_engine_that_lies_about_its_counts_is_found_out_by_the_clock() -> None:
    """It says that all drafts are accepted, and takes three times as long as without."""
    plain = Machine({Task.EDIT: 0.9}, per_drafted=0.1)
    knowledge, rng = Knowledge(), Random(1)
    lanes = [LADDER[0], LADDER[4]]
    taken = []
    for _ in range(200):
        decision = decide(EDIT, lanes, knowledge, rng)
        taken.append(decision.lane)
        if decision.lane == "mtp/0":
            outcome = plain.answer(EDIT, LADDER[0].lane)
        else:
            plain.now_s += 9
            observed = Observation(decode_tokens=128, decode_s=7.7, drafted=104, accepted=102)
            outcome = Outcome("mtp/4", 200, 8.0, observed=observed, at_s=plain.now_s)
        learn(knowledge, EDIT, decision, outcome)
    assert taken[-40:].count("mtp/0") >= 36


anything = st.none() | st.integers(-5, 10**12) | st.sampled_from([0, 1, 10**30])
any_time = st.none() | st.floats()
dates = st.sampled_from([nan, inf, -inf]) | st.floats(-1e12, 1e12)
report = st.builds(
    lambda prompt, prefill_s, decoded, decode_s, drafted, accepted, steps, by_position: Observation(
        prompt, None, decoded, prefill_s, decoded, decode_s, drafted, accepted, steps, tuple(by_position)
    ),
    *(anything, any_time, anything, any_time, anything, anything, anything),
    st.lists(st.integers(-5, 10**12), max_size=9),
)


@given(st.lists(st.tuples(report, st.floats(), st.floats(), dates), max_size=6))
@settings(max_examples=60, deadline=None)
def test_no_report_spoils_what_is_known(reports: list[tuple[Any, ...]]) -> None:
    knowledge = Knowledge()
    for observed, total_s, concurrent, at_s in reports:
        for state in LADDER:
            decision = decide(EDIT, LADDER, knowledge, Random(0), 0)
            outcome = Outcome(state.lane.name, 200, total_s, observed=observed, concurrent=concurrent, at_s=at_s)
            learn(knowledge, EDIT, decision, outcome)
    forced(knowledge, Machine({Task.EDIT: 0.5}, 0.1), LADDER, EDIT, "mtp/0")
    for prediction in predict(EDIT, LADDER, knowledge).values():
        assert 0 < prediction.relative < inf
        assert prediction.s_per_token is not None
        assert 0 < prediction.s_per_token < inf
    assert isfinite(knowledge.totals.decode_s)
    assert Knowledge.from_rows(knowledge.rows()).models, "it can be kept"


def believable(tokens: int, s_per_token: float, share: float, length: int) -> Observation:
    accepted = min(tokens - 1, int(tokens * share))
    steps = tokens - accepted
    return Observation(None, None, tokens, None, tokens, tokens * s_per_token, steps * length, accepted)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(LADDER),
            st.integers(4, 10**6),
            st.floats(1e-4, 50.0),
            st.floats(0, 1),
            st.sampled_from([0.0, 1.0, 200.0]),
            st.sampled_from(list(Task)),
        ),
        max_size=30,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_can_be_believed_is_learned_without_harm(reports: list[tuple[Any, ...]]) -> None:
    knowledge = Knowledge()
    for state, tokens, s_per_token, share, concurrent, task in reports:
        signals = Signals(tasks={task: 1.0}, conversation=str(tokens % 3), application=str(tokens % 2))
        decision = decide(signals, LADDER, knowledge, Random(0))
        observed = believable(tokens, s_per_token, share, state.lane.strategy.n_max or 1)
        total_s = tokens * s_per_token + 0.1
        learn(
            knowledge,
            signals,
            decision,
            Outcome(state.lane.name, 200, total_s, 0.0, 0.0, None, observed, concurrent, START_S),
        )
    for prediction in predict(EDIT, LADDER, knowledge).values():
        assert 0 < prediction.relative < inf
        assert isfinite(prediction.spread)
    assert sum(decide(EDIT, LADDER, knowledge, Random(0)).propensities.values()) == pytest.approx(1)


def test_a_machine_that_was_slow_is_tried_again() -> None:
    """And meanwhile hardly ever: of two machines the faster one takes three times as long for a while."""
    lanes = [
        LaneState(Lane(name, name, Strategy(), name), model=f"model on {name}", fingerprint=name) for name in ("a", "b")
    ]
    knowledge, rng, noise, taken = Knowledge(), Random(0), Random(1), list[str]()
    for number in range(400):
        decision = decide(Signals(tasks={Task.CODE: 1.0}), lanes, knowledge, rng)
        taken.append(decision.lane)
        s_per_token = 0.02 if decision.lane == "a" else 0.045 if 100 <= number < 200 else 0.015
        seconds = 100 * s_per_token * (1 + noise.gauss(0, 0.05))
        observed = Observation(completion_tokens=100, decode_tokens=100, decode_s=seconds)
        outcome = Outcome(decision.lane, 200, seconds + 0.1, observed=observed, at_s=1.7e9 + 3 * number)
        learn(knowledge, Signals(tasks={Task.CODE: 1.0}), decision, outcome)
    assert taken[50:100].count("b") > 45
    assert taken[110:200].count("b") < 10
    assert taken[300:].count("b") > 90


# Several at once


def in_company(knowledge: Knowledge, lane: str, step_s: float, drafted_beside: float | None) -> None:
    """A request that is served beside seven others; of three drafted tokens, two are accepted at each step."""
    decision = decide(CODE, LADDER, knowledge, Random(0), exploration=0)
    steps, drafts = 20, lane != "mtp/0"
    observed = Observation(
        decode_tokens=steps * (3 if drafts else 1),
        decode_s=steps * step_s,
        drafted=steps * 3 if drafts else None,
        accepted=steps * 2 if drafts else None,
        drafting_steps=steps if drafts else None,
    )
    outcome = Outcome(lane, 200, 10.0, observed=observed, concurrent=7.0, drafted_beside=drafted_beside, at_s=START_S)
    learn(knowledge, CODE, decision, outcome)


@pytest.mark.parametrize("is_told", [True, False])
def test_where_it_is_told_what_others_draft_a_slow_step_is_not_the_requests_own(is_told: bool) -> None:
    knowledge = Knowledge()
    for number in range(40):
        others = 3.0 * (number // 2 % 4)
        lane, own = (("mtp/0", 0.0), ("mtp/3", 3.0))[number % 2]
        in_company(knowledge, lane, 0.08 * (1 + 0.1 * (own + others)), others if is_told else None)
    model = next(iter(knowledge.models.values()))
    plain, three = (model.expected([id_of(LADDER[place])], CODE, [7.0]).times[0] for place in (0, 3))
    assert bool(plain < three) is is_told
    assert plain == pytest.approx(log(0.08), abs=0.1) or not is_told


def test_what_an_engine_drafts_that_decides_itself_is_known_by_how_many_are_beside() -> None:
    knowledge, machine = Knowledge(), ControlledMachine({Task.CODE: 0.9})
    lanes = [controlled_machine.PLAIN, controlled_machine.MTP, controlled_machine.BOTH]
    assert [each.drafted_per_step for each in predict(CODE, lanes, knowledge).values()] == [0.0, None, None]
    for _ in range(30):
        learn(knowledge, CODE, controlled_machine.decided(knowledge, CODE), machine.answer(Task.CODE, lanes[1]))
    alone = predict(CODE, lanes, knowledge)[lanes[1].lane.name].drafted_per_step
    assert alone is not None
    assert 1 < alone <= 4
    busy = [lanes[0], replace(lanes[1], running=15)]
    assert predict(CODE, busy, knowledge)[lanes[1].lane.name].drafted_per_step is None
