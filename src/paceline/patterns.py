"""Regular expressions of the operator's over clients' texts, bounded in time.

Python's own may take time that grows exponentially with the text, and nothing else runs meanwhile. So a pattern is
taken only if it can be matched in few ways at each place, and a text is searched piece by piece, with a look at the
clock in between.
"""

import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from time import perf_counter
from typing import Any

PIECE_CHARS = 4096
"""Of a text that are searched at once. Pieces overlap by half, so that a match of up to 2,048 characters is found
wherever it stands."""
MAX_WAYS = PIECE_CHARS + 1
"""In which a pattern may be matched at one place: one part that repeats without a bound, or some that are bounded. A
piece then takes at most some 17 million steps, a tenth of a second; a usual one takes microseconds."""
MAX_S = 0.1
"""Of all pieces and patterns of one text."""

_parser: Any = import_module("re._parser")
"""What ``re`` itself reads patterns with."""


class TooCostly(ValueError):
    """A pattern is wrong, or its search might take too long; ``str()`` says why."""


class TooLong(Exception):
    """A text could not be searched in time."""


def compiled_pattern(text: str) -> re.Pattern[str]:
    """
    Raises:
        TooCostly: it is no pattern, or can be matched in too many ways.
    """
    try:
        tree = _parser.parse(text)
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise TooCostly(f"is no regular expression: {error}") from error
    if pattern.search("") is not None:
        raise TooCostly("is found in every text, also in an empty one")
    if _ways(tree) > MAX_WAYS:
        raise TooCostly(
            "might take too long: at most one part may repeat without a bound (`*`, `+`), and no part with another "
            "repetition or choice in it; leave out `.*` at either end, and write `{0,40}` or `*+` within"
        )
    return pattern


def first_found(patterns: Sequence[re.Pattern[str]], text: str) -> re.Pattern[str] | None:
    """The first pattern that is found in a text.

    Raises:
        TooLong: that could not be told within :data:`MAX_S`.
    """
    until_s = perf_counter() + MAX_S
    for begin in _beginnings(len(text)):
        for pattern in patterns:
            if pattern.search(text, begin, begin + PIECE_CHARS):
                return pattern
        if perf_counter() > until_s:
            raise TooLong
    return None


def _beginnings(chars: int) -> Iterator[int]:
    yield 0
    yield from range(PIECE_CHARS // 2, chars - PIECE_CHARS // 2, PIECE_CHARS // 2)


def _ways(items: Any) -> float:
    """Bound on the number of ways in which a sequence can be matched at one place."""
    ways = 1.0
    for operator, argument in items:
        ways *= _ways_of(str(operator), argument)
    return ways


def _ways_of(operator: str, argument: Any) -> float:
    if operator == "BRANCH":
        return sum(_ways(branch) for branch in argument[1])
    if operator == "SUBPATTERN":
        return _ways(argument[-1])
    if operator in ("ASSERT", "ASSERT_NOT"):
        return _ways(argument[1])
    if operator == "ATOMIC_GROUP":
        return _ways(argument)
    if operator == "GROUPREF_EXISTS":
        return sum(_ways(branch) for branch in argument[1:] if branch is not None)
    if operator == "POSSESSIVE_REPEAT":  # gives nothing back, so that it is matched in one way
        _, most, inner = argument
        once = _ways(inner)
        return 1.0 if once == 1.0 else once * min(int(most), PIECE_CHARS)
    if operator in ("MAX_REPEAT", "MIN_REPEAT"):
        least, most, inner = argument
        return _ways_of_repeated(_ways(inner), int(least), min(int(most), PIECE_CHARS))
    return 1.0


def _ways_of_repeated(once: float, least: int, most: int) -> float:
    """Of something that can be matched in so many ways, repeated."""
    if once == 1.0:
        return most - least + 1.0
    if most > MAX_WAYS.bit_length():
        return float("inf")
    return sum(once**times for times in range(least, most + 1))
