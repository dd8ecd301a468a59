"""The decision: what it expects, chooses and learns."""

from collections.abc import Sequence
from math import hypot, isfinite, sqrt
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from paceline.decision import State, decide, learn, merge, predict
from paceline.decision.cells import HALF_LIVES_S, Cell, estimate, mean_of, merged, with_value
from paceline.decision.decide import faster_than_first
from paceline.decision.drafting import acceptance_of, accepted_per_draft
from paceline.decision.step_cost import NOTHING, PRIOR_DEVIATION, cost, drafting_variance, inputs, with_request
from paceline.decision.tuning import FAR_WORSE, MAX_COMPARED
from paceline.types import Decision, Lane, LaneState, Measured, Observation, Outcome, Signals, Strategy, Task

PLAIN = LaneState(Lane("plain", "plain", Strategy(), "cpu"), model="m")
NGRAM = LaneState(Lane("ngram", "ngram", Strategy("ngram", 8), "cpu"), model="m")
LADDER = [
    LaneState(Lane(f"mtp/{cap}", "engine", Strategy("mtp", cap), "gpu"), model="m", fingerprint="engine")
    for cap in (0, 1, 2, 3, 4, 6, 8)
]
STORY = Signals(tasks={Task.CREATE: 1.0}, temperature=1.0)
EDIT = Signals(tasks={Task.EDIT: 0.94, Task.CODE: 0.06}, copy=0.8, temperature=0)
START_S = 1_700_000_000.0


def choose(signals: Signals, *lanes: LaneState, state: State | None = None) -> Decision:
    return decide(signals, lanes, state or State(), Random(0), exploration=0)


class Machine:
    """A simulated engine with a known acceptance by task and known step costs."""

    def __init__(
        self,
        acceptance: dict[Task, float],
        per_drafted: float,
        tells_counts: bool = True,
        plain_step_s: float = 0.02,
        seed: int = 0,
    ) -> None:
        self.acceptance, self.per_drafted, self.tells_counts = acceptance, per_drafted, tells_counts
        self.plain_step_s = plain_step_s
        self.rng = Random(seed)
        self.now_s = START_S

    def s_per_token(self, task: Task, strategy: Strategy) -> float:
        if not strategy.drafts:
            return self.plain_step_s
        length = strategy.n_max or 1
        yielded = 1 + accepted_per_draft(self.acceptance[task], length)
        return self.plain_step_s * (1.2 + self.per_drafted * length) / yielded

    def answer(self, signals: Signals, lane: Lane) -> Outcome:
        tokens = 128
        seconds = tokens * self.s_per_token(signals.task, lane.strategy) * (1 + self.rng.gauss(0, 0.03))
        drafted = accepted = None
        if lane.strategy.drafts and self.tells_counts:
            length = lane.strategy.n_max or 1
            each = accepted_per_draft(self.acceptance[signals.task], length)
            verification_steps = tokens / (1 + each)
            drafted, accepted = round(verification_steps * length), round(verification_steps * each)
        self.now_s += seconds + 1
        seen = Observation(completion_tokens=tokens, decode_tokens=tokens, decode_s=seconds)
        seen = replace(seen, drafted=drafted, accepted=accepted)
        return Outcome(lane.name, 200, seconds + 0.1, observed=seen, at_s=self.now_s)


def taught(
    machine: Machine, lanes: Sequence[LaneState], asked: Sequence[Signals], exploration: float = 0.01
) -> tuple[State, list[str]]:
    """The state after some requests, and the lanes they took."""
    state, rng, taken = State(), Random(1), []
    by_name = {one.lane.name: one.lane for one in lanes}
    for signals in asked:
        decision = decide(signals, lanes, state, rng, exploration)
        state = learn(state, signals, decision, machine.answer(signals, by_name[decision.lane]))
        taken.append(decision.lane)
    return state, taken


# Choosing


