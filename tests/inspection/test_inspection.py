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
    signals = chat("Jane, 34, Oslo; Tom, 28, Rome", **fields)
    assert signals.task is Task.EXTRACT
    assert signals.structure
    assert signals.evidence == signals.structure
    assert chat("Tell me a story.", **fields).task is Task.CREATE, "the words count more"


def test_a_plain_text_format_is_no_structure() -> None:
    signals = chat("Tell me a story.", response_format={"type": "text"})
    assert (signals.task, signals.structure, signals.evidence) == (Task.CREATE, "", "")


def test_tools_count_unless_they_are_turned_off() -> None:
    weather = [{"name": "get_weather"}]
    assert chat("What will the weather be in Oslo?", tools=weather).task is Task.TOOL_CALL
    assert chat("hi", tools=[{"name": "x"}]).task is not Task.TOOL_CALL
    assert chat("hi", tools=[{"name": "x"}], tool_choice={"type": "function"}).tasks == {Task.TOOL_CALL: 1.0}
    assert chat("hi", tools=[{"name": "x"}], tool_choice="none").task is Task.CHAT
    assert chat("hi", tools=[]).task is Task.CHAT


@pytest.mark.parametrize(
    ("text", "task"),
    [
        (f"Rename add to plus and print the whole file.\n{CODE}", Task.EDIT),
        (f"{CODE}\nAdd a docstring and print the whole file.", Task.EDIT),
        (f"Correct the spelling of this text.\n{TEXT}", Task.EDIT),
        (f"Extract all names as JSON.\n{TEXT}", Task.EXTRACT),
        (f"{TEXT}\nList every person in the text.", Task.EXTRACT),
        (f"{TEXT}\nWhere does Peter Holm teach?", Task.RETRIEVE),
        (f"Summarize: {TEXT}", Task.SUMMARISE),
        (f"What does this code do?\n{CODE}", Task.CODE),
        ("Write a Go function that reverses a slice.", Task.CODE),
        ("Translate to German: the weather is nice today", Task.TRANSLATE),
        ("Tell me a story about a refactoring.", Task.CREATE),
        ("What is the capital of Peru?", Task.ANSWER),
        ("A pen costs 3 dollars. How much do 12 pens cost?", Task.MATH),
        ("Ben is older than Ann. Ann is older than Tim. Who is the youngest?", Task.REASON),
        ("Hi, how are you?", Task.CHAT),
    ],
)
def test_the_instruction_and_the_given_text_tell_the_task(text: str, task: Task) -> None:
    assert chat(text).task is task
    assert chat([{"type": "text", "text": text}]).task is task
    assert look({"prompt": text}, Api.LLAMA_CPP, "/completion").task is task
    assert look({"input": text}, Api.OPENAI_RESPONSES, "/v1/responses").task is task


def test_the_probabilities_sum_to_one_and_fall() -> None:
    for text in ("", "Hi!", "Rename this.", TEXT, CODE):
        shares = list(chat(text).tasks.values())
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)


def test_a_short_message_is_understood_with_the_first_one() -> None:
    first = {"role": "user", "content": f"Rename add to plus and print the whole file.\n{CODE}"}
    answer = {"role": "assistant", "content": CODE.replace("add", "plus")}
    signals = look({"messages": [first, answer, {"role": "user", "content": "Now call it sum."}]})
    alone = chat("Now call it sum.")
    assert signals.tasks.get(Task.EDIT, 0) > alone.tasks.get(Task.EDIT, 0) + 0.2
    assert (signals.turns, alone.turns) == (2, 1)


def test_given_text_may_stand_in_an_earlier_turn_or_a_tool_result() -> None:
    instruction = {"role": "user", "content": "Rename the function to plus and print the whole file."}
    assert look({"messages": [{"role": "user", "content": CODE}, instruction]}).copy > 0.2
    result = {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": TEXT}]}]}
    anthropic = look({"messages": [result, instruction]}, Api.ANTHROPIC_MESSAGES)
    assert (anthropic.given_chars, anthropic.agent, anthropic.turns) == (len(TEXT), "unnamed", 1)
    output = {"type": "function_call_output", "output": TEXT}
    assert look({"input": [output, instruction]}, Api.OPENAI_RESPONSES).given_chars == len(TEXT)


def test_how_much_there_is_to_copy() -> None:
    edit = f"Rename add to plus.\n{CODE * 5}"
    assert chat(edit).copy > 0.6
    assert chat(f"{edit}\nPrint the whole file.").copy >= 0.85
    assert chat(f"{edit}\nOnly show the changed lines.").copy < chat(edit).copy / 2
    assert chat("Tell me a story.").copy == 0
    assert chat("x", prediction={"type": "content", "content": "y"}).copy == 0.9


def test_predicted_output_and_infill_are_told_by_their_fields() -> None:
    predicted = chat("x", prediction={"type": "content", "content": "y"})
    assert (predicted.task, predicted.evidence) == (Task.EDIT, "prediction")
    assert look({"input_prefix": "a", "input_suffix": "b"}, Api.LLAMA_CPP, "/infill").task is Task.CODE


def test_sampling_and_length_are_read() -> None:
    signals = chat("x" * 400, temperature=0.5, top_p=0.9, max_completion_tokens=7)
    assert (signals.temperature, signals.top_p, signals.max_tokens, signals.prompt_chars) == (0.5, 0.9, 7, 400)
    assert chat("hi").temperature is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning": {"effort": "low"}}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
    ],
)
def test_reasoning_is_read_in_every_dialect(fields: dict[str, Any], expected: bool | None) -> None:
    assert chat("hi", **fields).reasoning is expected


def test_agents_are_known_by_their_telltales() -> None:
    system = {"role": "system", "content": "You are Claude Code, a command line tool."}
    assert look({"messages": [system, {"role": "user", "content": "hi"}]}).agent == "claude-code"
    assert look({"system": "You are aider.", "messages": []}, Api.ANTHROPIC_MESSAGES).agent == "aider"
    assert chat("hi").agent == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the name of the river that flows through the city?", "en"),
        ("Was ist der Unterschied zwischen dem Wetter und dem Klima?", "de"),
        ("Quelle est la capitale du Canada et pourquoi ?", "fr"),
        ("¿Por qué el cielo es azul en el verano?", "es"),
        ("今天天气怎么样", "zh"),
        ("Переведи это", "ru"),
        ("12345", ""),
    ],
)
def test_the_language_is_told(text: str, code: str) -> None:
    assert chat(text).language == code


def test_images_are_noticed() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    assert chat([{"type": "text", "text": "What is this?"}, image]).images
    assert not chat([{"type": "text", "text": "What is this?"}]).images


def test_all_turns_of_a_conversation_share_its_hash() -> None:
    first = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello, I am Ada."}]
    more = [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Who am I?"}]
    assert look({"messages": first}).conversation == look({"messages": first + more}).conversation
    assert look({"messages": first}).conversation != chat("Hello, I am Ada.").conversation
    named = [chat(text, prompt_cache_key="k").conversation for text in ("a", "b")]
    assert named[0] == named[1]
    assert "Ada" not in repr(look({"messages": first}))


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
    instruction = "Rename the class to Store and print the whole file."
    assert chat(f"{instruction}\n{CODE}{far}").task is Task.EDIT
    assert chat(f"{CODE}{far}\n{instruction}").task is Task.EDIT
    assert chat(f"{far}\n{instruction}\n{CODE}\n{far}").tasks.get(Task.EDIT, 0) < 0.5
