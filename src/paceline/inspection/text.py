"""The text of a request, whatever its API, and only as much of it as inspection needs."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from paceline.types import Request

MAX_PARTS = 64
"""Of a conversation with more parts, the first and the last ones are read."""
MEDIA = ("image", "image_url", "input_image", "input_audio", "audio", "file", "input_file", "document")


class Part(NamedTuple):
    """One piece of text in a request."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""
    text: str


def parts(request: Request) -> list[Part]:
    """The texts of a request in their order, of long conversations a bounded number."""
    fields = request.fields
    found = [Part("system", text) for key in ("system", "instructions") for text in _texts(fields.get(key))]
    turns = fields.get("messages")
    if turns is None:
        turns = fields.get("input")
    if isinstance(turns, str):
        found.append(Part("user", turns))
    elif isinstance(turns, list):
        for turn in turns if len(turns) <= MAX_PARTS else (*turns[:2], *turns[2 - MAX_PARTS :]):
            if isinstance(turn, dict):
                found += _of_turn(turn)
    found += [
        Part("user", text) for key in ("prompt", "input_prefix", "input_suffix") for text in _texts(fields.get(key))
    ]
    return found


def holds_media(request: Request) -> bool:
    """Whether one of the last messages holds something else than text."""
    turns = request.fields.get("messages", request.fields.get("input"))
    for turn in turns[-MAX_PARTS:] if isinstance(turns, list) else ():
        content = turn.get("content") if isinstance(turn, dict) else None
        for block in content[-MAX_PARTS:] if isinstance(content, list) else ():
            if isinstance(block, dict) and block.get("type") in MEDIA:
                return True
    return False


def _of_turn(turn: dict[str, Any]) -> Iterator[Part]:
    role = turn.get("role")
    if turn.get("type") == "function_call_output":
        yield from (Part("tool", text) for text in _texts(turn.get("output")))
    elif isinstance(role, str):
        role = "system" if role == "developer" else role
        content = turn.get("content")
        if isinstance(content, list):
            for block in content[-MAX_PARTS:]:
                if isinstance(block, dict) and block.get("type") == "tool_result":
                    yield from (Part("tool", text) for text in _texts(block.get("content")))
                else:
                    yield from (Part(role, text) for text in _texts([block]))
        else:
            yield from (Part(role, text) for text in _texts(content))


def _texts(content: Any) -> Iterator[str]:
    """Strings in a field that holds a string, or a list of strings or of blocks with a ``text``."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content[-MAX_PARTS:]:
            text = block.get("text") if isinstance(block, dict) else block
            if isinstance(text, str):
                yield text
