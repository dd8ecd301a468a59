"""``paceline reload``: have a running gateway take up its changed configuration."""

import argparse
from typing import Any

from paceline.cli.common import Subparsers, add_command, add_json_option, fail, print_json, shortened
from paceline.cli.remote import Unanswered, add_address_options, address, ask
from paceline.configuration import ConfigurationError


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "reload",
        "make a running gateway apply its changed configuration",
        "Make a running gateway read its configuration again. Running answers go on, and engines whose "
        "part did not change keep running. If the file has errors, they are printed and the old "
        "configuration stays in force. SIGHUP does the same.",
    )
    add_address_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        answer = ask(address(options), "POST", "/paceline/reload")
    except ConfigurationError as error:
        return fail(f"{error}\nnothing was changed")
    except Unanswered as error:
        return fail(str(error))
    if options.json:
        print_json(answer)
        return 0
    lines = [f"{change.replace('_', ' ')}: {_told(what)}" for change, what in answer.items() if what]
    print("\n".join(lines) or "nothing changed")
    return 0


def _told(what: Any) -> str:
    if isinstance(what, list | tuple):
        return ", ".join(shortened(str(item)) for item in what)
    if isinstance(what, dict):
        return ", ".join(f"{value} {shortened(str(name))}" for name, value in what.items())
    return shortened(str(what))
