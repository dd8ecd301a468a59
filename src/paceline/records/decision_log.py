"""The decision log: a SQLite file that a thread of its own writes, off the way of the requests.

Entries are gathered for half a second and written in one transaction. The file is in WAL mode, whose last commit
survives whatever happens to the process (https://sqlite.org/wal.html). A disk that is full or read-only stops no
request: entries wait in memory as far as there is room, then the oldest are given up, and counted. A file that is
damaged, or of another format, is set aside and a new one begun; one that was removed is made again.

An entry is a :class:`~paceline.records.record.Record` as JSON; :mod:`paceline.records.read` gives it back.
"""

import contextlib
import logging
import sqlite3
import sys
import threading
import time
from collections import deque
from itertools import chain
from pathlib import Path

import msgspec
from msgspec import Struct

from paceline.records.record import Record
from paceline.records.state_file import FILE_ERRORS, error_line, identity, is_damaged, make_private, set_aside
from paceline.types import Observation

FORMAT = 2
"""Of the file; one of another format is set aside."""
INTERVAL_S = 0.5
"""Between two writings: what a crash loses at most."""
MAX_WAITING = 10_000
"""Entries that wait in memory while the file can't be written."""
MAX_WAITING_BYTES = 16_000_000
"""Memory that they may take, with those that are being written."""
PAGE_BYTES = 16_384
"""Several entries: with SQLite's usual 4,096, writing an entry took 9 microseconds instead of 7."""
PRUNED_EVERY_S = 60.0
"""How often entries that are too old are looked for. The file's size is looked at whenever it was written."""
PRUNED_SHARE = 10
"""A file that is too large loses this part of its entries, the oldest first, until it is no longer."""
WAL_PAGES = 1000
"""SQLite's own measure of how large the write-ahead log may grow; of a file that may be small, a quarter of that."""
MIN_WAL_PAGES = 16
"""However small the file may be: a quarter of a megabyte."""
COLUMNS = {
    **{name: f"outcome.{name}" for name in ("at_s", "lane")},
    **{name: name for name in ("id", "path", "model", "stream", "forced", "task", "strategy", "n_max", "signals")},
    "conversation": "signals.conversation",
    "decided": "decision.lane",
    **{name: f"decision.{name}" for name in ("reason", "propensity", "exploring_s", "predictions")},
    **{
        name: f"outcome.{name}"
        for name in ("status", "error", "cost", "total_s", "queue_s", "decision_s", "first_byte_s", "beside")
    },
    **{name: f"outcome.observed.{name}" for name in Observation.__struct_fields__},
    "text": "text",
}
"""For people, their SQL and their tables: the name of each column, and where it stands in a record's JSON. ``lane``
served, ``decided`` was chosen; ``predictions`` are by lane."""
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

log = logging.getLogger("paceline.records")
_ENCODER = msgspec.json.Encoder()
_Row = tuple[float, str]
"""When the request ended, in seconds since 1970, and its record as JSON, so that no Python runs for each of its fields:
with a column for each, writing took more than twice as long, and the requests waited for a part of that."""


class LogSettings(Struct, frozen=True, kw_only=True):
    """How much is kept."""

    keep_days: float = 30.0
    """Older entries are dropped."""
    max_bytes: int = 256 * 1024 * 1024
    """Of a larger file, the oldest entries are dropped."""


class LogSums(Struct, frozen=True):
    """How it stands with a log, of one process or of several that write it."""

    written: int
    waiting: int
    lost: int
    problem: str | None

    def plus(self, other: "LogSums | None") -> "LogSums":
        """Both together."""
        if other is None:
            return self
        return LogSums(
            self.written + other.written,
            self.waiting + other.waiting,
            self.lost + other.lost,
            self.problem or other.problem,
        )


