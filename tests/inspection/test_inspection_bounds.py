"""Inspection takes bounded time whatever the shape of a request, and finds nothing that later steps stumble on."""

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from tests.patient import shortest_s

from paceline.decision import Knowledge, decide
from paceline.inspection import inspect
from paceline.inspection.fields import MAX_TOKENS
from paceline.inspection.text import MAX_TEXTS, parts
from paceline.types import Api, Lane, LaneState, Request, Signals, Strategy

MAX_S = 0.005
HI = {"messages": [{"role": "user", "content": "hi"}]}


def deep(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"a": 1}
    for _ in range(depth):
        found = {"content": [found], "text": found}
    return found


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


MONSTERS: dict[str, Any] = {
    "tool results of blocks": {
        "messages": [user([{"type": "tool_result", "content": [{"text": "x"}] * 64}] * 64)] * 64
    },
    "blocks": {"messages": [user([{"text": "x"}] * 64)] * 64},
    "empty blocks": {"messages": [user([{}] * 10_000)] * 10_000},
    "messages": {"messages": [user(f"message {number}") for number in range(100_000)]},
    "integers": {"messages": [user(list(range(1_000_000)))], "input": list(range(1_000_000))},
    "token numbers": {"prompt": list(range(1_000_000))},
    "a million keys": {str(number): number for number in range(1_000_000)} | HI,
    "one long line": {"messages": [user("a " * 10_000_000)]},
    "line ends": {"messages": [user("\n" * 20_000_000)]},
    "names": HI | {"session_id": "é" * 10_000_000, "user": "x" * 10_000_000, "metadata": {"user_id": "y" * 10_000_000}},
    "types that are lists": {
        "messages": [user([{"type": list(range(100_000))}] * 64)] * 64,
        "response_format": {"type": list(range(1_000_000))},
        "tool_choice": {"type": list(range(1_000_000))},
        "tools": [1],
    },
    "openings": {"messages": [user("<aaaa " * 3_000_000)]},
    "tags": {"messages": [user("<note_a>x" * 2_000_000)]},
    "headings": {"messages": [user("#### task" * 2_000_000), user("\n# " * 5_000_000)]},
    "fences": {
        "messages": [{"role": "assistant", "content": "```\na" * 4_000_000}, user("observation: " + "$ " * 9_000_000)]
    },
    "calls in text": {
        "messages": [
            {"role": "system", "content": "tool use " + "tools " * 4_000_000},
            user("x"),
            {"role": "assistant", "content": "<a_a" * 5_000_000 + "_a" * 5_000_000},
            user("[" + "a " * 9_000_000),
        ]
    },
    "tools": HI | {"tools": [{"function": {"name": "get_" * 1_000_000}}] * 100_000},
    "properties": HI | {"json_schema": {"properties": {f"name {number}" * 10: 1 for number in range(300_000)}}},
    "results": {"messages": [{"role": "tool", "content": " " * 20_000_000, "name": "n" * 10_000_000}] * 10_000},
    "calls": {
        "messages": [{"role": "assistant", "tool_calls": [{}] * 1_000_000}, {"role": "tool", "content": "x"}] * 5_000
    },
    "nearly alike": {
        "messages": [
            user("a" * 9_000_000),
            *[{"role": "assistant", "content": "a" * 3_000 + "aaaabaaa" * 9}] * 9,
            user("aaaaaaab" * 9),
        ]
    },
    "calls by their fields": {
        "messages": [
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "input": {str(n): "x" * 5_000_000 for n in range(99)}}] * 64,
            }
        ]
        * 999
    },
    "a prompt of markers": {"prompt": "<|fim" * 10_000_000, "suffix": ""},
    "templates": {"prompt": "[INST]" * 10_000_000},
    "numbers and underscores": {
        "messages": [user("hi"), {"role": "assistant", "content": "?"}, user("_1" * 10_000_000)],
        "tools": [1],
    },
    "no spaces": {"messages": [user("海" * 10_000_000)]},
    "depth": {"messages": [user([deep(400)])], "system": [deep(400)], "metadata": deep(400), "thinking": deep(400)},
}


@pytest.mark.parametrize("name", MONSTERS)
def test_time_is_bounded_by_shape(name: str) -> None:
    request = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", MONSTERS[name])
    assert shortest_s(lambda: inspect(request), MAX_S) <= MAX_S


