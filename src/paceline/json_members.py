"""Where the members of a large JSON object stand, without decoding it: in bounded pieces, so that others run between
them, and by the object's own nesting, so that what is nested or quoted is never taken for a member."""

import asyncio
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 131_072
"""That are looked through at once, which takes about a millisecond."""
MAX_SHORT_TEXTS = 10_000
"""Texts of an object's own that may be a name, by their lengths and first letters; one with more is no request."""
MAX_TEXT_BYTES, MAX_SPACES = 4096, 1024
"""Of a value that is a text, and between a name, its colon and its value."""
_VALUE = re.compile(
    rb"[ \t\r\n]{0,%d}+:[ \t\r\n]{0,%d}+" % (MAX_SPACES, MAX_SPACES)
    + rb'("(?:[^"\\]|\\.){0,%d}+"|[^"\s,{}\[\]]{1,64}+|[{\[])' % MAX_TEXT_BYTES,
    re.DOTALL,
)
_NO_MEMBER = re.compile(rb"[ \t\r\n]{0,%d}+[,}]" % MAX_SPACES)
"""Behind a text that is no name, but a value."""
_ESCAPED_BYTES = 6
"""The longest form of a character of ASCII: ``\\u006d``."""

Places = NDArray[np.int64]
Member = tuple[Any, tuple[int, int]]
"""A text, a number, a truth value or ``None``, and where it stands; ``...`` for an object or a list."""


class Unclear(ValueError):
    """Where the members stand can't be told; ``str()`` says why."""


async def members(document: bytes, names: Collection[str]) -> Mapping[str, Sequence[Member]]:
    """What each of these names stands for in a JSON object, every time that it does: ``{"model": [("m", (10, 13))]}``.
    Lets others run between two pieces.

    Args:
        names: of ASCII.

    Raises:
        Unclear: the document is no JSON object, as far as that is seen, or has too many texts of its own.
    """
    if document[:PIECE_BYTES].lstrip(b" \t\r\n")[:1] != b"{":
        raise Unclear("it is no object")
    found: dict[str, list[Member]] = {name: [] for name in names}
    state = _State(document, names)
    for at in range(0, len(document), PIECE_BYTES):
        for begin, end in state.texts(at):
            name = _decoded(document[begin:end])
            if name not in found or _NO_MEMBER.match(document, end):
                continue
            value = _VALUE.match(document, end)
            if value is None:
                raise Unclear(f"the value of {name!r} can't be read")
            found[name].append((_decoded(value[1]), value.span(1)))
        if at:
            await asyncio.sleep(0)
    if state.depth != 0 or state.is_in_text:
        raise Unclear("it is cut off")
    return found


class _State:
    """How deep a place of a document is nested, and whether it stands in a text."""

    def __init__(self, document: bytes, names: Collection[str]) -> None:
        self._document = document
        self._signs = np.frombuffer(document, np.uint8)
        self._longest_bytes = max(map(len, names)) * _ESCAPED_BYTES
        self._may_begin = np.zeros(256, np.bool_)
        """With which bytes one of the names may."""
        self._may_begin[[ord("\\"), *(ord(name[0]) for name in names)]] = True
        self.depth = 0
        self.is_in_text = False
        self._is_escaped = False
        self._began = -1
        """Where the last text of the object's own began that has not ended; -1 without one."""
        self._texts = 0

    def texts(self, at: int) -> Iterator[tuple[int, int]]:
        """Where texts of the object's own stand that may be names, with their quotes.

        Args:
            at: where the next piece begins, in which they end.

        Raises:
            Unclear: there are too many, or the piece is none of JSON.
        """
        piece = self._document[at : at + PIECE_BYTES]
        if b"\0" in piece:
            raise Unclear("it is no UTF-8")
        if self._is_escaped:
            piece = b" " + piece[1:]
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
        self._is_escaped = piece.endswith(b"\\")
        signs = np.frombuffer(piece, np.uint8)
        is_quote = signs == ord('"')
        is_in_text = (np.cumsum(is_quote) + self.is_in_text) % 2 == 1
        lower = signs | 0x20  # [ and ] as { and }
        steps = (lower == ord("{")).astype(np.int64) - (lower == ord("}"))
        steps[is_in_text] = 0
        depths = self.depth + np.cumsum(steps)
        quotes = np.flatnonzero(is_quote & (depths == 1))
        begins, ends = self._paired(quotes + at, opens_first=not self.is_in_text)
        self.depth, self.is_in_text = int(depths[-1]), bool(is_in_text[-1])
        may_be = (ends - begins - 1 <= self._longest_bytes) & self._may_begin[self._signs[begins + 1]]
        wanted = np.flatnonzero(may_be)
        self._texts += len(wanted)
        if self._texts > MAX_SHORT_TEXTS:
            raise Unclear(f"more than {MAX_SHORT_TEXTS:,} of its own texts may be names that are looked for")
        for number in wanted:
            yield int(begins[number]), int(ends[number]) + 1

    def _paired(self, quotes: Places, opens_first: bool) -> tuple[Places, Places]:
        """Where texts of the object's own begin and end. A text that is nested deeper has no quote among these."""
        if not opens_first and self._began >= 0:
            quotes = np.concatenate((np.array([self._began], np.int64), quotes))
        self._began = int(quotes[-1]) if len(quotes) % 2 else -1
        whole = quotes[: len(quotes) // 2 * 2]
        return whole[::2], whole[1::2]


def _decoded(text: bytes) -> Any:
    if text in (b"{", b"["):
        return ...
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ...