@pytest.mark.parametrize("task", [Task.EDIT, Task.EXTRACT, Task.TOOL_CALL])
def test_before_anything_is_known_what_repeats_is_drafted(task: Task) -> None:
    decision = choose(Signals(tasks={task: 1.0}, copy=0.6), PLAIN, NGRAM)
    assert (decision.lane, decision.alternatives, decision.propensity) == ("ngram", ("plain",), 1.0)


def test_a_lane_that_is_down_is_the_last_resort() -> None:
    decision = choose(EDIT, PLAIN, replace(NGRAM, healthy=False))
    assert decision.lane == "plain"
    assert "ngram is down" in decision.reason
    assert choose(EDIT, replace(NGRAM, healthy=False)).lane == "ngram"


def test_joining_goes_before_waiting() -> None:
    plain = replace(PLAIN, can_join=False, has_turn=False)
    assert choose(STORY, plain, replace(NGRAM, running=1)).lane == "ngram"


def test_where_engines_take_turns_all_meet_in_the_plain_lane_under_load() -> None:
    plain = replace(PLAIN, can_join=False, has_turn=False)
    ngram = replace(NGRAM, running=2)
    for signals in (STORY, EDIT):
        assert choose(signals, plain, ngram).lane == "plain"
    assert "2 in flight" in choose(EDIT, plain, ngram).reason


def test_the_best_cap_falls_as_load_rises() -> None:
    machine = Machine({Task.CODE: 0.8}, per_drafted=0.1)
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    state, _ = taught(machine, LADDER, [code] * 60)
    caps = []
    for running in (0, 1, 2, 4, 8, 16):
        lanes = [replace(one, running=running if one is LADDER[0] else 0) for one in LADDER]
        caps.append(int(choose(code, *lanes, state=state).lane.removeprefix("mtp/")))
    assert caps == sorted(caps, reverse=True)
    assert caps[0] > caps[-1]


def test_load_on_another_device_does_not_count() -> None:
    other = LaneState(Lane("other", "other", Strategy(), "gpu0"), running=9)
    assert choose(EDIT, PLAIN, NGRAM, other).lane == "ngram"


def test_equal_lanes_share_the_load() -> None:
    second = LaneState(Lane("second", "second", Strategy(), "gpu1"), model="m")
    assert choose(STORY, replace(PLAIN, running=1), second).lane == "second"


def test_a_conversation_stays_where_its_prompt_is_cached() -> None:
    lanes = [LaneState(Lane(name, name, Strategy(), name)) for name in ("one", "two")]
    signals = Signals(tasks={Task.CHAT: 1.0}, prompt_chars=80_000, turns=5, conversation="c")
    state = State()
    for name in ("one", "two"):
        seen = Observation(20_000, 0, 50, 20.0, 50, 1.0)
        decision = choose(signals, *lanes, state=state)
        first = replace(signals, conversation="c" if name == "two" else "other")
        state = learn(state, first, decision, Outcome(name, 200, 21.5, observed=seen, at_s=START_S))
    assert choose(signals, *lanes, state=state).lane == "two"
    assert choose(replace(signals, conversation="other"), *lanes, state=state).lane == "one"


def test_no_lane_is_an_error() -> None:
    with pytest.raises(ValueError, match="no lane"):
        choose(STORY)


def test_the_reason_gives_its_numbers() -> None:
    assert choose(EDIT, PLAIN, NGRAM).reason.startswith("edit 0.94, accept 0.9")
    assert "8 drafted: 0.5" in choose(EDIT, PLAIN, NGRAM).reason
    assert "only lane" in choose(STORY, NGRAM).reason
    machine = Machine({Task.EDIT: 0.9}, per_drafted=0.05)
    state, _ = taught(machine, LADDER, [EDIT] * 5)
    reason = choose(EDIT, *LADDER, state=state).reason
    assert "ms/token, plain" in reason
    assert reason.isascii()


# Exploring


