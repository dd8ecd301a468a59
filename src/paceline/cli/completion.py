"""``paceline completion``: the words of command lines, for a shell that completes them."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from paceline.cli.common import Subparsers, add_command, fail
from paceline.cli.parser import WHOLE

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """examples:
  mkdir -p ~/.local/share/bash-completion/completions && paceline completion bash > "$_/paceline"
  paceline completion zsh > ~/.zsh/completions/_paceline      # a folder of your fpath
  paceline completion fish > ~/.config/fish/completions/paceline.fish
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "completion",
        "print the completion of a shell",
        "Print a script with which a shell completes commands, options and files. It is made from the commands of this "
        "version; make it again after an upgrade.",
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
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, options.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser, file: Mapping[str, object]) -> None:
    """Have every argument that is a path be completed by files, in the commands below, too."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in dict.fromkeys(action.choices.values()):
                _complete_files(command, file)
        elif action.type is Path:
            action.complete = file  # type: ignore[attr-defined]
