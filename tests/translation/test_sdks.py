"""Both SDKs, with their own helpers, before providers that speak the other dialect."""

import json
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel
from tests.translation.conftest import StartProvider
from tests.translation.recorded import (
    CALL,
    CHAT_STREAM,
    COMPLETION,
    MESSAGE,
    MESSAGE_STREAM,
    block,
    chunk,
    completion_of,
    message_of,
    named_events,
    unnamed_events,
)

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION: Any = {"name": "get_weather", "description": "Weather of a city.", "parameters": SCHEMA}
SAID = "I'll look – 今日は?"
THOUGHT = "The user wants weather."


class City(BaseModel):
    """What structured answers hold."""

    city: str
    people: int


CITY = '{"city": "Zürich", "people": 440000}'


async def test_chat_before_anthropic(start_provider: StartProvider) -> None:
    provider = await start_provider("anthropic-api", MESSAGE, MESSAGE_STREAM)
    answer = await provider.openai.chat.completions.create(
        model="m",
        max_completion_tokens=500,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}],
        tools=[{"type": "function", "function": FUNCTION}],
        tool_choice="required",
        reasoning_effort="high",
    )
    assert provider.asked == {
        "model": "m",
        "max_tokens": 500,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Weather?"}]}],
        "tools": [{"name": "get_weather", "description": "Weather of a city.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
    }
    message = answer.choices[0].message
    assert (message.content, answer.choices[0].finish_reason) == (SAID, "tool_calls")
    assert message.tool_calls
    assert json.loads(message.tool_calls[0].function.arguments) == CALL  # type: ignore[union-attr]
    assert message.reasoning_content == THOUGHT  # type: ignore[attr-defined]
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (420, 64)
    assert answer.usage.prompt_tokens_details
    assert answer.usage.prompt_tokens_details.cached_tokens == 300
    observed = provider.gateway.outcome.observed
    assert (observed.prompt_tokens, observed.cached_tokens, observed.cache_write_tokens) == (120, 300, 20)


async def test_a_streamed_chat_before_anthropic(start_provider: StartProvider) -> None:
    provider = await start_provider("anthropic-api", MESSAGE, MESSAGE_STREAM)
    async with provider.openai.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "Weather?"}], stream_options={"include_usage": True}
    ) as stream:
        kinds = [event.type async for event in stream]
        answer = await stream.get_final_completion()
    message = answer.choices[0].message
    assert message.content == SAID
    assert message.tool_calls
    assert json.loads(message.tool_calls[0].function.arguments) == CALL
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (420, 64)
    assert "tool_calls.function.arguments.done" in kinds
    await provider.gateway.outcome_number(1)
    assert provider.gateway.outcome.observed.cache_write_tokens == 20


