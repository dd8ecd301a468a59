"""Tables for terminals."""

from collections.abc import Sequence

MAX_NAME_CHARS = 80
"""Of a name that is shown; a longer one would push all else off the screen."""


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def shown_name(name: str) -> str:
    """A name that others gave, as it may be shown in a terminal: cut, and control characters, also those that turn the
    direction of writing, as their escapes."""
    cut = name if len(name) <= MAX_NAME_CHARS else name[: MAX_NAME_CHARS - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
