"""Long prompts: what a step costs there, and what a cache that holds one is worth."""

from math import exp, log
from random import Random

import pytest
from msgspec.structs import replace
from tests.machines import CODE, LADDER, START_S

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.groups import asked_of
from paceline.types import Decision, Lane, LaneState, Observation, Outcome, Signals, Strategy

DEEPEST = 524_288
"""Tokens."""
PLAIN_S, SLOWER_AT = 0.02, 245_000
"""Seconds of a plain step, and tokens at which it takes twice as long: two 5060 Ti, a 27B, a cache in 4 bits."""
LANES = [LADDER[0], LADDER[2], LADDER[4]]


def prompt_of(tokens: int, conversation: str = "", turns: int = 1) -> Signals:
    return replace(CODE, prompt_chars=4 * tokens, conversation=conversation, turns=turns)


def step_s(tokens: int) -> float:
    return PLAIN_S * (1 + tokens / SLOWER_AT)


def serve(knowledge: Knowledge, tokens: int, number: int, rng: Random) -> None:
    """Has a request served by an engine whose steps are slower the longer the prompt."""
    signals = prompt_of(tokens)
    decision = decide(signals, LANES, knowledge, rng)
    lane = next(state.lane for state in LANES if state.lane.name == decision.lane)
    length = lane.strategy.n_max or 0
    accepted = 0.75 * length * 0.85
    steps = round(200 / (1 + accepted))
    seconds = steps * step_s(tokens) * (1 + 0.2 * length) * exp(rng.gauss(0, 0.03))
    observed = Observation(
        completion_tokens=200,
        decode_tokens=200,
        decode_s=seconds,
        drafted=steps * length if length else None,
        accepted=200 - steps if length else None,
    )
    outcome = Outcome(lane.name, 200, seconds + 0.1, observed=observed, at_s=START_S + 100.0 * number)
    learn(knowledge, signals, decision, outcome)


def learned(depths: tuple[int, ...], requests: int) -> Knowledge:
    knowledge, rng = Knowledge(), Random(3)
    for number in range(requests):
        serve(knowledge, depths[number % len(depths)], number, rng)
    return knowledge


def plain_step_s(knowledge: Knowledge, tokens: int) -> float:
    seconds = predict(prompt_of(tokens), LANES, knowledge)["mtp/0"].plain_step_s
    assert seconds is not None
    return seconds


def test_short_prompts_have_no_depth() -> None:
    assert [asked_of(prompt_of(tokens)).depth for tokens in (0, 1_000, 4_000)] == [0.0, 0.0, 0.0]
    assert asked_of(prompt_of(131_072)).depth == pytest.approx(log(2), abs=0.04)
    assert asked_of(prompt_of(DEEPEST)).depth == pytest.approx(log(5), abs=0.04)


def test_before_anything_deep_was_served_its_steps_are_believed_to_be_slower() -> None:
    knowledge = learned((500,), 20)
    assert plain_step_s(knowledge, 500) == pytest.approx(PLAIN_S, rel=0.1)
    assert 1.3 < plain_step_s(knowledge, 131_072) / PLAIN_S < 1.8
    assert 2.2 < plain_step_s(knowledge, DEEPEST) / PLAIN_S < 3.2


def test_what_a_step_costs_at_a_depth_is_learned_and_is_no_throttling() -> None:
    knowledge = learned((500, 500, 131_072, 500, DEEPEST), 60)
    for tokens in (500, 131_072, DEEPEST):
        assert plain_step_s(knowledge, tokens) == pytest.approx(step_s(tokens), rel=0.12), tokens
    assert plain_step_s(knowledge, 262_144) == pytest.approx(step_s(262_144), rel=0.15)  # none was served


def test_depth_is_kept_through_forgetting() -> None:
    knowledge = learned((500, DEEPEST), 30)
    model = knowledge.models["m"]
    model.forget()
    assert ("depth", "engine") in model.belief.numbers
    assert plain_step_s(knowledge, DEEPEST) == pytest.approx(step_s(DEEPEST), rel=0.15)


# --- A warm cache ---

HERE = LaneState(Lane("here", "here", Strategy(), "gpu-0"), model="m", fingerprint="here")
THERE = LaneState(Lane("there", "there", Strategy(), "gpu-1"), model="m", fingerprint="there")


def answered(knowledge: Knowledge, lane: LaneState, signals: Signals, at_s: float) -> None:
    """A turn of the conversation on one of the engines; prompts are read at 2,000 tokens per second."""
    name, tokens = lane.lane.name, signals.prompt_chars // 4
    predictions = predict(signals, [HERE, THERE], knowledge)
    observed = Observation(
        prompt_tokens=tokens, prefill_s=tokens / 2_000, completion_tokens=100, decode_tokens=100, decode_s=4.0
    )
    outcome = Outcome(name, 200, 4.0 + tokens / 2_000, observed=observed, at_s=at_s)
    learn(knowledge, signals, Decision(name, "", predictions=predictions), outcome)


def test_a_warm_cache_is_worth_minutes_of_reading() -> None:
    knowledge = Knowledge()
    for number, lane in enumerate((HERE, THERE)):
        for turn in range(4):
            answered(knowledge, lane, prompt_of(2_000, f"short {number}{turn}"), START_S + 10 * turn)
    answered(knowledge, THERE, prompt_of(DEEPEST, "long"), START_S + 1_000)
    next_turn = prompt_of(DEEPEST + 2_000, "long", turns=2)
    found = predict(next_turn, [HERE, THERE], knowledge)
    assert found["here"].prefill_s > 240  # four minutes and more
    assert found["there"].prefill_s < 5
    for seed in range(5):
        decision = decide(next_turn, [HERE, replace(THERE, running=3)], knowledge, Random(seed))
        assert decision.lane == "there"  # though others are decoded there
    assert decide(prompt_of(DEEPEST, "other"), [HERE, THERE], knowledge, Random(0), exploration=0).lane in (
        "here",
        "there",
    )
