"""What was learned survives a restart."""

import sqlite3
import stat
import threading
import time
from contextlib import closing
from math import inf
from pathlib import Path
from random import Random

import pytest
from tests.entries import entries

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.knowledge import Served
from paceline.routing.placer import Placer
from paceline.routing.remembered import Faded, Judged, Paced, Remembered
from paceline.routing.store import Memory
from paceline.types import Lane, LaneState, Observation, Outcome, Signals, Strategy, Task

LANES = [
    LaneState(Lane("plain", "e", Strategy(), "gpu"), fingerprint="one", model="m"),
    LaneState(Lane("ngram", "e", Strategy("ngram", 8), "gpu"), fingerprint="one", model="m"),
]
NOW_S = time.time()
EDIT = Signals(tasks={Task.EDIT: 1.0}, copy=0.8, conversation="c")


def problem_of(memory: Memory) -> str | None:
    return memory.problem


def learned(count: int, knowledge: Knowledge | None = None) -> Knowledge:
    """After so many requests more; without ``knowledge``, the first ones."""
    knowledge, rng = knowledge or Knowledge(), Random(count)
    for number in range(count):
        decision = decide(EDIT, LANES, knowledge, rng)
        seen = Observation(50, 0, 90, 0.2, 90, 1.0 + rng.random(), 80, 40)
        learn(knowledge, EDIT, decision, Outcome(decision.lane, 200, 3.0, observed=seen, at_s=NOW_S + number))
    return knowledge


def known(memory: Memory) -> dict[tuple[str, tuple[str, ...]], object]:
    """What is loaded."""
    return entries(memory.load())


def expected(knowledge: Knowledge) -> list[float]:
    """Numbers that what was learned goes into."""
    predictions = predict(EDIT, LANES, knowledge).values()
    return [number for one in predictions for number in (one.relative, one.spread, one.plain_step_s or 0.0, one.tokens)]


NOTHING = entries(Knowledge())


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "learned.sqlite"
    memory = Memory(path)
    assert known(memory) == NOTHING
    knowledge = learned(5)
    memory.save(knowledge)
    learned(3, knowledge)
    memory.save(knowledge)
    memory.close()
    again = Memory(path)
    restored = again.load()
    assert entries(restored) == entries(knowledge)
    assert expected(restored) == pytest.approx(expected(knowledge))
    again.close()


def test_saving_writes_what_changed(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "learned.sqlite")
    knowledge = learned(5)
    memory.save(knowledge)
    assert memory._connection is not None
    before = memory._connection.total_changes
    memory.save(knowledge)
    assert memory._connection.total_changes == before
    failed = Outcome("plain", 503, 0.1, error="it failed", at_s=NOW_S)
    learn(knowledge, EDIT, decide(EDIT, LANES, knowledge, Random(0)), failed)
    memory.save(knowledge)
    assert memory._connection.total_changes == before + 1, "what is counted of one lane"


@pytest.mark.slow
def test_what_two_gateways_learned_is_kept_when_the_first_lets_go_of_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "learned.sqlite"
    first, second = Memory(path), Memory(path)
    assert second.problem is not None
    assert "another gateway uses it" in second.problem
    one, other, both = learned(5), learned(3), learned(3)
    both.merge(one)
    assert known(second) == NOTHING
    for _ in range(3):
        second.save(other)
    assert len(caplog.records) == 1, "it is said once"
    first.save(one)
    first.close()
    second.save(other)
    assert problem_of(second) is None
    second.save(other)
    second.close()
    again = Memory(path)
    restored = again.load()
    assert entries(restored) == entries(other)
    assert restored.measured == both.measured
    assert expected(restored) == pytest.approx(expected(both))
    again.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    path.write_bytes(b"this is no database" * 100)
    memory = Memory(path)
    assert known(memory) == NOTHING
    memory.save(learned(2))
    memory.close()
    assert (tmp_path / "learned.damaged").exists()