def test_propensities_are_the_frequencies_of_the_choices() -> None:
    machine = Machine({Task.EDIT: 0.5, Task.CREATE: 0.5}, per_drafted=0.2)
    state, _ = taught(machine, LADDER[::2], [EDIT, STORY])
    rng, counts, told = Random(3), dict.fromkeys([one.lane.name for one in LADDER], 0), {}
    for _ in range(4000):
        decision = decide(STORY, LADDER, state, rng, exploration=0.2)
        counts[decision.lane] += 1
        told[decision.lane] = decision.propensity
    assert len(told) > 1, "nothing was explored"
    for lane, propensity in told.items():
        assert counts[lane] / 4000 == pytest.approx(propensity, abs=0.03)
    assert sum(told.values()) == pytest.approx(1, abs=0.01)


def test_without_exploration_the_best_prediction_is_taken() -> None:
    for seed in range(20):
        decision = decide(STORY, LADDER, State(), Random(seed), exploration=0)
        best = min(decision.predictions.items(), key=lambda entry: entry[1].relative)[0]
        assert (decision.lane, decision.propensity, decision.exploring_s) == (best, 1.0, 0.0)


def test_exploration_stays_within_its_budget() -> None:
    machine = Machine(dict.fromkeys(Task, 0.3), per_drafted=0.4)
    rng = Random(5)
    asked = [Signals(tasks={rng.choice(list(Task)): 1.0}) for _ in range(600)]
    state, taken = taught(machine, LADDER, asked, exploration=0.01)
    assert set(taken[300:]) != {"mtp/0"}, "nothing was explored"
    assert state.exploring_s <= 0.03 * state.decode_s


def test_requests_that_are_not_decided_on_pay_for_no_exploration() -> None:
    machine = Machine(dict.fromkeys(Task, 0.3), per_drafted=0.4)
    decision = choose(STORY, LADDER[0])
    state = learn(State(), STORY, decision, machine.answer(STORY, LADDER[0].lane))
    assert state.decode_s == 0
    assert learn(state, STORY, choose(STORY, *LADDER), machine.answer(STORY, LADDER[0].lane)).decode_s > 0


def test_a_lane_far_behind_is_not_explored() -> None:
    machine = Machine({Task.CREATE: 0.05}, per_drafted=0.5)
    state, _ = taught(machine, LADDER, [STORY] * 100)
    predictions = predict(STORY, LADDER, state)
    rng = Random(7)
    for _ in range(500):
        lane = decide(STORY, LADDER, state, rng, exploration=0.3).lane
        assert predictions[lane].relative <= FAR_WORSE * predictions["mtp/0"].relative * 1.3


@given(st.tuples(st.floats(0.01, 1), st.floats(0, 2), st.floats(0.01, 1)))
@settings(max_examples=40)
def test_of_two_lanes_each_is_picked_as_often_as_it_is_faster(drawn: tuple[float, float, float]) -> None:
    deviation, mean, other_deviation = drawn
    rng = Random(1)
    won = sum(rng.gauss(mean, other_deviation) < rng.gauss(0, deviation) for _ in range(4000)) / 4000
    assert faster_than_first([(0.0, deviation), (mean, other_deviation)])[1] == pytest.approx(won, abs=0.04)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.01, 1)), min_size=1, max_size=4))
def test_no_lane_is_picked_more_often_than_the_best_prediction(times: list[tuple[float, float]]) -> None:
    shares = faster_than_first([(0.0, 0.3), *times])
    assert sum(shares) == pytest.approx(1)
    assert max(shares) == shares[0]


def test_equal_lanes_are_picked_equally_often() -> None:
    assert faster_than_first([(0.0, 0.2)] * 4) == pytest.approx([0.25] * 4)


# Learning


