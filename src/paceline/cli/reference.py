"""Writes the reference of all commands: ``python -m paceline.cli.reference`` prints what ``docs/command-line.md`` holds
between two markers."""

import argparse
import textwrap
from collections.abc import Iterator

from paceline.cli.commands import command_parser

WIDTH = 120
"""Characters of a line of prose, as in the rest of docs/."""
HEAD = ("| argument | meaning |", "|---|---|")


def reference() -> str:
    """The reference as Markdown, a section for each command in the order of the help."""
    return "\n\n".join(_of_command(command_parser(), depth=1)) + "\n"


def _of_command(parser: argparse.ArgumentParser, depth: int) -> Iterator[str]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if depth > 1:
        yield f"{'#' * depth} `{parser.prog}`"
        description = " ".join((parser.description or "").split())
        yield textwrap.fill(description, WIDTH, break_long_words=False, break_on_hyphens=False)
        rows = [row for action in parser._actions if action not in groups and (row := _row(parser, action))]
        if rows:
            yield "\n".join([*HEAD, *rows])
        if parser.epilog and depth == 2:
            _, _, examples = parser.epilog.partition("\n")
            yield "\n".join(f"  {line}".rstrip() for line in examples.rstrip().splitlines())
    for group in groups:
        for command in dict.fromkeys(group.choices.values()):
            yield from _of_command(command, depth + 1)


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> str | None:
    """A line of the table; ``None`` for what every command has, or none is to see."""
    if action.help in (None, argparse.SUPPRESS) or "--help" in action.option_strings:
        return None
    return f"| {_usage(action)} | {_prose(parser, action)} |"


def _usage(action: argparse.Action) -> str:
    """The argument as it is typed."""
    choices = list(action.choices) if action.choices is not None else []
    word = action.metavar or (f"{{{','.join(map(str, choices))}}}" if choices else action.dest.upper())
    value = " ".join(word) if isinstance(word, tuple) else word
    if not action.option_strings:
        return f"`{value}`" if action.nargs != "?" else f"`[{value}]`"
    option = action.option_strings[-1]
    return f"`{option}`" if action.nargs == 0 else f"`{option} {value}`"


def _prose(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Its help, with the values that argparse fills in."""
    text = (action.help or "") % (vars(action) | {"prog": parser.prog})
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
