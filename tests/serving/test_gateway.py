"""The way of a request, before engines that do as they are told."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import CHAT, PATHS, PLAIN_FIRST, StartEngine, StartGateway, chat, lane, measured, two_lanes
from tests.fake_engine import ANSWER, Received, Wire, event, token

ODD: list[Any] = [None, 5, "x", [], [None, 5, "x", [], {}], {"type": 5}, [{"role": 5, "content": [{"text": 5}]}]]
TOLD_OF_A_REQUEST = set(
    "number id path model task client reason propensity predicted_ms_per_token drafts break_even_share lane status "
    "total_s queue_s decision_s first_byte_s observed beside drafted_beside at_s error answered fingerprint failed "
    "deliveries cancelled cost cost_is_estimate placed abandoned explored stream why".split()
)
"""Other people's programs read these by name, whatever the code calls them."""


# Bytes are sacred


@pytest.mark.parametrize("path", PATHS)
async def test_json_answers_pass_byte_for_byte(
    path: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    body = b'{ "odd":   "spacing", "unicode": "\\u00e9 \xc3\xa9", "number": 1.0e+5, "twice": 1, "twice": 2 }\n'

    async def script(received: Received, wire: Wire) -> None:
        await wire.json(body, headers={"x-engine": "yes"})

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url))
    answer = await running.http.post(path, json=CHAT)
    assert answer.content == body
    assert answer.headers["x-engine"] == "yes"
    assert answer.headers["x-paceline-lane"] == "plain"
    assert engine.requests[0].target == path


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("border", [1, 7, 64, 100_000])
async def test_streams_pass_byte_for_byte_whatever_the_chunk_borders(
    path: str, border: int, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    stream = b": ping\n\n" + token("caf\u00e9") + b"event: x\r\ndata: 1\r\n\r\n" + b"data: [DONE]\n\ndata: no end"

    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        for at in range(0, len(stream), border):
            await wire.chunk(stream[at : at + border])
        await wire.end()

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url))
    answer = await running.http.post(path, json=CHAT | {"stream": True})
    assert answer.content == stream
    assert answer.headers["content-type"] == "text/event-stream"


async def test_the_request_reaches_the_engine_unchanged(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("plain", engine.url))
    body = b'{"messages" : [], "unknown_field":{"deep":[1, 2.50, null]},\n "model":"m"}'
    headers = {"authorization": "Bearer client-key", "x-custom": "kept", "x-paceline-lane": "plain"}
    await running.http.post("/v1/chat/completions?beta=true", content=body, headers=headers)
    received = engine.requests[0]
    assert received.body == body
    assert received.target == "/v1/chat/completions?beta=true"
    assert received.headers["authorization"] == "Bearer client-key"
    assert received.headers["x-custom"] == "kept"
    assert "x-paceline-lane" not in received.headers


async def test_tokens_are_relayed_as_they_arrive(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    seen = asyncio.Event()

    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one"))
        await seen.wait()  # the second token is only made once the first one has come through
        await wire.chunk(token("two"))
        await wire.end()

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url))
    async with (
        asyncio.timeout(10),
        running.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as answer,
    ):
        pieces = answer.aiter_raw()
        assert await anext(pieces) == token("one")
        seen.set()
        assert await anext(pieces) == token("two")


async def test_an_engines_own_errors_pass_unchanged(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "context too small"}}, 400)

    running, plain, ngram = await two_lanes(start_engine, start_gateway, script, more=PLAIN_FIRST)
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "context too small"}})
    assert len(plain.requests) + len(ngram.requests) == 1
    assert (measured(running, "plain").requests, measured(running, "plain").failures) == (1, 0)  # the client's mistake


async def test_a_large_answer_passes(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    body = json.dumps({"text": "x" * 5_000_000}).encode()

    async def script(received: Received, wire: Wire) -> None:
        await wire.json(body)

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url))
    assert (await running.http.post("/v1/chat/completions", json=CHAT)).content == body


# Choosing


