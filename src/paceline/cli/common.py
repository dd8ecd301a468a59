"""What several commands share."""

import argparse
import math
import shlex
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from paceline.cli.colour import Colour, painted
from paceline.paths import DECISION_LOG, state_directory
from paceline.printable import printable
from paceline.records.read import LogReader

Subparsers = Any
"""argparse's own type of a set of subcommands is private."""
LINE_INTERVAL_S = 10.0
"""Between two lines that say how far something is, where they are not written over one another."""
TELL_AFTER_S, TELL_INTERVAL_S = 2.0, 1.0
"""What takes longer is worth a word, and how long it takes a new one so often."""
INTERRUPTED = 130
"""Exit status of what Ctrl-C has ended."""
MAX_PRINTED = 300
"""Characters of a text that somebody else chose."""


def add_command(
    commands: Subparsers, name: str, summary: str, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A subcommand with its help texts; line breaks in ``epilog`` are kept."""
    width = max(40, shutil.get_terminal_size().columns - 2)  # as argparse wraps the rest
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(description, width),
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def fail(message: str) -> int:
    """Say on standard error what is wrong; returns the exit status for it."""
    print(painted(message, Colour.RED, sys.stderr), file=sys.stderr)
    return 1


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """The option to print for programs instead of people."""
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def print_json(document: Any) -> None:
    """Print what msgspec can encode, indented; numbers that JSON lacks become ``null``."""
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def say(text: str) -> None:
    """Say on standard error what is worth knowing beside the result."""
    print(text, file=sys.stderr)


class ProgressLine:
    """Says on standard error how far something is: in a terminal over what was said before, else now and then in a
    new line."""

    def __init__(self) -> None:
        self._said_s = 0.0

    def say(self, text: str) -> None:
        """The empty text removes what was said in place."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif text and time.monotonic() - self._said_s >= LINE_INTERVAL_S:
            self._said_s = time.monotonic()
            say(text)


say_in_place = ProgressLine().say


@contextmanager
def said_while(what: str) -> Iterator[None]:
    """Say what takes so long, once it does, and for how long already."""
    line, ended, began_s = ProgressLine(), threading.Event(), time.monotonic()

    def tell() -> None:
        while not ended.wait(TELL_INTERVAL_S if time.monotonic() - began_s >= TELL_AFTER_S else TELL_AFTER_S):
            line.say(f"{what} ... {time.monotonic() - began_s:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        if time.monotonic() - began_s >= TELL_AFTER_S:
            line.say("")


def shortened(text: str) -> str:
    """A text that somebody else chose, as it may be printed: without control characters, and not endless."""
    cut = text if len(text) <= MAX_PRINTED else text[:MAX_PRINTED] + "..."
    return printable(cut, "\N{REPLACEMENT CHARACTER}")


def own_command() -> str:
    """How this program is called from a shell here."""
    called = Path(sys.argv[0])
    if called.name == "paceline":
        on_path = shutil.which("paceline")
        if on_path and Path(on_path).resolve() == called.resolve():
            return "paceline"
        return shlex.quote(_from_here(called))
    return f"{shlex.quote(_from_here(Path(sys.executable)))} -m paceline"


def _from_here(path: Path) -> str:
    """As short as it can be typed: below the current folder from there, else whole."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def positive_number(text: str) -> float:
    """A type of argparse's options: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"is {text}; it has to be above 0")
    return value


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which part of which decision log."""
    parser.add_argument("--log", type=Path, metavar="FILE", help="a log that is not in its usual place")
    parser.add_argument("--days", type=positive_number, metavar="N", help="only the last N days")


def wanted_log(options: argparse.Namespace, with_text: bool = False) -> LogReader:
    """The part of the log that the options name."""
    since_s = time.time() - options.days * 86_400 if options.days else 0.0
    return LogReader(options.log or state_directory() / DECISION_LOG, since_s=since_s, with_text=with_text)


def say_what_is_unreadable(log: LogReader) -> None:
    """How many entries were left out when it was read."""
    if log.unreadable:
        say(f"{log.path}: {log.unreadable} entries can't be read; they are left out")
