"""What was learned, kept in a SQLite file over restarts.

A row for each entry of the state, so that saving writes what changed. Entries carry the fingerprint of the engine they
are about: what is known of an engine that no longer exists as it was is never asked for again, and dropped when it is
old.
"""

import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from paceline.decision import State
from paceline.decision.cells import Cell
from paceline.decision.fixed import Always
from paceline.decision.state import Served
from paceline.decision.step_cost import StepCost
from paceline.types import Measured

FORMAT = 2
"""Changes when what is stored means something else; of an older file, what still means the same is kept."""
_BY_LANE_FORMAT = 1
"""Kept the sums of lanes by their name alone and the lengths of answers by their task alone, whatever model and
settings stood behind: those begin anew. All else was under fingerprints already."""
FORGOTTEN_AFTER_S = 90 * 86_400.0
CLOCKS_DIFFER_S = 3_600.0
"""Entries from further in the future were dated by a wrong clock, and would outweigh all that follows."""
_SCHEMA = "CREATE TABLE IF NOT EXISTS learned (part TEXT, key TEXT, value BLOB, PRIMARY KEY (part, key)) WITHOUT ROWID"
_PARTS: dict[str, type[Any]] = {
    "measured": Measured,
    "cells": Cell,
    "steps": StepCost,
    "served": Served,
    "always": Always,
}
_TOTALS = ("at_s", "decode_s", "exploring_s")


class MemoryUnusable(Exception):
    """The file can't be opened, or another gateway has it."""


class Memory:
    """The open file.

    Raises:
        MemoryUnusable: it can't be opened or is in use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved = State()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise MemoryUnusable(f"{path}: {error}") from error
            path.replace(path.with_suffix(".damaged"))  # what was learned can be learned again
            self._open()
        except OSError as error:
            raise MemoryUnusable(f"{path}: {error.strerror}") from error

    def load(self) -> State:
        """What was saved last; entries that can't be read are left out."""
        parts: dict[str, dict[Any, Any]] = {name: {} for name in _PARTS}
        totals: dict[str, float] = {}
        newest_s = time.time() + CLOCKS_DIFFER_S
        oldest_s = newest_s - FORGOTTEN_AFTER_S
        for part, key, value in self._connection.execute("SELECT part, key, value FROM learned"):
            try:
                if part in _TOTALS:
                    totals[part] = min(msgspec.msgpack.decode(value, type=float), newest_s)
                    continue
                entry = msgspec.msgpack.decode(value, type=_PARTS[part])
                if oldest_s <= getattr(entry, "at_s", oldest_s) <= newest_s:
                    parts[part][tuple(msgspec.json.decode(key))] = entry
            except (msgspec.MsgspecError, KeyError, TypeError):
                continue
        fields: dict[str, Any] = {**parts, **totals}
        self._saved = State(**fields)
        return self._saved

    def save(self, state: State) -> None:
        """Write what changed since the last time, if anything did.

        Raises:
            MemoryUnusable: it can't be written; nothing is lost but this.
        """
        if state is self._saved:
            return
        rows: list[tuple[str, str, bytes]] = []
        gone: list[tuple[str, str]] = []
        for part in _PARTS:
            new: Mapping[Any, Any] = getattr(state, part)
            old: Mapping[Any, Any] = getattr(self._saved, part)
            rows += [
                (part, _text(key), msgspec.msgpack.encode(entry))
                for key, entry in new.items()
                if old.get(key) is not entry
            ]
            gone += [(part, _text(key)) for key in old if key not in new]
        rows += [(name, "", msgspec.msgpack.encode(getattr(state, name))) for name in _TOTALS]
        try:
            with self._connection:
                self._connection.executemany("DELETE FROM learned WHERE part = ? AND key = ?", gone)
                self._connection.executemany("INSERT OR REPLACE INTO learned VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise MemoryUnusable(f"{self.path}: {error}") from error
        self._saved = state

    def close(self) -> None:
        self._connection.close()

    def _open(self) -> None:
        self._connection = sqlite3.connect(self.path, timeout=0.5, check_same_thread=False)
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        found = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if found not in (FORMAT, _BY_LANE_FORMAT):
            self._connection.execute("DROP TABLE IF EXISTS learned")
        self._connection.execute(_SCHEMA)
        if found == _BY_LANE_FORMAT:
            self._connection.execute("DELETE FROM learned WHERE part IN ('measured', 'always')")
            self._connection.execute("DELETE FROM learned WHERE part = 'cells' AND key LIKE '[\"tokens\",%'")
        self._connection.execute(f"PRAGMA user_version = {FORMAT}")
        self._connection.execute("INSERT OR REPLACE INTO learned VALUES ('opened', '', ?)", (b"",))  # takes the lock
        self._connection.commit()


def _text(key: Any) -> str:
    return msgspec.json.encode(key).decode()