async def test_the_lane_follows_from_the_request_and_what_was_learned(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """By lookups, structured answers take 12 ms rather than 20, and others 30."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    structured = chat("Extract all names from this text: Ann met Bob.", model="m", response_format=schema)

    async def plainly(received: Received, wire: Wire) -> None:
        await wire.json(ANSWER | {"timings": {"predicted_n": 21, "predicted_ms": 20.0}})

    async def looking_up(received: Received, wire: Wire) -> None:
        predicted_ms = 12.0 if "response_format" in received.json else 30.0
        await wire.json(ANSWER | {"timings": {"predicted_n": 21, "predicted_ms": predicted_ms}})

    plain, ngram = await start_engine(plainly), await start_engine(looking_up)
    shared = 'device = "gpu0"'
    running = await start_gateway(
        lane("plain", plain.url, more=shared) + lane("ngram", ngram.url, "ngram", more=shared)
    )
    for _ in range(8):
        for body in (CHAT, structured):
            for name in ("plain", "ngram"):
                await running.http.post("/v1/chat/completions", json=body, headers={"x-paceline-lane": name})
    await running.outcome_number(32)
    chosen = [await running.http.post("/v1/chat/completions", json=body) for body in (CHAT, structured)]
    assert [answer.headers["x-paceline-lane"] for answer in chosen] == ["plain", "ngram"]
    assert "json_schema" in chosen[1].headers["x-paceline-reason"]
    assert (len(plain.requests), len(ngram.requests)) == (17, 17)


async def test_a_header_forces_the_lane(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, _, ngram = await two_lanes(start_engine, start_gateway)
    answer = await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "ngram"})
    assert answer.headers["x-paceline-lane"] == "ngram"
    assert len(ngram.requests) == 1
    unknown = await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "nope"})
    assert unknown.status_code == 400
    assert "plain, ngram" in unknown.json()["error"]["message"]


async def test_a_model_chooses_among_its_own_lanes(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    small, large = await start_engine(models=("small",)), await start_engine(models=("large",))
    running = await start_gateway(lane("a", small.url) + lane("b", large.url))
    for model, name in (("small", "a"), ("large", "b")):
        answer = await running.http.post("/v1/chat/completions", json=CHAT | {"model": model})
        assert answer.headers["x-paceline-lane"] == name
    listed = await running.http.get("/v1/models")
    assert [entry["id"] for entry in listed.json()["data"]] == ["small", "large"]
    assert (await running.http.get("/v1/models/large")).json()["id"] == "large"
    without = await running.http.post("/v1/chat/completions", json={"messages": []})
    assert without.headers["x-paceline-lane"] == "a"
    wrong_lane = await running.http.post(
        "/v1/chat/completions", json=CHAT | {"model": "small"}, headers={"x-paceline-lane": "b"}
    )
    assert wrong_lane.status_code == 404


async def test_routing_that_fails_does_not_break_a_request(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, _, _ = await two_lanes(start_engine, start_gateway)

    def broken(*_: object) -> object:
        raise RuntimeError("a defect")

    for part in ("inspect", "decide", "learn"):
        monkeypatch.setattr(f"paceline.routing.router.{part}", broken)
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert answer.json() == ANSWER
    assert answer.headers["x-paceline-lane"] == "plain"
    told = (await running.http.get("/paceline/lanes")).json()
    assert told["routing_failures"] == {"inspection": 1, "decision": 1, "learning": 1}


# Bad input


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b'{"model": "m", "messages": [', "line 1, column 29"),
        (b'{"a": 1,\n "b": x}', "line 2, column 7"),
        (b"", "not valid JSON"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[1, 2]", "an array, not a JSON object"),
        (b"null", "null, not a JSON object"),
        (b'{"model": "unknown"}', "there are: m"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/completion"])
async def test_bad_bodies_get_a_clear_answer(
    path: str, body: bytes, part: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway("server.strict_models = true\n" + lane("plain", engine.url))
    answer = await running.http.post(path, content=body)
    assert answer.status_code == (404 if b"unknown" in body else 400)
    document = answer.json()
    assert part in document["error"]["message"]
    assert (document.get("type") == "error") == (path == "/v1/messages")
    assert engine.requests == []


async def test_a_body_over_the_limit_is_refused(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    running = await start_gateway("server.max_body_bytes = 2000\n" + lane("plain", engine.url))
    assert (await running.http.post("/v1/chat/completions", content=b"x" * 2001)).status_code == 413

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    undeclared = await running.http.post("/v1/chat/completions", content=pieces())
    assert undeclared.status_code == 413
    assert "2000 bytes" in undeclared.json()["error"]["message"]


async def test_odd_fields_reach_the_engine_and_no_further(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """What a field means is the engine's to judge; inspection must live with anything."""
    running, plain, ngram = await two_lanes(start_engine, start_gateway)
    for field in (
        "messages",
        "prompt",
        "input",
        "tools",
        "tool_choice",
        "response_format",
        "text",
        "system",
        "max_tokens",
    ):
        for value in ODD:
            answer = await running.http.post("/v1/responses", json={field: value})
            assert answer.status_code == 200
    assert running.gateway.pipeline.failures == {}
    assert len(plain.requests) + len(ngram.requests) == 63


async def test_keys_are_asked_for(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    running = await start_gateway(
        'server.api_keys = ["one", "two"]\n' + lane("plain", engine.url, more='api_key = "engine-key"')
    )
    assert (await running.http.get("/health")).status_code == 200
    for headers in ({}, {"authorization": "Bearer three"}, {"x-api-key": ""}):
        refused = await running.http.post("/v1/messages", json=CHAT, headers=headers)
        assert refused.status_code == 401
        assert refused.json()["error"]["type"] == "authentication_error"
    for headers in ({"authorization": "Bearer two"}, {"x-api-key": "one"}):
        assert (await running.http.post("/v1/messages", json=CHAT, headers=headers)).status_code == 200
    assert {received.headers["authorization"] for received in engine.requests} == {"Bearer engine-key"}
    assert all("x-api-key" not in received.headers for received in engine.requests)


# The rest


async def test_everything_else_passes_through(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def echo(received: Received, wire: Wire) -> None:
        await wire.json({"method": received.method, "target": received.target, "body": received.body.decode()}, 201)

    running, plain, ngram = await two_lanes(start_engine, start_gateway, echo)
    answer = await running.http.put("/some/thing?x=%2F", content=b"not json")
    assert (answer.status_code, answer.json()) == (
        201,
        {"method": "PUT", "target": "/some/thing?x=%2F", "body": "not json"},
    )
    assert (await running.http.post("/v1/embeddings", json={"input": "x"})).headers["x-paceline-lane"] == "plain"
    forced = await running.http.get("/slots", headers={"x-paceline-lane": "ngram"})
    assert forced.headers["x-paceline-lane"] == "ngram"
    assert (len(plain.requests), len(ngram.requests)) == (2, 1)


async def test_what_an_engine_did_not_report_is_missing(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def silent(received: Received, wire: Wire) -> None:
        await wire.json({"choices": []})

    engine = await start_engine(silent)
    running = await start_gateway(lane("plain", engine.url))
    await running.http.post("/v1/chat/completions", json=CHAT)
    one = (await running.http.get("/paceline/lanes")).json()["lanes"][0]
    assert one["measured"]["requests"] == 1
    assert {
        one["measured"][name] for name in ("decode_tokens", "decode_s", "drafted", "tokens_per_s", "acceptance")
    } == {None}
    assert (one["engine"]["build"], one["engine"]["slots"], one["strategy"]["n_max"]) == (None, None, None)


async def test_a_stream_is_measured_by_usage_and_clock(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        for _ in range(5):
            await asyncio.sleep(0.1)
            await wire.chunk(token("x"))
        await wire.chunk(event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}))
        await wire.end()

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url))
    await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    seen = (await running.outcome_number(1)).observed
    assert (seen.prompt_tokens, seen.completion_tokens, seen.decode_tokens) == (7, 5, 4)
    assert seen.prefill_s is not None
    assert seen.decode_s is not None
    assert 0.49 <= seen.prefill_s + seen.decode_s <= running.outcome.total_s
    assert min(seen.prefill_s, seen.decode_s) > 0
    assert seen.drafted is None


async def test_the_last_requests_are_told_without_their_text(
    start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("plain", engine.url))
    asked = {"messages": [{"role": "user", "content": "a secret"}]}
    for number in range(3):
        await running.http.post("/v1/chat/completions", json=asked, headers={"x-request-id": f"mine-{number}"})
    await running.outcome_number(3)
    told = (await running.http.get("/paceline/requests")).json()
    assert told["last"] == 3
    assert [(entry["number"], entry["id"], entry["lane"]) for entry in told["requests"]] == [
        (number + 1, f"mine-{number}", "plain") for number in range(3)
    ]
    assert set(told["requests"][0]) == TOLD_OF_A_REQUEST
    assert "secret" not in str(told)
    later = (await running.http.get("/paceline/requests?after=2")).json()
    assert [entry["id"] for entry in later["requests"]] == ["mine-2"]
    assert (await running.http.get("/paceline/requests?after=x")).status_code == 400


async def test_a_request_may_ask_not_to_be_learned_from(start_gateway: StartGateway, start_engine: StartEngine) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("plain", engine.url))
    for learn in ("no", "yes"):
        await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-learn": learn})
        assert measured(running, "plain").requests == (learn == "yes")
    assert "x-paceline-learn" not in engine.requests[-1].headers
    refused = await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-learn": "maybe"})
    assert refused.status_code == 400
    assert "x-paceline-learn" in refused.text


