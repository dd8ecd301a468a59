"""Which lane is chosen, and which is tried."""

from collections import Counter
from random import Random

import pytest
from msgspec.structs import replace
from tests.machines import CODE, EDIT, LADDER, NGRAM, PLAIN, START_S, STORY, Machine, forced, taught, teach

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.knowledge import Totals
from paceline.decision.tuning import MAX_COMPARED, MEASURED_FIRST
from paceline.types import Decision, Lane, LaneState, Observation, Outcome, Signals, Strategy, Task


def choose(signals: Signals, *lanes: LaneState, knowledge: Knowledge | None = None) -> Decision:
    return decide(signals, lanes, knowledge or Knowledge(), Random(0), exploration=0)


# Choosing


@pytest.mark.parametrize("task", [Task.EDIT, Task.EXTRACT, Task.TOOL_CALL])
def test_before_anything_is_known_what_repeats_is_drafted(task: Task) -> None:
    decision = choose(Signals(tasks={task: 1.0}, copy=0.6), PLAIN, NGRAM)
    assert (decision.lane, decision.alternatives, decision.propensity) == ("ngram", ("plain",), 1.0)


def test_a_lane_that_is_down_is_the_last_resort() -> None:
    decision = choose(EDIT, PLAIN, replace(NGRAM, healthy=False))
    assert (decision.lane, decision.alternatives) == ("plain", ("ngram",))
    assert choose(EDIT, replace(NGRAM, healthy=False)).lane == "ngram"
    for seed in range(50):
        assert decide(EDIT, [PLAIN, replace(NGRAM, healthy=False)], Knowledge(), Random(seed)).lane == "plain"


def test_joining_goes_before_waiting() -> None:
    plain = replace(PLAIN, can_join=False, has_turn=False)
    assert choose(STORY, plain, replace(NGRAM, running=1)).lane == "ngram"


def test_where_engines_take_turns_nothing_is_tried_that_would_wait() -> None:
    plain = replace(PLAIN, can_join=False, has_turn=False)
    for seed in range(50):
        assert decide(STORY, [plain, replace(NGRAM, running=1)], Knowledge(), Random(seed), 1.0).lane == "ngram"


def test_where_engines_take_turns_all_meet_in_the_plain_lane_under_load() -> None:
    plain = replace(PLAIN, can_join=False, has_turn=False)
    for signals in (STORY, EDIT):
        assert choose(signals, plain, replace(NGRAM, running=2)).lane == "plain"


def test_the_best_cap_falls_as_load_rises() -> None:
    """Decoding many at once, a step of theirs verifies many drafts, and takes the longer."""
    machine = Machine({Task.CODE: 0.8}, per_drafted=0.1)
    knowledge, busy = Knowledge(), [replace(state, running=16 if state is LADDER[0] else 0) for state in LADDER]
    teach(knowledge, machine, LADDER, [CODE] * 40)
    machine.per_drafted = 0.5
    for number in range(40):
        state = busy[number % len(busy)]
        decision = choose(CODE, *busy, knowledge=knowledge)
        answer = machine.answer(CODE, state.lane)
        learn(knowledge, CODE, decision, replace(answer, concurrent=16.0))
    caps = []
    for running in (0, 2, 16):
        lanes = [replace(state, running=running if state is LADDER[0] else 0) for state in LADDER]
        caps.append(int(choose(CODE, *lanes, knowledge=knowledge).lane.removeprefix("mtp/")))
    assert caps == sorted(caps, reverse=True)
    assert caps[0] > caps[-1]


def test_a_batch_that_different_lanes_would_split_goes_down_one() -> None:
    """The one that is best for all requests; alone, each goes down its own."""
    machine = Machine({Task.CODE: 0.9, Task.CREATE: 0.1}, per_drafted=0.1)
    knowledge = taught(machine, LADDER, [CODE, STORY] * 60, exploration=0.1)
    alone = [replace(state, needs_alike=True) for state in LADDER]
    others = [replace(state, running=8 if state is LADDER[0] else 0) for state in LADDER]
    beside_others = [replace(state, needs_alike=True) for state in others]

    def taken(lanes: list[LaneState]) -> set[str]:
        return {
            decide(signals, lanes, knowledge, Random(seed), exploration=0.5).lane
            for signals in (CODE, STORY)
            for seed in range(20)
        }

    assert len(taken(alone)) > 1
    assert len(taken(others)) > 1
    assert len(taken(beside_others)) == 1


