"""What a gateway prints, in a file that stays small: for what starts it and keeps no log itself, such as launchd."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paceline.processes.process_log import ProcessLog


@contextmanager
def printed_into(file: Path | None, first_line: str) -> Iterator[None]:
    """Have standard output and standard error go into a file, as the engines' logs do: one that would grow beyond 20 MB
    is put aside as ``.log.1``. Without a file, nothing is changed.

    Raises:
        OSError: it can't be written.
    """
    if file is None:
        yield
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))  # so that what is wrong with it is said
    own = ProcessLog(file)
    end = own.pipe(first_line)
    sys.stdout.flush()
    before = [os.dup(number) for number in (1, 2)]
    for number in (1, 2):
        os.dup2(end, number)
    os.close(end)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in zip((1, 2), before, strict=True):
            os.dup2(kept, number)
            os.close(kept)
        own.last_line()  # waits until all of it is written
