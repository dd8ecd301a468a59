"""``paceline check``: is a configuration file usable?"""

import argparse
from pathlib import Path

from paceline.cli.common import Subparsers, add_command, fail
from paceline.configuration import ConfigurationError, load


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "check",
        "check a configuration file",
        "Check a configuration file without starting anything. Every problem is said with file, line and key; "
        "the exit status is 1 if there is one.",
    )
    parser.add_argument("file", type=Path, help="the configuration file, TOML")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        configuration = load(options.file)
    except ConfigurationError as error:
        return fail(str(error))
    for engine in configuration.engine:
        lane = engine.lanes()[0]
        where = engine.url or " ".join(engine.launch)
        print(f"{lane.name}: {engine.kind}, {lane.strategy}, device {lane.device or 'of its own'}, {where}")
    print(f"{options.file}: fine, {len(configuration.engine)} lanes")
    return 0
