"""What several commands share."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from paceline.evidence.log import FILE

Subparsers = Any
"""argparse's own type of a set of subcommands is private."""


def add_command(
    commands: Subparsers, name: str, summary: str, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A subcommand with its help texts; line breaks in ``epilog`` are kept."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def fail(message: str) -> int:
    """Say on standard error what is wrong; returns the exit status for it."""
    print(message, file=sys.stderr)
    return 1


def say(text: str) -> None:
    """Say on standard error what is worth knowing beside the result."""
    print(text, file=sys.stderr)


def say_in_place(text: str) -> None:
    """Say on standard error how far something is, over what was said before; the empty text removes it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def user_directory(variable: str, fallback: str) -> Path:
    """Paceline's folder below one of the XDG base directories."""
    return Path(os.environ.get(variable) or Path.home() / fallback) / "paceline"


def cache_directory() -> Path:
    return user_directory("XDG_CACHE_HOME", ".cache")


def state_directory() -> Path:
    return user_directory("XDG_STATE_HOME", ".local/state")


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which part of which decision log."""
    parser.add_argument("--log", type=Path, help="a log that is not in its usual place")
    parser.add_argument("--days", type=float, help="only the last days")


def wanted_log(options: argparse.Namespace) -> tuple[Path, float]:
    """The log's file, and since when, in seconds since 1970."""
    since_s = time.time() - options.days * 86_400 if options.days else 0.0
    return options.log or state_directory() / FILE, since_s


def log_directory() -> Path:
    return state_directory() / "log"
