"""Colours for terminals, and only for those."""

import os
from enum import StrEnum
from typing import TextIO

NO_COLOUR, FORCED = "NO_COLOR", "FORCE_COLOR"
"""Variables by which people turn colours off (https://no-color.org) and on, whatever their value, if it is not
empty."""


class Colour(StrEnum):
    """As SGR sequences have them (ECMA-48, 8.3.117); each terminal has its own shade."""

    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    BOLD = "1"
    DIM = "2"


def painted(text: str, colour: Colour, stream: TextIO) -> str:
    """A text in a colour, where ``stream``, on which it will be printed, shows colours."""
    return f"\x1b[{colour}m{text}\x1b[0m" if text and shows_colours(stream) else text


def shows_colours(stream: TextIO) -> bool:
    """Whether it is a terminal that has them, and nobody wants none."""
    if os.environ.get(NO_COLOUR):
        return False
    if os.environ.get(FORCED):
        return True
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