async def test_metrics_for_prometheus(start_gateway: StartGateway, start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        if b"fail" in received.body:
            await wire.json({"error": {"message": "no"}}, status=500)
        else:
            await wire.json(
                ANSWER | {"timings": {"predicted_n": 21, "predicted_ms": 1000.0, "draft_n": 9, "draft_n_accepted": 6}}
            )

    running, _, _ = await two_lanes(start_engine, start_gateway, script)
    for text in ("edit", "edit", "fail"):
        asked = {"model": "m", "messages": [{"role": "user", "content": text}]}
        await running.http.post("/v1/chat/completions", json=asked, headers={"x-paceline-lane": "ngram"})
    await running.outcome_number(3)
    answer = await running.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: defaultdict[tuple[str, str | None, str | None], float] = defaultdict(float)
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name, sample.labels.get("lane"), sample.labels.get("status")] += sample.value
    assert found["paceline_requests_total", "ngram", "200"] == 2
    assert found["paceline_requests_total", "ngram", "500"] == 1
    assert found["paceline_draft_tokens_total", "ngram", None] == 18
    assert found["paceline_accepted_tokens_total", "ngram", None] == 12
    assert found["paceline_decode_seconds_total", "ngram", None] == 2
    assert found["paceline_request_duration_seconds_count", "ngram", None] == 2
    assert found["paceline_decision_duration_seconds_count", None, None] == 3
    assert found["paceline_lane_up", "plain", None] == 1
    assert found["paceline_lane_requests_running", "plain", None] == 0
    assert not [name for name, lane, _ in found if lane == "plain" and name.startswith("paceline_draft")]