@pytest.mark.parametrize("name", MONSTERS)
def test_the_number_of_texts_is_bounded(name: str) -> None:
    assert len(parts(Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", MONSTERS[name]))) <= MAX_TEXTS


def test_the_last_instruction_and_the_first_ones_are_read_from_any_shape() -> None:
    crowd = user([{"type": "tool_result", "content": [{"text": "x"}] * 64}] * 64)
    instruction = user(
        [*crowd["content"], {"type": "text", "text": "Rename the class to Store and print the whole file."}]
    )
    first = [{"role": "system", "content": "You are aider."}, user("Tell me a story.")]
    signals = inspect(Request(Api.OPENAI_CHAT, "/", b"", {"messages": [*first, *[crowd] * 64, instruction]}))
    assert signals.agent == "aider"
    assert signals.task == "edit"
    assert signals.turns == 2


def test_a_conversation_within_the_bounds_is_read_whole_and_in_order() -> None:
    turns = [user([{"text": f"{turn} {block}"} for block in range(16)]) for turn in range(60)]
    found = parts(Request(Api.OPENAI_CHAT, "/", b"", {"messages": turns}))
    assert [part.text for part in found] == [f"{turn} {block}" for turn in range(60) for block in range(16)]


ABSURD = (0, -1, 1e300, -1e300, 1e308, 5e-324, 10**400, -(10**400), float("nan"), float("inf"), -float("inf"))


@pytest.mark.parametrize("value", ABSURD)
def test_absurd_numbers_reach_no_decision(value: float) -> None:
    for key in ("max_tokens", "n_predict", "temperature", "top_p"):
        signals = inspect(Request(Api.OPENAI_CHAT, "/", b"", HI | {key: value}))
        assert signals.max_tokens is None or 0 <= signals.max_tokens <= MAX_TOKENS
        assert signals.temperature is None or 0 <= signals.temperature <= 100
        assert signals.top_p is None or 0 <= signals.top_p <= 1
        decided(signals)


def decided(signals: Signals) -> None:
    lanes = [
        LaneState(Lane("plain", "e", Strategy()), model="m"),
        LaneState(Lane("n", "e", Strategy("ngram", 8)), model="m"),
    ]
    assert decide(signals, lanes, Knowledge(), Random(0)).reason


@pytest.mark.parametrize(
    "fields",
    [
        {"conversation": {"id": "c"}},
        {"conversation_id": "c"},
        {"session_id": "c"},
        {"prompt_cache_key": "c"},
        {"metadata": {"session_id": "c"}},
        {"metadata": {"user_id": "user_1_account_2_session_3"}},
    ],
)
def test_the_clients_own_identifiers_tell_conversations_apart(fields: Mapping[str, Any]) -> None:
    named = inspect(Request(Api.OPENAI_CHAT, "/", b"", {**HI, **fields}))
    plain = inspect(Request(Api.OPENAI_CHAT, "/", b"", HI))
    later = {"messages": [user("something else")], **fields}
    assert named.conversation != plain.conversation
    assert inspect(Request(Api.OPENAI_CHAT, "/", b"", later)).conversation == named.conversation
    assert (named.conversation_is_named, plain.conversation_is_named) == (True, False)


def test_headers_and_users_tell_conversations_apart() -> None:
    def told(*headers: tuple[bytes, bytes], **fields: Any) -> Signals:
        return inspect(Request(Api.OPENAI_CHAT, "/", b"", {**HI, **fields}, headers=headers))

    plain = told()
    session = told((b"x-session-id", b"1"))
    assert session.conversation_is_named
    others = [session, told((b"x-session-id", b"2")), told((b"authorization", b"Bearer a")), told(user="u")]
    assert len({plain.conversation, *(one.conversation for one in others)}) == 5
    assert not told(user="u").conversation_is_named
    assert told(user="u").conversation == told(user="u").conversation


def test_what_a_structure_is_called_is_one_of_a_few_words() -> None:
    for kind, name in (("json_schema", "json_schema"), ("my secret", "other"), (["x"], "other"), (7, "other")):
        signals = inspect(Request(Api.OPENAI_CHAT, "/", b"", HI | {"response_format": {"type": kind}}))
        assert signals.structure == f"response_format {name}"
