"""What routers learn is shared by deltas."""

from random import Random

import msgspec
import pytest

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.sharing import Delta, Sharing
from paceline.types import Lane, LaneState, Observation, Outcome, Signals, Strategy, Task

LANES = [
    LaneState(Lane(f"mtp/{cap}", "engine", Strategy("mtp", cap), "gpu"), model="m", fingerprint="engine")
    for cap in (0, 2, 4, 8)
]
CODE, STORY = Signals(tasks={Task.CODE: 1.0}), Signals(tasks={Task.CREATE: 1.0}, conversation="c")


def serve(knowledge: Knowledge, signals: Signals, count: int, seed: int) -> None:
    rng = Random(seed)
    for number in range(count):
        decision = decide(signals, LANES, knowledge, rng)
        drafts = decision.predictions[decision.lane].strategy.drafts
        seen = Observation(decode_tokens=100, decode_s=1.0 + 0.05 * rng.random())
        if drafts:
            seen = Observation(
                decode_tokens=100, decode_s=0.5 + 0.05 * rng.random(), drafted=120, accepted=50 + rng.randrange(20)
            )
        outcome = Outcome(decision.lane, 200, 2.0, observed=seen, at_s=1.7e9 + number)
        learn(knowledge, signals, decision, outcome)


def times(knowledge: Knowledge, signals: Signals) -> list[float]:
    return [one.relative * (one.plain_step_s or 0.0) for one in predict(signals, LANES, knowledge).values()]


def over_the_wire(delta: Delta) -> Delta:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(delta), type=Delta)


def test_a_router_that_has_seen_nothing_predicts_as_the_one_that_tells() -> None:
    teller, listener = Knowledge(), Knowledge()
    telling, listening = Sharing(teller, "a"), Sharing(listener, "b")
    serve(teller, CODE, 30, 0)
    assert listening.apply(over_the_wire(telling.delta()))
    assert times(listener, CODE) == pytest.approx(times(teller, CODE), rel=0.1)  # but for what nothing else explains
    assert listener.models["m"].seen == 30


def test_deltas_may_come_late_twice_and_out_of_order() -> None:
    teller = Knowledge()
    telling = Sharing(teller, "a")
    deltas = []
    for number in range(4):
        serve(teller, CODE if number % 2 else STORY, 10, number)
        deltas.append(telling.delta())
    orders = [(0, 1, 2, 3), (3, 1, 0, 2), (0, 0, 1, 3, 3, 2, 1, 0)]
    heard = []
    for order in orders:
        listener = Knowledge()
        listening = Sharing(listener, "b")
        new = [listening.apply(deltas[number]) for number in order]
        assert sum(new) == 4
        heard.append(times(listener, CODE) + times(listener, STORY))
        assert listener.models["m"].seen == 40
    assert heard[1] == pytest.approx(heard[0], rel=1e-6)
    assert heard[2] == pytest.approx(heard[0], rel=1e-6)


def test_what_was_heard_is_not_told_again() -> None:
    first, second = Knowledge(), Knowledge()
    telling, listening = Sharing(first, "a"), Sharing(second, "b")
    serve(first, CODE, 20, 0)
    listening.apply(telling.delta())
    assert listening.delta().is_empty
    serve(second, STORY, 5, 1)
    (own,) = listening.delta().models
    assert own.seen == 5
    assert sum(tries for _, tries in own.tries) == 5


def test_one_does_not_learn_from_oneself() -> None:
    knowledge = Knowledge()
    sharing = Sharing(knowledge, "a")
    serve(knowledge, CODE, 5, 0)
    before = times(knowledge, CODE)
    assert not sharing.apply(sharing.delta())
    assert times(knowledge, CODE) == before


def test_two_that_share_know_what_one_that_saw_all_knows() -> None:
    first, second = Knowledge(), Knowledge()
    sharing, other = Sharing(first, "a"), Sharing(second, "b")
    for number in range(6):
        serve(first, CODE, 5, number)
        serve(second, STORY, 5, 100 + number)
        told = sharing.delta(), other.delta()
        sharing.apply(told[1])
        other.apply(told[0])
    assert times(first, CODE) == pytest.approx(times(second, CODE), rel=0.1)
    assert times(first, STORY) == pytest.approx(times(second, STORY), rel=0.1)


def test_many_conversations_of_others_are_not_all_remembered() -> None:
    teller, listener = Knowledge(), Knowledge()
    telling, listening = Sharing(teller, "a"), Sharing(listener, "b")
    for number in range(200):
        serve(teller, Signals(tasks={Task.CODE: 1.0}, conversation=str(number)), 1, number)
        listening.apply(telling.delta())
    assert len(listener.models["m"].conversations) <= 24
    assert len(listener.models["m"].belief.numbers) < 150
