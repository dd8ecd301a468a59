"""``paceline report``: what routing brought on the traffic so far."""

import argparse

from paceline.cli.common import Subparsers, add_command, add_log_options, fail, wanted_log
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
    add_log_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        print(text(report(entries(*wanted_log(options)))))
    except (NoLog, TooLittle) as error:
        return fail(str(error))
    return 0
