"""A real engine that is asked in one API alone, so that clients of the others are translated, both ways."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pytest
from pydantic import BaseModel
from tests.conftest import EngineTable, Serving

MODEL = "smol"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
CALL_IT = f"Repeat after me: {CALL} Again: {CALL} Again: {CALL}"
"""A model of this size calls a tool when it is told every letter of the call, three times."""
WEATHER = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
GREEDY = {"temperature": 0}
"""As ``extra_body``: Anthropic's SDK has no such parameter any more, and its API takes the field."""
USER: list[Any] = [{"role": "user", "content": "Count to three."}]


class Thing(BaseModel):
    """What structured answers hold: few enough words for a small model."""

    size: Literal["small", "large"]
    is_round: bool


@pytest.fixture(scope="module")
def engines(embedded_engine: EngineTable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The same model twice: asked in chat, and in messages."""
    folder = tmp_path_factory.mktemp("translated")
    template = ("--chat-template-file", str(Path(__file__).parents[1] / "tools.jinja"))
    chat, messages = (embedded_engine(name, *template, threads=1) for name in ("chat", "messages"))
    file = folder / "paceline.toml"
    file.write_text(f'{chat}apis = ["openai-chat"]\n{messages}apis = ["anthropic-messages"]\n')
    with Serving("--config", str(file), folder=folder) as serving:
        yield serving


def claude(engines: Serving) -> anthropic.Anthropic:
    """Before the engine that speaks chat."""
    headers = {"x-paceline-lane": "chat"}
    return anthropic.Anthropic(base_url=engines.url, api_key="none", max_retries=0, default_headers=headers)


def oai(engines: Serving, lane: str) -> openai.OpenAI:
    """Before either of them."""
    headers = {"x-paceline-lane": lane}
    return openai.OpenAI(base_url=f"{engines.url}/v1", api_key="none", max_retries=0, default_headers=headers)


def test_messages_from_an_engine_that_speaks_chat(engines: Serving) -> None:
    client = claude(engines)
    whole = client.messages.create(model=MODEL, max_tokens=8, messages=USER, extra_body=GREEDY)
    with client.messages.stream(model=MODEL, max_tokens=8, messages=USER, extra_body=GREEDY) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    assert len(pieces) > 2
    assert whole.content[0].type == streamed.content[0].type == "text"
    assert whole.content[0].text == streamed.content[0].text == "".join(pieces)
    assert whole.stop_reason == streamed.stop_reason == "max_tokens"
    assert streamed.usage.output_tokens == 8
    assert streamed.usage.input_tokens + (streamed.usage.cache_read_input_tokens or 0) > 5


def test_chat_and_responses_from_an_engine_that_speaks_messages(engines: Serving) -> None:
    client = oai(engines, "messages")
    whole = client.chat.completions.create(model=MODEL, max_tokens=8, messages=USER, temperature=0)
    chunks = list(client.chat.completions.create(model=MODEL, max_tokens=8, messages=USER, temperature=0, stream=True))
    streamed = "".join([chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices])
    assert whole.choices[0].message.content == streamed
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "length"
    assert whole.usage
    assert whole.usage.completion_tokens == 8
    response = client.responses.create(model=MODEL, input="Count to three.", max_output_tokens=16, temperature=0)
    assert response.status == "incomplete"
    assert response.output_text.startswith(str(whole.choices[0].message.content)[:8])


def test_a_tools_call_and_its_result_in_messages(engines: Serving) -> None:
    tools: Any = [{"name": "weather", "description": "Weather of a city.", "input_schema": WEATHER}]
    asked: Any = [{"role": "user", "content": CALL_IT}]
    client = claude(engines)
    with client.messages.stream(
        model=MODEL, max_tokens=150, messages=asked, tools=tools, tool_choice={"type": "any"}, extra_body=GREEDY
    ) as stream:
        answer = stream.get_final_message()
    (call,) = [one for one in answer.content if one.type == "tool_use"][:1]
    assert (call.name, call.input, answer.stop_reason) == ("weather", {"city": "Oslo"}, "tool_use")
    asked.append({"role": "assistant", "content": [one.model_dump(exclude_none=True) for one in answer.content]})
    results = [
        {"type": "tool_result", "tool_use_id": one.id, "content": "sunny"}
        for one in answer.content
        if one.type == "tool_use"
    ]
    asked.append({"role": "user", "content": results})
    last = client.messages.create(model=MODEL, max_tokens=8, messages=asked, tools=tools, extra_body=GREEDY)
    assert last.usage.output_tokens <= 8


@pytest.mark.parametrize("lane", ["chat", "messages"])
def test_a_tools_call_in_responses(lane: str, engines: Serving) -> None:
    tools: Any = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}]
    asked: dict[str, Any] = {"model": MODEL, "max_output_tokens": 100, "input": CALL_IT, "tools": tools}
    with oai(engines, lane).responses.stream(**asked, tool_choice="required", temperature=0) as stream:
        *_, last = stream
    assert last.type in ("response.completed", "response.incomplete")  # a small model does not always find an end
    answer = last.response
    (call,) = [one for one in answer.output if one.type == "function_call"][:1]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})


def test_structured_answers_in_messages(engines: Serving) -> None:
    asked: Any = [{"role": "user", "content": "Make up a thing."}]
    answer = claude(engines).messages.parse(model=MODEL, max_tokens=80, messages=asked, output_format=Thing)
    assert isinstance(answer.parsed_output, Thing)
    response = oai(engines, "chat").responses.parse(model=MODEL, input="Make up a thing.", text_format=Thing)
    assert isinstance(response.output_parsed, Thing)
