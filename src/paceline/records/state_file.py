"""Files of the state directory: for their owner only, and set aside where they can't be used.

A file that can't be read is never deleted: it is moved beside, under a name that says why, and a new one is begun.
"""

import contextlib
import os
import sqlite3
import stat
from pathlib import Path

OWN_FOLDER = "paceline"
"""Name of the folders that are Paceline's own (``paceline/paths.py``); only their mode is
changed, never that of a folder that others may use, too."""
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600
"""For their owner only."""
MAX_SET_ASIDE = 5
"""Files that are kept under the names of one kind; of more, the last is replaced, so that they don't fill the disk."""
MAX_ERROR_CHARS = 200
"""Of an error of the system's or of SQLite's, in a message."""
COMPANIONS = ("-journal", "-wal", "-shm")
"""Endings of the files that SQLite has beside its own (https://sqlite.org/tempfiles.html). Beside another file than
theirs they would damage it."""

_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT))
"""https://sqlite.org/rescode.html. ``SQLITE_ERROR`` is a table that is not as it was made."""


def make_private(path: Path) -> None:
    """Create a file and its folder, if they are missing, for their owner only; narrow those that are wider.

    Raises:
        OSError: it can't be created.
    """
    private_directory(path.parent)
    # One that is there is not opened: closing it would drop the locks that SQLite may hold on it in this process
    # (https://sqlite.org/howtocorrupt.html, section 2.2).
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE))
    for file in (path, *companions(path)):
        narrow(file, FILE_MODE)


def private_directory(path: Path) -> None:
    """Create a folder for its owner only; narrow one of Paceline's own that is wider.

    Raises:
        OSError: it can't be created.
    """
    path.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
    for folder in (path, path.parent):
        if folder.name == OWN_FOLDER:
            narrow(folder, DIRECTORY_MODE)


def companions(path: Path) -> list[Path]:
    return [path.with_name(path.name + ending) for ending in COMPANIONS]


def set_aside(path: Path, why: str) -> Path:
    """Move a file, and what belongs to it, beside: ``learned.sqlite`` to ``learned.damaged``, or ``learned.damaged-2``
    where that exists. Returns the new path.

    Raises:
        OSError: it can't be moved.
    """
    for number in range(1, MAX_SET_ASIDE + 1):
        aside = path.with_suffix(f".{why}" if number == 1 else f".{why}-{number}")
        if not aside.exists():
            break
    path.replace(aside)
    for old, new in zip(companions(path), companions(aside), strict=True):
        new.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            old.replace(new)
    return aside


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another of the same name; ``None`` where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


FILE_ERRORS = (sqlite3.Error, OSError, ValueError, OverflowError)
"""What using an SQLite file raises. The latter two are Python's own, of damaged texts and sizes."""


def is_damaged(error: Exception) -> bool:
    """Whether the file itself is at fault, and not its place, its lock, or the disk."""
    if not isinstance(error, sqlite3.Error):
        return not isinstance(error, OSError)
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # sqlite3's own, of a text that is no UTF-8
        return "decode" in str(error)
    return (code & 0xFF) in _DAMAGED


def error_line(error: Exception) -> str:
    """An error on one line of printable characters; a damaged file's may quote anything."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or repr(error)
    return ascii(text[:MAX_ERROR_CHARS])[1:-1]


def narrow(path: Path, mode: int) -> None:
    """Take from others what they may; who does not own the file can't, and need not."""
    with contextlib.suppress(OSError):
        status = path.stat()
        is_ours = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
        if is_ours and status.st_mode & 0o077:
            path.chmod(mode)
