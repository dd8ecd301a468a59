"""The decision log, and what it proves."""

import csv
import json
import multiprocessing
import os
import random
import sqlite3
import time
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from functools import partial
from math import sqrt
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pyarrow.parquet
import pytest
from benchmarks.evidence.__main__ import one_log
from benchmarks.learning.worlds import embedded, mtp_counts, signals_by_task
from msgspec.structs import replace
from tests.conftest import Serving

from paceline.cli import main
from paceline.evidence.estimate import IN_COMMON, Logged, always, estimate
from paceline.records import decision_log as evidence_log
from paceline.records.decision_log import DecisionLog, LogSettings
from paceline.records.read import NoLog, entries
from paceline.types import Api, Decision, Observation, Outcome, Prediction, Request, Signals, Strategy

BODY = b'{"messages": [{"role": "user", "content": "a secret"}]}'
REQUEST = Request(Api.OPENAI_CHAT, "/v1/chat/completions", BODY, {}, model="m", id="mine", served_model="m")
PLAIN, NGRAM = Strategy(), Strategy("ngram", 8)


def predicted(strategy: Strategy, s_per_token: float) -> Prediction:
    return Prediction("engine", "model", strategy, s_per_token / 0.1, spread=0.05, plain_step_s=0.1)


def decision(lane: str = "plain", share: float = 0.9) -> Decision:
    predictions = {"plain": predicted(PLAIN, 0.1), "ngram": predicted(NGRAM, 0.05)}
    other = "ngram" if lane == "plain" else "plain"
    return Decision(lane, "because", share, {lane: share, other: 1 - share}, predictions=predictions)


def outcome(lane: str = "plain", at_s: float | None = None, s_per_token: float = 0.1) -> Outcome:
    seen = Observation(completion_tokens=51, decode_tokens=50, decode_s=50 * s_per_token, drafted=8, accepted=3)
    return Outcome(lane, 200, 1.5, observed=seen, at_s=time.time() if at_s is None else at_s)


def written(path: Path, count: int, settings: LogSettings = LogSettings()) -> DecisionLog:  # noqa: B008 - it is frozen
    log = DecisionLog(path, settings)
    for _ in range(count):
        log.add(REQUEST, Signals(conversation="c"), decision(), outcome())
    log.close()
    return log


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


# The log


def test_an_entry_tells_all_but_the_text(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "requests.sqlite"
    assert written(path, 3).written == 3
    found = list(entries(path))
    assert [entry["number"] for entry in found] == [1, 2, 3]
    entry = found[0]
    assert (entry["id"], entry["model"], entry["conversation"], entry["task"]) == ("mine", "m", "c", "answer")
    assert (entry["lane"], entry["strategy"], entry["propensity"]) == ("plain", "autoregressive", 0.9)
    assert (entry["decode_tokens"], entry["drafted"], entry["accepted"]) == (50, 8, 3)
    assert entry["prefill_s"] is None
    assert entry["predictions"]["ngram"]["s_per_token"] == pytest.approx(0.05)
    assert entry["predictions"]["ngram"]["propensity"] == pytest.approx(0.1)
    assert b"secret" not in path.read_bytes()


def test_texts_are_kept_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    written(path, 1, LogSettings(keep_text=True))
    assert [entry["text"] for entry in entries(path, keep_text=True)] == [BODY.decode()]


def test_old_entries_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    log = DecisionLog(path)
    log.add(REQUEST, Signals(), decision(), outcome(at_s=time.time() - 31 * 86_400))
    log.add(REQUEST, Signals(), decision(), outcome())
    log.close()
    assert [entry["number"] for entry in entries(path)] == [2]


def test_a_large_file_loses_its_oldest_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_log, "PRUNED_EVERY_S", 0.0)
    path = tmp_path / "requests.sqlite"
    settings = LogSettings(max_bytes=700_000)
    for _ in range(12):
        written(path, 100, settings)
    numbers = [entry["number"] for entry in entries(path)]
    assert numbers[0] > 1
    assert numbers[-1] == 1200
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1_800_000


