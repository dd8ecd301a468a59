"""The way of a request, before engines that do as they are told."""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests import fake_engine
from tests.conftest import RunningGateway, StartEngine, StartGateway, lane
from tests.fake_engine import ANSWER, FakeEngine, Received, Script, Wire, event, token

from paceline.types import Measured

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ODD: list[Any] = [None, 5, "x", [], [None, 5, "x", [], {}], {"type": 5}, [{"role": 5, "content": [{"text": 5}]}]]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/completion", "/infill"]


def measured(running: RunningGateway, name: str) -> Measured:
    """Of the lane as it runs now."""
    now = running.gateway.fleet.lanes[name].state(None)
    return running.gateway.pipeline.router.knowledge.measured.get((now.fingerprint, name), Measured())


async def two_lanes(
    start_engine: StartEngine, start_gateway: StartGateway, script: Script = fake_engine.answer
) -> tuple[RunningGateway, FakeEngine, FakeEngine]:
    """A plain and an n-gram lane before two fake engines."""
    plain, ngram = await start_engine(script), await start_engine(script)
    running = await start_gateway(lane("plain", plain.url) + lane("ngram", ngram.url, "ngram"))
    return running, plain, ngram


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

    running, plain, ngram = await two_lanes(start_engine, start_gateway, script)
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


async def test_the_lane_follows_from_the_request(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, plain, ngram = await two_lanes(start_engine, start_gateway)
    story = await running.http.post("/v1/chat/completions", json=CHAT)
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    structured = await running.http.post("/v1/chat/completions", json=CHAT | {"response_format": schema})
    assert story.headers["x-paceline-lane"] == "plain"
    assert structured.headers["x-paceline-lane"] == "ngram"
    assert "json_schema" in structured.headers["x-paceline-reason"]
    assert (len(plain.requests), len(ngram.requests)) == (1, 1)


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


# Engines that fail


async def test_an_engine_that_cannot_be_reached_is_passed_over(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, plain, _ = await two_lanes(start_engine, start_gateway)
    await plain.stop()
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert answer.json() == ANSWER
    assert answer.headers["x-paceline-lane"] == "ngram"
    health = {one["lane"]: one["health"] for one in (await running.http.get("/paceline/lanes")).json()["lanes"]}
    assert health == {"plain": "down", "ngram": "up"}
    await plain.start(plain.port)
    async with asyncio.timeout(10):
        while (await running.http.post("/v1/chat/completions", json=CHAT)).headers["x-paceline-lane"] != "plain":
            await asyncio.sleep(0.05)


async def test_an_engine_lost_before_its_first_byte_is_passed_over_once(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        wire.die()

    running, plain, ngram = await two_lanes(start_engine, start_gateway)
    plain.script = script
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "ngram")
    ngram.script = script
    await asyncio.sleep(0.5)
    lost = await running.http.post("/v1/chat/completions", json=CHAT)
    assert lost.status_code == 502
    assert "plain was lost" in lost.json()["error"]["message"]
    assert "ngram was lost" in lost.json()["error"]["message"]


async def test_no_engine_at_all_is_said_in_the_apis_shape(start_gateway: StartGateway) -> None:
    running = await start_gateway(lane("plain", "http://127.0.0.1:9"))
    answer = await running.http.post("/v1/messages", json={"messages": []})
    assert answer.status_code == 503
    assert answer.json()["error"]["type"] == "overloaded_error"
    assert "plain is down" in answer.json()["error"]["message"]
    assert answer.headers["retry-after"] == "2"
    assert (await running.http.get("/health")).status_code == 503
    assert (await running.http.get("/props")).status_code == 503


@pytest.mark.parametrize("path", PATHS[:5])
@pytest.mark.parametrize("torn", [False, True], ids=["between events", "inside an event"])
async def test_an_engine_dying_in_a_stream_ends_it_with_an_error_event(
    path: str, torn: bool, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one") + (token("two")[:30] if torn else b""))
        await asyncio.sleep(0.05)
        wire.die()

    running, plain, ngram = await two_lanes(start_engine, start_gateway, script)
    answer = await running.http.post(path, json=CHAT | {"stream": True})
    assert answer.content.startswith(token("one"))
    last = answer.content.removeprefix(token("one"))
    named, _, data = last.rpartition(b"data: ")
    document = json.loads(data)
    if path == "/v1/messages":
        assert (named, document["type"], document["error"]["type"]) == (b"event: error\n", "error", "api_error")
    elif path == "/v1/responses":
        assert (named, document["type"]) == (b"event: error\n", "error")
    else:
        assert (named, document["error"]["type"]) == (b"", "server_error")
    assert b"lost in the middle" in data
    assert len(plain.requests) + len(ngram.requests) == 1  # never tried again after the first byte
    assert running.outcome.error
    assert measured(running, "plain").failures == 1


async def test_an_engine_dying_in_a_json_answer_is_a_502(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.head(200, {"content-type": "application/json", "content-length": "1000"})
        await wire.raw(b'{"half": ')
        wire.die()

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url))
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_lost")


async def test_a_large_answer_cut_short_is_not_taken_for_whole(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.head(200, {"content-type": "application/json", "content-length": "9000000"})
        await wire.raw(b"x" * 3_000_000)
        wire.die()

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url))
    with pytest.raises(httpx2.RemoteProtocolError):
        await running.http.post("/v1/chat/completions", json=CHAT)


async def test_garbage_instead_of_http_is_a_lost_engine(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.raw(b"\x00\x01 this is not HTTP\r\n\r\n")

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url))
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 502
    assert "not HTTP" in answer.json()["error"]["message"]


