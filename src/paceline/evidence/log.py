"""The decision log: a SQLite file that a thread of its own writes, off the way of the requests.

Entries are gathered for half a second and written in one transaction. The file is in WAL mode, whose last commit
survives whatever happens to the process (https://sqlite.org/wal.html). A disk that is full or read-only stops no
request: entries wait in memory as far as there is room, then the oldest are given up, and counted.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from paceline.types import Decision, Observation, Outcome, Request, Signals

FORMAT = 2
FILE = "requests.sqlite"
"""Its usual name."""
INTERVAL_S = 0.5
MOST_WAITING = 10_000
"""Entries that wait in memory while the file can't be written."""
PAGE_BYTES = 16_384
"""Several entries: with SQLite's usual 4,096, writing an entry took 9 microseconds instead of 7."""
PRUNED_EVERY_S = 60.0
PRUNED_SHARE = 10
"""A file that is too large loses this part of its entries, the oldest first."""
COLUMNS = {
    **{name: f"outcome.{name}" for name in ("at_s", "lane")},
    **{name: name for name in ("id", "path", "model", "stream", "forced", "task", "strategy", "n_max", "signals")},
    "conversation": "signals.conversation",
    "decided": "decision.lane",
    **{name: f"decision.{name}" for name in ("reason", "propensity", "exploring_s", "predictions")},
    **{
        name: f"outcome.{name}"
        for name in ("status", "error", "total_s", "queue_s", "decision_s", "first_byte_s", "beside")
    },
    **{name: f"outcome.observed.{name}" for name in Observation.__struct_fields__},
    "text": "text",
}
"""Of an entry, and where each stands in its JSON. ``lane`` served, ``decided`` was chosen; ``predictions`` are by lane;
``text`` is the request's body, ``null`` unless texts are kept."""
_VIEWED = ", ".join(f"entry ->> '$.{path}' AS {name}" for name, path in COLUMNS.items())
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, at_s REAL NOT NULL, entry TEXT NOT NULL);
CREATE VIEW IF NOT EXISTS requests AS SELECT number, {_VIEWED} FROM entries;
"""
_INSERT = "INSERT INTO entries (at_s, entry) VALUES (?, ?)"
AT_ONCE = 100
"""Entries of one statement: between statements the requests' thread and the one that writes pass Python's lock to each
other, which costs more than the writing."""
_INSERT_MANY = _INSERT + ", (?, ?)" * (AT_ONCE - 1)

log = logging.getLogger("paceline.evidence")
_Row = tuple[float, str]


class _Kept(Struct, frozen=True):
    """An entry's JSON: the types' own, so that no Python runs for each of their fields. With a column for each, writing
    took more than twice as long, and the requests waited for a part of that. For people and their SQL, the view
    ``requests`` has the columns."""

    id: str | None
    path: str
    model: str | None
    stream: bool
    forced: bool
    task: str
    strategy: str | None
    n_max: int | None
    signals: Signals
    decision: Decision
    outcome: Outcome
    text: str | None


class LogSettings(Struct, frozen=True):
    keep_days: float = 30.0
    max_bytes: int = 256 * 1024 * 1024
    keep_text: bool = False


class DecisionLog:
    """The open log; :meth:`add` never waits for the disk.

    An entry is encoded as it comes: gathered as objects, entries cost the requests' thread more, for it then worked in
    memory that no cache held any more.
    """

    def __init__(self, path: Path, settings: LogSettings = LogSettings()) -> None:  # noqa: B008 - it is frozen
        self.path = path
        self.written = 0
        """Entries that stand in the file, of those added since the start."""
        self.lost = 0
        """Entries that could not be kept."""
        self.problem: str | None = None
        """Why the file can't be written at the moment."""
        self._settings = settings
        self._waiting: deque[_Row] = deque()
        self._connection: sqlite3.Connection | None = None
        self._pruned_s = float("-inf")
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decision log", daemon=True)
        self._thread.start()

    def add(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> None:
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(self._row(request, signals, decision, outcome))

    def document(self) -> dict[str, Any]:
        """How it stands with it."""
        return {
            "path": str(self.path),
            "written": self.written,
            "waiting": len(self._waiting),
            "lost": self.lost,
            "problem": self.problem,
        }

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._is_closing.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._is_closing.wait(INTERVAL_S):
            self._write()
        self._write()
        self.lost += len(self._waiting)
        if self._connection:
            self._connection.close()

    def _write(self) -> None:
        batch: list[_Row] = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        try:
            connection = self._connection = self._connection or self._open()
            if batch:
                whole = len(batch) - len(batch) % AT_ONCE
                with connection:
                    for first in range(0, whole, AT_ONCE):
                        connection.execute(_INSERT_MANY, list(chain(*batch[first : first + AT_ONCE])))
                    connection.executemany(_INSERT, batch[whole:])
                self.written += len(batch)
                batch = []
            if time.monotonic() - self._pruned_s > PRUNED_EVERY_S:
                self._prune(connection)
        except (sqlite3.Error, OSError) as error:
            self._waiting.extendleft(reversed(batch))
            if self.problem is None:
                log.warning("the decision log can't be written, requests go on without it: %s: %s", self.path, error)
            self.problem = str(error)
            return
        if self.problem:
            log.warning("the decision log is written again; %d entries were lost", self.lost)
        self.problem = None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=1.0, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, FORMAT):
                raise sqlite3.DatabaseError(f"it has format {found}; this Paceline writes {FORMAT}. Move it away")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Drop what is too old; and of a file that is too large, the oldest part."""
        self._pruned_s = time.monotonic()
        with connection:
            connection.execute("DELETE FROM entries WHERE at_s < ?", (time.time() - self._settings.keep_days * 86_400,))
        if _bytes(connection) > self._settings.max_bytes:
            with connection:
                first, last = connection.execute("SELECT min(number), max(number) FROM entries").fetchone()
                connection.execute(
                    "DELETE FROM entries WHERE number <= ?", (first + max(1, (last - first) // PRUNED_SHARE),)
                )
            connection.execute("PRAGMA incremental_vacuum").fetchall()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _row(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> _Row:
        prediction = decision.predictions.get(outcome.lane)
        strategy = prediction.strategy if prediction else None
        entry = _Kept(
            request.id,
            request.path,
            request.model,
            request.stream,
            request.forced_lane is not None,
            signals.task,
            strategy.kind if strategy else None,
            strategy.n_max if strategy else None,
            signals,
            decision,
            outcome,
            request.body.decode("utf-8", "replace") if self._settings.keep_text else None,
        )
        return outcome.at_s, msgspec.json.encode(entry).decode()


def _bytes(connection: sqlite3.Connection) -> int:
    """Of the pages in use."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
