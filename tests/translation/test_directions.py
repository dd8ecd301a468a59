"""What is translated, what is refused, and that streams come out the same wherever they are cut."""

import contextlib
import json
from collections import defaultdict
from typing import Any

import pytest
from anthropic.types.beta import message_create_params
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params
from tests.translation.recorded import CHAT_STREAM, COMPLETION, MESSAGE, MESSAGE_STREAM, call, chunk, unnamed_events

from paceline.translation import (
    Garbled,
    Translated,
    Untranslatable,
    can_translate,
    chat_to_messages,
    messages_to_chat,
    responses_to_chat,
    translated,
)
from paceline.translation.flavour import OPENAI, Flavour
from paceline.types import Api

ALL = [
    (Api.OPENAI_CHAT, Api.ANTHROPIC_MESSAGES),
    (Api.ANTHROPIC_MESSAGES, Api.OPENAI_CHAT),
    (Api.OPENAI_RESPONSES, Api.OPENAI_CHAT),
    (Api.OPENAI_RESPONSES, Api.ANTHROPIC_MESSAGES),
]
USER = {"role": "user", "content": "x"}
STREAMS = {Api.OPENAI_CHAT: CHAT_STREAM, Api.ANTHROPIC_MESSAGES: MESSAGE_STREAM}
IMAGE = "iVBORw0KGgo="


def to(api: Api, fields: dict[str, Any], client: Api | None = None, flavour: Flavour | None = None) -> Translated:
    """A request's translation, by default from the other of the two."""
    usual = Api.OPENAI_CHAT if api is Api.ANTHROPIC_MESSAGES else Api.ANTHROPIC_MESSAGES
    return translated(
        client or usual, api, fields, flavour=flavour or Flavour(default_max_tokens=777), now_s=1_700_000_000
    )


def messages(*given: Any, **more: Any) -> dict[str, Any]:
    """What a request to chat says in messages, and the rest of it."""
    return dict(to(Api.ANTHROPIC_MESSAGES, {"model": "m", "messages": list(given), **more}).fields)


def chats(*given: Any, flavour: Flavour | None = None, **more: Any) -> dict[str, Any]:
    """What a request to messages says in chat, and the rest of it."""
    fields = {"model": "m", "max_tokens": 9, "messages": list(given), **more}
    return dict(to(Api.OPENAI_CHAT, fields, flavour=flavour).fields)


def responds(given: Any, **more: Any) -> dict[str, Any]:
    """What a request to responses says in chat."""
    return dict(to(Api.OPENAI_CHAT, {"model": "m", "input": given, **more}, Api.OPENAI_RESPONSES).fields)


def events(stream: bytes) -> list[Any]:
    """The documents of a stream's events."""
    data = [line[6:] for line in stream.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"]


def test_what_is_translated_into_what() -> None:
    assert can_translate(Api.OPENAI_RESPONSES, frozenset({Api.OPENAI_CHAT, Api.ANTHROPIC_MESSAGES})) is Api.OPENAI_CHAT
    assert can_translate(Api.OPENAI_COMPLETIONS, frozenset(Api)) is None
    assert can_translate(Api.LLAMA_CPP, frozenset({Api.OPENAI_CHAT})) is None


# From chat to messages


def test_a_loop_of_tools_in_messages() -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
    ]
    thinking = {"type": "thinking", "thinking": "t", "signature": "s"}
    unsigned = {"type": "thinking", "thinking": "another's", "signature": ""}
    said = {"role": "assistant", "content": None, "tool_calls": calls, "thinking_blocks": [unsigned, thinking]}
    asked = messages(
        {"role": "developer", "content": "Be brief."},
        USER,
        said | {"reasoning_content": "t"},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}]},
        {"role": "user", "content": "and now?"},
        {"role": "system", "content": "Stop soon."},
    )
    assert asked["system"] == [{"type": "text", "text": "Be brief."}]
    assert asked["max_tokens"] == 777
    assert asked["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {
            "role": "assistant",
            "content": [
                thinking,
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "2"}]},
                {"type": "text", "text": "and now?"},
            ],
        },
        {"role": "system", "content": [{"type": "text", "text": "Stop soon."}]},
    ]


