"""The text of a request, whatever its API, and only as much of it as inspection needs."""

from collections.abc import Sequence
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
    for key in ("prompt", "input_prefix", "input_suffix"):
        found += [Part("user", text) for text in _texts(fields.get(key))]
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


def _of_turn(turn: dict[str, Any]) -> list[Part]:
    if turn.get("type") == "function_call_output":
        return [Part("tool", text) for text in _texts(turn.get("output"))]
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str):
        return []
    role = "system" if role == "developer" else role
    if not isinstance(content, list):
        return [Part(role, text) for text in _texts(content)]
    found: list[Part] = []
    for block in content[-MAX_PARTS:]:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            found += [Part("tool", text) for text in _texts(block.get("content"))]
        else:
            found += [Part(role, text) for text in _texts([block])]
    return found


def _texts(content: Any) -> Sequence[str]:
    """Strings in a field that holds a string, or a list of strings or of blocks with a ``text``."""
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, list):
        return ()
    texts = [block.get("text") if isinstance(block, dict) else block for block in content[-MAX_PARTS:]]
    return [text for text in texts if isinstance(text, str)]
