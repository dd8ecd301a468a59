"""The decision log beside a full disk, damage, large entries, and removed files."""

import sqlite3
import stat
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from tests.patient import wait_until

from paceline.cli import main
from paceline.records import decision_log
from paceline.records.decision_log import DecisionLog, LogSettings
from paceline.records.kept import MAX_TEXT_BYTES, kept_record
from paceline.records.read import LogReader
from paceline.types import Api, Decision, Observation, Outcome, Prediction, Request, Signals, Strategy, Task


def added(
    log: DecisionLog, body: bytes = b"{}", count: int = 1, at_s: float | None = None, with_text: bool = False
) -> None:
    for _ in range(count):
        request = Request(Api.OPENAI_CHAT, "/v1/chat/completions", body, {})
        outcome = Outcome("plain", 200, 1.0, at_s=time.time() if at_s is None else at_s)
        log.record(kept_record(request, Signals(), Decision("plain", "because"), outcome, with_text=with_text))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_log, "INTERVAL_S", 0.01)


def test_what_waits_is_bounded_in_bytes_and_the_oldest_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file where the folder should be")
    log = DecisionLog(tmp_path / "folder" / "requests.sqlite")
    for number in range(100):
        added(log, b"%03d" % number + b"x" * 1_000_000, with_text=True)
    held = sum(sys.getsizeof(text) for _, text in list(log._waiting))
    assert held < decision_log.MAX_WAITING_BYTES
    assert log.lost == 100 - len(log._waiting)
    (tmp_path / "folder").unlink()
    wait_until(lambda: not log._waiting and log.problem is None)
    log.close()
    found = [(record.text or "")[:3] for record in LogReader(log.path, with_text=True)]
    assert found == [f"{number:03}" for number in range(100 - len(found), 100)]
    assert log.lost + log.written == 100
    assert log._held_bytes == 0


