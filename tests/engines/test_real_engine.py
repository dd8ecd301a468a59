"""The promises that only a real engine can keep: the real SDKs, through the gateway, to llama.cpp."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import psutil
import pytest
from tests.conftest import ENGINE_KEY, Serving

MODEL = "smol"
CODE = "def add(left, right):\n    total = left + right\n    return total\n"
EDIT = f"Rename the function add to plus and print the whole file.\n```python\n{CODE * 3}```"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
CALL_IT = f"Repeat after me: {CALL} Again: {CALL} Again: {CALL}"
"""A model of this size calls a tool when it is told every letter of the call, three times."""
WEATHER = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}


@pytest.fixture
def oai(real_gateway: Serving) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{real_gateway.url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def claude(real_gateway: Serving) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=real_gateway.url, api_key="none", max_retries=0)


DRAFTING = {"x-paceline-lane": "ngram"}


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


# OpenAI's SDK


def test_openai_chat(oai: openai.OpenAI) -> None:
    raw = oai.chat.completions.with_raw_response.create(model=MODEL, messages=user("Say hello."), max_tokens=8)
    assert raw.headers["x-paceline-lane"] in ("plain", "ngram")
    assert raw.headers["x-paceline-reason"].startswith("chat ")
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.usage
    assert answer.usage.completion_tokens <= 8


def test_openai_chat_streamed_equals_the_whole(oai: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": user("Tell me a story."), "max_tokens": 40, "temperature": 0}
    asked["extra_body"] = {"cache_prompt": False}  # greedy text depends on how the prompt is batched
    whole = oai.chat.completions.create(**asked).choices[0].message.content
    chunks = list(oai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 40


def test_openai_json_schema_on_the_drafting_lane(oai: openai.OpenAI) -> None:
    raw = oai.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=user("Give a person with name and age."),
        max_tokens=80,
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}},
        extra_headers=DRAFTING,
    )
    assert raw.headers["x-paceline-lane"] == "ngram"
    person = json.loads(raw.parse().choices[0].message.content or "")
    assert set(person) == {"name", "age"}


def test_openai_tools(oai: openai.OpenAI) -> None:
    tool: Any = {
        "type": "function",
        "function": {"name": "weather", "description": "The weather in a city", "parameters": WEATHER},
    }
    raw = oai.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=user(CALL_IT),
        max_tokens=100,
        tools=[tool],
        tool_choice="required",
        temperature=0,
        extra_headers=DRAFTING,
    )
    assert raw.headers["x-paceline-lane"] == "ngram"
    calls = raw.parse().choices[0].message.tool_calls
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "weather"
    assert json.loads(calls[0].function.arguments)["city"]


def test_openai_logprobs_pass(oai: openai.OpenAI) -> None:
    answer = oai.chat.completions.create(
        model=MODEL, messages=user("Hi"), max_tokens=3, logprobs=True, top_logprobs=2, temperature=0
    )
    assert answer.choices[0].logprobs
    assert answer.choices[0].logprobs.content
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


def test_openai_completions(oai: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "prompt": "One, two, three,", "max_tokens": 8, "temperature": 0}
    whole = oai.completions.create(**asked).choices[0].text
    assert whole == "".join(chunk.choices[0].text for chunk in oai.completions.create(**asked, stream=True))


def test_openai_responses(oai: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "input": "Say hello.", "max_output_tokens": 8, "temperature": 0}
    whole = oai.responses.create(**asked).output_text
    assert whole
    events = list(oai.responses.create(**asked, stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole
    assert events[-1].type == "response.completed"


def test_openai_errors_are_the_sdks_own(oai: openai.OpenAI) -> None:
    assert oai.chat.completions.create(model="gpt-4", messages=user("hi"), max_tokens=4).choices
    with pytest.raises(openai.BadRequestError, match=r"parse|messages"):
        oai.chat.completions.create(model=MODEL, messages="hi")  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="no lane 'x'"):
        oai.chat.completions.create(model=MODEL, messages=user("hi"), extra_headers={"x-paceline-lane": "x"})
    assert [one.id for one in oai.models.list()] == [MODEL]


# Anthropic's SDK


def test_anthropic_messages(claude: anthropic.Anthropic) -> None:
    raw = claude.messages.with_raw_response.create(model=MODEL, messages=user("Say hello."), max_tokens=8)
    assert raw.headers["x-paceline-reason"].startswith("chat ")
    answer = raw.parse()
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens <= 8


def test_anthropic_messages_streamed(claude: anthropic.Anthropic) -> None:
    # this llama.cpp sends no message_start where the first token is only part of a character
    greedily: Any = {"model": MODEL, "max_tokens": 8, "extra_body": {"temperature": 0}}
    with claude.messages.stream(messages=user("Say hello."), **greedily) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text
    assert final.usage.output_tokens <= 8


def test_anthropic_tools(claude: anthropic.Anthropic) -> None:
    tool: Any = {"name": "weather", "description": "The weather in a city", "input_schema": WEATHER}
    raw = claude.messages.with_raw_response.create(
        model=MODEL,
        messages=user(CALL_IT),
        max_tokens=100,
        tools=[tool],
        tool_choice={"type": "any"},
        extra_body={"temperature": 0},
        extra_headers=DRAFTING,
    )
    assert raw.headers["x-paceline-lane"] == "ngram"
    uses = [block for block in raw.parse().content if block.type == "tool_use"]
    assert uses
    assert uses[0].input["city"]


def test_anthropic_errors_are_the_sdks_own(claude: anthropic.Anthropic) -> None:
    assert claude.messages.create(model="claude-haiku-4-5", messages=user("hi"), max_tokens=4).content
    with pytest.raises(anthropic.BadRequestError, match="no lane 'x'"):
        claude.messages.create(model=MODEL, messages=user("hi"), max_tokens=4, extra_headers={"x-paceline-lane": "x"})


# Byte for byte

REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": user(EDIT), "max_tokens": 24},
    "/v1/completions": {"prompt": CODE * 3, "max_tokens": 24},
    "/v1/responses": {"input": "Say hello.", "max_output_tokens": 12},
    "/v1/messages": {"messages": user("Say hello."), "max_tokens": 12},
    "/completion": {"prompt": CODE * 3, "n_predict": 24},
    "/infill": {"input_prefix": "def add(", "input_suffix": "return total", "n_predict": 8},
}
VOLATILE = re.compile(
    rb'"(?:id|item_id|created|created_at|completed_at|id_slot|tokens_cached|cache_n|cached_tokens|cache_read_input_tokens|input_tokens'
    rb'|prompt_n|(?:prompt|predicted)_(?:ms|per_token_ms|per_second))":(?:"[^"]*"|-?[\d.e+-]+)'
)
"""What two answers of one engine to the same request differ in."""


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("lane", ["plain", "ngram"])
def test_the_body_equals_the_engines(path: str, streamed: bool, lane: str, real_gateway: Serving) -> None:
    body = REQUESTS[path] | {"temperature": 0, "stream": streamed, "cache_prompt": False, "seed": 1}
    key = {"authorization": f"Bearer {ENGINE_KEY}"}
    direct = httpx2.post(real_gateway.engine_url(lane) + path, headers=key, json=body, timeout=60, trust_env=False)
    headers = {"x-paceline-lane": lane}
    routed = httpx2.post(real_gateway.url + path, json=body, headers=headers, timeout=60, trust_env=False)
    assert routed.status_code == direct.status_code == (501 if path == "/infill" else 200)
    assert VOLATILE.sub(b"", routed.content) == VOLATILE.sub(b"", direct.content)
    own = {name: value for name, value in routed.headers.items() if not name.startswith("x-paceline-")}
    not_passed = ("keep-alive", "connection", "access-control-allow-origin")  # who may read it, the gateway says
    expected = {name: value for name, value in direct.headers.items() if name not in not_passed}
    own.pop("connection", None)
    assert own.keys() == expected.keys()
    assert own["content-type"] == expected["content-type"]


# Measuring and choosing


def test_what_the_engine_reports_is_measured(real_gateway: Serving) -> None:
    def drafted() -> int:
        return next(one["measured"]["drafted"] or 0 for one in real_gateway.lanes() if one["lane"] == "ngram")

    before = drafted()
    for streamed in (False, True):
        body = {"messages": user(EDIT), "max_tokens": 80, "temperature": 0, "stream": streamed}
        url = f"{real_gateway.url}/v1/chat/completions"
        answer = httpx2.post(url, json=body, headers=DRAFTING, timeout=60, trust_env=False)
        assert answer.headers["x-paceline-lane"] == "ngram"
        assert drafted() > before
        before = drafted()
    measured = next(one["measured"] for one in real_gateway.lanes() if one["lane"] == "ngram")
    assert 0 < measured["acceptance"] <= 1
    assert measured["tokens_per_s"] > 1


def test_the_decision_learns_from_real_answers(real_gateway: Serving) -> None:
    """After some edits down both lanes it knows both, expects what was measured, and takes the better."""
    url = f"{real_gateway.url}/v1/chat/completions"
    for number in range(4):
        body = {"messages": user(f"{EDIT}\n# {number}"), "max_tokens": 64, "temperature": 0, "ignore_eos": True}
        for lane in ("plain", "ngram"):
            httpx2.post(url, json=body, headers={"x-paceline-lane": lane}, timeout=60, trust_env=False)
    body = {"messages": user(EDIT), "max_tokens": 64, "temperature": 0}
    explained = httpx2.post(f"{real_gateway.url}/paceline/explain/v1/chat/completions", json=body, trust_env=False)
    document = explained.json()
    assert document["signals"]["task"] == "edit"
    expected = {lane: one["ms_per_token"] for lane, one in document["predictions"].items()}
    measured = {one["lane"]: 1000 / one["measured"]["tokens_per_s"] for one in real_gateway.lanes()}
    for lane in ("plain", "ngram"):
        assert measured[lane] / 3 < expected[lane] < measured[lane] * 3
    assert document["predictions"]["ngram"]["relative_spread"] < 0.3
    assert re.match(r"edit [01]\.\d\d.*accept 0\.\d\d.*ms/token", document["decision"]["reason"])


def test_lanes_are_read_from_the_engines(real_gateway: Serving) -> None:
    for one in real_gateway.lanes():
        engine = one["engine"]
        assert (one["health"], one["problem"]) == ("up", None)
        assert (engine["models"], engine["slots"], engine["context_tokens"]) == ([MODEL], 2, 2048)
        assert engine["build"]
        assert engine["warnings"] == []


def test_both_lanes_map_the_same_file(real_gateway: Serving, model: Path) -> None:
    for one in real_gateway.lanes():
        maps = psutil.Process(one["engine"]["pid"]).memory_maps()
        assert any(entry.path == str(model) for entry in maps)


def test_the_rest_of_the_engine_is_there(real_gateway: Serving) -> None:
    tokens = httpx2.post(f"{real_gateway.url}/tokenize", json={"content": "hello there"}, trust_env=False).json()
    assert len(tokens["tokens"]) == 2
    assert httpx2.get(f"{real_gateway.url}/props", trust_env=False).json()["model_path"]


# Leaving


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_makes_the_slot_idle(streamed: bool, real_gateway: Serving) -> None:
    engine = real_gateway.engine_url("plain")

    async def busy() -> bool:
        slots = (await http.get(f"{engine}/slots", headers={"authorization": f"Bearer {ENGINE_KEY}"})).json()
        return any(slot["is_processing"] for slot in slots)

    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        client = openai.AsyncOpenAI(base_url=f"{real_gateway.url}/v1", api_key="none", max_retries=0)
        asked: Any = {"model": MODEL, "messages": user("Tell me a story."), "max_tokens": 1800, "stream": streamed}
        task = asyncio.create_task(
            client.chat.completions.create(
                **asked, extra_body={"ignore_eos": True}, extra_headers={"x-paceline-lane": "plain"}
            )
        )
        async with asyncio.timeout(20):
            while not await busy():
                await asyncio.sleep(0.02)
        if streamed:
            stream = await task
            assert await anext(aiter(stream))
            await stream.close()
        else:
            task.cancel()
        # llama.cpp looks once a second whether an unstreamed request is still wanted, and puts the look off while it
        # is asked other things (``server_response::recv_with_timeout``): so not too often. Left alone, it would decode
        # for twenty seconds.
        async with asyncio.timeout(15):
            while await busy():
                await asyncio.sleep(0.1 if streamed else 1.5)
        await client.close()
