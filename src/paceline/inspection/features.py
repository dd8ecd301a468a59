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
LOOKED_AT_CHARS = 2000

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_SENTENCE_END = re.compile(r"[.?!:;]\s|\n")
_LINE_OF_CODE = re.compile(
    r"(?:^|\n)\s*(?:def |class |import |from \w+ import|#include|function |public |private |const |let |var |fn |func |"
    r"package |using |diff --git|@@ |--- a/|return\b|SELECT )|[;{]\s*\n"
)


def features(text: str) -> set[Hashable]:
    """What the task model sees of a user's text: the words of what is asked for, those at its beginning and end
    marked as such, and a few properties of the whole. Takes bounded time.
    """
    length = len(text)
    head, tail = wish(text)
    first = _WORD.findall(head.lower())
    last = _WORD.findall(tail.lower()) if tail else first
    words = first + last if tail else first
    begun = text[:LOOKED_AT_CHARS]
    found: set[Hashable] = set(words)
    found.update([("^", word) for word in first[:FIRST_WORDS]])
    found.update([("$", word) for word in last[-LAST_WORDS:]])
    found.add(("last", *last[-1:]))
    asks = _WORD.findall(_SENTENCE_END.split((tail or head).rstrip(" \n.?!:\"'”"))[-1].lower())[:3]
    found.update([("asks", *asks[:count]) for count in range(1, len(asks) + 1)])
    found.add(("length", length.bit_length()))
    found.add(("lines", min(begun.count("\n"), 40).bit_length()))
    fenced = "```" in begun
    if fenced:
        found.add(("fenced",))
    if fenced or _LINE_OF_CODE.search(begun):
        found.add(("code",))
    found.add(("numbers", min(sum(map(str.isdigit, words)), 15).bit_length()))
    return found


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
