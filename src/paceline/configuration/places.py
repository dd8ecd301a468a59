"""Where something stands in a configuration file, as errors say it."""

import re
from collections.abc import Iterable

KeyPath = tuple[str | int, ...]
"""The keys that lead to a value; tables of an array are counted from 0: ``("engine", 1, "n_max")``."""
Problem = tuple[KeyPath, str]
"""Where it stands, and what is wrong."""


def located(source: str, text: str, problems: Iterable[Problem]) -> str:
    """A line for each problem: file, line, key, and what is wrong.

    Args:
        source: the file's name, as the lines are to show it.
        text: what the file holds.
    """
    return "\n".join(f"{source}:{line_of(text, keys)}: {dotted(keys)}: {message}" for keys, message in problems)


def dotted(keys: KeyPath) -> str:
    """A place as people say it: ``("engine", 1, "n_max")`` is ``engine[2].n_max``; tables are counted from 1."""
    text = ""
    for key in keys:
        text += f"[{key + 1}]" if isinstance(key, int) else f".{key}" if text else key
    return text or "file"


def line_of(text: str, keys: KeyPath) -> int:
    """The line (from 1) where a key stands; that of its table where the key itself is not written."""
    names = [str(key) for key in keys if isinstance(key, str)]
    wanted_index = next((key for key in keys if isinstance(key, int)), 0)
    line, is_inside, index = 1, False, -1
    for number, content in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*([\w.\-\"]+)\s*\]\]?", content)
        if header:
            index += header[1] == names[0] if names else 0
            is_inside = bool(names) and header[1] == names[0] and index == wanted_index
            if is_inside:
                line = number
        elif is_inside and len(names) > 1 and _sets(content, names[1]):
            return number
        elif not is_inside and names and line == 1 and _sets(content, names[0]):
            line = number
    return line


def _sets(line: str, key: str) -> bool:
    """Whether a line gives a key, or a part of it, its value."""
    return re.match(rf'\s*"?{re.escape(key)}"?\s*[=.]', line) is not None
