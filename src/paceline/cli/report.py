"""``paceline report``: what routing brought on the traffic so far."""

import argparse
import time
from pathlib import Path

from paceline.cli.common import Subparsers, add_command, fail, log_file
from paceline.evidence.read import NoLog, entries
from paceline.evidence.report import TooLittle, report, text


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "report",
        "tell what routing brought on the traffic so far",
        "Read the decision log and tell what each fixed setting would have taken on the same requests, with 95 % "
        "intervals, what each task drafted and gained, how good the predictions were, and what exploring cost. If "
        "routing is not faster than a fixed setting beyond doubt, it says so and names that setting.",
    )
    parser.add_argument("--log", type=Path, help="a log that is not in its usual place")
    parser.add_argument("--days", type=float, help="only the last days")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    since_s = time.time() - options.days * 86_400 if options.days else 0.0
    try:
        print(text(report(entries(options.log or log_file(), since_s))))
    except (NoLog, TooLittle) as error:
        return fail(str(error))
    return 0