def test_a_cap_that_was_never_tried_follows_from_the_models() -> None:
    machine = Machine({Task.CODE: 0.95, Task.CREATE: 0.3}, per_drafted=0.08)
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    state, _ = taught(machine, [LADDER[0], LADDER[2]], [code, STORY] * 40)
    assert choose(code, *LADDER, state=state).lane == "mtp/8"
    assert choose(STORY, *LADDER, state=state).lane in ("mtp/0", "mtp/1")
    for signals in (code, STORY):
        predictions = predict(signals, LADDER, state)
        for one in LADDER:
            truth = machine.s_per_token(signals.task, one.lane.strategy)
            assert predictions[one.lane.name].s_per_token == pytest.approx(truth, rel=0.2)


def test_what_a_drafting_step_costs_does_not_depend_on_how_many_there_were() -> None:
    """A lookup on a CPU, where a step that verifies 8 drafts takes 4.5 plain ones: some requests draft in most of their
    text, others hardly ever."""
    rng, state, now_s = Random(4), State(), START_S
    chat = Signals(tasks={Task.CHAT: 1.0})
    for number in range(300):
        signals, share = ((EDIT, 0.5), (chat, 0.05))[number % 2]
        decision = decide(signals, [PLAIN, NGRAM], state, rng, 0.0)
        lane = "plain" if number % 4 < 2 else "ngram"
        verification_steps = 100 * share if lane == "ngram" else 0.0
        seconds = 0.02 * (100 - verification_steps + 4.5 * verification_steps) * (1 + rng.gauss(0, 0.03))
        tokens = 100 + round(6 * verification_steps)
        now_s += seconds
        seen = Observation(
            decode_tokens=tokens, decode_s=seconds, drafted=round(8 * verification_steps), accepted=tokens - 100
        )
        state = learn(state, signals, decision, Outcome(lane, 200, seconds, observed=seen, at_s=now_s))
    for signals, truth in ((EDIT, (50 + 50 * 4.5) / 400), (chat, (95 + 5 * 4.5) / 130)):
        predicted = predict(signals, [PLAIN, NGRAM], state)["ngram"]
        assert predicted.s_per_token == pytest.approx(0.02 * truth, rel=0.1)


def test_a_cap_is_tried_where_its_cost_does_not_follow_from_others() -> None:
    machine = Machine({Task.CODE: 0.8}, per_drafted=0.1)
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    state, _ = taught(machine, [LADDER[0], LADDER[6]], [code] * 60)
    assert predict(code, LADDER, state)["mtp/4"].is_untried
    assert decide(code, LADDER, state, Random(0), 0.1).propensities["mtp/4"] > 0
    state, _ = taught(machine, [LADDER[0], LADDER[1], LADDER[6]], [code] * 60, exploration=0.5)
    assert not predict(code, LADDER, state)["mtp/4"].is_untried
    assert "mtp/4" not in decide(code, LADDER, state, Random(0), 0.1).propensities


def test_the_best_fixed_lane_is_compared_with() -> None:
    """Taken now and then where another one is predicted to be faster: nothing else shows what choosing brings."""
    machine = Machine({Task.CODE: 0.95, Task.CREATE: 0.3}, per_drafted=0.08)
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    lanes = [LADDER[0], LADDER[1], LADDER[3], LADDER[6]]
    state, _ = taught(machine, lanes, [code, STORY] * 150)
    ratios = {lane: always.ratio for (_, lane), always in state.always.items()}
    best = min(ratios, key=ratios.__getitem__)
    truth = {
        one.lane.name: sum(machine.s_per_token(task, one.lane.strategy) for task in machine.acceptance) for one in lanes
    }
    assert best == min(truth, key=truth.__getitem__)
    assert ratios[best] > 1
    other = code if choose(code, *lanes, state=state).lane != best else STORY
    state = replace(state, exploring_s=0.0)
    assert 0.001 < decide(other, lanes, state, Random(0)).propensities[best] <= MAX_COMPARED
    assert best not in decide(other, lanes, state, Random(0), exploration=0).propensities


