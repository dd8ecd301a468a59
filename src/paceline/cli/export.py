"""``paceline export``: the decision log as a table."""

import argparse
import time
from pathlib import Path

from paceline.cli.common import Subparsers, add_command, fail, log_file
from paceline.evidence.export import CannotExport, export
from paceline.evidence.read import NoLog, columns_of, entries


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "export",
        "write the decision log as CSV or Parquet",
        "Write what the gateway kept of each request, a row each: signals, decision, predictions and what was "
        "measured; signals and predictions as JSON. A gateway may be running.",
    )
    parser.add_argument("file", type=Path, help="to write; ends with .csv or .parquet")
    parser.add_argument("--log", type=Path, help="a log that is not in its usual place")
    parser.add_argument("--days", type=float, help="only the last days")
    parser.add_argument("--text", action="store_true", help="with the requests' bodies, where they were kept")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    since_s = time.time() - options.days * 86_400 if options.days else 0.0
    try:
        found = entries(options.log or log_file(), since_s, options.text)
        count = export(found, columns_of(options.text), options.file)
    except (NoLog, CannotExport, OSError) as error:
        return fail(str(error))
    print(f"{count} requests in {options.file}")
    return 0
