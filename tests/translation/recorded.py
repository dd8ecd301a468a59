"""Answers of providers, written after their references: whole ones and streams, of both dialects."""

import json
from typing import Any

CALL = {"city": "Zürich", "days": [1, 2]}
MESSAGE: dict[str, Any] = {
    "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
    "type": "message",
    "role": "assistant",
    "model": "claude-opus-5",
    "content": [
        {"type": "thinking", "thinking": "The user wants weather.", "signature": "EqQBCgIYAhIM1gbcDa9G"},
        {"type": "text", "text": "I'll look – 今日は?"},
        {"type": "tool_use", "id": "toolu_01D7FLrfh4GYq7yT1ULFeyMV", "name": "get_weather", "input": CALL},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 100,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 300,
        "output_tokens": 64,
    },
}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-5.5-2026-04-14",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "I'll look – 今日は?",
                "reasoning_content": "The user wants weather.",
                "refusal": None,
                "annotations": [],
                "tool_calls": [
                    {
                        "id": "call_abc123",
                        "type": "function",
                        "function": {"name": "get_weather", "arguments": json.dumps(CALL)},
                    }
                ],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {
        "prompt_tokens": 420,
        "completion_tokens": 64,
        "total_tokens": 484,
        "prompt_tokens_details": {"cached_tokens": 300, "audio_tokens": 0, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 12, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": None,
}


def completion_of(text: str, **more: Any) -> dict[str, Any]:
    """A completion that says one thing."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | more
    return COMPLETION | {"choices": [choice]}


def message_of(text: str, **more: Any) -> dict[str, Any]:
    """A message that says one thing."""
    return MESSAGE | {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn"} | more


def named_events(*documents: dict[str, Any]) -> bytes:
    """Events as Anthropic sends them."""
    lines = (f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in documents)
    return "".join(lines).encode()


def unnamed_events(*documents: Any) -> bytes:
    """Events as chat sends them."""
    lines = (f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in documents)
    return "".join(lines).encode()


def block(index: int, begins: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of one block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": begins},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


MESSAGE_STREAM = named_events(
    {
        "type": "message_start",
        "message": MESSAGE | {"content": [], "stop_reason": None, "usage": MESSAGE["usage"] | {"output_tokens": 1}},
    },
    *block(
        0,
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "The user "},
        {"type": "thinking_delta", "thinking": "wants weather."},
        {"type": "signature_delta", "signature": "EqQBCgIYAhIM1gbcDa9G"},
    ),
    {"type": "ping"},
    *block(
        1,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "I'll look"},
        {"type": "text_delta", "text": " – 今日は?"},
    ),
    *block(
        2,
        {"type": "tool_use", "id": "toolu_01D7FLrfh4GYq7yT1ULFeyMV", "name": "get_weather", "input": {}},
        {"type": "input_json_delta", "partial_json": ""},
        {"type": "input_json_delta", "partial_json": '{"city": "Zü'},
        {"type": "input_json_delta", "partial_json": 'rich", "days": [1, 2]}'},
    ),
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 64},
    },
    {"type": "message_stop"},
)


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of chat's stream."""
    head = {"id": COMPLETION["id"], "object": "chat.completion.chunk", "created": 1, "model": COMPLETION["model"]}
    return head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]} | more


def call(index: int, arguments: str, **begins: Any) -> dict[str, Any]:
    """A delta of a tool's call."""
    function = {"arguments": arguments} | ({"name": begins.pop("name")} if "name" in begins else {})
    return {"tool_calls": [{"index": index, **begins, "function": function}]}


CHAT_STREAM = unnamed_events(
    chunk({"role": "assistant", "content": "", "refusal": None}, usage=None),
    chunk({"reasoning_content": "The user "}, usage=None),
    chunk({"reasoning_content": "wants weather."}, usage=None),
    chunk({"content": "I'll look"}, usage=None),
    chunk({"content": " – 今日は?"}, usage=None),
    chunk(call(0, "", id="call_abc123", type="function", name="get_weather"), usage=None),
    chunk(call(0, '{"city": "Zü'), usage=None),
    chunk(call(0, 'rich", "days": [1, 2]}'), usage=None),
    chunk({}, "tool_calls", usage=None),
    chunk({}, usage=COMPLETION["usage"], choices=[]),
    "[DONE]",
)