@pytest.mark.parametrize(("alone", "beside_others", "best"), [(0.9, 0.05, {"4", "6", "8"}), (0.05, 1.5, {"0", "1"})])
def test_a_batch_tries_together_what_it_is_unsure_of(alone: float, beside_others: float, best: set[str]) -> None:
    """What drafts add to a step, as it was seen alone, is wrong under load."""
    lanes = [replace(state, needs_alike=True, running=8 if state is LADDER[0] else 0) for state in LADDER]
    by_name = {state.lane.name: state.lane for state in lanes}
    knowledge, machine = Knowledge(), Machine({Task.CODE: 0.9}, per_drafted=alone)
    for number in range(40):
        forced(knowledge, machine, LADDER, CODE, LADDER[number % len(LADDER)].lane.name)
    machine.per_drafted = beside_others
    taken = []
    for _ in range(60):
        decision = choose(CODE, *lanes, knowledge=knowledge)
        learn(knowledge, CODE, decision, replace(machine.answer(CODE, by_name[decision.lane]), concurrent=8.0))
        taken.append(decision.lane.removeprefix("mtp/"))
    assert set(taken[-20:]) <= best


def test_a_batch_stays_on_a_lane_that_is_nearly_as_good() -> None:
    machine = Machine({Task.CODE: 0.9}, per_drafted=0.1)
    knowledge = taught(machine, LADDER, [CODE] * 100, exploration=0.1)

    def beside(used: LaneState) -> Decision:
        lanes = [replace(state, needs_alike=True, running=4 if state is used else 0) for state in LADDER]
        plain_step = replace(machine.answer(CODE, LADDER[0].lane), concurrent=4.0)  # under every load it is seen first
        learn(knowledge, CODE, choose(CODE, *lanes, knowledge=knowledge), plain_step)
        return choose(CODE, *lanes, knowledge=knowledge)

    by_time = sorted(predict(CODE, LADDER, knowledge).items(), key=lambda each: each[1].relative)
    best, second = (next(state for state in LADDER if state.lane.name == name) for name, _ in by_time[:2])
    assert beside(best).lane == best.lane.name
    assert beside(second).lane == second.lane.name
    assert beside(LADDER[0]).lane not in ("mtp/0", "mtp/1")


def test_a_batch_is_not_held_together_before_anything_is_known() -> None:
    lanes = [replace(state, needs_alike=True, running=8 if state is LADDER[0] else 0) for state in LADDER]
    free = [replace(state, needs_alike=False) for state in lanes]
    for signals in (CODE, EDIT, STORY):
        assert choose(signals, *lanes).lane == choose(signals, *free).lane


def test_load_on_another_device_does_not_count() -> None:
    other = LaneState(Lane("other", "other", Strategy(), "gpu0"), running=9)
    assert choose(EDIT, PLAIN, NGRAM, other).lane == "ngram"


def test_equal_lanes_share_the_load() -> None:
    second = LaneState(Lane("second", "second", Strategy(), "gpu1"), model="m")
    assert choose(STORY, PLAIN, second).lane == "plain", "the first one is the default"
    assert choose(STORY, replace(PLAIN, running=1), second).lane == "second"


def test_a_conversation_stays_where_its_prompt_is_cached() -> None:
    lanes = [LaneState(Lane(name, name, Strategy(), name)) for name in ("one", "two")]
    signals = Signals(tasks={Task.CHAT: 1.0}, prompt_chars=80_000, turns=5, conversation="c")
    knowledge = Knowledge()
    for name in ("one", "two"):
        observed = Observation(20_000, 0, 50, 20.0, 50, 1.0)
        decision = choose(signals, *lanes, knowledge=knowledge)
        turn = replace(signals, conversation="c" if name == "two" else "other")
        learn(knowledge, turn, decision, Outcome(name, 200, 21.5, observed=observed, at_s=START_S))
    assert choose(signals, *lanes, knowledge=knowledge).lane == "two"
    assert choose(replace(signals, conversation="other"), *lanes, knowledge=knowledge).lane == "one"


