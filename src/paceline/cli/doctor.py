"""``paceline doctor``."""

from paceline.cli.common import Subparsers


def register(commands: Subparsers) -> None:
    return
