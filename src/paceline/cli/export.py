"""``paceline export``: the decision log as a table."""

import argparse
from pathlib import Path

from paceline.cli.common import (
    Subparsers,
    add_command,
    add_log_options,
    fail,
    said_while,
    say_what_is_unreadable,
    wanted_log,
)
from paceline.records.export import CannotExport, export
from paceline.records.read import NoLog


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "export",
        "write the decision log as CSV or Parquet",
        "Write what the gateway kept of the requests, one row for each: signals, decision, predictions "
        "and what was measured. Signals and predictions are JSON. A gateway may be running meanwhile.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="file to write, which ends with .csv or .parquet")
    add_log_options(parser)
    parser.add_argument("--text", action="store_true", help="with the requests' bodies, if they were kept")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    log = wanted_log(options, with_text=options.text)
    try:
        with said_while(f"writing {options.file}"):
            count = export(log.numbered(), options.file, with_text=options.text)
    except (NoLog, CannotExport, OSError) as error:
        return fail(str(error))
    finally:
        say_what_is_unreadable(log)
    print(f"{count} requests in {options.file}")
    return 0
