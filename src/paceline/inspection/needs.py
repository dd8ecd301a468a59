"""What a request needs of a model beside text, and whether it holds thinking that a provider signed."""

from collections.abc import Iterator
from typing import Any

from paceline.inspection import fields as read
from paceline.inspection.text import MAX_TEXTS
from paceline.types import Request

_MEDIA = {
    "image": "images",
    "image_url": "images",
    "input_image": "images",
    "audio": "audio",
    "input_audio": "audio",
    "file": "files",
    "input_file": "files",
    "document": "files",
}
"""By the types of blocks in the interfaces of OpenAI and Anthropic."""
_SIGNED = {"thinking": "signature", "redacted_thinking": "data", "reasoning": "encrypted_content"}
"""By the types of blocks, the field that only the provider that filled it can read or check
(https://docs.anthropic.com/en/docs/build-with-claude/extended-thinking, OpenAI's reference of responses)."""


def needs(request: Request) -> frozenset[str]:
    """Of ``images``, ``audio``, ``files``, ``tools`` and ``structured`` (output)."""
    found = {_MEDIA[kind] for _, kind in _blocks(request) if kind in _MEDIA}
    fields = request.fields
    if fields.get("tools") or fields.get("functions"):
        found.add("tools")
    if read.structure(fields) not in ("", "tool_choice"):
        found.add("structured")
    return frozenset(found)


def holds_signed_thinking(request: Request) -> bool:
    """Whether an answer that it repeats has thinking in it that a provider signed."""
    return any(block.get(_SIGNED[kind]) for block, kind in _blocks(request) if kind in _SIGNED)


def _blocks(request: Request) -> Iterator[tuple[dict[str, Any], str]]:
    """The entries of the conversation and the blocks in them and in tools' results, the latest first, with their types;
    a bounded number."""
    turns = request.fields.get("messages")
    if turns is None:
        turns = request.fields.get("input")
    left = [turns] if isinstance(turns, list) else []
    seen = 0
    while left:
        for entry in reversed(left.pop(0)):
            seen += 1
            if seen > MAX_TEXTS:
                return
            if isinstance(entry, dict):
                kind = entry.get("type")
                yield entry, kind if isinstance(kind, str) else ""
                left += [inner for inner in (entry.get("content"), entry.get("output")) if isinstance(inner, list)]