class DecisionLog:
    """The open log; :meth:`record` never waits for the disk.

    An entry is encoded as it comes: gathered as objects, entries cost the requests' thread more, for it then worked in
    memory that no cache held any more.
    """

    def __init__(self, path: Path, settings: LogSettings = LogSettings()) -> None:  # noqa: B008 - it is frozen
        self.path = path
        self.written = 0
        """Entries that stand in the file, of those recorded since the start."""
        self.lost = 0
        """Entries that could not be kept."""
        self.problem: str | None = None
        """Why the file can't be written at the moment."""
        self._settings = settings
        self._lock = threading.Lock()
        """Guards the next two, and ``lost``."""
        self._waiting: deque[_Row] = deque()
        self._held_bytes = 0
        """Of the entries that wait, and of those that are being written."""
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._pruned_s = float("-inf")
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decision log", daemon=True)
        self._thread.start()

    def record(self, record: Record, /) -> None:
        row = record.outcome.at_s, _ENCODER.encode(record).decode()
        with self._lock:
            self._waiting.append(row)
            self._held_bytes += _held(row)
            self._give_up_what_is_too_much()

    def sums(self) -> LogSums:
        """How it stands with it."""
        return LogSums(self.written, len(self._waiting), self.lost, self.problem)

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._is_closing.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._is_closing.wait(INTERVAL_S):
            self._write_guarded()
        self._write_guarded()
        with self._lock:
            self.lost += len(self._waiting)
            self._waiting.clear()
        self._disconnect()

    def _write_guarded(self) -> None:
        """The thread must not end while the gateway runs, whatever happens."""
        try:
            self._write()
        except Exception as error:
            log.exception("the decision log can't be written, requests go on without it: %s", self.path)
            self.problem = repr(error)
            self._disconnect()

    def _write(self) -> None:
        """Write what waits; what can't be written waits on, what no file could hold is given up."""
        try:
            connection = self._connected()
        except FILE_ERRORS as error:
            self._failed(error)
            return
        with self._lock:
            batch, self._waiting = list(self._waiting), deque()
        left = batch
        try:
            self._insert(connection, batch)
            left = []
            self.written += len(batch)
            self._prune(connection, has_grown=bool(batch))
        except (sqlite3.DataError, ValueError, OverflowError):
            with self._lock:  # it would fail for ever
                self.lost += len(left)
            left = []
            raise
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return
        finally:
            with self._lock:
                self._held_bytes -= sum(map(_held, batch)) - sum(map(_held, left))
                self._waiting.extendleft(reversed(left))
                self._give_up_what_is_too_much()
        if self.problem:
            log.warning("the decision log is written again; %d entries were lost", self.lost)
        self.problem = None

    def _insert(self, connection: sqlite3.Connection, batch: list[_Row]) -> None:
        if not batch:
            return
        whole = len(batch) - len(batch) % AT_ONCE
        with connection:
            for first in range(0, whole, AT_ONCE):
                connection.execute(_INSERT_MANY, list(chain(*batch[first : first + AT_ONCE])))
            connection.executemany(_INSERT, batch[whole:])

    def _connected(self) -> sqlite3.Connection:
        """
        Raises:
            FILE_ERRORS: it can't be opened.
        """
        if self._connection is not None and identity(self.path) != self._identity:
            log.warning("%s was removed or replaced while the gateway runs; it is opened anew", self.path)
            self._disconnect()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _give_up_what_is_too_much(self) -> None:
        while self._waiting and (len(self._waiting) > MAX_WAITING or self._held_bytes > MAX_WAITING_BYTES):
            self._held_bytes -= _held(self._waiting.popleft())
            self.lost += 1

    def _failed(self, error: Exception) -> None:
        """Set a file aside that is at fault itself, so that the next writing begins another one."""
        if is_damaged(error):
            try:
                self._set_aside("damaged", f"it is damaged ({error_line(error)})")
                return
            except OSError as another:
                error = another
        if self.problem is None:
            log.warning(
                "the decision log can't be written, requests go on without it: %s: %s", self.path, error_line(error)
            )
        self.problem = error_line(error)
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_IOERR:
            self._disconnect()

    def _set_aside(self, why: str, because: str) -> None:
        """
        Raises:
            OSError: it can't be moved; it is left as it is.
        """
        self._disconnect()
        try:
            aside = set_aside(self.path, why)
        except OSError as error:
            raise OSError(f"it can't be used, since {because}, and not be moved away: {error_line(error)}") from error
        log.warning("the decision log %s is set aside as %s and begun anew, since %s", self.path, aside.name, because)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection = self._identity = None

    def _open(self) -> sqlite3.Connection:
        """
        Raises:
            FILE_ERRORS: it can't be opened.
        """
        make_private(self.path)
        connection = sqlite3.connect(self.path, timeout=1.0, check_same_thread=False)
        try:
            file_format = connection.execute("PRAGMA user_version").fetchone()[0]
            if file_format not in (0, FORMAT):
                connection.close()
                set_aside_as = "newer" if file_format > FORMAT else "older"
                self._set_aside(set_aside_as, f"its format is {file_format}, and this program's {FORMAT}")
                make_private(self.path)
                connection = sqlite3.connect(self.path, timeout=1.0, check_same_thread=False)
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            wal_pages = max(MIN_WAL_PAGES, min(WAL_PAGES, self._settings.max_bytes // (4 * PAGE_BYTES)))
            connection.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
            connection.execute(f"PRAGMA journal_size_limit = {wal_pages * PAGE_BYTES}")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            make_private(self.path)  # its companions are there now
        except BaseException:
            connection.close()
            raise
        self._identity = identity(self.path)
        return connection

    def _prune(self, connection: sqlite3.Connection, has_grown: bool) -> None:
        """Drop what is too old; and of a file that is too large, the oldest part, until it is no longer."""
        now_s = time.monotonic()
        if now_s - self._pruned_s > PRUNED_EVERY_S:
            self._pruned_s = now_s
            self._drop_old(connection)
        elif not has_grown:
            return
        if _bytes(connection) <= self._settings.max_bytes:
            return
        while _bytes(connection) > self._settings.max_bytes:
            first, last = connection.execute("SELECT min(number), max(number) FROM entries").fetchone()
            if first is None:
                break
            with connection:
                connection.execute(
                    "DELETE FROM entries WHERE number < ?", (first + max(1, (last - first + 1) // PRUNED_SHARE),)
                )
        connection.execute("PRAGMA incremental_vacuum").fetchall()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _drop_old(self, connection: sqlite3.Connection) -> None:
        """What is too old by the clock. A clock that jumped makes all of it old: that is at least said."""
        oldest_s = time.time() - self._settings.keep_days * 86_400
        with connection:
            dropped = connection.execute("DELETE FROM entries WHERE at_s < ?", (oldest_s,)).rowcount
        if dropped > 0 and connection.execute("SELECT count(*) FROM entries").fetchone()[0] < dropped:
            log.warning(
                "the decision log lost %d entries, since they were older than %g days (evidence.keep_days)",
                dropped,
                self._settings.keep_days,
            )


def _held(row: _Row) -> int:
    """Memory that an entry takes while it waits."""
    return sys.getsizeof(row[1])


def _bytes(connection: sqlite3.Connection) -> int:
    """Of the pages in use."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
