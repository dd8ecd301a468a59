"""The decision log: what an entry tells, how long it is kept, and what a bad disk does to it."""

import multiprocessing
import os
import sqlite3
import time
import tracemalloc
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest
from tests.conftest import Serving
from tests.decision_logs import BODY, REQUEST, decision, outcome, written
from tests.patient import wait_until

from paceline.paths import DECISION_LOG
from paceline.records import decision_log
from paceline.records.decision_log import DecisionLog, LogSettings
from paceline.records.kept import kept_record
from paceline.records.read import LogReader, NoLog
from paceline.types import Api, Request, Signals


def test_an_entry_tells_all_but_the_text(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "requests.sqlite"
    assert written(path, 3).written == 3
    numbered = list(LogReader(path).numbered())
    assert [number for number, _ in numbered] == [1, 2, 3]
    record = numbered[0][1]
    assert (record.id, record.model, record.signals.conversation, record.task) == ("mine", "m", "c", "answer")
    assert (record.outcome.lane, record.strategy, record.decision.propensity) == ("plain", "autoregressive", 0.9)
    observed = record.outcome.observed
    assert (observed.decode_tokens, observed.drafted, observed.accepted) == (50, 8, 3)
    assert observed.prefill_s is None
    assert record.decision.predictions["ngram"].s_per_token == pytest.approx(0.05)
    assert record.decision.propensities["ngram"] == pytest.approx(0.1)
    assert b"secret" not in path.read_bytes()


def test_texts_are_kept_where_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    written(path, 1, with_text=True)
    assert [record.text for record in LogReader(path, with_text=True)] == [BODY.decode()]
    assert [record.text for record in LogReader(path)] == [None]


def test_old_entries_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    log = DecisionLog(path)
    log.record(kept_record(REQUEST, Signals(), decision(), outcome(at_s=time.time() - 31 * 86_400)))
    log.record(kept_record(REQUEST, Signals(), decision(), outcome()))
    log.close()
    assert [number for number, _ in LogReader(path).numbered()] == [2]


def test_a_large_file_loses_its_oldest_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_log, "PRUNED_EVERY_S", 0.0)
    path = tmp_path / "requests.sqlite"
    settings = LogSettings(max_bytes=700_000)
    for _ in range(12):
        written(path, 100, settings)
    numbers = [number for number, _ in LogReader(path).numbered()]
    assert numbers[0] > 1
    assert numbers[-1] == 1200
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1_800_000


def test_a_log_that_cannot_be_written_stops_nothing_and_goes_on_later(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "requests.sqlite"
    path.parent.write_text("a file where the folder should be")
    log = DecisionLog(path)
    log.record(kept_record(REQUEST, Signals(), decision(), outcome()))
    wait_until(lambda: log.problem is not None)
    path.parent.unlink()
    wait_until(lambda: log.written == 1)
    log.close()
    assert log.lost == 0
    assert log.problem is None
    assert len(list(LogReader(path))) == 1


def test_what_does_not_fit_into_memory_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_log, "MAX_WAITING", 5)
    (tmp_path / "folder").write_text("")
    log = DecisionLog(tmp_path / "folder" / "requests.sqlite")
    for _ in range(8):
        log.record(kept_record(REQUEST, Signals(), decision(), outcome()))
    log.close()
    assert log.lost == 8


def test_what_waits_for_the_disk_holds_no_prompts(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("")
    log = DecisionLog(tmp_path / "folder" / "requests.sqlite")
    body = b"x" * 1_000_000
    tracemalloc.start()
    for number in range(20):
        asked = Request(Api.OPENAI_CHAT, "/v1/chat/completions", body + b"%d" % number, {})
        log.record(kept_record(asked, Signals(), decision(), outcome()))
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
    log.record(kept_record(REQUEST, Signals(), decision(), outcome()))
    log.close()
    assert log.problem


@pytest.mark.slow
def test_it_survives_being_killed_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred times; `python -m benchmarks.evidence.kills` does it to a whole gateway under load."""
    monkeypatch.setattr(decision_log, "INTERVAL_S", 0.005)
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
    assert [number for number, _ in LogReader(path).numbered()] == list(range(1, before + 1))


def has_more_than(path: Path, count: int) -> bool:
    return bool(asked(path, "SELECT count(*) FROM requests") > count)


def asked(path: Path, query: str) -> Any:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchone()[0]


def write_on(path: Path) -> None:
    """Until it is killed."""
    log = DecisionLog(path)
    while True:
        log.record(kept_record(REQUEST, Signals(), decision(), outcome()))
        time.sleep(0.0005)


def test_no_log_is_no_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    path.write_text("something else")
    with pytest.raises(NoLog):
        list(LogReader(path))


# Estimates


def test_a_real_gateway_writes_one(real_gateway: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    path = real_gateway.log.parent / "paceline" / DECISION_LOG
    before = len(list(LogReader(path))) if path.exists() else 0
    asked = {"messages": [{"role": "user", "content": "Say something short."}], "max_tokens": 8}
    for _ in range(3):
        httpx2.post(f"{real_gateway.url}/v1/chat/completions", json=asked, timeout=60, trust_env=False)
    wait_until(lambda: path.exists() and len(list(LogReader(path))) >= before + 3)
    found = list(LogReader(path))[-3:]
    assert [record.outcome.status for record in found] == [200] * 3
    assert all(record.outcome.observed.decode_tokens for record in found)
    assert all(set(record.decision.predictions) == {"plain", "ngram"} for record in found)
    assert b"something short" not in path.read_bytes()
