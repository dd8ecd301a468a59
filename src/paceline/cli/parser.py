"""The parser of command lines: argparse's, whose complaints say what was probably meant."""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from paceline.cli.colour import Colour, painted

INVALID_CHOICE = re.compile(r"invalid choice: '(?P<given>[^']*)' \(choose from (?P<choices>.*)\)", re.DOTALL)
UNRECOGNIZED, REQUIRED = "unrecognized arguments: ", "the following arguments are required: "
CONFIGURATION = ".toml"
PARSER, WHOLE = "parser", "whole_parser"
"""Where the options have the parser of the command that was named, and that of all commands."""


class Parser(argparse.ArgumentParser):
    """A command's. Options are written out in full, so that each has one name."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **({"allow_abbrev": False} | keywords))
        self.set_defaults(**{PARSER: self})
        self._words: Sequence[str] = ()

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; the command that does not know an argument is the one that says so."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command: argparse.ArgumentParser = getattr(options, PARSER)
            command.error(UNRECOGNIZED + " ".join(unknown))
        delattr(options, PARSER)
        return options

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's."""
        self._words = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Says what is wrong on standard error, and ends the process with the status 2."""
        self.print_usage(sys.stderr)
        hint = self._hint(message)
        complaint = painted(f"{self.prog}: {message}", Colour.RED, sys.stderr)
        self.exit(2, f"{complaint}{hint}\n`{self.prog} --help` tells what there is\n")

    def _hint(self, message: str) -> str:
        """What was probably meant, in a line of its own."""
        if choice := INVALID_CHOICE.search(message):
            return _meant(choice["given"], re.findall(r"[\w.-]+", choice["choices"]))
        own = [option for action in self._actions for option in action.option_strings if option.startswith("--")]
        if message.startswith(REQUIRED):
            for word in self._words:
                if word.endswith(CONFIGURATION) and "--config" in own:
                    return f"\na configuration is named with --config {word}"
            actions = [name for action in self._actions for name in action.choices or () if not action.option_strings]
            return f"\nthere are: {', '.join(actions)}" if actions else ""
        if not message.startswith(UNRECOGNIZED):
            return ""
        given = message.removeprefix(UNRECOGNIZED).split()[0]
        if given.endswith(CONFIGURATION) and "--config" in own:
            return f"\na configuration is named with --config {given}"
        if given.endswith(".gguf") and "--model" in own:
            return f"\na model is named with --model {given}"
        return _meant(given.partition("=")[0], own)


def _meant(word: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, choices, 1)
    return f"\ndid you mean {close[0]}?" if close else ""
