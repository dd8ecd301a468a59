"""Recorded turns: a request, and the answer that it got."""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec import Struct


class RecordedTurn(Struct, frozen=True):
    source: str
    conversation: str
    turn: int
    """Index of the answer in the conversation."""
    body: Mapping[str, Any]
    """The request, as OpenAI's chat completions have it."""
    answer: str
    """A tool's call as ``<tool_call>\\n{"name": ..., "arguments": ...}\\n</tool_call>``."""


def read(path: Path) -> Iterator[RecordedTurn]:
    """The turns of a file, a line each; further fields don't matter."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield RecordedTurn(row["source"], row["conversation"], row["turn"], row["body"], row["answer"])


def number_of(conversation: str) -> int:
    """The same one each time, as if by chance."""
    return int(sha256(conversation.encode()).hexdigest()[:8], 16)


def half_of(conversation: str) -> int:
    """What is tuned on the conversations of half 0 is reported on those of half 1."""
    return number_of(conversation) % 2


def texts(body: Mapping[str, Any]) -> list[str]:
    """What precedes the answer, a text for each message, in ChatML with the tools first, as most models have it; they
    are to be put one after the other."""
    found = []
    if tools := body.get("tools"):
        listed = "\n".join(json.dumps(tool) for tool in tools)
        found.append(f"<|im_start|>system\n# Tools\n\n<tools>\n{listed}\n</tools>\n")
    for message in body["messages"]:
        content = message.get("content") or ""
        if isinstance(content, list):
            content = "\n".join(block.get("text", "") for block in content)
        for call in message.get("tool_calls") or ():
            function = call["function"]
            content += (
                f'\n<tool_call>\n{{"name": "{function["name"]}", "arguments": {function["arguments"]}}}\n</tool_call>'
            )
        role = message["role"]
        if role == "tool":
            role, content = "user", f"<tool_response>\n{content}\n</tool_response>"
        found.append(f"<|im_start|>{role}\n{content.strip()}<|im_end|>\n")
    found.append("<|im_start|>assistant\n")
    return found
