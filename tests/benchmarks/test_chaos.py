"""The chaos benchmark on a few of its phases; ``python -m benchmarks.chaos`` goes through all of them."""

from pathlib import Path

import pytest
from benchmarks.chaos import DEADLINE_S, chaos
from benchmarks.chaos.clients import Verdict, verdict_on
from benchmarks.chaos.phases import PHASES

from paceline.serving.illness import FAILURES_IN_A_ROW

NAMES = ("500", "garbage", "breaks midway")


@pytest.mark.slow
async def test_whatever_can_be_served_is(tmp_path: Path) -> None:
    phases = [phase for phase in PHASES if phase.name in NAMES]
    report = await chaos(tmp_path, requests=80, at_a_time=8, phases=phases, rest_s=0.2)
    assert sorted(result.phase for result in report.results) == sorted(NAMES)
    for result in report.results:
        assert result.served + result.broken == result.requests == 60, result.problems
        assert result.beside.keys() <= {"served"}
        assert result.back_s is not None
        assert result.slowest_s < DEADLINE_S
        assert result.broken == 0 or result.phase == "breaks midway"
        assert 0 < result.reached <= FAILURES_IN_A_ROW + 8  # those that were on their way when it was left out
    assert report.is_good


def test_a_verdict_looks_at_the_whole_answer() -> None:
    event = b'data: {"choices": [{"index": 0, "delta": {"content": " 1"}}]}\n\n'
    error = b'data: {"error": {"message": "lost"}}\n\n'
    assert verdict_on(502, b"{}", False)[0] is Verdict.FAILED
    assert verdict_on(200, b'{"choices": []}', False)[0] is Verdict.WRONG
    assert verdict_on(200, b"no JSON", False)[0] is Verdict.WRONG
    assert verdict_on(200, event + b"data: [DONE]\n\n", True)[0] is Verdict.WRONG
    assert verdict_on(200, event + error, True)[0] is Verdict.BROKEN
    assert verdict_on(200, error, True)[0] is Verdict.FAILED
