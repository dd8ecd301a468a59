"""What goes on on the devices, and what will."""

from random import Random

import pytest
from msgspec.structs import replace
from tests.machines import CODE, LADDER, NGRAM, PLAIN, Machine

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.load import Forecast, Load
from paceline.types import Lane, LaneState, Strategy


def test_lanes_on_one_device_are_decoded_together() -> None:
    lanes = [replace(PLAIN, running=1), replace(NGRAM, running=2, waiting=3)]
    other = LaneState(Lane("other", "other", Strategy(), "gpu1"), running=5)
    load = Load([*lanes, other])
    assert [load.concurrent(state) for state in (*lanes, other)] == [3, 3, 5]
    assert [load.in_flight(state) for state in (*lanes, other)] == [6, 6, 5]
    assert not any(load.takes_turns(state) for state in (*lanes, other))


def test_where_engines_take_turns_each_is_decoded_by_itself() -> None:
    lanes = [replace(PLAIN, running=2), replace(NGRAM, running=0, waiting=1, has_turn=False, can_join=False)]
    load = Load(lanes)
    assert [load.takes_turns(state) for state in lanes] == [True, True]
    assert [load.concurrent(state) for state in lanes] == [2, 0]
    assert [load.in_flight(state) for state in lanes] == [3, 3]


def test_an_engine_without_a_device_shares_with_nobody() -> None:
    lanes = [LaneState(Lane(name, name, Strategy()), running=running) for name, running in (("a", 2), ("b", 1))]
    assert [Load(lanes).concurrent(state) for state in lanes] == [2, 1]


# What will go on


def test_before_anything_was_seen_it_stays_as_it_is() -> None:
    assert [Forecast().of(start) for start in (0.0, 1.0, 7.0)] == [0.0, 1.0, 7.0]


def test_where_it_stays_as_it_is_that_is_foretold() -> None:
    forecast = Forecast()
    for number in range(100):
        forecast.learn(float(number % 4), float(number % 4))
    assert [forecast.of(start) for start in (0.0, 2.0, 3.0)] == [0.0, 2.0, 3.0]


def test_where_the_start_tells_nothing_it_goes_towards_the_mean() -> None:
    forecast, rng = Forecast(), Random(0)
    for _ in range(300):
        forecast.learn(float(rng.randrange(8)), 4.0)
    few, mean, many = (forecast.of(start) for start in (0.0, 4.0, 7.0))
    assert mean == pytest.approx(4.0, abs=0.5)
    assert 2.0 <= few < mean < many <= 5.5


def test_what_is_foretold_changes_what_is_expected() -> None:
    """Requests that come while it is decoded slow one down, and are not there when it is decided on."""
    knowledge, machine = Knowledge(), Machine({}, 0.1)
    lanes = LADDER[:1]
    before = predict(CODE, lanes, knowledge)["mtp/0"].relative
    for _ in range(60):
        decision = decide(CODE, lanes, knowledge, Random(0), 0)
        learn(knowledge, CODE, decision, replace(machine.answer(CODE, lanes[0].lane), concurrent=3.0))
    assert predict(CODE, lanes, knowledge)["mtp/0"].relative > before
    assert 2.0 <= knowledge.forecasts["m"].of(0.0) <= 3.0
    assert predict(CODE, lanes, knowledge)["mtp/0"].s_per_token == pytest.approx(0.02, rel=0.15)
