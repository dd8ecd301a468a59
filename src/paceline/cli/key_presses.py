"""Keys as they are pressed in a terminal, without Enter."""

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def key_presses() -> Iterator[Callable[[float], str]]:
    """Gives a function that waits so many seconds and returns the key that was pressed, at once; else the empty text.
    Where standard input is no terminal, or can't be switched, it only waits."""
    try:
        import termios
        import tty
    except ImportError:  # Windows
        yield _wait
        return
    if not sys.stdin.isatty():
        yield _wait
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda seconds: _pressed(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _pressed(descriptor: int, seconds: float) -> str:
    until_s = time.monotonic() + seconds
    ready, _, _ = select.select([descriptor], [], [], seconds)
    if not ready:
        return ""
    if not (read := os.read(descriptor, 16)):  # it was closed
        _wait(until_s - time.monotonic())
    return read.decode("utf-8", "replace")[:1]


def _wait(seconds: float) -> str:
    time.sleep(max(0.0, seconds))
    return ""
