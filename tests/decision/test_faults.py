"""Drafters that hardly ever have anything accepted."""

import pytest
from tests.controlled_machine import BOTH, MTP, ControlledMachine, served

from paceline import Router
from paceline.decision import Knowledge
from paceline.decision.faults import Drafts, drafts_of, fault
from paceline.types import DraftCounts, Observation, Signals, Strategy, Task

COUNTS = Observation(drafted=9, accepted=4, by_drafter={"mtp": DraftCounts(3, 9, 4)})
SUMS = Observation(drafted=9, accepted=4)


@pytest.mark.parametrize(
    ("kind", "drafted", "accepted", "is_told"),
    [
        ("mtp", 1000, 40, True),
        ("mtp", 1000, 100, False),
        ("mtp", 150, 0, False),
        ("draft", 400, 0, True),
        ("ngram", 10_000, 0, False),
        ("ngram-mod", 10_000, 0, False),
    ],
)
def test_too_few_accepted_of_enough_are_a_fault_but_of_lookups(
    kind: str, drafted: int, accepted: int, is_told: bool
) -> None:
    assert (fault(kind, drafted, accepted) is not None) == is_told


def test_it_says_what_may_be_wrong() -> None:
    assert "quantized" in (fault("eagle3", 500, 20) or "")
    assert "4% of 500 tokens" in (fault("eagle3", 500, 20) or "")
    assert "tokenizer" in (fault("draft", 500, 20) or "")


def test_drafters_are_told_apart_by_their_counts_or_by_the_lane() -> None:
    both = BOTH.lane.strategy
    assert list(drafts_of(COUNTS, both)) == [Drafts("mtp", 9, 4)]
    assert list(drafts_of(SUMS, both)) == []
    assert list(drafts_of(SUMS, MTP.lane.strategy)) == [Drafts("mtp", 9, 4)]
    assert list(drafts_of(SUMS, Strategy("eagle3", 4))) == [Drafts("eagle3", 9, 4)]
    assert list(drafts_of(SUMS, Strategy())) == []
    assert list(drafts_of(Observation(), both)) == []


def test_a_router_tells_it_of_what_was_seen_lately() -> None:
    knowledge = Knowledge()
    router = Router([MTP.lane, BOTH.lane], knowledge=knowledge)
    broken, mended = ControlledMachine({Task.CODE: 0.02}), ControlledMachine({Task.CODE: 0.9})
    for _ in range(60):
        served(knowledge, broken, Signals(tasks={Task.CODE: 1.0}), MTP)
    (told,) = router.faults(MTP)
    assert router.faults(BOTH) == [told]
    for _ in range(10):
        served(knowledge, mended, Signals(tasks={Task.CODE: 1.0}), MTP)
    assert router.faults(MTP) == []
