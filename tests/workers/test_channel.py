"""What two processes tell each other, over a real pair of sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from tests.patient import until

from paceline.routing.budgets import Entry
from paceline.serving.turns import Device
from paceline.workers import worker as module
from paceline.workers.channel import NOTHING, Channel, Lost, Refusal
from paceline.workers.one_worker import OneWorker
from paceline.workers.turns import SharedDevice, TurnKeeper, TurnWanted
from paceline.workers.worker import _KeptElsewhere


class Pair:
    """Both ends of a channel; the second one can be told what the first one asks for."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.one = Channel(on_end=lambda: self.ended.append("one"))
        self.two = Channel(on_end=lambda: self.ended.append("two"))

    async def open(self) -> None:
        ends = socket.socketpair()
        await self.one.open(ends[0])
        await self.two.open(ends[1])


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    both = Pair()
    yield both
    both.one.close()
    both.two.close()


async def test_answers_may_come_in_another_order(pair: Pair) -> None:
    go = asyncio.Event()

    async def late(number: int) -> int:
        await go.wait()
        return number + 1

    pair.two.on("late", int, late)
    pair.two.on("soon", int, lambda number: number + 2)
    await pair.open()
    waiting = asyncio.create_task(pair.one.ask("late", 1, int))
    assert await pair.one.ask("soon", 1, int) == 3
    go.set()
    assert await waiting == 2


async def test_what_is_told_arrives_in_its_order_however_long_it_is(pair: Pair) -> None:
    heard: list[int] = []
    pair.two.on("text", str, lambda text: heard.append(len(text)))
    await pair.open()
    lengths = [1, 3_000_000, 2, 70_000]
    for length in lengths:
        pair.one.tell("text", "x" * length)
    await until(lambda: len(heard) == 4)
    assert heard == lengths


async def test_a_refusal_says_why_and_a_defect_ends_nothing(pair: Pair) -> None:
    def refuse(_: None) -> None:
        raise Refusal("it is Sunday")

    pair.two.on("refused", NOTHING, refuse)
    pair.two.on("defect", NOTHING, lambda _: 1 // 0)
    pair.two.on("well", NOTHING, lambda _: 1)
    await pair.open()
    with pytest.raises(Refusal, match="it is Sunday"):
        await pair.one.ask("refused", None, NOTHING)
    with pytest.raises(Refusal, match="zero"):
        await pair.one.ask("defect", None, NOTHING)
    with pytest.raises(Refusal):
        await pair.one.ask("unheard of", None, NOTHING)
    assert await pair.one.ask("well", None, int) == 1


async def test_who_asks_one_that_ends_is_told(pair: Pair) -> None:
    async def never(_: None) -> None:
        await asyncio.Event().wait()

    pair.two.on("never", NOTHING, never)
    await pair.open()
    waiting = asyncio.create_task(pair.one.ask("never", None, NOTHING, within_s=None))
    await asyncio.sleep(0)
    pair.two.close()
    with pytest.raises(Lost):
        await waiting
    await until(lambda: "one" in pair.ended)
    with pytest.raises(Lost):
        await pair.one.ask("never", None, NOTHING)


async def test_a_turn_that_is_no_longer_waited_for_is_given_back(pair: Pair) -> None:
    card = Device(takes_turns=True)
    keeper = TurnKeeper({"card": card})
    pair.two.on("turn wanted", TurnWanted, keeper.grant)
    pair.two.on("turn over", int, keeper.end)
    await pair.open()
    shared = SharedDevice(takes_turns=True, name="card", channel=pair.one)
    first = await shared.acquire("one", 1)
    waiting = asyncio.create_task(shared.acquire("two", 1))
    await until(lambda: card.waiting == 1)
    waiting.cancel()
    await until(lambda: card.waiting == 0)
    first.release()
    first.release()
    await until(lambda: card.running == 0)
    turns = [await shared.acquire("one", 2) for _ in range(2)]
    assert (card.running, card.holder) == (2, "one")
    keeper.end_all()
    assert (card.running, card.holder) == (0, None)
    for turn in turns:
        turn.release()  # which changes nothing any more
    assert card.running == 0


async def test_a_turn_that_is_granted_as_it_is_given_up_is_nobodys() -> None:
    card = Device(takes_turns=True)
    keeper = TurnKeeper({"card": card})
    held = await card.acquire("other", 1)
    granting = asyncio.create_task(keeper.grant(TurnWanted(7, "card", "one", 1)))
    await until(lambda: card.waiting == 1)
    held.release()
    keeper.end(7)  # before the task that waits has gone on
    with pytest.raises(Refusal):
        await granting
    assert (card.running, card.holder) == (0, None)


async def test_a_turn_that_is_given_up_in_the_same_breath_is_nobodys(pair: Pair) -> None:
    card = Device(takes_turns=True)
    keeper = TurnKeeper({"card": card})
    pair.two.on("turn wanted", TurnWanted, keeper.grant)
    pair.two.on("turn over", int, keeper.end)
    await pair.open()
    asking = asyncio.create_task(pair.one.ask("turn wanted", TurnWanted(7, "card", "one", 1), float))
    await asyncio.sleep(0)
    pair.one.tell("turn over", 7)  # both are read at once
    with pytest.raises(Refusal, match="no longer wanted"):
        await asking
    assert (card.running, card.holder) == (0, None)


async def test_what_the_keeper_counts_too_late_is_taken_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET_TIMEOUT_S", 0.05)
    go = asyncio.Event()
    spent: list[float] = []

    async def count_late(entry: Entry) -> str:
        await go.wait()
        spent.append(entry.amount)
        return ""

    pair.two.on("spend if left", Entry, count_late)
    pair.two.on("spent", Entry, lambda entry: spent.append(entry.amount))
    await pair.open()
    book = _KeptElsewhere([], pair.one)
    assert "not told within" in await book.spend_if_left(Entry("2026-11-30", "", 2.0))
    go.set()
    await until(lambda: len(spent) == 2)
    assert spent == [2.0, -2.0]


async def test_what_a_worker_misses_while_it_starts_it_is_told_when_it_serves(pair: Pair) -> None:
    heard: list[str] = []
    pair.two.on("news", str, heard.append)
    await pair.open()
    worker = OneWorker(0, pair.one, TurnKeeper({}))
    worker.tell("news", "is part of what it begins with")
    worker.begins_with_all(generation=3)
    worker.tell("news", "first")
    worker.tell("news", "second")
    await asyncio.sleep(0.05)
    assert (worker.is_serving, heard) == (False, [])
    worker.serves()
    worker.tell("news", "third")
    await until(lambda: len(heard) == 3)
    assert heard == ["first", "second", "third"]