def test_nothing_is_lost_when_entries_come_while_the_disk_fails(tmp_path: Path) -> None:
    """Many threads add while the writer takes, fails, and puts back."""
    folder = tmp_path / "folder"
    folder.write_text("")
    log = DecisionLog(folder / "requests.sqlite")
    threads = [threading.Thread(target=added, args=(log, b"{}", 500)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    folder.unlink()
    wait_until(lambda: log.written == 2000)
    log.close()
    assert log.lost == 0
    assert len(list(LogReader(log.path))) == 2000


def test_a_body_is_cut_where_it_would_fill_the_memory(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "requests.sqlite")
    added(log, b"x" * 30_000_000, with_text=True)
    log.close()
    assert [len(record.text or "") for record in LogReader(log.path, with_text=True)] == [MAX_TEXT_BYTES]


def test_the_file_stays_near_its_limit_also_with_texts(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "requests.sqlite", LogSettings(max_bytes=1_000_000))
    largest = 0
    for number in range(60):
        added(log, b"%03d" % number + b"z" * 300_000, with_text=True)
        wait_until(lambda: not log._waiting)
        largest = max(largest, sum(file.stat().st_size for file in tmp_path.iterdir()))
    log.close()
    assert largest < 6_000_000
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 1_500_000
    assert [(record.text or "")[:3] for record in LogReader(log.path, with_text=True)][-1] == "059"


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_set_aside_and_begun_anew(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "requests.sqlite"
    log = DecisionLog(path)
    added(log, count=300)
    log.close()
    good, random = path.read_bytes(), Random(seed)
    changed = [
        b"",
        random.randbytes(100) + good[100:],
        good[: len(good) // 2 + 100],
        good[:100] + bytes(len(good) - 100),
        good[:16384] + random.randbytes(16384) + good[32768:],
        random.randbytes(len(good)),
    ]
    for damaged in changed:
        for file in tmp_path.iterdir():
            file.unlink()
        path.write_bytes(damaged)
        log = DecisionLog(path)
        added(log, count=30)
        wait_until(lambda log=log: log.written == 30 and log.problem is None)  # type: ignore[misc]
        log.close()
        assert log.lost == 0
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM entries").fetchone()[0] >= 30
    assert "is set aside as requests.damaged" in caplog.text


def test_a_file_of_a_newer_program_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "requests.sqlite"
    log = DecisionLog(path)
    added(log, count=3)
    log.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    log = DecisionLog(path)
    added(log)
    log.close()
    assert len(list(LogReader(path))) == 1
    with closing(sqlite3.connect(tmp_path / "requests.newer")) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone()[0] == 3
    assert "its format is 99" in caplog.text


def test_a_file_that_is_removed_or_damaged_while_it_is_used_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    log = DecisionLog(path)
    added(log)
    wait_until(lambda: log.written == 1)
    for file in list(tmp_path.iterdir()):
        file.unlink()
    added(log)
    wait_until(lambda: log.written == 2)
    assert len(list(LogReader(path))) == 1
    path.write_bytes(Random(0).randbytes(path.stat().st_size))
    added(log, count=200)
    wait_until(lambda: log.written == 202 and log.problem is None)
    log.close()
    assert log.lost == 0


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "paceline"
    folder.mkdir(mode=0o755)
    path = folder / "requests.sqlite"
    log = DecisionLog(path)
    added(log)
    log.close()
    for file in folder.iterdir():
        file.chmod(0o644)
    log = DecisionLog(path)
    added(log)
    wait_until(lambda: log.written == 1)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    log.close()
    assert set(modes.values()) == {0o600}
    assert len(modes) == 3
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_a_jump_of_the_clock_drops_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = DecisionLog(tmp_path / "requests.sqlite")
    added(log, count=5, at_s=time.time() - 40 * 86_400)
    log.close()
    assert "lost 5 entries" in caplog.text


def test_the_thread_survives_what_no_file_can_hold(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "requests.sqlite")
    log._waiting.append((1.0, "\ud800"))  # no UTF-8
    wait_until(lambda: log.lost == 1)
    added(log)
    wait_until(lambda: log.written == 1)
    log.close()
    assert log.problem is None


@pytest.mark.parametrize("content", ["newer", "damaged"])
def test_a_file_that_can_be_neither_used_nor_moved_is_left_as_it_is(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Path:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "requests.sqlite"
    if content == "newer":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
            connection.commit()
    else:
        path.write_bytes(b"no database" * 1000)
    before = path.read_bytes()
    monkeypatch.setattr("paceline.records.decision_log.set_aside", refuse)
    log = DecisionLog(path)
    try:
        wait_until(lambda: log.problem is not None)
        assert log.problem is not None
        assert "not be moved away: Permission denied" in log.problem
    finally:
        log.close()
    assert path.read_bytes() == before


UNREADABLE = (
    b"",
    b"{",
    b"[" * 10_000,
    b"null",
    b'{"id": null}',
    b"\xff",
    b'{"signals": {"tasks": {"dancing": 1}}}',
)


def test_entries_that_hold_no_record_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "requests.sqlite"
    log = DecisionLog(path)
    added(log, count=2)
    log.close()
    with closing(sqlite3.connect(path)) as connection:
        for text in UNREADABLE:
            connection.execute("INSERT INTO entries (at_s, entry) VALUES (?, CAST(? AS TEXT))", (time.time(), text))
        connection.commit()
    log = DecisionLog(path)
    added(log)
    log.close()
    reader = LogReader(path)
    for _ in range(2):
        assert [number for number, _ in reader.numbered()] == [1, 2, 3 + len(UNREADABLE)]
        assert reader.unreadable == len(UNREADABLE)
    assert main(["export", str(tmp_path / "requests.csv"), "--log", str(path)]) == 0
    said = capsys.readouterr()
    assert "3 requests" in said.out
    assert f"{len(UNREADABLE)} entries can't be read" in said.err


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "requests.sqlite")
    observed = Observation(prompt_tokens=5, decode_tokens=4, decode_s=0.5, drafted=8, accepted=3, drafting_steps=2)
    prediction = Prediction("f", "m", Strategy("ngram", 8), 0.7, 1.1, 0.2, 0.1, 0.01, 0.5, 0.3, 9.0, 0.2, 1.5)
    record = kept_record(
        Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"{}", {}, id="mine", served_model="m", client="a key"),
        Signals(tasks={Task.CODE: 0.6, Task.EDIT: 0.4}, temperature=0.5, conversation="c"),
        Decision("ngram", "because", 0.9, {"ngram": 0.9, "plain": 0.1}, ("plain",), {"ngram": prediction}, 0.5),
        Outcome("ngram", 200, 1.0, observed=observed, at_s=time.time(), fingerprint="f", failed=(("plain", "p"),)),
        with_text=True,
        with_parameters=True,
    )
    log.record(record)
    log.close()
    assert list(LogReader(log.path, with_text=True)) == [record]
