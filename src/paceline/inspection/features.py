"""Text -> features of the task model. Training and serving both use this one function."""

import re
from typing import NamedTuple

# All of these are chosen by hand. The shipped weights were trained with them, so whoever changes one trains anew.
# Reading more of the text (paragraphs of 700 characters, 150 characters of a long line) changed no source of recorded
# requests by more than 0.02 (docs/decisions/0016).
WHOLE_CHARS = 400
"""A single paragraph of at most this length is read whole."""
LINE_CHARS = 240
"""Else the first and the last line say what is to be done with the rest, if they are no longer than this."""
EDGE_CHARS = 60
"""Of a longer line, only so much is read at the beginning, or the last sentence."""
FIRST_WORDS = 10
"""How many words count as the beginning of the instruction. No measurement of it is on record."""
LAST_WORDS = 14
"""How many words count as its end. No measurement of it is on record."""
LOOKED_AT_CHARS = 1000
"""How far into a text lines and code are looked for; 600 cost 0.02 of the 422 benchmark prompts
(docs/decisions/0005)."""

STEM_CHARS = 5
"""Of a longer word in another alphabet or with accents, its beginning counts, too: such languages inflect theirs."""
_NO_SPACES = "\u0e00"
"""From Thai on, scripts put no spaces between words, or glue particles to them: pairs of characters stand for words."""

DENSE_CHARS = 40
"""In such scripts a longer paragraph than this has its instruction in the first or the last sentence."""
_DENSE_END = re.compile(r"[。！？：:]")

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_ASCII_WORD = re.compile(r"[a-z]+|[0-9]+|[^a-z0-9_ \t-\r\x1c-\x1f]")
"""The same for lower-case ASCII, in half of the time."""
_SENTENCE_END = re.compile(r"[.?!:;]\s|\n")
_COURTESY = re.compile(
    r"\n[ \t]*(?:(?:many|best|kind|warm) )?(?:thanks|thank you|thx|cheers|regards|(?:vielen )?dank(?:e)?|merci"
    r"|(?:muchas )?gracias|grazie|obrigad[oa]|спасибо|谢谢|ありがとう)"
    r"(?:,? (?:again|and \w+|in advance|im voraus|d'avance|a (?:lot|bunch)|(?:so|very) much|everyone|all"
    r"|for \w+(?: \w+){0,2})){0,3}"
    r"[\s.,!:)]*(?:\n[^\n.?!:]{1,30})?$",
    re.IGNORECASE,
)
"""The last lines of a message that only thank or greet, with a name or without: what is asked stands before them."""
_DEFINITION = re.compile(r"\n(?:def|class|import|public) ")
_CODE_SIGNS = (("#", "#include"), (";", ");\n"), ("{", "{\n"))
"""What only code holds, after a character of it that is looked for first, since that is far quicker."""


class Features(NamedTuple):
    """What the task model sees of a user's text; by where it stands, so that looking it up makes no new objects."""

    words: set[str]
    """Of what is asked for, in lower case."""
    first: set[str]
    """Those at its beginning."""
    last: set[str]
    """Those at its end."""
    others: list[tuple[str | int, ...]]
    """Words with what they follow, and properties of the whole; all different."""

    @property
    def size(self) -> int:
        return len(self.words) + len(self.first) + len(self.last) + len(self.others)


def features(text: str, instruction: tuple[str, str] | None = None) -> Features:
    """The words of what is asked for, those at its beginning and end marked as such, and a few properties of the
    whole. Takes bounded time.

    Args:
        instruction: ``instruction_of(text)``, for who has it already.
    """
    head, tail = instruction or instruction_of(text)
    first = last = words = _words(head)
    if tail:
        last = _words(tail)
        words = first + last
    beginning = text[:LOOKED_AT_CHARS]
    asks = _WORD.findall(_SENTENCE_END.split((tail or head).rstrip(" \n.?!:\"'”"))[-1][:EDGE_CHARS].lower())[:3]
    distinct = set(words)
    others: list[tuple[str | int, ...]] = [
        ("ends", *last[-1:]),
        ("length", len(text).bit_length()),
        ("lines", min(beginning.count("\n"), 40).bit_length()),
        ("numbers", min(sum(map(str.isdigit, distinct)), 15).bit_length()),
    ]
    others += [("asks", *asks[: count + 1]) for count in range(len(asks))]
    if holds_fence(beginning):
        others += (("fenced",), ("code",))
    elif holds_code(beginning):
        others.append(("code",))
    return Features(distinct, set(first[:FIRST_WORDS]), set(last[-LAST_WORDS:]), others)


def _words(text: str) -> list[str]:
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    pieces = []
    for word in _WORD.findall(text.lower()):
        if word.isascii():
            pieces.append(word)
        elif word[0] >= _NO_SPACES:
            pieces += [word[at : at + 2] for at in range(len(word) - 1)] or [word]
        else:
            pieces.append(word)
            if len(word) > STEM_CHARS:
                pieces.append(word[:STEM_CHARS] + "-")
    return pieces


def holds_fence(text: str) -> bool:
    """Whether a text holds a line that begins or ends a block of code."""
    return "`" in text and "```" in text  # a single character is found far quicker


def holds_code(beginning: str) -> bool:
    """Whether a text begins with or holds what only code does."""
    if "return " in beginning or "function " in beginning or _DEFINITION.search("\n" + beginning):
        return True
    for char, sign in _CODE_SIGNS:  # noqa: SIM110 - a generator costs more than the search
        if char in beginning and sign in beginning:
            return True
    return False


def instruction_of(text: str) -> tuple[str, str]:
    """Where people say what they want: before what they paste, or after it. The second part is empty where the first
    is the whole."""
    text = text.strip() if len(text) < 100_000 else text
    if len(text) <= WHOLE_CHARS and "\n" not in text:
        if len(text) > DENSE_CHARS and text[0] >= _NO_SPACES:
            sentences = _DENSE_END.split(text.rstrip("。！？"))
            return sentences[0], sentences[-1] if len(sentences) > 1 else ""
        return text, ""
    head = text[: LINE_CHARS + 1].lstrip().partition("\n")[0]
    if len(head) > LINE_CHARS:
        head = head[:EDGE_CHARS]
    end = text[-2 * LINE_CHARS :].rstrip()
    if courtesy := _COURTESY.search(end):
        end = end[: courtesy.start()].rstrip()
    tail = end.rpartition("\n")[2]
    if len(tail) > LINE_CHARS:
        tail = _SENTENCE_END.split(tail.rstrip(" .?!"))[-1]
    return head, tail
