"""Deltas may come twice, late, in any order, or damaged: what is known in the end is the same, and nothing breaks."""

from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.decision.routers import CODE, STORY, over_the_wire, serve, times

from paceline.decision import Knowledge
from paceline.decision.deltas import Delta, flaw
from paceline.decision.sharing import MAX_WAITING, Sharing
from paceline.types import Signals, Strategy, Task


def told(origin: str, deltas: int, seed: int) -> list[Delta]:
    """What one router tells, over the wire."""
    knowledge = Knowledge()
    sharing, rng = Sharing(knowledge, origin), Random(seed)
    found = []
    for number in range(deltas):
        for signals in rng.sample((CODE, STORY, Signals(tasks={Task.MATH: 1.0})), 2):
            serve(knowledge, signals, rng.randrange(1, 4), seed + number)
        found.append(over_the_wire(sharing.delta()))
    return found


TOLD = {origin: told(origin, 5, seed) for seed, origin in enumerate(("a", "b", "c"))}
ALL = [delta for deltas in TOLD.values() for delta in deltas]


def heard(deltas: Sequence[Delta]) -> Knowledge:
    knowledge = Knowledge()
    sharing = Sharing(knowledge, "listener")
    for delta in deltas:
        sharing.apply(delta)
    return knowledge


def counts(knowledge: Knowledge) -> dict[str, Any]:
    """All that is counted, and of which the order can't matter."""
    model = knowledge.models["m"]
    return {
        "seen": model.seen,
        "tries": dict(model.lanes),
        "alike": dict(model.alike),
        "measured": {key: (sums.requests, sums.decode_tokens) for key, sums in knowledge.measured.items()},
        "answers": {key: round(mean.total, 6) for key, mean in knowledge.means.sums.items()},
        "noise": np.round(model.noises.sums["time"], 9).tolist(),
        "decode_s": round(knowledge.totals.decode_s, 6),
        "at_s": knowledge.totals.at_s,
        "served": dict(knowledge.served),
    }


ONCE = heard(ALL)


@settings(max_examples=30)
@given(st.permutations([*range(len(ALL)), *range(0, len(ALL), 2)]))
def test_the_order_and_how_often_change_nothing(order: list[int]) -> None:
    """But for what single numbers say of unknowns that may have changed meanwhile, as far as the order tells."""
    knowledge = heard([ALL[number] for number in order])
    assert counts(knowledge) == counts(ONCE)
    for signals in (CODE, STORY):
        assert times(knowledge, signals) == pytest.approx(times(ONCE, signals), rel=0.15)


@settings(max_examples=20)
@given(st.permutations([*range(5), *range(5)]))
def test_of_one_router_they_are_learned_in_its_order(order: list[int]) -> None:
    knowledge, in_order = heard([TOLD["a"][number] for number in order]), heard(TOLD["a"])
    assert counts(knowledge) == counts(in_order)
    assert times(knowledge, CODE) == times(in_order, CODE)


@settings(max_examples=20)
@given(st.sets(st.integers(1, 5), max_size=4), st.permutations(range(5)))
def test_what_is_lost_keeps_nothing_else_from_being_learned(lost: set[int], order: list[int]) -> None:
    knowledge = Knowledge()
    sharing = Sharing(knowledge, "listener")
    for delta in (TOLD["a"][number] for number in order):
        if delta.sequence not in lost:
            sharing.apply(delta)
    while sharing.waits_for("a"):
        sharing.skip("a")
    expected = sum(model.seen for delta in TOLD["a"] if delta.sequence not in lost for model in delta.models)
    assert sum(model.seen for model in knowledge.models.values()) == expected


def test_a_router_that_joins_with_a_snapshot_knows_what_one_does_that_heard_all() -> None:
    listener, joiner = Knowledge(), Knowledge()
    listening, joining = Sharing(listener, "listener"), Sharing(joiner, "joiner")
    for delta in ALL[:8]:
        listening.apply(delta)
    serve(joiner, CODE, 3, 50)
    own = joining.delta()
    serve(joiner, CODE, 2, 51)
    snapshot, untold = listening.snapshot()
    assert untold.is_empty
    late = joining.join(over_the_wire_snapshot(snapshot))
    for delta in (*ALL, own, late):  # whatever is in the snapshot already changes nothing
        listening.apply(delta)
        joining.apply(delta)
    assert counts(joiner)["seen"] == counts(ONCE)["seen"] + 5
    assert counts(joiner) == counts(listener)
    assert times(joiner, CODE) == pytest.approx(times(listener, CODE), rel=1e-6)


def over_the_wire_snapshot(snapshot: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=type(snapshot))


def test_what_was_learned_before_sharing_is_told_whole() -> None:
    alone, listener = Knowledge(), Knowledge()
    serve(alone, CODE, 30, 0)
    telling, listening = Sharing(alone, "a"), Sharing(listener, "b")
    assert telling.delta().is_empty
    alone.tell_all()
    listening.apply(over_the_wire(telling.delta()))
    assert counts(listener)["seen"] == 30
    assert counts(listener)["measured"] == counts(alone)["measured"]
    assert times(listener, CODE) == pytest.approx(times(alone, CODE), rel=0.02)