def test_what_a_wrong_clock_dated_is_left_out_and_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of conversations, the later turn counts; of all else, what was learned."""
    path, knowledge = tmp_path / "learned.sqlite", learned(3)
    sound = entries(knowledge).keys()
    later = decide(EDIT, LANES, knowledge, Random(0))
    knowledge.serve(("d", "one"), Served(at_s=NOW_S * 2, chars=7))
    seen = Observation(50, 0, 90, 0.2, 90, 1.0)
    learn(knowledge, EDIT, later, Outcome(later.lane, 200, 3.0, observed=seen, at_s=NOW_S * 2))
    memory = Memory(path)
    memory.save(knowledge)
    memory.close()
    memory = Memory(path)
    loaded = memory.load()
    left_out = {("served", ("d", "one")), ("served", ("c", "one")), ("measured", ("one", later.lane))}
    assert entries(loaded).keys() == sound - left_out
    assert expected(loaded) == pytest.approx(expected(knowledge))
    assert max(loaded.totals.at_s, loaded.models["m"].at_s) < NOW_S * 1.1
    assert "dated in the future" in caplog.text
    assert (tmp_path / "learned.misdated").exists()
    memory.close()
    assert known(Memory(path)) == entries(loaded), "the sound ones stand in the new file at once"


def test_damaged_entries_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    knowledge = learned(3)
    memory.save(knowledge)
    memory.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        for part, key in (("means", "no key"), ("means", '["prefill","other"]'), ("models", '["other"]'), ("?", "")):
            connection.execute("INSERT INTO learned VALUES (?, ?, 'x')", (part, key))
    memory = Memory(path)
    assert known(memory) == entries(knowledge)
    memory.close()


def test_a_place_that_can_not_be_written_is_said_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    memory = Memory(tmp_path / "file" / "learned.sqlite")
    assert known(memory) == NOTHING
    assert "let this user write there" in caplog.text
    knowledge = learned(3)
    memory.save(knowledge)
    (tmp_path / "file").unlink()
    memory.save(knowledge)
    assert memory.problem is None
    memory.close()
    assert known(Memory(tmp_path / "file" / "learned.sqlite")) == entries(knowledge)


FILLED, MANY = learned(60), learned(60)
for _number in range(150):
    MANY.means.sums["prefill", str(_number)] = next(iter(MANY.means.sums.values()))


def filled(path: Path) -> bytes:
    """A file of many pages."""
    memory = Memory(path)
    memory.save(MANY)
    memory.close()
    return path.read_bytes()


def starts_and_saves(path: Path) -> None:
    memory = Memory(path)
    memory.load()
    memory.save(FILLED)
    assert memory.problem is None
    memory.close()
    again = Memory(path)
    assert again.load().measured == FILLED.measured
    again.close()


@pytest.mark.parametrize("filling", [b"\xff", b"\x00", b"\x0d", None])
def test_every_page_may_be_damaged(tmp_path: Path, filling: bytes | None) -> None:
    path = tmp_path / "learned.sqlite"
    good = filled(path)
    random = Random(1)
    for page in range(len(good) // 4096):
        for file in tmp_path.iterdir():
            file.unlink()
        damage = random.randbytes(4096) if filling is None else filling * 4096
        path.write_bytes(good[: page * 4096] + damage + good[(page + 1) * 4096 :])
        starts_and_saves(path)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 4000, 4096, 5000, -1, -5000])
def test_the_file_may_be_cut_off_anywhere(tmp_path: Path, length: int) -> None:
    path = tmp_path / "learned.sqlite"
    path.write_bytes(filled(path)[:length])
    starts_and_saves(path)


def test_any_byte_may_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    good = filled(path)
    random = Random(2)
    for number in range(150):
        damaged = bytearray(good)
        for _ in range(1 + number % 20):
            damaged[random.randrange(len(damaged) if number % 3 else 200)] = random.randrange(256)
        for file in tmp_path.iterdir():
            file.unlink()
        path.write_bytes(damaged)
        memory = Memory(path)
        knowledge = memory.load()
        decision = decide(EDIT, LANES, knowledge, random)
        assert all(0 < one.relative < inf for one in decision.predictions.values())
        seen = Observation(50, 0, 90, 0.2, 90, 1.0, 80, 40)
        learn(knowledge, EDIT, decision, Outcome(decision.lane, 200, 3.0, observed=seen, at_s=NOW_S))
        assert knowledge.measured["one", decision.lane].requests
        memory.save(FILLED)
        memory.close()


def test_a_file_of_a_newer_program_is_set_aside_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    memory.save(FILLED)
    memory.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    starts_and_saves(path)
    assert (tmp_path / "learned.newer").read_bytes() == before
    assert "format is 99" in caplog.text


def test_a_second_damage_does_not_replace_what_the_first_left(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    for number in range(7):
        path.write_bytes(b"no database %d" % number * 100)
        starts_and_saves(path)
    kept = sorted(file.name for file in tmp_path.glob("learned.damaged*"))
    assert kept == ["learned.damaged", *(f"learned.damaged-{number}" for number in range(2, 6))]
    assert (tmp_path / "learned.damaged").read_bytes().startswith(b"no database 0")


def test_a_file_that_is_removed_while_it_is_used_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    memory.load()
    knowledge = learned(60)
    memory.save(knowledge)
    path.unlink()
    learned(2, knowledge)
    memory.save(knowledge)
    memory.close()
    assert "was removed" in caplog.text
    assert known(Memory(path)) == entries(knowledge)


def test_a_file_that_is_replaced_while_it_is_used_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    memory.load()
    knowledge = learned(60)
    memory.save(knowledge)
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "other").replace(path)
    learned(2, knowledge)
    memory.save(knowledge)
    memory.close()
    assert (tmp_path / "learned.replaced").read_bytes() == b"other"
    assert known(Memory(path)) == entries(knowledge)


def test_a_file_that_is_damaged_while_it_is_used_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    filled(path)
    memory = Memory(path)
    memory.load()
    with path.open("r+b") as file:
        file.write(Random(0).randbytes(path.stat().st_size))
    knowledge = learned(60)
    for count in (2, 3, 4):
        learned(count, knowledge)
        memory.save(knowledge)
    memory.close()
    again = Memory(path)
    assert known(again) in (entries(knowledge), NOTHING)
    again.save(knowledge)
    again.close()
    assert known(Memory(path)) == entries(knowledge)


def test_what_can_only_be_read_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is mounted read-only."""
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    memory.save(FILLED)
    memory.close()

    def refuse(_: Path) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("paceline.routing.store.make_private", refuse)
        memory = Memory(path)
        knowledge = memory.load()
        assert entries(knowledge) == entries(FILLED)
        memory.save(knowledge)
        assert memory.problem is not None
    learned(2, knowledge)
    memory.save(knowledge)
    memory.close()
    assert known(Memory(path)) == entries(knowledge)


