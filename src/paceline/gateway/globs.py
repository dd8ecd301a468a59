"""Patterns that operators write: ``*`` stands for any part, case is ignored."""

import re
from collections.abc import Sequence
from fnmatch import translate


def compiled(globs: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(translate(glob), re.IGNORECASE) for glob in globs)


def any_matches(patterns: Sequence[re.Pattern[str]], text: str) -> bool:
    """Whether one of them is the pattern of the whole text."""
    return any(pattern.match(text) for pattern in patterns)
