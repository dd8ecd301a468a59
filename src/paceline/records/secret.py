"""A random key that never leaves this machine, for hashes that nobody else can make."""

import contextlib
import logging
import os
import secrets
from pathlib import Path

from paceline.records.state_file import FILE_MODE, narrow, private_directory

FILE = "conversation.key"
KEY_BYTES = 32
"""As long as BLAKE2b's keys need be for 256 bits of security."""
log = logging.getLogger("paceline.records")


def conversation_key(directory: Path | None) -> bytes:
    """The key of the hashes of conversations; made at the first call and kept in a file for its owner only, so that
    what was learned of a conversation counts after a restart.

    Where the file can't be read or written, a key for this process alone is made.

    Args:
        directory: the state directory; ``None`` keeps nothing.
    """
    key = secrets.token_bytes(KEY_BYTES)
    if directory is None:
        return key
    path = directory / FILE
    if len(kept_key := _read(path)) == KEY_BYTES:
        return kept_key
    try:
        private_directory(directory)
        # Linked into place whole: two gateways that start at once take the same key, and a crash leaves no half of one.
        new = directory / f"{FILE}.{os.getpid()}"
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
            with open(descriptor, "wb") as file:
                file.write(key)
            if path.exists() and len(_read(path)) != KEY_BYTES:
                log.warning("%s holds no key; a new one is made, and conversations under way count as new", path)
                new.replace(path)
                return key
            with contextlib.suppress(FileExistsError):
                os.link(new, path)
        finally:
            new.unlink(missing_ok=True)
        return _read(path) or key
    except OSError as error:
        log.warning("%s can't be written (%s): conversations count as new after a restart", path, error.strerror)
        return key


def keep_key(directory: Path | None, key: bytes) -> None:
    """Have another key in place of the one that is kept: the one that several gateways have in common."""
    if directory is None:
        return
    path = directory / FILE
    try:
        private_directory(directory)
        new = directory / f"{FILE}.{os.getpid()}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "wb") as file:
            file.write(key)
        new.replace(path)
    except OSError as error:
        log.warning("%s can't be written (%s): conversations count as new after a restart", path, error.strerror)


def _read(path: Path) -> bytes:
    """Empty where there is none."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return b""
        with path.open("rb") as file:
            content = file.read(KEY_BYTES + 1)
    except OSError:
        return b""
    narrow(path, FILE_MODE)
    return content
