"""The worlds of ``benchmarks/placement``: placing requests is better than what it is compared with."""

import pytest
from benchmarks.placement import questions, waiting

pytestmark = pytest.mark.slow


def test_more_requests_are_on_time_than_by_either_side_alone_or_by_number() -> None:
    found = {one.policy: one for one in waiting.compared(1500, [11, 12])}
    own = found.pop("paceline balanced")
    local_first = found.pop("paceline local-first")
    assert own.on_time > max(one.on_time for one in found.values())
    cheap = [one.on_time for one in found.values() if one.cost <= local_first.cost]
    assert local_first.on_time > max(cheap)
    assert local_first.local > 0.85


def test_a_queue_is_served_in_its_order_and_counted_right() -> None:
    program = waiting.PROGRAMS[0]
    drawn = [waiting.Arrival(0.0, program, 60, 5.0) for _ in range(waiting.SLOTS + 1)]
    alone = waiting.played(drawn, waiting.Fixed(True))
    assert (alone.local, alone.cost, alone.on_time) == (1.0, 0.0, 1.0)
    away = waiting.played(drawn, waiting.Fixed(False))
    assert away.cost == pytest.approx(1000 * (program.prompt_tokens * 3 + 60 * 15) / 1e6)


def test_more_of_the_gap_is_closed_than_by_chance_for_the_same_money() -> None:
    asked = questions.questions(None, 1)
    assert len(asked) == 9765
    local = sum(one.local_right for one in asked) / len(asked)
    assert local == pytest.approx(0.647, abs=0.001)
    own = questions.result("own", asked, questions.routed(asked, 0.005))
    assert 0.1 < own.spend < 0.9
    chance, label, oracle = (
        other(asked, own.spend) for other in (questions.by_chance, questions.by_label, questions.oracle)
    )
    assert chance.closed == pytest.approx(own.spend)
    assert own.closed > chance.closed + 0.6 * (label.closed - chance.closed)
    assert label.closed < oracle.closed
