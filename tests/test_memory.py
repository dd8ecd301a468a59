"""What was learned survives a restart."""

import sqlite3
import time
from pathlib import Path
from random import Random

import pytest

from paceline.decision import State, decide, learn
from paceline.memory import Memory, MemoryUnusable
from paceline.types import Lane, LaneState, Observation, Outcome, Signals, Strategy, Task

LANES = [
    LaneState(Lane("plain", "e", Strategy(), "gpu"), fingerprint="one", model="m"),
    LaneState(Lane("ngram", "e", Strategy("ngram", 8), "gpu"), fingerprint="one", model="m"),
]
NOW_S = time.time()
EDIT = Signals(tasks={Task.EDIT: 1.0}, copy=0.8, conversation="c")


def learned(state: State, count: int) -> State:
    rng = Random(count)
    for number in range(count):
        decision = decide(EDIT, LANES, state, rng)
        seen = Observation(50, 0, 90, 0.2, 90, 1.0 + rng.random(), 80, 40)
        state = learn(state, EDIT, decision, Outcome(decision.lane, 200, 3.0, observed=seen, at_s=NOW_S + number))
    return state


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "learned.sqlite"
    memory = Memory(path)
    assert memory.load() == State()
    state = learned(State(), 5)
    memory.save(state)
    state = learned(state, 3)
    memory.save(state)
    memory.close()
    again = Memory(path)
    assert again.load() == state
    again.close()


def test_saving_writes_what_changed(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "learned.sqlite")
    memory.save(learned(State(), 5))
    before = memory._connection.total_changes
    memory.save(memory.load())
    assert memory._connection.total_changes - before <= 3  # the totals


def test_a_second_gateway_does_not_take_the_file(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "learned.sqlite")
    with pytest.raises(MemoryUnusable, match="locked"):
        Memory(tmp_path / "learned.sqlite")
    memory.close()
    Memory(tmp_path / "learned.sqlite").close()


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    path.write_bytes(b"this is no database" * 100)
    memory = Memory(path)
    assert memory.load() == State()
    memory.save(learned(State(), 2))
    memory.close()
    assert (tmp_path / "learned.damaged").exists()


def test_what_a_wrong_clock_dated_is_left_out(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "learned.sqlite")
    decision = decide(EDIT, LANES, State(), Random(0))
    seen = Observation(50, 0, 90, 0.2, 90, 1.0)
    memory.save(learn(State(), EDIT, decision, Outcome(decision.lane, 200, 3.0, observed=seen, at_s=NOW_S * 2)))
    assert not memory.load().cells
    memory.close()


def test_damaged_entries_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "learned.sqlite"
    memory = Memory(path)
    state = learned(State(), 3)
    memory.save(state)
    memory.close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO learned VALUES ('cells', 'no key', 'x')")
        connection.execute("INSERT INTO learned VALUES ('cells', '[\"step\",\"other\"]', 'x')")
    memory = Memory(path)
    assert memory.load() == state
    memory.close()


def test_a_place_that_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MemoryUnusable, match="file"):
        Memory(tmp_path / "file" / "learned.sqlite")