async def test_messages_before_openai(start_provider: StartProvider) -> None:
    provider = await start_provider("openai-api", COMPLETION, CHAT_STREAM)
    answer = await provider.anthropic.messages.create(
        model="m",
        max_tokens=500,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": "Weather?"}],
        tools=[{"name": "get_weather", "description": "Weather of a city.", "input_schema": SCHEMA}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
    )
    assert provider.asked == {
        "model": "m",
        "max_tokens": 500,
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather?"}],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
    }
    kinds = [one.type for one in answer.content]
    assert kinds == ["thinking", "text", "tool_use"]
    assert answer.content[0].thinking == THOUGHT  # type: ignore[union-attr]
    assert answer.content[1].text == SAID  # type: ignore[union-attr]
    assert answer.content[2].input == CALL  # type: ignore[union-attr]
    assert answer.stop_reason == "tool_use"
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (100, 300, 20)
    observed = provider.gateway.outcome.observed
    assert (observed.prompt_tokens, observed.cached_tokens, observed.cache_write_tokens) == (120, 300, 20)


async def test_streamed_messages_before_openai(start_provider: StartProvider) -> None:
    provider = await start_provider("openai-api", COMPLETION, CHAT_STREAM)
    async with provider.anthropic.messages.stream(
        model="m", max_tokens=500, messages=[{"role": "user", "content": "Weather?"}]
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        answer = await stream.get_final_message()
    assert provider.asked["stream_options"] == {"include_usage": True}
    assert text == SAID
    assert [one.type for one in answer.content] == ["thinking", "text", "tool_use"]
    assert answer.content[0].thinking == THOUGHT  # type: ignore[union-attr]
    assert answer.content[2].input == CALL  # type: ignore[union-attr]
    assert answer.stop_reason == "tool_use"
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 64)


@pytest.mark.parametrize("kind", ["openai-api", "anthropic-api"])
async def test_responses_before_both(kind: str, start_provider: StartProvider) -> None:
    is_openai = kind == "openai-api"
    provider = await start_provider(
        kind, COMPLETION if is_openai else MESSAGE, CHAT_STREAM if is_openai else MESSAGE_STREAM
    )
    asked: dict[str, Any] = {
        "model": "m",
        "instructions": "Be brief.",
        "input": "Weather?",
        "tools": [{"type": "function", "strict": False, **FUNCTION}],
        "max_output_tokens": 500,
    }
    answer = await provider.openai.responses.create(**asked)
    assert answer.output_text == SAID
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call"]
    assert json.loads(answer.output[2].arguments) == CALL
    assert answer.status == "completed"
    assert answer.usage
    assert (answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens) == (420, 300)
    assert answer.usage.output_tokens == 64
    async with provider.openai.responses.stream(**asked) as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        streamed = await stream.get_final_response()
    assert text == SAID
    assert [item.type for item in streamed.output] == ["reasoning", "message", "function_call"]
    assert json.loads(streamed.output[2].arguments) == CALL  # type: ignore[union-attr, arg-type]
    assert streamed.usage == answer.usage or not is_openai
    assert provider.asked["max_tokens"] == 500


async def test_structured_answers(start_provider: StartProvider) -> None:
    claude = await start_provider("anthropic-api", message_of(CITY))
    chatted = await claude.openai.chat.completions.parse(
        model="m", messages=[{"role": "user", "content": "Which?"}], response_format=City
    )
    assert chatted.choices[0].message.parsed == City.model_validate_json(CITY)
    wanted = claude.asked["output_config"]["format"]
    assert (wanted["type"], wanted["schema"]["required"]) == ("json_schema", ["city", "people"])
    responded = await claude.openai.responses.parse(model="m", input="Which?", text_format=City)
    assert responded.output_parsed == City.model_validate_json(CITY)


async def test_structured_messages(start_provider: StartProvider) -> None:
    gpt = await start_provider("openai-api", completion_of(CITY))
    answer = await gpt.anthropic.messages.parse(
        model="m", max_tokens=100, messages=[{"role": "user", "content": "Which?"}], output_format=City
    )
    assert answer.parsed_output == City.model_validate_json(CITY)
    wanted = gpt.asked["response_format"]["json_schema"]
    assert wanted["strict"] is True
    assert wanted["schema"]["required"] == ["city", "people"]


async def test_a_structured_stream(start_provider: StartProvider) -> None:
    events = named_events(
        {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
        *block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": CITY}),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    )
    provider = await start_provider("anthropic-api", MESSAGE, events)
    async with provider.openai.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "Which?"}], response_format=City
    ) as stream:
        answer = await stream.get_final_completion()
    assert answer.choices[0].message.parsed == City.model_validate_json(CITY)
    async with provider.openai.responses.stream(model="m", input="Which?", text_format=City) as responses:
        response = await responses.get_final_response()
    assert response.output_parsed == City.model_validate_json(CITY)


async def test_a_structured_stream_of_messages(start_provider: StartProvider) -> None:
    events = unnamed_events(chunk({"role": "assistant", "content": CITY}), chunk({}, "stop"), "[DONE]")
    provider = await start_provider("openai-api", COMPLETION, events)
    async with provider.anthropic.messages.stream(
        model="m", max_tokens=100, messages=[{"role": "user", "content": "Which?"}], output_format=City
    ) as stream:
        answer = await stream.get_final_message()
    assert answer.parsed_output == City.model_validate_json(CITY)


async def test_errors_are_said_in_the_clients_words(start_provider: StartProvider) -> None:
    async def refuses(received: Any, wire: Any) -> None:
        await wire.json({"type": "error", "error": {"type": "invalid_request_error", "message": "too many"}}, 400)

    provider = await start_provider("anthropic-api", refuses)
    with pytest.raises(openai.BadRequestError, match="too many") as caught:
        await provider.openai.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="logit_bias"):
        await provider.openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], logit_bias={"1": 2}
        )
    assert len(provider.engine.requests) == 1


async def test_what_chat_has_no_words_for_is_refused_in_anthropics(start_provider: StartProvider) -> None:
    provider = await start_provider("openai-api", COMPLETION)
    with pytest.raises(anthropic.BadRequestError, match="web_search"):
        await provider.anthropic.messages.create(
            model="m",
            max_tokens=9,
            messages=[{"role": "user", "content": "x"}],
            tools=[{"type": "web_search_20250305", "name": "web_search"}],
        )
    assert not provider.engine.requests


async def test_the_key_is_the_operators(start_provider: StartProvider) -> None:
    claude = await start_provider("anthropic-api", MESSAGE)
    await claude.openai.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    sent = claude.engine.requests[0].headers
    assert sent["x-api-key"] == "sk-operators-own-key"
    assert sent["anthropic-version"] == "2023-06-01"
    assert set(sent) == {"host", "content-length", "content-type", "user-agent", "x-api-key", "anthropic-version"}
    assert "clients-key" not in str(sent)