def test_a_log_that_cannot_be_written_stops_nothing_and_goes_on_later(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "requests.sqlite"
    path.parent.write_text("a file where the folder should be")
    log = DecisionLog(path)
    log.add(REQUEST, Signals(), decision(), outcome())
    wait_until(lambda: log.problem is not None)
    path.parent.unlink()
    wait_until(lambda: log.written == 1)
    log.close()
    assert log.lost == 0
    assert log.problem is None
    assert len(list(entries(path))) == 1


def test_what_does_not_fit_into_memory_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_log, "MAX_WAITING", 5)
    (tmp_path / "folder").write_text("")
    log = DecisionLog(tmp_path / "folder" / "requests.sqlite")
    for _ in range(8):
        log.add(REQUEST, Signals(), decision(), outcome())
    log.close()
    assert log.lost == 8


def test_what_waits_for_the_disk_holds_no_prompts(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    log = DecisionLog(tmp_path / "folder" / "requests.sqlite")
    body = b"x" * 1_000_000
    tracemalloc.start()
    for number in range(20):
        asked = Request(Api.OPENAI_CHAT, "/v1/chat/completions", body + b"%d" % number, {})
        log.add(asked, Signals(), decision(), outcome())
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    log.close()
    assert log.lost == 20
    assert held < 5_000_000


def test_a_full_disk_stops_nothing() -> None:
    """``/dev/full`` is a device that has no room left."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    log = DecisionLog(Path("/dev/full"))
    log.add(REQUEST, Signals(), decision(), outcome())
    log.close()
    assert log.problem


@pytest.mark.slow
def test_it_survives_being_killed_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times; `python -m benchmarks.evidence.kills` does it to a whole gateway under load."""
    monkeypatch.setattr(evidence_log, "INTERVAL_S", 0.005)
    path = tmp_path / "requests.sqlite"
    written(path, 1)
    writing, before = multiprocessing.get_context("fork"), 1
    for number in range(100):
        process = writing.Process(target=write_on, args=(path,), daemon=True)
        process.start()
        wait_until(partial(has_more_than, path, before))
        time.sleep(Random(number).random() / 100)
        process.kill()
        process.join()
        assert asked(path, "PRAGMA quick_check") == "ok"
        assert asked(path, f"SELECT count(*) FROM requests WHERE number > {before} AND decode_tokens = 50") > 0
        before = asked(path, "SELECT count(*) FROM requests")
    assert asked(path, "PRAGMA integrity_check") == "ok"
    assert [entry["number"] for entry in entries(path)] == list(range(1, before + 1))


def has_more_than(path: Path, count: int) -> bool:
    return bool(asked(path, "SELECT count(*) FROM requests") > count)


def asked(path: Path, query: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchone()[0]


def write_on(path: Path) -> None:
    """Until it is killed."""
    log = DecisionLog(path)
    while True:
        log.add(REQUEST, Signals(), decision(), outcome())
        time.sleep(0.0005)


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "requests.sqlite"
    written(path, 3)
    for name in ("out.csv", "out.parquet"):
        assert main(["export", str(tmp_path / name), "--log", str(path)]) == 0
    assert "3 requests" in capsys.readouterr().out
    with (tmp_path / "out.csv").open() as file:
        rows: list[Any] = list(csv.DictReader(file))
    assert [row["lane"] for row in rows] == ["plain"] * 3
    assert json.loads(rows[0]["signals"])["tasks"] == {"answer": 1.0}
    assert rows[0]["prefill_s"] == ""
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column("decode_s").to_pylist() == [pytest.approx(5.0)] * 3
    assert main(["export", str(tmp_path / "out.txt"), "--log", str(path)]) == 1
    assert main(["export", str(tmp_path / "x.csv"), "--log", str(tmp_path / "none")]) == 1
    assert "there is no log" in capsys.readouterr().err


def test_no_log_is_no_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    path.write_text("something else")
    with pytest.raises(NoLog):
        list(entries(path))


# Estimates


def made(requests: int, exploration: float, seed: int = 0) -> tuple[list[Logged], float]:
    """A log of a policy that takes the fast lane, or the other one with some probability, and what always taking the
    other one would have made of its time. The predictions are wrong by a fifth."""
    rng = random.Random(seed)
    entries, truth, taken = [], 0.0, 0.0
    for _ in range(requests):
        fast, slow = 0.1 * rng.lognormvariate(0, 0.2), 0.15 * rng.lognormvariate(0, 0.2)
        lane = "slow" if rng.random() < exploration else "fast"
        shares = {"fast": 1 - exploration, "slow": exploration}
        predicted = {"fast": 0.12, "slow": 0.12}
        spread = {"fast": 0.2, "slow": 0.2}
        entries.append(Logged("code", lane, 100, slow if lane == "slow" else fast, shares, predicted, spread))
        truth += slow
        taken += slow if lane == "slow" else fast
    return entries, truth / taken


def test_estimates_correct_what_predictions_miss() -> None:
    held, errors = 0, []
    for seed in range(60):
        entries, truth = made(400, 0.2, seed)
        found = estimate(entries, always("slow"))
        held += found.low <= truth <= found.high
        errors.append(abs(found.ratio - truth))
        assert found.inverse_propensity == pytest.approx(truth, rel=0.4)
        assert found.self_normalised == pytest.approx(truth, rel=0.15)
        assert found.on_predictions < 0.01
    assert held >= 54
    assert sum(errors) / len(errors) < 0.06
    naive = 0.12 / 0.1
    assert abs(naive - made(400, 0.2)[1]) > 0.15  # what the predictions alone would have said


def test_what_was_never_tried_rests_on_predictions() -> None:
    entries, _ = made(100, 0.0)
    found = estimate(entries, always("slow"))
    assert found.agreed == 0
    assert found.on_predictions == 1
    assert found.high - found.low > 0.4


def test_a_lane_that_nothing_is_known_of_is_an_error() -> None:
    entries, _ = made(40, 0.1)
    with pytest.raises(ValueError, match="nothing is known of lane 'x'"):
        estimate(entries, always("x"))


def test_estimates_hold_on_a_simulated_machine() -> None:
    """`python -m benchmarks.evidence` does this with 200 logs."""
    signals, held = signals_by_task(), 0
    for world, lanes in ((mtp_counts(), ("plain", "mtp-4")), (embedded(), ("plain", "ngram-12"))):
        for seed in range(5):
            entries, truth = one_log(world, signals, 1000, seed, 0.01)
            for lane in lanes:
                found = estimate(entries, always(lane))
                held += found.low <= truth[lane] <= found.high
    assert held >= 18


def test_errors_of_different_tasks_are_in_part_their_own() -> None:
    entries, _ = made(100, 0.0)
    one = estimate(entries, always("slow"))
    halves = [replace(entry, task=str(number % 2)) for number, entry in enumerate(entries)]
    two = estimate(halves, always("slow"))
    assert two.ratio == one.ratio
    assert (two.high - two.ratio) / (one.high - one.ratio) == pytest.approx(
        sqrt(IN_COMMON + (1 - IN_COMMON) / 2), abs=0.01
    )


def test_a_real_gateway_writes_one(real_gateway: Serving, capsys: pytest.CaptureFixture[str]) -> None:

    asked = {"messages": [{"role": "user", "content": "Say something short."}], "max_tokens": 8}
    for _ in range(3):
        httpx2.post(f"{real_gateway.url}/v1/chat/completions", json=asked, timeout=60, trust_env=False)
    time.sleep(2 * evidence_log.INTERVAL_S + 0.5)
    path = real_gateway.log.parent / "paceline" / evidence_log.FILE
    found = list(entries(path))[-3:]
    assert [entry["status"] for entry in found] == [200] * 3
    assert all(entry["decode_tokens"] and set(entry["predictions"]) == {"plain", "ngram"} for entry in found)
    assert b"something short" not in path.read_bytes()
