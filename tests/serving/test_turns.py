"""The queue of a device."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.serving.turns import Beside, Device, QueueFull, Turn


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def device(patience_s: float = 2.0, queue_limit: int = 99) -> tuple[Device, Clock]:
    clock = Clock()
    return Device(takes_turns=True, patience_s=patience_s, queue_limit=queue_limit, clock=clock), clock


async def asked(one: Device, engine: str, slots: int = 2) -> "asyncio.Task[Turn]":
    task = asyncio.create_task(one.acquire(engine, slots))
    await asyncio.sleep(0)
    return task


async def test_one_engine_at_a_time() -> None:
    one, _ = device()
    first = await one.acquire("a", 2)
    assert (one.can_start("a", 2), one.can_start("b", 2)) == (True, False)
    second = await asked(one, "b")
    assert not second.done()
    first.release()
    await second
    assert one.holder == "b"


async def test_requests_join_up_to_the_slots() -> None:
    one, _ = device()
    turns = [await one.acquire("a", 2) for _ in range(2)]
    third = await asked(one, "a")
    assert not third.done()
    turns[0].release()
    await third
    assert one.running == 2


async def test_who_waits_too_long_stops_the_joining() -> None:
    one, clock = device(patience_s=2.0)
    first = await one.acquire("a", 2)
    other = await asked(one, "b")
    joins = await one.acquire("a", 2)
    joins.release()
    clock.now_s = 2.0
    late = await asked(one, "a")
    assert not late.done()
    first.release()
    assert (await other).queued_s == 2.0
    assert not late.done()
    (await other).release()
    await late


async def test_the_queue_is_bounded() -> None:
    one, _ = device(queue_limit=1)
    await one.acquire("a", 1)
    await asked(one, "b")
    with pytest.raises(QueueFull, match="1 requests wait"):
        await one.acquire("b", 1)


async def test_release_counts_once() -> None:
    one, _ = device()
    turn = await one.acquire("a", 2)
    await one.acquire("a", 2)
    turn.release()
    turn.release()
    assert one.running == 1


async def test_what_ran_beside_a_turn_is_told_on_average() -> None:
    one, clock = device()
    first = await one.acquire("a", 4)
    first.drafts(3.0)
    clock.now_s = 2.0
    second = await one.acquire("a", 4)
    second.drafts(1.0)
    clock.now_s = 6.0
    assert second.beside() == Beside(1.0, 3.0)
    second.release()
    clock.now_s = 8.0
    assert second.beside() == Beside(1.0, 3.0), "it is over"
    assert first.beside() == Beside(0.5, 0.5)
    first.release()
    assert (one.running, one.drafting) == (0, 0.0)


async def test_of_those_that_nobody_knows_of_it_is_not_told_what_they_draft() -> None:
    one, clock = device()
    first, unknown = await one.acquire("a", 4), await one.acquire("a", 4)
    first.drafts(3.0)
    clock.now_s = 2.0
    assert first.beside() == Beside(1.0, None)
    assert unknown.beside() == Beside(1.0, 3.0)
    unknown.release()
    third = await one.acquire("a", 4)
    clock.now_s = 4.0
    assert third.beside() == Beside(1.0, 3.0), "those before it don't matter"


async def test_a_waiter_that_gives_up_frees_those_it_held_back() -> None:
    one, clock = device(patience_s=1.0)
    await one.acquire("a", 2)
    other = await asked(one, "b")
    clock.now_s = 5.0
    held_back = await asked(one, "a")
    assert not held_back.done()
    other.cancel()
    await held_back
    assert (one.waiting, one.running) == (0, 2)


async def test_a_waiter_cancelled_when_it_was_just_let_in_gives_its_place_back() -> None:
    one, _ = device()
    first = await one.acquire("a", 1)
    second = await asked(one, "b", 1)
    first.release()  # lets the second in, which does not run before it is cancelled
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    assert (one.running, one.holder) == (0, None)


async def test_without_turns_everybody_starts() -> None:
    one = Device(takes_turns=False)
    for engine in "abab":
        assert one.can_start(engine, 1)
        await one.acquire(engine, 1)
    assert one.running == 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.booleans()), max_size=40), st.floats(0, 3))
def test_nobody_is_forgotten_and_engines_exclude_one_another(
    requests: list[tuple[str, int, bool]], patience_s: float
) -> None:
    async def run() -> None:
        one, clock = device(patience_s)
        inside: list[str] = []
        served = 0

        async def request(engine: str, steps: int, leaves: bool) -> None:
            nonlocal served
            turn = await one.acquire(engine, 2)
            inside.append(engine)
            try:
                assert set(inside) == {engine}
                assert len(inside) <= 2
                for _ in range(steps):
                    await asyncio.sleep(0)
                served += 1
            finally:
                inside.remove(engine)
                turn.release()

        async def tick() -> None:
            while True:
                clock.now_s += 0.5
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        tasks = [asyncio.create_task(request(*one_request)) for one_request in requests]
        await asyncio.sleep(0)
        for task, (_, _, leaves) in zip(tasks, requests, strict=True):
            if leaves:
                task.cancel()
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        ticking.cancel()
        failures = [result for result in results if result and not isinstance(result, asyncio.CancelledError)]
        assert failures == []
        assert served >= sum(not leaves for *_, leaves in requests)
        assert (one.running, one.waiting, one.holder) == (0, 0, None)

    asyncio.run(run())
