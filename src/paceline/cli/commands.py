"""The subcommands, and what a command line asks of them."""

import os
import sys

from paceline import __version__
from paceline.cli import (
    bench,
    calibrate,
    check,
    completion,
    cost,
    doctor,
    endpoint_picker,
    engine,
    explain,
    export,
    init,
    lanes,
    plan,
    reload,
    replay,
    report,
    serve,
    service,
    top,
)
from paceline.cli.common import INTERRUPTED, fail
from paceline.cli.engine_options import ENGINE_FLAGS
from paceline.cli.parser import WHOLE, Parser

COMMANDS = (
    *(init, serve, doctor, check, plan),
    *(top, lanes, explain, reload, calibrate),
    *(bench, report, cost, replay, export),
    *(engine, endpoint_picker, service, completion),
)
"""In the order in which they are listed."""


def command_parser() -> Parser:
    """Of all commands."""
    parser = Parser(
        prog="paceline",
        description="A gateway in front of LLM engines that decides for every request how, and on which engine, its "
        "answer is decoded.",
        epilog="`paceline COMMAND --help` says more about each command.",
    )
    parser.add_argument("--version", action="version", version=f"paceline {__version__}")
    parser.set_defaults(**{WHOLE: parser})
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(commands)
    return parser


def run(arguments: list[str] | None = None) -> int:
    """As :func:`paceline.cli.main`."""
    _open_closed_streams()
    words, flags = _without_engine_flags(sys.argv[1:] if arguments is None else arguments)
    parser = command_parser()
    options = parser.parse_args(words)
    if hasattr(options, ENGINE_FLAGS):
        setattr(options, ENGINE_FLAGS, flags)
    elif flags:
        parser.error(f"{flags[0]}: only commands that start an engine take flags for it behind --")
    try:
        status: int = options.run(options)
        sys.stdout.flush()  # so that what can't be written is known here
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _write_nothing_more()
        return 1
    except OSError as error:
        _write_nothing_more()
        return fail(f"{error.filename or 'the output'}: {error.strerror or error}")
    return status


def _without_engine_flags(words: list[str]) -> tuple[list[str], list[str]]:
    """A command line, and what stands behind ``--`` in it, which is for an engine. ``explain -- -1`` has a prompt
    there."""
    if "--" in words and words[0] != "explain":
        at = words.index("--")
        return words[:at], words[at + 1 :]
    return words, []


def _open_closed_streams() -> None:
    """Who starts a program with its output closed wants none."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - to the process's end


def _write_nothing_more() -> None:
    """What reads the output is gone, or has no room: what is still to be written would fail again at the end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # it is no file
        return
