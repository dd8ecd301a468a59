"""How long a request waits for those before it."""

import gc

import pytest

from paceline.routing.backlog import MIN_LEFT, Backlog
from paceline.types import Decision


def decisions(count: int) -> list[Decision]:
    return [Decision("gpu", "because") for _ in range(count)]


def test_nobody_waits_for_a_free_slot() -> None:
    backlog, (one,) = Backlog(), decisions(1)
    assert backlog.wait_s("gpu", 1, 0.0) == 0.0
    backlog.add("gpu", 2, one, 10.0, 0.0)
    assert backlog.wait_s("gpu", 2, 0.0) == 0.0
    assert backlog.wait_s("gpu", None, 0.0) == 0.0
    assert backlog.wait_s("other", 1, 0.0) == 0.0


def test_the_queue_is_served_in_its_order() -> None:
    backlog, (one, two, three) = Backlog(), decisions(3)
    backlog.add("gpu", 1, one, 10.0, 0.0)
    backlog.add("gpu", 1, two, 4.0, 1.0)
    assert backlog.wait_s("gpu", 1, 2.0) == pytest.approx(8.0 + 4.0)
    backlog.remove("gpu", 1, one, 5.0)  # sooner than expected: the next one begins
    assert backlog.wait_s("gpu", 1, 6.0) == pytest.approx(3.0)
    backlog.add("gpu", 1, three, 7.0, 6.0)
    assert backlog.wait_s("gpu", 1, 100.0) == pytest.approx(MIN_LEFT * 4.0 + 7.0)


def test_several_slots_share_the_queue() -> None:
    backlog, several = Backlog(), decisions(4)
    for decision, service_s in zip(several, (10.0, 2.0, 5.0, 1.0), strict=True):
        backlog.add("gpu", 2, decision, service_s, 0.0)
    assert backlog.wait_s("gpu", 2, 0.0) == pytest.approx(8.0)  # 2 + 5 = 7, 7 + 1 = 8, and 10


def test_a_decision_that_nobody_ended_does_not_count_for_ever() -> None:
    backlog, jobs = Backlog(), decisions(2)
    for decision in jobs:
        backlog.add("gpu", 1, decision, 10.0, 0.0)
    kept = jobs.pop()
    del decision, jobs
    gc.collect()
    assert backlog.wait_s("gpu", 1, 0.0) == pytest.approx(10.0)
    backlog.remove("gpu", 1, kept, 1.0)
    assert backlog.wait_s("gpu", 1, 1.0) == 0.0
