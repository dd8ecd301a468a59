"""What a launched engine prints, kept in a file that stays small. A thread of its own reads it, so that neither a full
pipe holds the engine up nor a slow disk the gateway."""

import contextlib
import logging
import os
import threading
import time
from pathlib import Path

MAX_LOG_BYTES = 20_000_000
"""A log that would be larger than this is put aside, in place of the one that was put aside before."""
TAIL_BYTES = 4096
"""Kept in memory, for the last line."""
RETRY_S = 30.0
"""A log that can't be written is tried again this much later, and at the engine's next start."""

log = logging.getLogger("paceline.processes")


class ProcessLog:
    """The log of one engine over all its starts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        """Why it can't be written; ``None`` as long as it can."""
        self._reader: _Reader | None = None

    def pipe(self, first_line: str) -> int:
        """The writing end of a new pipe for an engine's output; the caller closes its copy once the engine has one.

        Raises:
            OSError: there are no more file descriptors.
        """
        ours, theirs = os.pipe()
        self._reader = _Reader(self, ours, first_line)
        self._reader.start()
        return theirs

    def last_line(self) -> str:
        """The last thing that the engine of the last start said. Waits a moment for what is still in the pipe."""
        if self._reader is None:
            return "it said nothing"
        self._reader.join(0.5)
        lines = [line.strip() for line in self._reader.tail.decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    @property
    def whereabouts(self) -> str:
        """Where to read more, for the end of a message; empty where it could not be written."""
        return "" if self.problem else f" (log: {self.path})"


class _Reader(threading.Thread):
    """Drains one pipe until every process that may write to it has ended."""

    def __init__(self, owner: ProcessLog, pipe: int, first_line: str) -> None:
        super().__init__(name=f"log of {owner.path.stem}", daemon=True)
        self._owner = owner
        self._pipe = pipe
        self._first_line = first_line
        self._file = -1
        self._size = 0
        self._retry_at_s = 0.0
        self.tail = b""

    def run(self) -> None:
        self._write(f"\n--- {self._first_line}\n".encode("utf-8", "replace"))
        try:
            while data := os.read(self._pipe, 65536):
                self.tail = (self.tail + data)[-TAIL_BYTES:]
                self._write(data)
        finally:
            os.close(self._pipe)
            self._close()

    def _write(self, data: bytes) -> None:
        try:
            if self._file < 0:
                if time.monotonic() < self._retry_at_s:
                    return
                self._open(len(data))
            elif self._size + len(data) > MAX_LOG_BYTES:
                self._close()
                self._open(len(data))
            rest = memoryview(data)
            while rest:
                written = os.write(self._file, rest)
                self._size += written
                rest = rest[written:]
        except OSError as error:
            self._close()
            self._retry_at_s = time.monotonic() + RETRY_S
            if self._owner.problem is None:
                log.warning("%s can't be written: %s; the engine runs on without it", self._owner.path, error.strerror)
            self._owner.problem = str(error.strerror)
        else:
            self._owner.problem = None

    def _open(self, coming_bytes: int) -> None:
        path = self._owner.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size + coming_bytes > MAX_LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
        # A FIFO that nobody reads would hold up the thread without O_NONBLOCK.
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        status = os.fstat(self._file)
        self._size = status.st_size
        if status.st_mode & 0o077:
            with contextlib.suppress(OSError):
                os.fchmod(self._file, 0o600)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
