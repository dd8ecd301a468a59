"""``paceline service``."""

from paceline.cli.common import Subparsers


def register(commands: Subparsers) -> None:
    return
