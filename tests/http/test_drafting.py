"""Drafters at work: what their drafts cost and yield, and whether that pays."""

from typing import Any

import pytest
from tests.conftest import CHAT, StartEngine, StartGateway, two_lanes
from tests.fake_engine import ANSWER, Received, Wire, answer

from paceline.http.drafting import positions_of, worth_of
from paceline.http.drafts import DraftSums, together
from paceline.types import DraftCounts

GENERATES = "/v1/chat/completions"


def drafted(steps: int, drafted: int, accepted: int, at: tuple[int, ...], verified: tuple[int, ...] = ()) -> DraftSums:
    sums = DraftSums("engine", "ngram")
    sums.add(DraftCounts(steps, drafted, accepted, at, verified), tokens=100)
    return sums


def test_acceptance_is_of_the_drafts_that_reached_a_position() -> None:
    sums = drafted(10, 16, 12, (8, 4), (10, 6))
    first, second, third = positions_of(sums, [1.2, 1.5, 1.9])
    assert (first["accepted"], first["verified"]) == (pytest.approx(0.8), 10)
    assert second["accepted"] == pytest.approx(0.8 * 4 / 6)
    assert [each["adds"] for each in (first, second, third)] == pytest.approx([0.2, 0.3, 0.4])
    assert third["accepted"] is None, "nothing was drafted there"


def test_without_counts_of_what_was_verified_each_draft_is_taken_for_long() -> None:
    first, second = positions_of(drafted(10, 20, 12, (8, 4)), [])
    assert (first["accepted"], second["accepted"]) == (pytest.approx(0.8), pytest.approx(0.4))
    assert first["adds"] is None


@pytest.mark.parametrize(
    ("steps", "accepted", "cost", "is_sure"),
    [(4, 4, 1.5, False), (400, 400, 1.5, True), (400, 40, 1.5, True), (400, 200, 1.5, False)],
)
def test_whether_drafts_pay_is_no_order_from_noise(steps: int, accepted: int, cost: float, is_sure: bool) -> None:
    worth, sure = worth_of(drafted(steps, 2 * steps, accepted, ()), [1.25, cost], spread=0.02)
    assert worth == pytest.approx((1 + accepted / steps) / cost)
    assert sure is is_sure
    assert worth_of(drafted(steps, 2 * steps, accepted, ()), [1.25, cost], spread=2.0)[1] is False
    assert worth_of(DraftSums("engine", "ngram"), [1.25, cost], spread=0.0) == (None, False)
    assert worth_of(drafted(steps, 2 * steps, accepted, ()), [], spread=0.0) == (None, False)


async def test_each_drafter_is_told_with_its_costs_and_counts(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def drafts(received: Received, wire: Wire) -> None:
        if received.method != "POST":
            await answer(received, wire)
            return
        timings = {"prompt_n": 9, "prompt_ms": 5.0, "predicted_n": 3, "predicted_ms": 30.0}
        await wire.json(ANSWER | {"timings": timings | {"draft_n": 6, "draft_n_accepted": 4}})

    running, _, _ = await two_lanes(start_engine, start_gateway, drafts)
    for _ in range(3):
        await running.http.post(GENERATES, json=CHAT, headers={"x-paceline-lane": "ngram"})
    found: dict[str, Any] = (await running.http.get("/paceline/drafting")).json()
    (drafter,) = found["drafters"]
    assert (drafter["engine"], drafter["kind"], drafter["lanes"]) == ("ngram", "ngram", ["ngram"])
    assert (drafter["requests"], drafter["drafted"], drafter["accepted"]) == (3, 18, 12)
    assert drafter["is_sure"] is False


def test_sums_of_several_processes_are_those_of_one() -> None:
    counts = [DraftCounts(2, 5, 3, (2, 1), (2, 2)), DraftCounts(1, 4, 4, (1, 1, 1, 1)), DraftCounts(1, 1, 0, (0,))]
    whole, one, two = (DraftSums("engine", "ngram") for _ in range(3))
    for number, each in enumerate(counts):
        whole.add(each, 10)
        (one, two)[number % 2].add(each, 10)
    assert together([[one], [two]]) == [whole] == together([[two], [], [one]])
    assert (whole.at, whole.verified) == ([3, 2, 1, 1], [4, 3, 1, 1])
    other = DraftSums("engine", "mtp")
    assert together([[one, other], [two]]) == [whole, other]
