"""Text that others chose, as it may go to a terminal or into a line of a log."""


def printable(text: str, instead: str = " ") -> str:
    """A text on one line, in which no character moves the cursor or turns the direction of writing.

    Args:
        instead: takes the place of each character that would.
    """
    return "".join(char if char.isprintable() else instead for char in text)