def test_propensities_are_shares_of_one_however_many_lanes_are_alike() -> None:
    machine = Machine({Task.CODE: 0.6}, per_drafted=0.0)
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    lanes = [LADDER[0]]
    for number in range(30):
        lane = Lane(f"{number}", "engine", Strategy("mtp", 4), "gpu")
        lanes.append(LaneState(lane, model="m", fingerprint=f"{number}"))
    state, _ = taught(machine, lanes, [code] * 80)
    shares = decide(code, lanes, replace(state, exploring_s=-100.0), Random(0), 0.5).propensities
    assert len(shares) > 20
    assert sum(shares.values()) == pytest.approx(1)


def test_engines_that_tell_no_counts_are_learned_by_time() -> None:
    machine = Machine({Task.CODE: 0.9, Task.CREATE: 0.05}, per_drafted=0.3, tells_counts=False)
    lanes = [LADDER[0], LADDER[4]]
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    state, _ = taught(machine, lanes, [code, STORY] * 40)
    assert choose(code, *lanes, state=state).lane == "mtp/4"
    assert choose(STORY, *lanes, state=state).lane == "mtp/0"


def test_a_drafter_that_changes_is_noticed() -> None:
    machine = Machine({Task.CODE: 0.9}, per_drafted=0.25)
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    state, rng = State(), Random(1)
    by_name = {one.lane.name: one.lane for one in LADDER}
    taken = []
    for number in range(130):
        if number == 100:
            machine.acceptance[Task.CODE] = 0.1
        decision = decide(code, LADDER, state, rng)
        taken.append(decision.lane)
        state = learn(state, code, decision, machine.answer(code, by_name[decision.lane]))
    assert taken[99] == "mtp/8"
    assert taken[-12:].count("mtp/0") >= 10


def test_a_machine_that_slows_down_is_noticed() -> None:
    machine = Machine({Task.CODE: 0.9}, per_drafted=0.25)
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    lanes = [LADDER[0]]
    state, _ = taught(machine, lanes, [code] * 200)
    machine.plain_step_s *= 3
    for _ in range(12):
        decision = choose(code, *lanes, state=state)
        state = learn(state, code, decision, machine.answer(code, LADDER[0].lane))
    assert predict(code, lanes, state)["mtp/0"].s_per_token == pytest.approx(0.06, rel=0.25)


def test_another_fingerprint_knows_nothing() -> None:
    machine = Machine({Task.CODE: 0.05}, per_drafted=0.5)
    code = Signals(tasks={Task.CODE: 1.0}, temperature=0)
    state, _ = taught(machine, LADDER, [code] * 50)
    anew = [replace(one, fingerprint="newer", model="other") for one in LADDER]
    known = {name: one.relative for name, one in predict(code, anew, state).items()}
    assert known == {
        name: pytest.approx(one.relative, rel=0.01) for name, one in predict(code, LADDER, State()).items()
    }


def test_the_same_log_replays_to_the_same_decisions() -> None:
    asked = [EDIT, STORY] * 30
    runs = [taught(Machine({Task.EDIT: 0.9, Task.CREATE: 0.2}, 0.2), LADDER, asked) for _ in range(2)]
    assert runs[0] == runs[1]


def test_an_outcome_counts_for_the_lane_that_served() -> None:
    decision = choose(EDIT, PLAIN, NGRAM)
    seen = Observation(decode_tokens=100, decode_s=1.0)
    state = learn(State(), EDIT, decision, Outcome("plain", 200, 1.2, observed=seen, at_s=START_S))
    assert ("correct", "plain", "autoregressive", None) not in state.cells  # no step time was known to compare with
    assert mean_of(state.cells["step", "m"]) == pytest.approx(-4.605, abs=0.05)
    assert set(state.measured) == {("plain", "plain")}


def test_old_conversations_are_forgotten() -> None:
    state = State()
    decision = choose(EDIT, *LADDER)
    for number in range(2600):
        signals = replace(EDIT, conversation=str(number))
        outcome = Outcome("mtp/4", 200, 3.0, observed=GOOD, at_s=START_S + number)
        state = learn(state, signals, decision, outcome)
    assert len(state.served) <= 1000
    assert len(state.cells) <= 2001
    assert ("conversation", "accept", "m", "mtp", "2599") in state.cells


