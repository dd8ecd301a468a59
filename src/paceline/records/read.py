"""Reads a decision log, also while a gateway writes it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from msgspec.structs import replace

from paceline.records.decision_log import FORMAT
from paceline.records.record import Record

_ALL = 2**62
"""Entries; more than any file holds, and within SQLite's integers."""
_QUERY = """
SELECT number, CAST(entry AS BLOB) FROM entries
WHERE at_s >= ? AND number > max(?, (SELECT coalesce(max(number), 0) FROM entries) - ?) ORDER BY number
"""
_DECODER = msgspec.json.Decoder(Record)


class NoLog(Exception):
    """There is no log that can be read; ``str()`` says why."""


class LogReader:
    """The records of a decision log, the oldest first. Each iteration reads the file anew.

    Args:
        since_s: only later ones, in seconds since 1970.
        most: of more, the last ones.
        with_text: also the requests' bodies, where they were kept. A log with texts may be larger than the memory.

    Iterating raises :class:`NoLog`: the file is not there, or is no log.
    """

    def __init__(self, path: Path, since_s: float = 0.0, most: int | None = None, with_text: bool = False) -> None:
        self.path = path
        self.unreadable = 0
        """Entries that the last iteration skipped, since they hold no record."""
        self._since_s, self._most, self._with_text = since_s, most, with_text

    def __iter__(self) -> Iterator[Record]:
        return (record for _, record in self.numbered())

    def numbered(self, after: int = 0) -> Iterator[tuple[int, Record]]:
        """The records with their numbers in the log.

        Args:
            after: only those with a larger number.

        Raises:
            NoLog: the file is not there, or is no log.
        """
        self.unreadable = 0
        if not self.path.is_file():
            raise NoLog(f"there is no log {self.path} yet; `paceline serve` writes it, unless evidence.log is false")
        try:
            with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=5.0)) as connection:
                if connection.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                    raise NoLog(f"{self.path} is no log of this Paceline")
                most = _ALL if self._most is None else self._most
                for number, entry in connection.execute(_QUERY, (self._since_s, after, most)):
                    if (record := self._decoded(entry)) is not None:
                        yield number, record
        except sqlite3.Error as error:
            raise NoLog(f"{self.path}: {error}") from error

    def _decoded(self, entry: bytes) -> Record | None:
        try:
            record = _DECODER.decode(entry)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.unreadable += 1
            return None
        return record if self._with_text or record.text is None else replace(record, text=None)
