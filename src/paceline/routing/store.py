"""What was learned, kept in a SQLite file over restarts.

A row for each entry, so that saving writes what changed. Entries carry the fingerprint of the engine they
are about: what is known of an engine that no longer exists as it was is never asked for again, and dropped when it is
old.

The file is a convenience: whatever befalls it, the gateway serves. A damaged one is set aside and begun anew, one that
vanished is made again, one that another gateway holds or that can't be written is tried again at each saving; each is
said once, and nothing is deleted.
"""

import logging
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import msgspec

from paceline.decision import ENTRY_TYPES, Key, Knowledge, Row
from paceline.decision.knowledge import Shared, Totals, decoded_row
from paceline.records.state_file import FILE_ERRORS, error_line, identity, is_damaged, make_private, set_aside
from paceline.routing.remembered import Remembered

__all__ = ["Knowledge", "Memory", "load", "save"]

FORMAT = 3
"""Changes when what is stored means something else. A newer file is set aside; of an older one, what still means the
same is kept."""
_BY_LANE_FORMAT = 1
"""Kept the sums of lanes by their name alone, whatever model and settings stood behind: those begin anew."""
FORGOTTEN_AFTER_S = 90 * 86_400.0
"""Older entries are dropped: engines and habits will have changed."""
CLOCKS_DIFFER_S = 3_600.0
"""Entries from further in the future were dated by a wrong clock, and would outweigh all that follows."""
_SCHEMA = "CREATE TABLE IF NOT EXISTS learned (part TEXT, key TEXT, value BLOB, PRIMARY KEY (part, key)) WITHOUT ROWID"
_SCHEMA_OF_PLACEMENT = "CREATE TABLE IF NOT EXISTS placement (at_s REAL, value BLOB)"
LOCK_PATIENCE_S = 0.5
"""How long another program may hold the file before it counts as locked."""
_WHAT_TO_DO = {
    sqlite3.SQLITE_BUSY: "another gateway uses it; start each with an XDG_STATE_HOME of its own, or stop the other",
    sqlite3.SQLITE_LOCKED: "another program uses it; wait for it, or stop it",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "look at its disk",
}
_ELSE_TO_DO = "let this user write there"
log = logging.getLogger("paceline.routing")


def save(path: Path, knowledge: Knowledge) -> None:
    """Write what was learned to a file, in place of what stood there; what can't be read of it is set aside.

    Raises:
        OSError: it can't be written.
    """
    with closing(Memory(path)) as memory:
        memory.load()
        memory.save(knowledge)
        if memory.problem:
            raise OSError(f"{path} can't be written: {memory.problem}")


def load(path: Path) -> Knowledge:
    """What was saved; nothing where there is no file. One that is damaged is set aside.

    Raises:
        OSError: it can't be read.
    """
    if not path.exists():
        return Knowledge()
    with closing(Memory(path)) as memory:
        knowledge = memory.load()
        if memory.problem and not memory.is_read:
            raise OSError(f"{path} can't be read: {memory.problem}")
        return knowledge