# Adding states up

outcomes = st.builds(
    lambda lane, tokens, seconds, drafted, share, at_s, task, conversation: (
        Signals(tasks={task: 1.0}, conversation=conversation, prompt_chars=100),
        Outcome(
            lane,
            200,
            seconds + 1,
            observed=Observation(20, 0, tokens, 0.5, tokens, seconds, drafted, int(drafted * share)),
            concurrent=share,
            at_s=START_S + at_s,
        ),
    ),
    st.sampled_from([one.lane.name for one in LADDER]),
    st.integers(4, 500),
    st.floats(0.5, 20),
    st.integers(0, 100),
    st.floats(0, 1),
    st.floats(0, 100_000),
    st.sampled_from(list(Task)),
    st.sampled_from(["a", "b"]),
)


def flat(state: State) -> dict[Any, Any]:
    """All sums of a state, for comparing."""
    found: dict[Any, Any] = {("totals",): (state.at_s, state.decode_s, state.exploring_s)}
    found |= {("cell", *key): (cell.at_s, *cell.weights, *cell.sums) for key, cell in state.cells.items()}
    found |= {("step", *key): (step.at_s, *step.squares, *step.products) for key, step in state.steps.items()}
    found |= {("served", *key): (turn.at_s, turn.chars) for key, turn in state.served.items()}
    found |= {("always", *lane): (one.at_s, one.lane_s, one.taken_s) for lane, one in state.always.items()}
    for lane, sums in state.measured.items():
        found[("measured", *lane)] = tuple(getattr(sums, name) for name in Measured.__struct_fields__)
    return found


@given(st.lists(st.tuples(outcomes, st.booleans()), max_size=12))
@settings(max_examples=60)
def test_states_of_replicas_add_up(stream: list[tuple[tuple[Signals, Outcome], bool]]) -> None:
    decision = choose(EDIT, *LADDER)
    warm = learn(
        State(), EDIT, decision, Outcome("mtp/0", 200, 2.0, observed=Observation(decode_tokens=90, decode_s=1.0))
    )
    decision = choose(EDIT, *LADDER, state=warm)
    both = one = other = State()
    for (signals, outcome), left in stream:
        both = learn(both, signals, decision, outcome)
        if left:
            one = learn(one, signals, decision, outcome)
        else:
            other = learn(other, signals, decision, outcome)
    for added in (merge(one, other), merge(other, one)):
        assert flat(added).keys() == flat(both).keys()
        for key, sums in flat(both).items():
            assert flat(added)[key] == pytest.approx(sums, rel=1e-6, abs=1e-9)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 10), st.floats(0, 1e6)), min_size=1, max_size=8))
def test_the_order_of_evidence_does_not_matter(values: list[tuple[float, float, float]]) -> None:
    def cell_of(some: Sequence[tuple[float, float, float]]) -> Cell:
        cell = None
        for value, weight, at_s in some:
            cell = with_value(cell, value, weight, at_s)
        assert cell is not None
        return cell

    there, back = cell_of(values), cell_of(values[::-1])
    assert there.sums == pytest.approx(back.sums, rel=1e-6, abs=1e-9)
    assert merged(there, back).weights == pytest.approx([2 * weight for weight in there.weights])


# The parts


def test_a_cell_forgets_what_newer_evidence_contradicts_and_nothing_else() -> None:
    cell = None
    for number in range(200):
        cell = with_value(cell, 1.0 + 0.1 * (-1) ** number, 4.0, 10.0 * number)
    assert cell is not None
    assert mean_of(cell) == pytest.approx(1.0, abs=0.01)
    assert cell.window == len(HALF_LIVES_S) - 1
    for number in range(4):
        cell = with_value(cell, -2.0, 4.0, 2000.0 + 10 * number)
    assert mean_of(cell) < -0.8
    assert cell.window < 3


