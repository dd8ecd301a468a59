"""The subcommands, and what a command line asks of them."""

import argparse
import sys

from paceline import __version__
from paceline.cli import (
    bench,
    calibrate,
    check,
    cost,
    endpoint_picker,
    engine,
    explain,
    export,
    lanes,
    plan,
    reload,
    replay,
    report,
    serve,
    top,
)
from paceline.cli.engine_options import ENGINE_FLAGS

COMMANDS = (
    serve,
    endpoint_picker,
    plan,
    bench,
    report,
    cost,
    replay,
    top,
    lanes,
    explain,
    calibrate,
    check,
    reload,
    export,
    engine,
)

TAKES_FLAGS = ("serve", "bench")


def run(arguments: list[str] | None = None) -> int:
    """As :func:`paceline.cli.main`."""
    parser = argparse.ArgumentParser(
        prog="paceline",
        description="A gateway in front of local LLM engines that picks, for every request, the decoding strategy "
        "that is fastest on this machine.",
        epilog="`paceline COMMAND --help` tells more about each.",
    )
    parser.add_argument("--version", action="version", version=f"paceline {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(commands)
    words, flags = _without_engine_flags(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(words)
    if hasattr(options, ENGINE_FLAGS):
        setattr(options, ENGINE_FLAGS, flags)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return status


def _without_engine_flags(words: list[str]) -> tuple[list[str], list[str]]:
    """A command line, and what stands behind ``--`` in it, which is for an engine."""
    if words[:1] and words[0] in TAKES_FLAGS and "--" in words:
        at = words.index("--")
        return words[:at], words[at + 1 :]
    return words, []
