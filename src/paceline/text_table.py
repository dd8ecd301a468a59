"""Tables for terminals, and the cells they are made of."""

from collections.abc import Sequence

MAX_NAME_CHARS = 80
"""Of a name that is shown; a longer one would push all else off the screen."""
UNKNOWN = "-"
"""Stands in a cell for a value that is not known."""
NEVER_PAYS = "none is enough"
"""Stands for a break-even acceptance that even perfect drafts would miss."""


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equal length, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def shown_number(value: float | None, form: str = "", unknown: str = UNKNOWN) -> str:
    """A number as it is to be shown.

    Args:
        form: as :func:`format` takes it: ``".1f"``.
        unknown: stands for ``None``.
    """
    return unknown if value is None else format(value, form)


def amount(money: float) -> str:
    """An amount of money: with two decimals, or where it is less than a tenth, with two significant digits."""
    return f"{money:.2f}" if abs(money) >= 0.1 or not money else f"{money:.2g}"


def shown_name(name: str) -> str:
    """A name that others gave, as it may be shown in a terminal: cut, and control characters, also those that turn the
    direction of writing, as their escapes."""
    cut = name if len(name) <= MAX_NAME_CHARS else name[: MAX_NAME_CHARS - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
