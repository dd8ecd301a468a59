"""``paceline completion``: the words of command lines, for a shell that completes them."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from paceline.cli.common import Subparsers, add_command, fail
from paceline.cli.parser import WHOLE

SHELLS = ("bash", "zsh", "fish")
FISH_FILES = "(complete --do-complete ': '(commandline --current-token))"
"""Files as fish itself completes them, such as below ``~``, which shtab's way does not know."""
EXAMPLES = """examples:
  mkdir -p ~/.local/share/bash-completion/completions && paceline completion bash > "$_/paceline"
  mkdir -p ~/.zsh/completions && paceline completion zsh > "$_/_paceline"      # a folder of your fpath
  mkdir -p ~/.config/fish/completions && paceline completion fish > "$_/paceline.fish"
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "completion",
        "print a script that completes commands in a shell",
        "Print a script by which a shell completes commands, options and files. The script fits the "
        "commands of this version, so print it again after an upgrade.",
        EXAMPLES,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        import shtab
    except ModuleNotFoundError:
        return fail("the package shtab makes completions, and is not installed; `pip install shtab` brings it")
    parser: argparse.ArgumentParser = getattr(options, WHOLE)
    _prepare(parser, shtab.FILE | {"fish": FISH_FILES})
    print(shtab.complete(parser, options.shell))
    return 0


def _prepare(parser: argparse.ArgumentParser, file: Mapping[str, object]) -> None:
    """Have every argument that is a path be completed by files, and every command be offered with its summary instead
    of the first line of its description; in the commands below, too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for offered in action._choices_actions:
                action.choices[offered.dest].description = offered.help
            for command in action.choices.values():
                _prepare(command, file)
        elif action.type is Path:
            action.complete = file  # type: ignore[attr-defined]