def test_levels_shrink_towards_what_is_more_general() -> None:
    general = with_value(None, 1.0, 100.0, 0.0)
    special = with_value(None, 3.0, 1.0, 0.0)
    mean, variance = estimate((0.0, 1.0), ((general, 0.0), (special, 0.5)), 0.0)
    assert 1.0 < mean < 3.0
    assert mean == pytest.approx((0.990 / 0.51 + 3.0) / (1 / 0.51 + 1), abs=0.01)
    assert variance == pytest.approx(1 / (1 / 0.51 + 1), abs=0.01)
    assert estimate((0.5, 2.0), ((None, 1.0),), 0.0) == (0.5, 3.0)


@given(st.floats(0.01, 0.98), st.integers(1, 16))
def test_acceptance_and_accepted_tokens_are_inverse(acceptance: float, length: int) -> None:
    accepted = accepted_per_draft(acceptance, length)
    assert accepted == pytest.approx(sum(acceptance**number for number in range(1, length + 1)))
    assert acceptance_of(accepted, length) == pytest.approx(acceptance, abs=1e-4)


def test_step_costs_are_found_from_requests() -> None:
    truth = (0.8, 0.25, 0.3, 0.0)
    rng, known = Random(2), NOTHING
    for number in range(300):
        steps, verification_steps, length = 100.0, rng.uniform(0, 100), rng.choice((2, 4, 8))
        concurrent = rng.choice((0.0, 1.0, 3.0))
        share = verification_steps / steps
        took = share * cost(truth, length, concurrent, 0.5) + (1 - share) * cost(truth, 0, concurrent, 0.5)
        given_ = inputs(steps, verification_steps, verification_steps * length, concurrent, 0.5)
        known = with_request(known, given_, took * (1 + rng.gauss(0, 0.03)), float(number))
    assert known.coefficients[:3] == pytest.approx(truth[:3], abs=0.08)


def test_what_a_longer_draft_costs_is_uncertain_until_drafts_differ_in_length() -> None:
    known = NOTHING
    assert sqrt(drafting_variance(known, 8)) == pytest.approx(hypot(PRIOR_DEVIATION[0], 8 * PRIOR_DEVIATION[1]))
    for number in range(100):
        known = with_request(known, inputs(100.0, 100.0, 400.0, 0.0, 0.5), 2.0, float(number))
    assert sqrt(drafting_variance(known, 4)) < 0.05
    assert sqrt(drafting_variance(known, 12)) > 0.5
    for number in range(100):
        known = with_request(known, inputs(100.0, 100.0, 1200.0, 0.0, 0.5), 3.0, 100.0 + number)
    assert sqrt(drafting_variance(known, 12)) < 0.1


# What engines may report

GOOD = Observation(prompt_tokens=20, prefill_s=0.5, decode_tokens=40, decode_s=2.0, drafted=16, accepted=12)


def measured(*some: Outcome) -> Measured:
    state = State()
    for outcome in some:
        state = learn(state, STORY, choose(STORY, PLAIN, NGRAM), outcome)
    return state.measured["plain", "plain"]


def test_sums_are_weighted_by_tokens() -> None:
    slow = Observation(decode_tokens=10, decode_s=10.0)
    sums = measured(Outcome("plain", 200, 3.0, observed=GOOD), Outcome("plain", 200, 11.0, observed=slow))
    assert sums.tokens_per_s == 50 / 12
    assert sums.acceptance == 12 / 16
    assert sums.requests == 2


def test_what_was_not_reported_is_missing() -> None:
    sums = measured(Outcome("plain", 200, 1.0))
    assert (sums.requests, sums.tokens_per_s, sums.acceptance) == (1, None, None)