def test_no_lane_is_an_error() -> None:
    with pytest.raises(ValueError, match="no lane"):
        choose(STORY)


def test_deciding_and_predicting_change_nothing() -> None:
    knowledge = taught(Machine({Task.CODE: 0.8}, per_drafted=0.1), LADDER, [CODE] * 10)
    before = list(knowledge.rows())
    for signals in (STORY, EDIT, Signals(application="never met", conversation="nor this")):
        decide(signals, LADDER, knowledge, Random(0))
        predict(signals, [PLAIN, NGRAM], knowledge)
    assert list(knowledge.rows()) == before


# What is measured first


def test_the_plain_lane_is_measured_first() -> None:
    decision = decide(EDIT, [NGRAM, PLAIN], Knowledge(), Random(0))
    assert (decision.lane, decision.propensity, decision.alternatives) == ("plain", 1.0, ("ngram",))
    assert decision.reason.endswith("; the plain lane is measured first")
    knowledge = Knowledge()
    taken = teach(knowledge, Machine({Task.CODE: 0.9}, per_drafted=0.05), LADDER[::-1], [CODE] * 30)
    assert taken[0] == "mtp/0"
    assert Counter(taken)["mtp/0"] <= 3


def test_a_plain_lane_that_can_not_be_measured_is_given_up() -> None:
    knowledge = Knowledge()
    for _ in range(MEASURED_FIRST):
        decision = decide(EDIT, [PLAIN, NGRAM], knowledge, Random(0))
        assert decision.lane == "plain"
        learn(knowledge, EDIT, decision, Outcome("plain", 200, 1.0, at_s=START_S))
    assert "measured first" not in decide(EDIT, [PLAIN, NGRAM], knowledge, Random(0)).reason


# Exploring


def test_propensities_are_the_frequencies_of_the_choices() -> None:
    knowledge = taught(Machine({Task.EDIT: 0.5, Task.CREATE: 0.5}, per_drafted=0.2), LADDER[::2], [EDIT, STORY] * 3)
    rng, counts, told = Random(3), Counter[str](), dict[str, float]()
    for _ in range(4000):
        decision = decide(STORY, LADDER, knowledge, rng, exploration=0.2)
        counts[decision.lane] += 1
        told[decision.lane] = decision.propensity
    assert len(told) > 1, "nothing was explored"
    assert told == decision.propensities
    for lane, propensity in told.items():
        assert counts[lane] / 4000 == pytest.approx(propensity, abs=0.03)
    assert sum(told.values()) == pytest.approx(1)


def test_without_exploration_the_best_prediction_is_taken() -> None:
    for seed in range(20):
        decision = decide(STORY, LADDER, Knowledge(), Random(seed), exploration=0)
        best = min(decision.predictions.items(), key=lambda entry: entry[1].relative)[0]
        assert (decision.lane, decision.propensity, decision.exploring_s) == (best, 1.0, 0.0)


def test_what_is_tried_is_said_and_priced() -> None:
    knowledge = taught(Machine({Task.CODE: 0.8}, per_drafted=0.15), LADDER, [CODE] * 5)
    best = choose(STORY, *LADDER, knowledge=knowledge).lane
    tried = [decide(STORY, LADDER, knowledge, Random(seed), 0.5) for seed in range(200)]
    tried = [decision for decision in tried if decision.lane != best]
    assert tried
    for decision in tried:
        assert decision.reason.endswith("; explored")
        assert decision.exploring_s > 0
        assert best in decision.alternatives


def test_exploration_stays_within_its_budget() -> None:
    machine = Machine(dict.fromkeys(Task, 0.3), per_drafted=0.4)
    rng, knowledge = Random(5), Knowledge()
    taken = teach(
        knowledge, machine, LADDER, [Signals(tasks={rng.choice(list(Task)): 1.0}) for _ in range(600)], exploration=0.01
    )
    assert set(taken[1:]) != {"mtp/0"}, "nothing was explored"
    totals = knowledge.totals
    assert 0 < totals.exploring_s <= 0.01 * (totals.decode_s + 300 * 3.0)


