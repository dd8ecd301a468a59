"""What inspection finds in a request."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.inspection import inspect
from paceline.types import Api, Request, Signals, Task

CODE = "```python\ndef add(left, right):\n    return left + right\n```"
TEXT = "Anna Berg lives in Oslo and repairs boats. Peter Holm lives in Bergen and teaches music. " * 5


def chat(content: Any, **fields: Any) -> Signals:
    return look({"messages": [{"role": "user", "content": content}], **fields})


def look(fields: dict[str, Any], api: Api = Api.OPENAI_CHAT, path: str = "/v1/chat/completions") -> Signals:
    return inspect(Request(api, path, b"", fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"text": {"format": {"type": "json_schema"}}},
        {"output_config": {"format": {"type": "json_schema"}}},
        {"json_schema": {"type": "object"}},
        {"grammar": 'root ::= "a"'},
        {"structured_outputs": {"choice": ["a"]}},
    ],
)
def test_structure_is_found_in_every_dialect(fields: dict[str, Any]) -> None:
    assert chat("Tell me a story.", **fields).task is Task.STRUCTURED


def test_a_plain_text_format_is_no_structure() -> None:
    assert chat("Tell me a story.", response_format={"type": "text"}).task is Task.OPEN_ENDED


def test_tools_count_unless_they_are_turned_off() -> None:
    assert chat("hi", tools=[{"name": "x"}]).task is Task.TOOL_CALL
    assert chat("hi", tools=[{"name": "x"}], tool_choice="none").task is Task.OPEN_ENDED
    assert chat("hi", tools=[]).task is Task.OPEN_ENDED


@pytest.mark.parametrize(
    ("text", "task"),
    [
        (f"Rename add to plus.\n{CODE}", Task.EDIT),
        (f"{CODE}\nAdd a docstring and print the whole file.", Task.EDIT),
        (f"Extract all names as JSON.\n{TEXT}", Task.EXTRACT),
        (f"{TEXT}\nList every person in the text.", Task.EXTRACT),
        (f"Correct the spelling.\n{TEXT}", Task.EDIT),
        (f"What does this do?\n{CODE}", Task.OPEN_ENDED),
        ("Tell me a story about a refactoring.", Task.OPEN_ENDED),
        ("Extract the square root of 16.", Task.OPEN_ENDED),
        ("", Task.OPEN_ENDED),
    ],
)
def test_the_wish_and_the_given_text_tell_the_task(text: str, task: Task) -> None:
    assert chat(text).task is task
    assert chat([{"type": "text", "text": text}]).task is task
    assert look({"prompt": text}, Api.LLAMA_CPP, "/completion").task is task
    assert look({"input": text}, Api.OPENAI_RESPONSES, "/v1/responses").task is task


def test_given_text_may_stand_in_an_earlier_turn_or_a_tool_result() -> None:
    wish = {"role": "user", "content": "Now rename it to plus."}
    assert look({"messages": [{"role": "user", "content": CODE}, wish]}).task is Task.EDIT
    result = {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": CODE}]}]}
    assert look({"messages": [result, wish]}, Api.ANTHROPIC_MESSAGES).task is Task.EDIT
    output = {"type": "function_call_output", "output": CODE}
    assert look({"input": [output, wish]}, Api.OPENAI_RESPONSES).task is Task.EDIT


def test_predicted_output_and_infill_are_edits() -> None:
    assert chat("x", prediction={"type": "content", "content": "y"}).task is Task.EDIT
    assert look({"input_prefix": "a", "input_suffix": "b"}, Api.LLAMA_CPP, "/infill").task is Task.EDIT


def test_sampling_and_length_are_read() -> None:
    signals = chat("x" * 400, temperature=0.5, max_completion_tokens=7)
    assert (signals.temperature, signals.max_tokens, signals.prompt_chars, signals.given_chars) == (0.5, 7, 400, 400)
    assert chat("hi").temperature is None


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(
    [
        "messages",
        "prompt",
        "input",
        "system",
        "tools",
        "tool_choice",
        "response_format",
        "text",
        "role",
        "content",
        "type",
    ]
)


@given(st.dictionaries(keys, json_values | st.lists(st.dictionaries(keys, json_values))))
def test_no_request_is_too_odd(fields: dict[str, Any]) -> None:
    assert isinstance(inspect(Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", fields)), Signals)


def test_the_middle_of_a_long_request_is_not_read() -> None:
    far = "x" * 1_000_000
    assert chat(f"Rename add to plus.\n{CODE}{far}").task is Task.EDIT
    assert chat(f"{far}\nRename add to plus.\n{CODE}\n{far}").task is Task.OPEN_ENDED