def test_a_conversation_that_goes_on_is_to_be_cached_where_the_provider_wants_to_be_asked() -> None:
    again = [USER, {"role": "assistant", "content": "hi"}, USER]
    for turns, caches, expected in ((again, True, {"type": "ephemeral"}), (again, False, None), ([USER], True, None)):
        way = to(Api.ANTHROPIC_MESSAGES, {"model": "m", "messages": turns}, flavour=Flavour(caches=caches))
        assert way.fields.get("cache_control") == expected


def test_a_long_event_comes_whole() -> None:
    text = "ü" * 200_000
    stream = unnamed_events(chunk({"content": text}), chunk({}, "stop"), "[DONE]")
    translator = _way(Api.ANTHROPIC_MESSAGES, Api.OPENAI_CHAT).stream()
    pieces = [translator.feed(stream[at : at + 8192]) for at in range(0, len(stream), 8192)]
    assert added_up(b"".join(pieces) + translator.end())["text"] == text


def test_images_and_files_in_messages() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{IMAGE}"}},
    ]
    shown = messages({"role": "user", "content": parts})["messages"][0]["content"]
    assert shown == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": IMAGE},
            "title": "a.pdf",
        },
    ]


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"seed": 7}, "seed"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"grammar": "root ::= x"}, "grammar"),
        ({"min_p": 0.1}, "min_p"),
        ({"reasoning_effort": "odd"}, "reasoning_effort"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"messages": [USER, {"role": "assistant", "content": "The answer is ("}]}, "end with the assistant's"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "content[0]"),
        ({"messages": [{"role": "user", "content": "x", "name": "ann"}]}, "messages[0].name"),
        ({"messages": [USER, {"role": "function", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}
                ]
            },
            "arguments",
        ),
    ],
)
def test_what_messages_have_no_words_for_is_refused(more: dict[str, Any], where: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        to(Api.ANTHROPIC_MESSAGES, {"model": "m", "messages": [USER]} | more)
    assert where in str(caught.value)


def test_what_asks_for_nothing_is_no_reason_to_refuse() -> None:
    asked = {"n": 1, "logprobs": False, "logit_bias": None, "frequency_penalty": 0.0, "store": False, "seed": None}
    assert messages(USER, **asked, prompt_cache_key="k") == messages(USER)


# From messages to chat


def test_a_loop_of_tools_in_chat() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}}
    asked = chats(
        USER,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "mine", "signature": ""},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "1"}, image]},
                {"type": "tool_result", "tool_use_id": "b", "content": "no such file", "is_error": True},
                {"type": "text", "text": "and now?", "cache_control": {"type": "ephemeral"}},
            ],
        },
    )["messages"]
    assert asked == [
        USER,
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "mine",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: no such file"},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
                {"type": "text", "text": "and now?"},
            ],
        },
    ]


def test_thinking_of_earlier_turns_is_not_shown_again_and_that_of_a_loop_stays_with_who_signed_it() -> None:
    signed = {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}]}
    used = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "1"}]}
    asked = chats(USER, {"role": "assistant", "content": [*signed["content"], {"type": "text", "text": "hi"}]}, USER)
    assert asked["messages"][1] == {"role": "assistant", "content": "hi"}
    with pytest.raises(Untranslatable, match="signed by another model"):
        chats(USER, {"role": "assistant", "content": [*signed["content"], used]}, result)
    redacted = {"type": "redacted_thinking", "data": "x"}
    with pytest.raises(Untranslatable, match="signed by another model"):
        chats(USER, {"role": "assistant", "content": [redacted, used]}, result)


def test_openai_gets_its_own_field_and_none_that_it_does_not_know() -> None:
    assert chats(USER, flavour=OPENAI)["max_completion_tokens"] == 9
    assert chats(USER, top_k=5)["top_k"] == 5
    with pytest.raises(Untranslatable, match="top_k"):
        chats(USER, flavour=OPENAI, top_k=5)


