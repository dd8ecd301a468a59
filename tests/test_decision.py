"""The first policy, and what it keeps of outcomes."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.decision import State, decide, learn
from paceline.types import Decision, Lane, LaneState, Measured, Observation, Outcome, Signals, Strategy, Task

PLAIN = Lane("plain", "plain", Strategy(), "cpu")
NGRAM = Lane("ngram", "ngram", Strategy("ngram", 8), "cpu")
STORY, EDIT = Signals(Task.OPEN_ENDED), Signals(Task.EDIT, "rename + code")


def choose(signals: Signals, *states: LaneState) -> Decision:
    return decide(signals, states, State(), Random(0))


@pytest.mark.parametrize("task", [Task.EDIT, Task.EXTRACT, Task.STRUCTURED, Task.TOOL_CALL])
def test_what_repeats_is_drafted(task: Task) -> None:
    assert choose(Signals(task), LaneState(PLAIN), LaneState(NGRAM)).lane == "ngram"


def test_open_ended_text_goes_plain() -> None:
    decision = choose(STORY, LaneState(NGRAM), LaneState(PLAIN))
    assert (decision.lane, decision.alternatives, decision.propensity) == ("plain", ("ngram",), 1.0)


def test_a_lane_that_is_down_is_the_last_resort() -> None:
    decision = choose(EDIT, LaneState(PLAIN), LaneState(NGRAM, healthy=False))
    assert decision.lane == "plain"
    assert "ngram is down" in decision.reason
    assert choose(EDIT, LaneState(NGRAM, healthy=False)).lane == "ngram"


def test_joining_goes_before_waiting() -> None:
    plain = LaneState(PLAIN, can_join=False, has_turn=False)
    ngram = LaneState(NGRAM, running=1)
    decision = choose(STORY, plain, ngram)
    assert decision.lane == "ngram"
    assert "joins 1 running here" in decision.reason


def test_under_load_all_meet_in_the_plain_lane() -> None:
    plain = LaneState(PLAIN, can_join=False, has_turn=False)
    ngram = LaneState(NGRAM, running=2)
    for signals in (STORY, EDIT):
        assert choose(signals, plain, ngram).lane == "plain"
    assert "2 others in flight" in choose(EDIT, plain, ngram).reason


def test_load_on_another_device_does_not_count() -> None:
    other = LaneState(Lane("other", "other", Strategy(), "gpu0"), running=9)
    assert choose(EDIT, LaneState(PLAIN), LaneState(NGRAM), other).lane == "ngram"


def test_equal_lanes_share_the_load() -> None:
    second = Lane("second", "second", Strategy(), "gpu1")
    assert choose(STORY, LaneState(PLAIN, running=1), LaneState(second)).lane == "second"


def test_no_lane_is_an_error() -> None:
    with pytest.raises(ValueError, match="no lane"):
        choose(STORY)


def test_the_reason_names_its_evidence() -> None:
    assert choose(EDIT, LaneState(PLAIN), LaneState(NGRAM)).reason == ("edit (rename + code), 0 chars -> ngram n_max=8")
    assert "only lane" in choose(STORY, LaneState(NGRAM)).reason


# Learning


def after(*outcomes: Outcome) -> Measured:
    state = State()
    for outcome in outcomes:
        state = learn(state, STORY, Decision("plain", ""), outcome)
    return state.measured["plain"]


GOOD = Observation(prompt_tokens=10, prefill_s=0.5, decode_tokens=20, decode_s=2.0, drafted=8, accepted=6)


def test_sums_are_weighted_by_tokens() -> None:
    slow = Observation(decode_tokens=10, decode_s=10.0)
    sums = after(Outcome("plain", 200, 1.0, observed=GOOD), Outcome("plain", 200, 1.0, observed=slow))
    assert sums.tokens_per_s == 30 / 12
    assert sums.acceptance == 6 / 8
    assert sums.requests == 2


def test_what_was_not_reported_is_missing() -> None:
    sums = after(Outcome("plain", 200, 1.0))
    assert (sums.requests, sums.tokens_per_s, sums.acceptance) == (1, None, None)


def test_an_error_never_looks_fast() -> None:
    sums = after(
        Outcome("plain", 500, 0.001, observed=GOOD, error="x"), Outcome("plain", 499, 1.0, error="the client left")
    )
    assert (sums.requests, sums.failures, sums.tokens_per_s) == (2, 1, None)


numbers = st.none() | st.integers(-5, 10**12) | st.floats()
counts = st.none() | st.integers(-5, 10**12)


@given(counts, st.none() | st.floats(), counts, st.none() | st.floats(), counts, counts)
def test_no_report_spoils_the_state(
    prompt: int | None,
    prefill: float | None,
    decoded: int | None,
    decode: float | None,
    drafted: int | None,
    accepted: int | None,
) -> None:
    observed = Observation(prompt, None, None, prefill, decoded, decode, drafted, accepted)
    sums = after(Outcome("plain", 200, 1.0, observed=observed), Outcome("plain", 200, 1.0, observed=GOOD))
    assert sums.tokens_per_s is not None
    assert 0 < sums.tokens_per_s < float("inf")
    assert sums.acceptance is not None
    assert 0 <= sums.acceptance <= 1
