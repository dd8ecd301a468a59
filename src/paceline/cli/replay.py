"""``paceline replay``: another way to route, over the traffic so far."""

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
from paceline.evidence.policies import unknowable
from paceline.evidence.replay import CannotReplay, replay, text
from paceline.records.read import NoLog
from paceline.settings import Configuration

EXAMPLES = """examples:
  paceline replay --exploration 0.05          more exploring
  paceline replay --lanes plain,ngram         with these lanes alone
  paceline replay --config other.toml         with its rules and its exploration
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "replay",
        "estimate what another configuration would have taken on the traffic so far",
        "Run the routing of another configuration over the decision log, learning from the start, and "
        "estimate the time that it would have taken, with a 95 % interval. Nothing is sent.",
        EXAMPLES,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="configuration whose rules and exploration are used"
    )
    parser.add_argument("--exploration", type=float, metavar="SHARE", help="as `routing.exploration`")
    parser.add_argument(
        "--lanes", metavar="A,B", help="the lanes that may be used, separated by commas (default: all lanes in the log)"
    )
    add_log_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    only = options.lanes.split(",") if options.lanes else []
    if options.exploration is not None and not 0 <= options.exploration <= 0.5:
        return fail(f"--exploration: is {options.exploration:g}, not a share from 0 to 0.5")
    log = wanted_log(options)
    try:
        configuration = load(options.config, here=False) if options.config else Configuration()
        exploration = configuration.routing.exploration if options.exploration is None else options.exploration
        for rule in unknowable(configuration):
            say(f"a rule for {rule.lane} looks at a header or a key, which no log keeps; it is passed over")
        with said_while(f"deciding anew on {log.path}"):
            replayed = replay(log, configuration, exploration, only)
        if options.json:
            print_json(replayed)
        else:
            print(text(replayed))
    except (ConfigurationError, NoLog, CannotReplay) as error:
        return fail(str(error))
    finally:
        say_what_is_unreadable(log)
    return 0