@pytest.mark.parametrize(
    ("more", "effort"),
    [
        ({}, None),
        ({"thinking": {"type": "disabled"}}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 8000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 32000}}, "high"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low"),
    ],
)
def test_how_much_is_thought(more: dict[str, Any], effort: str | None) -> None:
    assert chats(USER, **more).get("reasoning_effort") == effort


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0]"),
        ({"mcp_servers": [{"url": "https://x"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config.format"),
        ({"messages": [USER, {"role": "assistant", "content": "The answer is ("}]}, "beginning"),
        ({"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]}, "content[0]"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
            "source",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "server_tool_use"}]}, USER]},
            "server_tool_use",
        ),
        ({"metadata": "x"}, "not as its API has it"),
    ],
)
def test_what_chat_has_no_words_for_is_refused(more: dict[str, Any], where: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        to(Api.OPENAI_CHAT, {"model": "m", "max_tokens": 9, "messages": [USER]} | more)
    assert where in str(caught.value)


def test_clearing_earlier_thinking_asks_for_nothing() -> None:
    assert chats(USER, context_management={"edits": [{"type": "clear_thinking_20251015"}]}) == chats(USER)


# From responses


def test_a_loop_of_tools_in_responses() -> None:
    asked = responds(
        [
            {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "t"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x": 1}'},
            {"type": "function_call", "call_id": "b", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "1"},
            {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        ],
        instructions="Be brief.",
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
    )
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "x"}]},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "t",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
                {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}]},
    ]
    assert asked["reasoning_effort"] == "low"
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert asked["response_format"] == {"type": "json_schema", "json_schema": schema}