async def test_a_busy_engine_sends_the_request_on(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def busy(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "busy"}}, 429, {"retry-after": "7"})

    running, plain, ngram = await two_lanes(start_engine, start_gateway)
    plain.script = busy
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "ngram")
    ngram.script = busy
    refused = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
    assert refused.json() == {"error": {"message": "busy"}}
    await ngram.stop()
    set_aside = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (set_aside.status_code, set_aside.headers["retry-after"]) == (429, "7")
    assert set_aside.headers["x-paceline-lane"] == "plain"


# Clients that leave or are slow


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_frees_the_engine_at_once(
    streamed: bool, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def endless(received: Received, wire: Wire) -> None:
        if streamed:
            await wire.stream_head()
            await wire.chunk(token("one"))
        await asyncio.sleep(60)

    engine = await start_engine(endless)
    running = await start_gateway(lane("plain", engine.url, more='device = "cpu"'))
    client = running.gateway.fleet.engines["plain"].client
    task = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT | {"stream": streamed}))
    await until(lambda: engine.requests)
    await until(lambda: client.open_connections == 2)  # the request's, and that of the looks at its health
    task.cancel()
    await until(lambda: running.outcomes)
    assert (running.outcome.status, running.outcome.error) == (499, "the client left")
    assert running.gateway.fleet.engines["plain"].device.running == 0
    assert running.gateway.fleet.lanes["plain"].running == 0
    assert measured(running, "plain").failures == 0
    await until(lambda: client.open_connections <= 1)


async def test_a_client_that_leaves_the_queue_is_forgotten(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    go = asyncio.Event()

    async def script(received: Received, wire: Wire) -> None:
        await go.wait()
        await wire.json(ANSWER)

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url, more='device = "cpu"\nslots = 1'))
    first = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT))
    await until(lambda: engine.requests)
    second = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT))
    device = running.gateway.fleet.engines["plain"].device
    await until(lambda: device.waiting == 1)
    second.cancel()
    await until(lambda: device.waiting == 0)
    go.set()
    assert (await first).status_code == 200
    assert len(engine.requests) == 1


async def test_a_slow_reader_does_not_fill_memory(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    """The engine wants to send 200 MB to a client that reads nothing: it must be held up long before that."""
    sent = 0
    piece = token("x" * 65_000)

    async def flood(received: Received, wire: Wire) -> None:
        nonlocal sent
        await wire.stream_head()
        for _ in range(200 * 16):
            await wire.chunk(piece)
            sent += len(piece)

    engine = await start_engine(flood)
    running = await start_gateway(lane("plain", engine.url, more='device = "cpu"'))
    async with running.http.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}):
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.5)
        assert 0 < sent < 30_000_000  # what the kernel's and three programs' buffers hold
        device = running.gateway.fleet.engines["plain"].device
        await until(lambda: device.running == 0)  # and it does not keep the device from others


async def test_a_queue_that_is_full_is_said(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def never(received: Received, wire: Wire) -> None:
        await asyncio.sleep(60)

    engine = await start_engine(never)
    text = lane("plain", engine.url, more='device = "cpu"\nslots = 1') + '[[device]]\nname = "cpu"\nqueue_limit = 1\n'
    running = await start_gateway(text)
    held = [asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT)) for _ in range(2)]
    device = running.gateway.fleet.engines["plain"].device
    await until(lambda: device.waiting == 1)
    refused = await running.http.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 503
    assert "wait for the device already" in refused.json()["error"]["message"]
    assert int(refused.headers["retry-after"]) > 0
    for task in held:
        task.cancel()


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
    assert seen.prefill_s >= 0.09
    assert seen.decode_s >= 0.38
    assert seen.prefill_s + seen.decode_s <= running.outcome.total_s
    assert seen.drafted is None


# A changed configuration