class Memory:
    """What was learned, and the file for it. Its methods may be called from any thread, and raise nothing.

    Args:
        path: of the file; created with its folder, for its owner only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        """Why nothing can be saved at the moment, and what to do."""
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._is_closed = False
        self._given: tuple[int, int] | None = None
        """What was saved last: whose knowledge, and how many outcomes it had learned."""
        self._saved: dict[tuple[str, Key], object] | None = None
        """Entries that stand in the file; ``None`` where that isn't known, and all of it is to be written."""
        self.is_read = False
        """Whether what stood in the file is known to the gateway, or to :attr:`_earlier`."""
        self._earlier: Knowledge | None = None
        """What stood in a file that could be read only after the gateway had begun to learn; part of all that is
        saved."""
        self._placement = Remembered()
        """What stands in the file of placement."""
        self._open()

    def load(self) -> Knowledge:
        """What was saved last. Entries that can't be read, or that a wrong clock has dated, are left out."""
        with self._lock:
            if self._connection is None:
                self._saved = None
                return self._loaded_read_only()
            knowledge = Knowledge()
            try:
                rows, misdated = self._read(self._connection)
                knowledge = Knowledge.from_rows(rows)
                self.is_read, self._saved = True, {(row.part, row.key): row.entry for row in rows}
                if misdated:
                    self._begin_anew("misdated", f"{misdated} of its entries are dated in the future by a wrong clock")
                    self._write_guarded(knowledge)
            except FILE_ERRORS as error:
                self._failed(error)
            return knowledge

    def save(self, knowledge: Knowledge) -> None:
        """Write what changed since the last time, if anything did. Where that can't be, :attr:`problem` says why, and
        the next saving writes it, too."""
        with self._lock:
            if self._is_closed:
                return
            self._notice_another_file()
            if self._connection is None:
                self._open()
            if self._given != (id(knowledge), knowledge.learned) or self._saved is None:
                self._write_guarded(knowledge)

    def load_placement(self) -> Remembered:
        """What was saved last of placement; nothing where it can't be read, or is too old."""
        with self._lock:
            if self._connection is None:
                return Remembered()
            try:
                oldest_s = time.time() - FORGOTTEN_AFTER_S
                rows = self._connection.execute("SELECT value FROM placement WHERE at_s > ?", (oldest_s,)).fetchall()
                self._placement = msgspec.msgpack.decode(rows[0][0], type=Remembered) if rows else Remembered()
            except (msgspec.MsgspecError, *FILE_ERRORS):
                return Remembered()
            return self._placement

    def save_placement(self, remembered: Remembered) -> None:
        """Write what placement has learned, if that has changed. To be called behind :meth:`save`, which tells of what
        is wrong with the file."""
        with self._lock:
            if self._connection is None or remembered == self._placement:
                return
            try:
                with self._connection as connection:
                    connection.execute("DELETE FROM placement")
                    row = time.time(), msgspec.msgpack.encode(remembered)
                    connection.execute("INSERT INTO placement VALUES (?, ?)", row)
                self._placement = remembered
            except FILE_ERRORS as error:
                self._failed(error)

    def close(self) -> None:
        """Let go of the file; savings that come later do nothing."""
        with self._lock:
            self._is_closed = True
            self._disconnect()

    def _open(self) -> None:
        """Open the file and lock it, so that no other gateway writes it. Where that can't be, there is no connection,
        and a problem."""
        try:
            self._connect()
        except FILE_ERRORS as error:
            self._failed(error)
            if self._connection is None:
                return
        if self.problem:
            log.warning("what is learned is kept again in %s", self.path)
        self.problem = None

    def _connect(self) -> None:
        """
        Raises:
            FILE_ERRORS: the file can't be used; there is no connection.
        """
        make_private(self.path)
        connection = sqlite3.connect(self.path, timeout=LOCK_PATIENCE_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            its_format = connection.execute("PRAGMA user_version").fetchone()[0]
            if not 0 <= its_format <= FORMAT:
                connection.close()
                self._begin_anew(
                    "newer" if its_format > FORMAT else "older",
                    f"its format is {its_format}, and this program's {FORMAT}",
                )
                return
            connection.execute(_SCHEMA)
            connection.execute(_SCHEMA_OF_PLACEMENT)
            if its_format < FORMAT:
                kept = set(ENTRY_TYPES) - ({"measured"} if its_format == _BY_LANE_FORMAT else set())
                marks = ", ".join("?" * len(kept))
                connection.execute(f"DELETE FROM learned WHERE part NOT IN ({marks})", sorted(kept))
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute("INSERT OR REPLACE INTO learned VALUES ('opened', '', ?)", (b"",))  # takes the lock
            connection.commit()
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity, self._saved = connection, identity(self.path), None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._identity = self._saved = None
        self._placement = Remembered()

    def _begin_anew(self, why: str, because: str) -> None:
        """Set the file aside and begin another one.

        Raises:
            FILE_ERRORS: it can't be; there is no connection.
        """
        self._disconnect()
        aside = set_aside(self.path, why)
        log.warning(
            "%s is set aside as %s and begun anew, since %s; what it held that is of use can be learned again",
            self.path,
            aside.name,
            because,
        )
        self._connect()

    def _failed(self, error: Exception) -> None:
        """A damaged file is begun anew; all else is a problem, and tried again at the next saving."""
        if is_damaged(error):
            try:
                self._begin_anew("damaged", f"it is damaged ({error_line(error)})")
                self.is_read = True
                return
            except FILE_ERRORS as another:
                error = another
        to_do = _WHAT_TO_DO.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, _ELSE_TO_DO)
        if self.problem is None:
            log.warning("what is learned is not kept for now: %s: %s; %s", self.path, error_line(error), to_do)
        self.problem = f"{error_line(error)}; {to_do}"

    def _notice_another_file(self) -> None:
        """Let go of a file that is no longer at its place."""
        if self._connection is None or (now := identity(self.path)) == self._identity:
            return
        if now is None:
            log.warning("%s was removed while the gateway runs; it is made again", self.path)
            self._disconnect()
            return
        try:
            self._begin_anew("replaced", "it was replaced while the gateway runs")
        except FILE_ERRORS as error:
            self._failed(error)

    def _loaded_read_only(self) -> Knowledge:
        """Of a file that can be read but not written."""
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                its_format = connection.execute("PRAGMA user_version").fetchone()[0]
                rows = self._read(connection)[0] if its_format == FORMAT else []
        except FILE_ERRORS:
            return Knowledge()
        self.is_read = True
        return Knowledge.from_rows(rows)

    def _read(self, connection: sqlite3.Connection) -> tuple[list[Row], int]:
        """All entries that can be read and are not too old, and how many others are dated in the future.

        Raises:
            FILE_ERRORS: the file can't be read.
        """
        rows: list[Row] = []
        misdated = 0
        newest_s = time.time() + CLOCKS_DIFFER_S
        oldest_s = newest_s - FORGOTTEN_AFTER_S
        for part, about, value in connection.execute("SELECT part, key, value FROM learned"):
            try:
                key = tuple(msgspec.json.decode(about or "[]", type=list[str]))
            except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
                continue
            row = decoded_row(part, key, value, newest_s)
            if row is None:
                continue
            misdated += row.entry.at_s > newest_s
            if isinstance(row.entry, Totals | Shared) or oldest_s <= row.entry.at_s <= newest_s:
                rows.append(row)
        return rows, misdated

    def _write_guarded(self, knowledge: Knowledge) -> None:
        for _ in range(2):  # once more where the file was found damaged, and begun anew
            if self._connection is None:
                return
            try:
                if not self.is_read:
                    self._earlier = Knowledge.from_rows(self._read(self._connection)[0])
                    self.is_read = True
                self._write(self._connection, knowledge)
            except FILE_ERRORS as error:
                self._failed(error)
            else:
                self.problem = None
                return

    def _write(self, connection: sqlite3.Connection, knowledge: Knowledge) -> None:
        """
        Raises:
            FILE_ERRORS: nothing was written.
        """
        with knowledge.lock:
            if self._earlier is not None:
                knowledge.merge(self._earlier)
                self._earlier = None
            given = id(knowledge), knowledge.learned
            present: dict[tuple[str, Key], object] = {(row.part, row.key): row.entry for row in knowledge.rows()}
        written = self._saved or {}
        rows = [
            (part, _text(key), msgspec.msgpack.encode(entry))
            for (part, key), entry in present.items()
            if (old := written.get((part, key))) is not entry and old != entry
        ]
        with connection:
            if self._saved is None:
                connection.execute("DELETE FROM learned WHERE part <> 'opened'")
            connection.executemany(
                "DELETE FROM learned WHERE part = ? AND key = ?",
                [(part, _text(key)) for part, key in written if (part, key) not in present],
            )
            connection.executemany("INSERT OR REPLACE INTO learned VALUES (?, ?, ?)", rows)
        self._saved, self._given = present, given


def _text(key: Key) -> str:
    """Of what an entry is about."""
    return msgspec.json.encode(key).decode() if key else ""