def test_a_change_that_one_router_meets_reaches_those_that_only_listen() -> None:
    """What has changed is known less well; else much evidence of before would outweigh the new for long."""
    teller, listener = Knowledge(), Knowledge()
    telling, listening = Sharing(teller, "a"), Sharing(listener, "b")
    for number in range(20):
        serve(teller, CODE, 10, number)
        listening.apply(telling.delta())
    before = times(listener, CODE)
    for number in range(6):
        serve(teller, CODE, 5, 100 + number, slower=3.0)
        listening.apply(telling.delta())
    after = times(listener, CODE)
    assert after == pytest.approx(times(teller, CODE), rel=0.1)
    assert all(new > 2 * old for new, old in zip(after, before, strict=True))


def test_a_router_that_waits_for_what_never_comes_goes_on() -> None:
    teller, listener = Knowledge(), Knowledge()
    telling, listening = Sharing(teller, "a"), Sharing(listener, "b")
    serve(teller, CODE, 1, 0)
    telling.delta()  # is lost
    for number in range(MAX_WAITING + 2):
        serve(teller, CODE, 1, number)
        listening.apply(telling.delta())
    assert counts(listener)["seen"] == MAX_WAITING + 2


def test_hundreds_of_routers_that_came_and_went_leave_nothing_that_grows() -> None:
    listener = Knowledge()
    listening = Sharing(listener, "listener")
    sizes = []
    for number in range(300):
        teller = Knowledge()
        telling = Sharing(teller, f"router-{number}")
        serve(teller, Signals(tasks={Task.CODE: 1.0}, application=str(number), conversation=str(number)), 1, number)
        listening.apply(telling.delta())
        if number % 100 == 99:
            snapshot, _ = listening.snapshot()
            sizes.append(len(msgspec.msgpack.encode(snapshot.rows)))
    model = listener.models["m"]
    assert model.seen == 300
    assert len(model.belief.numbers) < 400
    assert sizes[2] < 1.6 * sizes[1]  # served conversations and answers by program still add up to their bounds


# What nobody can have learned

GOOD = TOLD["a"][0]
MODEL = GOOD.models[0]
COUNT = len(MODEL.names)


def numbers(*values: float) -> bytes:
    return np.array(values, "<f8").tobytes()


def spoiled(**changes: Any) -> Delta:
    return msgspec.structs.replace(GOOD, models=(msgspec.structs.replace(MODEL, **changes),))


def test_what_a_router_tells_has_no_flaw() -> None:
    assert [flaw(delta) for delta in ALL] == [None] * len(ALL)


@pytest.mark.parametrize(
    "delta",
    [
        msgspec.structs.replace(GOOD, sequence=0),
        msgspec.structs.replace(GOOD, origin=""),
        msgspec.structs.replace(GOOD, exploring_s=-1.0),
        msgspec.structs.replace(GOOD, decode_s=float("nan")),
        msgspec.structs.replace(GOOD, means=[(("tokens", "m", "code"), 1e9, 1.0, 1.0)]),
        spoiled(seen=-1),
        spoiled(names=MODEL.names[:-1]),
        spoiled(names=[*MODEL.names[:-1], MODEL.names[0]]),
        spoiled(names=[*MODEL.names[:-1], ("conversation",)]),
        spoiled(prior=numbers(*[0.0] * COUNT)),
        spoiled(prior=numbers(*[float("nan")] * COUNT)),
        spoiled(drift=numbers(*[-1.0] * COUNT)),
        spoiled(values=numbers(*[1e300] * COUNT)),
        spoiled(information=numbers(*[-1.0] * (COUNT * (COUNT + 1) // 2))),
        spoiled(information=b""),
        spoiled(models=()),
        spoiled(controls=[(MODEL.tries[0][0], float("inf"), 1.0)]),
        spoiled(tries=[(MODEL.tries[0][0], -1)]),
        spoiled(tries=[(msgspec.structs.replace(MODEL.tries[0][0], strategy=Strategy("mtp", 10**12)), 1)]),
    ],
)
def test_a_delta_that_nobody_can_have_learned_teaches_nothing(delta: Delta) -> None:
    knowledge = Knowledge()
    sharing = Sharing(knowledge, "listener")
    assert flaw(delta)
    with suppress(ValueError):
        sharing.apply(delta)
    assert not knowledge.models
    assert not knowledge.measured


@settings(max_examples=150)
@given(st.binary(min_size=1, max_size=4), st.floats(0, 1, exclude_max=True))
def test_damaged_bytes_never_break_what_is_known(damage: bytes, place: float) -> None:
    """Most are refused; some change a number within reason."""
    content = msgspec.msgpack.encode(GOOD)
    start = int(place * len(content))
    content = content[:start] + damage + content[start + len(damage) :]
    try:
        delta = msgspec.msgpack.decode(content, type=Delta)
    except (msgspec.MsgspecError, ValueError):
        return
    knowledge = heard(TOLD["b"])
    sharing = Sharing(knowledge, "listener")
    with suppress(ValueError):
        sharing.apply(delta)
    for signals in (CODE, STORY):
        assert all(np.isfinite(times(knowledge, signals)))