def test_an_engine_that_fails_fast_is_never_taken_for_a_fast_one() -> None:
    machine = Machine({Task.EDIT: 0.9}, per_drafted=0.1)
    state, _ = taught(machine, LADDER, [EDIT] * 20)
    before = predict(EDIT, LADDER, state)
    for status, error in ((500, "broken"), (200, "cut off"), (499, "the client left"), (503, "busy")):
        decision = choose(EDIT, *LADDER, state=state)
        for one in LADDER:
            failed = Outcome(one.lane.name, status, 0.001, observed=GOOD, error=error, at_s=machine.now_s)
            state = learn(state, EDIT, decision, failed)
    assert predict(EDIT, LADDER, state) == before
    assert state.measured["engine", "mtp/0"].failures == 3


@pytest.mark.parametrize(
    "lie",
    [
        Observation(decode_tokens=100, decode_s=1e-6, drafted=0, accepted=0),
        Observation(decode_tokens=100, decode_s=0.01, drafted=90, accepted=80),
        Observation(decode_tokens=10**12, decode_s=5.0),
        Observation(decode_tokens=0, decode_s=5.0),
        Observation(decode_tokens=100, decode_s=float("nan")),
        Observation(decode_tokens=100, decode_s=float("inf")),
        Observation(decode_tokens=100, decode_s=-1.0),
        Observation(decode_tokens=100, decode_s=5000.0),
    ],
)
def test_what_can_not_be_is_not_believed(lie: Observation) -> None:
    decision = choose(EDIT, *LADDER)
    state = learn(State(), EDIT, decision, Outcome("mtp/8", 200, 6.0, observed=lie, at_s=START_S))
    assert not state.cells.keys() & {("step", "m"), ("guessed step", "m")}
    assert predict(EDIT, LADDER, state) == decision.predictions


def test_an_engine_that_lies_about_its_counts_is_found_out_by_the_clock() -> None:
    """It says that all drafts are accepted, and takes three times as long as without."""
    plain = Machine({Task.EDIT: 0.9}, per_drafted=0.1)
    state, rng = State(), Random(1)
    lanes = [LADDER[0], LADDER[4]]
    taken = []
    for _ in range(200):
        decision = decide(EDIT, lanes, state, rng)
        taken.append(decision.lane)
        if decision.lane == "mtp/0":
            outcome = plain.answer(EDIT, LADDER[0].lane)
        else:
            plain.now_s += 9
            seen = Observation(decode_tokens=128, decode_s=7.7, drafted=104, accepted=102)
            outcome = Outcome("mtp/4", 200, 8.0, observed=seen, at_s=plain.now_s)
        state = learn(state, EDIT, decision, outcome)
    assert taken[-40:].count("mtp/0") >= 36


anything = st.none() | st.integers(-5, 10**12) | st.sampled_from([0, 1, 10**30])
any_time = st.none() | st.floats()


@given(
    st.lists(
        st.tuples(anything, any_time, anything, any_time, anything, anything, st.floats(), st.floats(), st.floats()),
        max_size=6,
    )
)
def test_no_report_spoils_the_state(reports: list[Any]) -> None:
    state = State()
    for prompt, prefill_s, decoded, decode_s, drafted, accepted, total_s, concurrent, at_s in reports:
        for one in LADDER:
            seen = Observation(prompt, None, decoded, prefill_s, decoded, decode_s, drafted, accepted)
            outcome = Outcome(one.lane.name, 200, total_s, observed=seen, concurrent=concurrent, at_s=at_s)
            state = learn(state, EDIT, choose(EDIT, *LADDER, state=state), outcome)
    good = Outcome("mtp/0", 200, 3.0, observed=GOOD, at_s=START_S)
    state = learn(state, EDIT, choose(EDIT, *LADDER, state=state), good)
    for prediction in predict(EDIT, LADDER, state).values():
        assert isfinite(prediction.relative)
        assert prediction.relative > 0
        assert prediction.s_per_token is not None
        assert 0 < prediction.s_per_token < float("inf")
    assert isfinite(state.decode_s)
