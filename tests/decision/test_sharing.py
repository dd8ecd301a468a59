"""What routers learn is shared by deltas."""

import pytest
from tests.decision.routers import CODE, STORY, over_the_wire, serve, times

from paceline.decision import Knowledge
from paceline.decision.sharing import Sharing
from paceline.types import Signals, Task


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