def test_signed_thinking_comes_back_through_responses() -> None:
    """A client that stores nothing hands back what it got; and the model that signed it gets that as it was."""
    asked = {"model": "m", "input": "x", "include": ["reasoning.encrypted_content"], "store": False}
    way = to(Api.ANTHROPIC_MESSAGES, asked, Api.OPENAI_RESPONSES)
    stream = way.stream()
    streamed = events(stream.feed(MESSAGE_STREAM) + stream.end())[-1]["response"]["output"]
    for output in (way.answer(MESSAGE)["output"], streamed):
        result = {"type": "function_call_output", "call_id": output[2]["call_id"], "output": "sunny"}
        again = to(Api.ANTHROPIC_MESSAGES, asked | {"input": [USER, *output, result]}, Api.OPENAI_RESPONSES)
        assert again.fields["messages"][1]["content"] == MESSAGE["content"]


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"}]}, "encrypted_content"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "paceline:!"}]}, "encrypted_content"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "content[0]"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
def test_what_a_response_needs_its_own_engine_for_is_refused(more: dict[str, Any], where: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        to(Api.OPENAI_CHAT, {"model": "m", "input": "x"} | more, Api.OPENAI_RESPONSES)
    assert where in str(caught.value)


CLAUDE_CODE = {
    "model": "m",
    "max_tokens": 32_000,
    "system": [
        {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral", "scope": "global"}}
    ],
    "messages": [USER],
    "tools": [{"name": "Read", "description": "d", "input_schema": {"type": "object"}, "eager_input_streaming": True}],
    "metadata": {"user_id": "user_" + "x" * 100},
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "high", "task_budget": {"type": "tokens", "total": 9}},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "betas": ["interleaved-thinking-2025-05-14"],
    "speed": "fast",
    "service_tier": "priority",
    "stream": True,
    "temperature": 1,
}
CODEX = {
    "model": "m",
    "instructions": "You are an agent.",
    "input": [
        {"type": "message", "id": "i", "role": "user", "content": [{"type": "input_text", "text": "x"}], "phase": 1}
    ],
    "tools": [{"type": "function", "name": "shell", "description": "d", "strict": False, "parameters": {}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
    "prompt_cache_key": "k",
    "text": {"verbosity": "low"},
    "service_tier": "priority",
    "client_metadata": {"x-codex-installation-id": "i"},
    "truncation": "auto",
}
"""What agents send beside what is asked, as their projects' issues have it."""


@pytest.mark.parametrize(
    ("client", "fields", "api"),
    [
        (Api.ANTHROPIC_MESSAGES, CLAUDE_CODE, Api.OPENAI_CHAT),
        (Api.OPENAI_RESPONSES, CODEX, Api.OPENAI_CHAT),
        (Api.OPENAI_RESPONSES, CODEX, Api.ANTHROPIC_MESSAGES),
        (
            Api.OPENAI_CHAT,
            {"model": "m", "messages": [USER], "store": True, "verbosity": "low"},
            Api.ANTHROPIC_MESSAGES,
        ),
        (Api.OPENAI_CHAT, {"model": "m", "messages": [USER], "service_tier": "flex"}, Api.ANTHROPIC_MESSAGES),
    ],
)
def test_what_changes_no_answer_is_left_out_and_what_nobody_has_heard_of_is_told(
    client: Api, fields: dict[str, Any], api: Api
) -> None:
    usual = to(api, fields, client)
    assert usual.left_out == ()
    odd = to(api, fields | {"made_up": 1, "another": None, "next_years": {"x": []}}, client)
    assert odd.left_out == ("made_up", "next_years")
    assert odd.fields == usual.fields


@pytest.mark.parametrize(
    ("module", "reference"),
    [
        (chat_to_messages, completion_create_params.CompletionCreateParamsBase),
        (responses_to_chat, response_create_params.ResponseCreateParamsBase),
        (messages_to_chat, message_create_params.MessageCreateParamsBase),
    ],
)
def test_each_field_of_the_references_is_decided_on(module: Any, reference: type) -> None:
    decided = module.KNOWN | module.HINTS | set(module.MEANINGFUL)
    assert set(reference.__annotations__) - decided == set()
    assert not (module.KNOWN | module.HINTS) & set(module.MEANINGFUL)


# Answers


@pytest.mark.parametrize(("client", "api"), ALL)
@given(cuts=st.lists(st.integers(0, 3000), max_size=30))
def test_a_stream_comes_out_the_same_wherever_it_is_cut(client: Api, api: Api, cuts: list[int]) -> None:
    way = _way(client, api)
    stream = STREAMS[api]
    whole = way.stream()
    expected = whole.feed(stream) + whole.end()
    pieces = [stream[begin:end] for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True)]
    cut = way.stream()
    assert b"".join([cut.feed(piece) for piece in pieces]) + cut.end() == expected


def _way(client: Api, api: Api) -> Translated:
    said: dict[str, Any] = {"input": "x"} if client is Api.OPENAI_RESPONSES else {"messages": [USER]}
    return to(api, {"model": "m", **said, **({"max_tokens": 9} if client is Api.ANTHROPIC_MESSAGES else {})}, client)


@pytest.mark.parametrize(("client", "api"), ALL)
def test_a_stream_that_ends_too_early_is_noticed(client: Api, api: Api) -> None:
    stream = STREAMS[api]
    told_why = stream.rindex(b'"finish_reason": "tool_calls"' if api is Api.OPENAI_CHAT else b"message_stop")
    for end in range(0, told_why, 97):
        cut = _way(client, api).stream()
        cut.feed(stream[:end])
        with pytest.raises(Garbled):
            cut.end()


@pytest.mark.parametrize(("client", "api"), ALL)
@pytest.mark.parametrize(
    "odd",
    [
        b"data: 7\n\n",
        b"data: {\n\n",
        b"data: \xff\n\n",
        b'data: {"choices": 7, "type": "message_start", "message": 7}\n\n',
    ],
)
def test_what_is_no_event_of_the_dialect_is_garbled(client: Api, api: Api, odd: bytes) -> None:
    with pytest.raises(Garbled):
        _way(client, api).stream().feed(odd)


@pytest.mark.parametrize(("client", "api"), ALL)
@pytest.mark.parametrize("odd", [b"", b"7", b"{", b"<html>", b'{"choices": 7, "content": 7}'])
def test_what_is_no_answer_is_garbled(client: Api, api: Api, odd: bytes) -> None:
    with pytest.raises(Garbled):
        _way(client, api).whole(200, odd)


@pytest.mark.parametrize(("client", "api"), ALL)
def test_errors_within_streams(client: Api, api: Api) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    stream = _way(client, api).stream()
    said = events(stream.feed(b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n") + stream.end())
    last = said[-1]
    message = last["response"]["error"]["message"] if client is Api.OPENAI_RESPONSES else last["error"]["message"]
    assert message == "Overloaded"


def test_calls_whose_arguments_are_mixed_are_no_answer() -> None:
    mixed = unnamed_events(
        chunk(call(0, "{", id="a", name="f")), chunk(call(1, "{", id="b", name="g")), chunk(call(0, "}"))
    )
    for client in (Api.ANTHROPIC_MESSAGES, Api.OPENAI_RESPONSES):
        with pytest.raises(Garbled, match="mixes"):
            _way(client, Api.OPENAI_CHAT).stream().feed(mixed)


@pytest.mark.parametrize(("client", "api"), ALL)
def test_comments_pass(client: Api, api: Api) -> None:
    stream = _way(client, api).stream()
    assert stream.feed(b": PROCESSING\n\n") == b": PROCESSING\n\n"
    assert stream.feed(b"event: x\n\n\n\n") == b""


def test_several_calls_in_a_stream() -> None:
    stream = unnamed_events(
        chunk(call(0, '{"x":', id="a", name="f")),
        chunk(call(0, "1}")),
        chunk(call(1, "{}", id="b", name="g")),
        chunk({}, "stop"),
        "[DONE]",
    )
    translator = _way(Api.ANTHROPIC_MESSAGES, Api.OPENAI_CHAT).stream()
    kinds = [(one["type"], one.get("index")) for one in events(translator.feed(stream) + translator.end())]
    assert kinds == [
        ("message_start", None),
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("message_delta", None),
        ("message_stop", None),
    ]


@pytest.mark.parametrize(
    ("reason", "more", "expected"),
    [
        ("stop", {}, ("end_turn", None)),
        ("length", {}, ("max_tokens", None)),
        ("content_filter", {}, ("refusal", None)),
        ("stop", {"stop_reason": "END"}, ("stop_sequence", "END")),
        ("stop", {"stop_reason": 128009}, ("end_turn", None)),
    ],
)
def test_why_an_answer_ended(reason: str, more: dict[str, Any], expected: tuple[str, str | None]) -> None:
    choice = {"index": 0, "message": {"content": "x"}, "finish_reason": reason} | more
    made = _way(Api.ANTHROPIC_MESSAGES, Api.OPENAI_CHAT).answer({"choices": [choice]})
    assert (made["stop_reason"], made["stop_sequence"]) == expected
    streamed = chunk({"content": "x"}, reason)
    streamed["choices"][0] |= more
    translator = _way(Api.ANTHROPIC_MESSAGES, Api.OPENAI_CHAT).stream()
    said = events(translator.feed(unnamed_events(streamed)) + translator.end())[-2]["delta"]
    assert (said["stop_reason"], said["stop_sequence"]) == expected


# There and back


def test_a_request_to_chat_comes_back_from_messages() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":[1,"ü"]}'}}]
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    asked = {
        "model": "m",
        "max_tokens": 50,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
                    {"type": "text", "text": "What is it?"},
                ],
            },
            {"role": "assistant", "content": "I look.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "a cat"},
            {"role": "user", "content": "Sure?"},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [tool],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "high",
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}},
        "user": "ann",
        "service_tier": "auto",
    }
    there = dict(to(Api.ANTHROPIC_MESSAGES, asked).fields)
    assert to(Api.OPENAI_CHAT, there).fields == asked


def test_answers_come_back() -> None:
    to_messages, to_chat = (_way(*way) for way in (ALL[1], ALL[0]))
    message = to_messages.answer(COMPLETION)
    again = to_chat.answer(message)
    said, choice = COMPLETION["choices"][0]["message"], again["choices"][0]
    for key in ("content", "reasoning_content"):
        assert choice["message"][key] == said[key]
    (call_before,), (call_after,) = said["tool_calls"], choice["message"]["tool_calls"]
    assert json.loads(call_after["function"].pop("arguments")) == json.loads(call_before["function"]["arguments"])
    assert call_after == call_before | {"function": {"name": "get_weather"}}
    assert choice["finish_reason"] == "tool_calls"
    counts = COMPLETION["usage"]
    details = {"cached_tokens": 300, "cache_write_tokens": 20}
    assert again["usage"] == {
        "prompt_tokens": counts["prompt_tokens"],
        "completion_tokens": counts["completion_tokens"],
        "total_tokens": counts["total_tokens"],
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": 12},
    }
    back = to_messages.answer(to_chat.answer(MESSAGE))
    assert back["content"][1:] == MESSAGE["content"][1:]
    assert back["content"][0] == MESSAGE["content"][0] | {"signature": ""}  # which chat has no place for
    assert (back["stop_reason"], back["usage"]) == (MESSAGE["stop_reason"], MESSAGE["usage"])


def added_up(stream: bytes) -> dict[str, str]:
    """What the deltas of a stream add up to, by what they are of; in both dialects."""
    sums: defaultdict[str, str] = defaultdict(str)
    for event in events(stream):
        for choice in event.get("choices", ()):
            delta = choice["delta"]
            sums["text"] += delta.get("content") or ""
            sums["thinking"] += delta.get("reasoning_content") or ""
            for one in delta.get("tool_calls", ()):
                sums["name"] += one["function"].get("name", "")
                sums["arguments"] += one["function"]["arguments"]
        delta = event.get("delta", {})
        sums["text"] += delta.get("text", "")
        sums["thinking"] += delta.get("thinking", "")
        sums["arguments"] += delta.get("partial_json", "")
        sums["name"] += event.get("content_block", {}).get("name", "")
    return sums


@pytest.mark.parametrize("api", STREAMS)
def test_streams_come_back_as_what_they_were(api: Api) -> None:
    stream = STREAMS[api]
    for client, engine in ALL[:2] if api is Api.ANTHROPIC_MESSAGES else ALL[1::-1]:
        translator = _way(client, engine).stream()
        stream = translator.feed(stream) + translator.end()
        assert added_up(stream) == added_up(STREAMS[api])
    assert len(added_up(stream)["arguments"]) > 10


# Whatever comes

WORDS = st.sampled_from(
    "type role content text messages input tools function name arguments id image_url url source data tool_use "
    "tool_result tool_calls thinking system user assistant tool choices delta index usage message message_start "
    "content_block_start content_block content_block_delta text_delta function_call finish_reason stop_reason error "
    "reasoning output_config response_format json_schema json_schema data:image/png;base64,x metadata user_id".split()
)
LEAVES = st.none() | st.booleans() | st.integers(-2, 3) | WORDS
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4), max_leaves=12
)