def test_a_full_disk_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    memory.load()
    assert memory._connection is not None
    pages = memory._connection.execute("PRAGMA page_count").fetchone()[0]
    memory._connection.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's answer is that of a full disk
    memory.save(MANY)
    assert memory.problem is not None
    assert "make room" in memory.problem
    memory._connection.execute("PRAGMA max_page_count = 1000000")
    memory.save(MANY)
    assert problem_of(memory) is None
    memory.close()
    assert known(Memory(path)) == entries(MANY)


def test_saving_and_closing_may_race(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    some = [learned(count) for count in range(1, 9)]
    threads = [threading.Thread(target=memory.save, args=(knowledge,)) for knowledge in some]
    threads += [threading.Thread(target=memory.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.save(some[0])
    again = Memory(path)
    assert known(again) in [NOTHING, *map(entries, some)]
    again.close()


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "paceline"
    folder.mkdir(mode=0o755)
    path = folder / "learned.sqlite"
    path.touch(mode=0o644)
    memory = Memory(path)
    memory.save(FILLED)
    memory.close()
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


PLACED = Remembered(
    (Paced("cloud", "m", Faded(9.0, -1.2, 0.5), Faded(9.0, -4.0, 0.5)),),
    (Judged("gpu", "a", "task code", 3.0, 4.0),),
    {"cloud": 0.7},
)


def test_what_placement_learned_is_kept_beside_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    assert memory.load_placement() == Remembered()
    memory.save(FILLED)
    memory.save_placement(PLACED)
    memory.save(FILLED)
    memory.close()
    again = Memory(path)
    assert known(again) == entries(FILLED)
    assert again.load_placement() == PLACED
    again.save_placement(Remembered())
    assert again.load_placement() == Remembered()
    again.close()


@pytest.mark.parametrize("value", [b"", b"\x00", b"odd"])
def test_placement_that_can_not_be_read_is_begun_anew(value: bytes, tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    memory.save_placement(PLACED)
    memory.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE placement SET value = ?", (value,))
    again = Memory(path)
    assert again.load_placement() == Remembered()
    again.save_placement(PLACED)
    assert again.load_placement() == PLACED
    again.close()


def test_what_can_not_have_been_learned_of_placement_is_not_known() -> None:
    odd = Remembered(
        (
            Paced("a", "m", Faded(float("nan"), 0.0, 0.0), Faded(1.0, 0.0, 0.0)),
            Paced("b", "m", Faded(1.0, 1e9, 0.0), Faded(1.0, 0.0, 0.0)),
            Paced("c", "m", Faded(1.0, 0.0, -1.0), Faded(1.0, 0.0, 0.0)),
        ),
        (Judged("gpu", "a", "", 5.0, 4.0), Judged("gpu", "a", "", 0.0, float("inf"))),
        {"a": 7.0, "b": float("nan")},
    )
    placer = Placer()
    placer.recall(odd)
    assert placer.remembered() == Remembered()
    placer.recall(PLACED)
    assert placer.remembered() == PLACED
