"""``paceline report``: what routing brought on the traffic so far."""

import argparse
from pathlib import Path

from paceline.cli.common import (
    Subparsers,
    add_command,
    add_json_option,
    add_log_options,
    fail,
    print_json,
    said_while,
    say,
    say_what_is_unreadable,
    wanted_log,
)
from paceline.configuration import ConfigurationError, load
from paceline.evidence.page import page
from paceline.evidence.policies import unknowable
from paceline.evidence.report import TooLittle, report
from paceline.evidence.show import text
from paceline.records.read import NoLog


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "report",
        "estimate what routing brought on the traffic so far",
        "Read the decision log and print what each static policy would have taken on the same requests, "
        "with 95 % intervals, what each task drafted and gained, how good the predictions were, and "
        "what exploration cost. If a static policy is clearly faster than routing, the report names it; "
        "if the log can't tell yet, the report says so.",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write the report as a page: one file, with figures"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration whose [[rule]] tables are compared as a policy without predictions, and whose "
        "[cost] and [[cloud]] tables say what power and cloud models cost",
    )
    add_log_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    log = wanted_log(options)
    try:
        configuration = load(options.config, here=False) if options.config else None
        for rule in unknowable(configuration) if configuration else []:
            say(f"a rule for {rule.lane} looks at a header or a key, which no log keeps; it is passed over")
        with said_while(f"reading {log.path}"):
            made = report(log, configuration)
            if options.html:
                options.html.write_text(page(made), "utf-8")
    except (ConfigurationError, NoLog, TooLittle, OSError) as error:
        return fail(str(error))
    finally:
        say_what_is_unreadable(log)
    if options.json:
        print_json(made)
    else:
        print(text(made))
    if options.html:
        say(f"written: {options.html}")
    return 0
