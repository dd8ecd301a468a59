"""Text -> features of the task model. Training and serving both use this one function."""

import re
from collections.abc import Hashable

WHOLE_CHARS = 400
"""A single paragraph of at most this length is read whole."""
LINE_CHARS = 240
"""Else the first and the last line tell what is to be done with the rest, if they are no longer than this."""
EDGE_CHARS = 60
"""Of a longer line, only so much at the beginning, or the last sentence."""
FIRST_WORDS = 10
LAST_WORDS = 14
LOOKED_AT_CHARS = 1000

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_SENTENCE_END = re.compile(r"[.?!:;]\s|\n")
_CODE = ("\ndef ", "\nclass ", "\nimport ", "\npublic ", "#include", "function ", "return ", ");\n", "{\n")


def features(text: str, asked: tuple[str, str] | None = None) -> set[Hashable]:
    """What the task model sees of a user's text: the words of what is asked for, those at its beginning and end
    marked as such, and a few properties of the whole. Takes bounded time.

    Args:
        asked: ``wish(text)``, for who has it already.
    """
    head, tail = asked or wish(text)
    first = last = words = _WORD.findall(head.lower())
    if tail:
        last = _WORD.findall(tail.lower())
        words = first + last
    begun = text[:LOOKED_AT_CHARS]
    found: set[Hashable] = set(words)
    found.update([("^", word) for word in first[:FIRST_WORDS]], [("$", word) for word in last[-LAST_WORDS:]])
    asks = _WORD.findall(_SENTENCE_END.split((tail or head).rstrip(" \n.?!:\"'”"))[-1][:EDGE_CHARS].lower())[:3]
    found.update([("asks", *asks[:count]) for count in range(1, len(asks) + 1)])
    found.add(("last", *last[-1:]))
    found.add(("length", len(text).bit_length()))
    found.add(("lines", min(begun.count("\n"), 40).bit_length()))
    found.add(("numbers", min(sum([word.isdigit() for word in words]), 15).bit_length()))
    if "```" in begun:
        found.update((("fenced",), ("code",)))
    elif holds_code(begun):
        found.add(("code",))
    return found


def holds_code(begun: str) -> bool:
    """Whether a text begins with or holds what only code does."""
    begun = "\n" + begun
    for sign in _CODE:  # noqa: SIM110 - a generator costs more than the search
        if sign in begun:
            return True
    return False


def wish(text: str) -> tuple[str, str]:
    """Where people say what they want: before what they paste, or after it. The second part is empty where the first
    is the whole."""
    text = text.strip() if len(text) < 100_000 else text
    if len(text) <= WHOLE_CHARS and "\n" not in text:
        return text, ""
    head = text[: LINE_CHARS + 1].partition("\n")[0]
    if len(head) > LINE_CHARS:
        head = head[:EDGE_CHARS]
    tail = text[-LINE_CHARS - 1 :].rpartition("\n")[2]
    if len(tail) > LINE_CHARS:
        tail = _SENTENCE_END.split(tail.rstrip(" .?!"))[-1]
    return head, tail