def test_a_budget_that_is_spent_allows_nothing() -> None:
    knowledge = taught(Machine({Task.CODE: 0.8}, per_drafted=0.15), LADDER, [CODE] * 5)
    assert len(decide(STORY, LADDER, knowledge, Random(0), 0.01).propensities) > 1
    knowledge.totals = Totals(START_S, decode_s=100.0, exploring_s=100.0)
    assert len(decide(STORY, LADDER, knowledge, Random(0), 0.01).propensities) == 1


def test_requests_that_are_not_decided_on_pay_for_no_exploration() -> None:
    machine = Machine(dict.fromkeys(Task, 0.3), per_drafted=0.4)
    knowledge = Knowledge()
    learn(knowledge, STORY, choose(STORY, LADDER[0]), machine.answer(STORY, LADDER[0].lane))
    assert knowledge.totals.decode_s == 0
    forced(knowledge, machine, LADDER, STORY, "mtp/0")
    assert knowledge.totals.decode_s > 0


def test_a_lane_far_behind_is_not_explored() -> None:
    knowledge = taught(Machine({Task.CREATE: 0.05}, per_drafted=0.5), LADDER, [STORY] * 100)
    predictions = predict(STORY, LADDER, knowledge)
    rng = Random(7)
    for _ in range(500):
        lane = decide(STORY, LADDER, knowledge, rng, exploration=0.3).lane
        assert predictions[lane].relative <= 2.5 * predictions["mtp/0"].relative


def test_exploring_ends_where_nothing_is_left_to_learn() -> None:
    knowledge = Knowledge()
    taken = teach(knowledge, Machine({Task.CODE: 0.9}, per_drafted=0.05), LADDER, [CODE] * 300, exploration=0.5)
    early, late = (sum(lane != "mtp/8" for lane in part) for part in (taken[:50], taken[-50:]))
    assert late < early / 2


def test_the_best_fixed_lane_is_compared_with() -> None:
    """Taken now and then where another one is predicted to be faster: nothing else shows what choosing brings."""
    machine = Machine({Task.CODE: 0.95, Task.CREATE: 0.3}, per_drafted=0.08)
    lanes = [LADDER[0], LADDER[1], LADDER[3], LADDER[6]]
    knowledge = taught(machine, lanes, [CODE, STORY] * 150)
    always = {lane.strategy.n_max: took / taken for lane, (took, taken) in knowledge.models["m"].always.items()}
    best = min(always, key=always.__getitem__)
    truth = {
        state.lane.strategy.n_max: sum(machine.s_per_token(task, state.lane.strategy) for task in machine.acceptance)
        for state in lanes
    }
    assert best == min(truth, key=truth.__getitem__)
    assert always[best] > 1
    other = CODE if choose(CODE, *lanes, knowledge=knowledge).lane != f"mtp/{best}" else STORY
    knowledge.totals = replace(knowledge.totals, exploring_s=0.0)
    assert 0.001 < decide(other, lanes, knowledge, Random(0)).propensities[f"mtp/{best}"] <= MAX_COMPARED
    assert f"mtp/{best}" not in decide(other, lanes, knowledge, Random(0), exploration=0).propensities


def test_propensities_are_shares_of_one_however_many_lanes_are_alike() -> None:
    machine = Machine({Task.CODE: 0.6}, per_drafted=0.0)
    lanes = [LADDER[0]]
    for number in range(30):
        lane = Lane(f"{number}", "engine", Strategy("mtp", 4), "gpu")
        lanes.append(LaneState(lane, model="m", fingerprint=f"{number}"))
    knowledge = taught(machine, lanes, [CODE] * 80)
    knowledge.totals = replace(knowledge.totals, exploring_s=-100.0)
    shares = decide(CODE, lanes, knowledge, Random(0), 0.5).propensities
    assert len(shares) > 20
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


def test_the_same_requests_are_decided_on_the_same() -> None:
    def run(seed: int) -> list[str]:
        machine = Machine({Task.EDIT: 0.9, Task.CREATE: 0.2}, 0.2)
        return teach(Knowledge(), machine, LADDER, [EDIT, STORY] * 30, exploration=0.1, seed=seed)

    assert run(1) == run(1)
    assert run(1) != run(2)
