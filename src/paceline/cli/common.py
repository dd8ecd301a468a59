"""What several commands share."""

import argparse
import os
import sys
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


def log_file() -> Path:
    """The decision log."""
    return state_directory() / FILE


def log_directory() -> Path:
    return state_directory() / "log"