@pytest.mark.parametrize(("client", "api"), ALL)
@given(fields=st.dictionaries(WORDS, ANYTHING, max_size=4), turns=st.lists(ANYTHING, max_size=3))
def test_any_request_is_translated_or_refused(client: Api, api: Api, fields: dict[str, Any], turns: list[Any]) -> None:
    with contextlib.suppress(Untranslatable):
        json.dumps(to(api, fields, client).fields)
    with contextlib.suppress(Untranslatable):
        to(api, {"input" if client is Api.OPENAI_RESPONSES else "messages": turns, "max_tokens": 5}, client)


@pytest.mark.parametrize(("client", "api"), ALL)
@given(documents=st.lists(st.dictionaries(WORDS, ANYTHING, max_size=5), min_size=1, max_size=4))
def test_any_answer_is_translated_or_garbled(client: Api, api: Api, documents: list[Any]) -> None:
    way = _way(client, api)
    with contextlib.suppress(Garbled):
        json.loads(way.whole(200, json.dumps(documents[0]).encode()))
    stream = way.stream()
    with contextlib.suppress(Garbled):
        events(stream.feed(unnamed_events(*documents)) + stream.end())


def test_identifiers_of_users_are_as_short_as_apis_take_them() -> None:
    long = "user_" + "a" * 300
    assert chats(USER, metadata={"user_id": "ann"})["user"] == "ann"
    assert len(chats(USER, metadata={"user_id": long})["user"]) == 64
    assert chats(USER, metadata={"user_id": long}) == chats(USER, metadata={"user_id": long})
    assert messages(USER, user="ann")["metadata"] == {"user_id": "ann"}
    assert len(messages(USER, user=long)["metadata"]["user_id"]) == 64
