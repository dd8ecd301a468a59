"""Patterns that operators write: ``*`` stands for any part, case is ignored."""

import re
from collections.abc import Sequence


def compiled(texts: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    """Of texts in which ``*`` stands for any part and case is ignored; all else stands for itself, such as the brackets
    of an address."""
    parts = ([re.escape(part) for part in text.split("*")] for text in texts)
    return tuple(re.compile(rf"(?s:{'.*'.join(pieces)})\Z", re.IGNORECASE) for pieces in parts)


def any_matches(patterns: Sequence[re.Pattern[str]], text: str) -> bool:
    """Whether one of them is the pattern of the whole text."""
    return any(pattern.match(text) for pattern in patterns)
