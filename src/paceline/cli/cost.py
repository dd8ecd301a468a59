"""``paceline cost``: did the machine pay?"""

import argparse
from pathlib import Path

from paceline.cli.common import (
    Subparsers,
    add_command,
    add_json_option,
    add_log_options,
    fail,
    positive_number,
    print_json,
    said_while,
    say,
    say_what_is_unreadable,
    wanted_log,
)
from paceline.configuration import ConfigurationError, load
from paceline.evidence import modes
from paceline.evidence.modes import ways
from paceline.evidence.worth import DAY_S, NothingToPrice, text, worth
from paceline.money.prices import Prices, is_published_known
from paceline.records.read import NoLog

EXAMPLES = """examples:
  paceline cost --config paceline.toml --against claude-sonnet-5
  paceline cost --config paceline.toml --days 7 --on-days 7
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "cost",
        "show what the traffic so far cost here, and would have cost with cloud models",
        "Read the decision log and print what the machine cost, including its own price and idle hours, "
        "what cloud models would have cost for the same answers, from which use and from which price on "
        "the machine pays, and whether it did. The configuration's [cost] says what the machine costs, "
        "and its [[cloud]] tables name models.",
        EXAMPLES,
    )
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="configuration with [cost] and [[cloud]]"
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="MODEL",
        help="a cloud model to compare with; the first one decides",
    )
    parser.add_argument(
        "--on-days",
        type=positive_number,
        metavar="DAYS",
        help="how long the machine was on (default: from the first to the last request)",
    )
    add_log_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    log = wanted_log(options)
    try:
        configuration = load(options.config, here=False)
        prices = Prices(configuration.cloud, configuration.cost.usd)
        for name in [*options.against, *(cloud.name for cloud in configuration.cloud)]:
            if prices.of(name) is None:
                install = "" if is_published_known() else "; `pip install 'paceline[prices]'` brings published prices"
                say(f"no price of {name} is known; a [[cloud]] table may say it{install}")
        span_s = None if options.on_days is None else options.on_days * DAY_S
        with said_while(f"reading {log.path}"):
            records = list(log)
            found, paid = ways(records, configuration), worth(records, configuration, options.against, span_s)
        if options.json:
            print_json({"currency": configuration.cost.currency, "ways": found, "worth": paid})
            return 0
        if found:
            print(modes.text(found, configuration.cost.currency), end="\n\n")
        print(text(paid))
    except (ConfigurationError, NoLog, NothingToPrice) as error:
        return fail(str(error))
    finally:
        say_what_is_unreadable(log)
    return 0
