"""What requests need beside text."""

from typing import Any

import pytest

from paceline.inspection.needs import holds_signed_thinking, needs
from paceline.types import Request


def user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, set()),
        (user({"type": "image_url", "image_url": {"url": "data:"}}), {"images"}),
        (user({"type": "text", "text": "a"}, {"type": "input_audio"}), {"audio"}),
        (user({"type": "document"}), {"files"}),
        (user({"type": "tool_result", "content": [{"type": "image"}]}), {"images"}),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, {"images"}),
        ({"input": [{"type": "function_call_output", "output": [{"type": "input_file"}]}]}, {"files"}),
        ({"messages": [], "tools": [{"type": "function"}]}, {"tools"}),
        ({"messages": [], "response_format": {"type": "json_schema"}}, {"structured"}),
        ({"messages": [], "response_format": {"type": "text"}}, set()),
        ({"prompt": "hi", "grammar": "root ::= x"}, {"structured"}),
        ({"messages": [{"type": ["odd"], "content": [[], None, 3, {"type": {}}]}, 7]}, set()),
        ({"messages": "odd"}, set()),
    ],
)
def test_needs(fields: dict[str, Any], expected: set[str]) -> None:
    assert needs(Request.of(fields)) == expected


@pytest.mark.parametrize(
    ("block", "is_signed"),
    [
        ({"type": "thinking", "thinking": "hm", "signature": "abc"}, True),
        ({"type": "thinking", "thinking": "hm", "signature": ""}, False),
        ({"type": "redacted_thinking", "data": "xyz"}, True),
        ({"type": "text", "signature": "abc"}, False),
    ],
)
def test_signed_thinking(block: dict[str, Any], is_signed: bool) -> None:
    assert holds_signed_thinking(Request.of({"messages": [{"role": "assistant", "content": [block]}]})) is is_signed


def test_encrypted_reasoning_of_responses() -> None:
    assert holds_signed_thinking(Request.of({"input": [{"type": "reasoning", "encrypted_content": "x"}]}))


def test_a_long_conversation_takes_bounded_time() -> None:
    many = [{"role": "user", "content": [{"type": "text"}] * 100}] * 10_000
    assert needs(Request.of({"messages": many})) == set()
