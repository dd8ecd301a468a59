"""What became of requests over time."""

import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.decision_logs import NGRAM, decision, outcome, predicted, written
from tests.decision_logs import REQUEST as ASKED

from paceline.records.history import KEPT, WIDTHS_S, History, Sums
from paceline.records.kept import kept_record
from paceline.records.record import Record
from paceline.types import Decision, Outcome, Signals

NOW_S = 1_800_000_007.0
"""In the middle of a slice."""


def record(at_s: float, lane: str = "plain", first_byte_s: float | None = None, **changes: object) -> Record:
    done = replace(outcome(lane, at_s), first_byte_s=first_byte_s, **changes)
    return kept_record(replace(ASKED, stream=first_byte_s is not None), Signals(), decision(lane), done)


async def test_requests_are_counted_in_slices_of_the_range() -> None:
    history = History(None, lambda: NOW_S)
    for ago_s in (1, 2, 400, 5000):
        history.record(record(NOW_S - ago_s, "ngram" if ago_s == 1 else "plain"))
    hour, day = await history.document(3600), await history.document(86_400)
    assert (hour["width_s"], day["width_s"]) == (15, 300)
    assert hour["slices"]["requests"][-1] == 2
    assert (hour["total"]["requests"], day["total"]["requests"]) == (3, 4)
    assert len(hour["times_s"]) == len(hour["slices"]["requests"]) == 240
    assert hour["times_s"][-1] <= NOW_S < hour["times_s"][-1] + 15
    assert {lane: sum(counts) for lane, counts in day["lanes"].items()} == {"plain": 3, "ngram": 1}
    assert hour["total"]["tokens_per_s"] == pytest.approx(10)
    assert hour["total"]["acceptance"] == pytest.approx(3 / 8)
    assert hour["slices"]["tokens_per_s"][0] is None, "nothing was decoded then"


async def test_failures_refusals_and_clients_that_left_are_told_apart() -> None:
    history = History(None, lambda: NOW_S)
    for status, error in ((200, None), (502, "lost"), (200, "it broke"), (400, "bad"), (429, "full"), (499, "left")):
        history.record(record(NOW_S, status=status, error=error))
    total = await history.total(300)
    assert (total.requests, total.failed, total.refused, total.left) == (6, 3, 1, 1)


@pytest.mark.parametrize("quantile", [0.5, 0.95])
def test_times_to_the_first_token_are_known_within_a_tenth(quantile: float) -> None:
    sums, times = Sums(), [0.02 * 1.05**number for number in range(100)]
    for time_s in times:
        sums.add(record(NOW_S, first_byte_s=time_s))
    sums.add(record(NOW_S))  # is not streamed
    found = sums.first_token_s(quantile)
    assert found == pytest.approx(times[int(quantile * 100) - 1], rel=0.1)
    assert Sums().first_token_s(quantile) is None


async def test_with_a_log_what_is_new_in_it_is_read_whoever_wrote_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.records.history.INTERVAL_S", 0.0)
    log = tmp_path / "requests.sqlite"
    written(log, 5)
    history = History(log)
    for expected in (5, 5, 8):
        if expected == 8:
            written(log, 3)  # by another process
        history.record(record(time.time()))  # which its own log tells
        assert (await history.document(900))["total"]["requests"] == expected
        assert (await history.total(300)).requests == expected
    log.rename(tmp_path / "aside.sqlite")
    written(log, 2)
    assert (await history.document(900))["total"]["requests"] == 2, "another file begins anew"


async def test_a_log_that_is_not_there_or_none_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no log")
    for log in (tmp_path / "nothing", tmp_path / "text", None):
        assert (await History(log).document(900))["total"]["requests"] == 0


async def test_memory_is_bounded_however_long_it_runs() -> None:
    now_s = [NOW_S]
    history = History(None, lambda: now_s[0])
    for _ in range(5 * KEPT[0]):
        now_s[0] += WIDTHS_S[0]
        history.record(record(now_s[0]))
    assert (await history.total(3600)).requests == pytest.approx(240, abs=1)
    slices = vars(history)["_slices"]
    assert max(map(len, slices)) <= 2 * max(KEPT[0], 5 * KEPT[0] * WIDTHS_S[0] // WIDTHS_S[1]) + 1


def test_a_choice_to_learn_is_counted() -> None:
    sums = Sums()
    tried = Decision("ngram", "because", 0.1, predictions={"ngram": predicted(NGRAM, 0.2)}, exploring_s=0.5)
    sums.add(kept_record(ASKED, Signals(), tried, Outcome("ngram", 200, 1.0, at_s=NOW_S)))
    assert (sums.explored, sums.requests) == (1, 1)