async def test_reload_takes_up_what_changed_and_drops_no_stream(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    go = asyncio.Event()

    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one"))
        await go.wait()
        await wire.chunk(token("two"))
        await wire.end()

    kept, dropped, new = await start_engine(), await start_engine(script), await start_engine()
    running = await start_gateway(lane("kept", kept.url) + lane("dropped", dropped.url))
    supervisor = running.gateway.fleet.engines["kept"].supervisor
    stream = asyncio.create_task(
        running.http.post("/v1/chat/completions", json=CHAT | {"stream": True}, headers={"x-paceline-lane": "dropped"})
    )
    await until(lambda: dropped.requests)
    running.text = "server.port = 0\n" + lane("kept", kept.url) + lane("new", new.url, "ngram")
    changes = (await running.http.post("/paceline/reload")).json()
    assert changes == {
        "started": ["new"],
        "stopped": ["dropped"],
        "unchanged": ["kept"],
        "changed": ["server.health_interval_s", "routing.exploration"],
        "needs_restart": [],
    }
    assert running.gateway.fleet.engines["kept"].supervisor is supervisor
    await running.lanes_settle()
    assert list((await running.http.get("/health")).json()["lanes"]) == ["kept", "new"]
    go.set()
    assert (await stream).content == token("one") + token("two")


async def test_reload_of_a_wrong_file_changes_nothing(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("plain", engine.url))
    running.text += 'typo = "x"\n'
    answer = await running.http.post("/paceline/reload")
    assert answer.status_code == 422
    assert "test.toml:" in answer.json()["error"]["message"]
    assert "typo" in answer.json()["error"]["message"]
    assert (await running.http.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_a_gateway_that_stops_ends_its_streams_with_an_error_event(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one"))
        await asyncio.sleep(60)

    engine = await start_engine(script)
    running = await start_gateway("server.shutdown_grace_s = 0\n" + lane("plain", engine.url))
    stream = asyncio.create_task(running.http.post("/v1/messages", json=CHAT | {"stream": True}))
    await until(lambda: engine.requests)
    await asyncio.sleep(0.1)
    running.gateway.stop()
    answer = await stream
    assert answer.content.startswith(token("one") + b"event: error\n")
    assert b"the gateway is stopping" in answer.content


async def test_a_default_lane_that_never_came_up_does_not_take_the_others_along(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("default", "http://127.0.0.1:9") + lane("other", engine.url))
    bodies: list[dict[str, Any]] = [CHAT, {"messages": []}]
    for body in bodies:
        answer = await running.http.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "other")
    assert (await running.http.get("/anything")).status_code == 200


async def test_embeddings_wait_for_the_device_and_a_full_queue_is_said(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def never(received: Received, wire: Wire) -> None:
        await asyncio.sleep(60)

    engine = await start_engine(never)
    text = lane("plain", engine.url, more='device = "cpu"\nslots = 1') + '[[device]]\nname = "cpu"\nqueue_limit = 1\n'
    running = await start_gateway(text)
    held = [asyncio.create_task(running.http.post("/v1/embeddings", json={"input": "x"})) for _ in range(2)]
    device = running.gateway.fleet.engines["plain"].device
    await until(lambda: (device.running, device.waiting) == (1, 1))
    refused = await running.http.post("/v1/embeddings", json={"input": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_unavailable")
    assert len(engine.requests) == 1
    for task in held:
        task.cancel()
    await until(lambda: (device.running, device.waiting) == (0, 0))


async def test_nothing_is_left_behind(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    """After a few hundred mixed requests no exchange, connection or task remains."""
    running, plain, _ = await two_lanes(start_engine, start_gateway)
    tasks_before = gateway_tasks()
    await asyncio.gather(*(_mixed_request(running, number) for number in range(300)))
    await running.http.aclose()
    running.http = httpx2.AsyncClient(base_url=running.url, trust_env=False)
    await until(lambda: running.gateway.pipeline.in_flight == 0)
    await until(lambda: gateway_tasks() <= tasks_before)
    assert all(one.running == 0 and one.waiting == 0 for one in running.gateway.fleet.lanes.values())
    assert plain.connections <= 100


def gateway_tasks() -> int:
    """Tasks that run, without those of the fake engines' connections."""
    return sum("FakeEngine" not in repr(task.get_coro()) for task in asyncio.all_tasks())


async def _mixed_request(running: RunningGateway, number: int) -> None:
    body = CHAT | ({"tools": [{}]} if number % 2 else {})
    try:
        await running.http.post("/v1/chat/completions", json=body, timeout=0.001 if number % 10 == 0 else 30)
    except httpx2.TimeoutException:
        assert number % 10 == 0


async def test_an_engine_on_its_way_out_ends_with_the_gateway(start_gateway: StartGateway) -> None:
    """Its lane was dropped by a reload while a stream ran on it; the gateway stops before the stream ends."""
    command = [sys.executable, str(Path(__file__).parents[1] / "stand_in_server.py"), "--port", "{port}"]
    launched = f'[[engine]]\nname = "out"\nkind = "llama.cpp"\nlaunch = {json.dumps(command)}\n'
    running = await start_gateway(launched)
    handle = running.gateway.fleet.lanes["out"]
    pid = handle.engine.supervisor.pid
    assert pid
    handle.running += 1  # as if a stream were still on it
    running.text = "server.port = 0\n" + lane("other", "http://127.0.0.1:9")
    assert (await running.http.post("/paceline/reload")).json()["stopped"] == ["out"]
    await asyncio.sleep(0.2)
    assert psutil.pid_exists(pid)
    running.gateway.stop()
    await until(lambda: not psutil.pid_exists(pid))


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
