"""The command ``paceline``; one module per subcommand."""

import argparse
import sys

from paceline import __version__
from paceline.cli import bench, calibrate, check, engine, explain, export, lanes, reload, replay, report, serve, top

COMMANDS = (serve, bench, report, replay, top, lanes, explain, calibrate, check, reload, export, engine)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit status: 0 done, 1 could not be done, 2 misused."""
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
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return status
