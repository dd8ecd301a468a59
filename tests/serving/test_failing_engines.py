"""Engines that can not be reached or are lost: at once, midway, and all of them."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from tests.conftest import CHAT, PATHS, PLAIN_FIRST, StartEngine, StartGateway, lane, measured, two_lanes
from tests.fake_engine import ANSWER, Received, Wire, token
from tests.patient import PATIENCE_S, until


async def test_an_engine_that_cannot_be_reached_is_passed_over(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, plain, _ = await two_lanes(start_engine, start_gateway, more=PLAIN_FIRST)
    await plain.stop()
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert answer.json() == ANSWER
    assert answer.headers["x-paceline-lane"] == "ngram"
    health = {one["lane"]: one["health"] for one in (await running.http.get("/paceline/lanes")).json()["lanes"]}
    assert health == {"plain": "down", "ngram": "up"}
    await plain.start(plain.port)
    async with asyncio.timeout(PATIENCE_S):
        while (await running.http.post("/v1/chat/completions", json=CHAT)).headers["x-paceline-lane"] != "plain":
            await asyncio.sleep(0.05)


async def test_an_engine_lost_before_its_first_byte_is_passed_over_once(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        wire.die()

    running, plain, ngram = await two_lanes(start_engine, start_gateway, more=PLAIN_FIRST)
    plain.script = script
    answer = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "ngram")
    ngram.script = script
    await until(lambda: all(one.is_up for one in running.gateway.fleet.engines.values()))
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

    running, plain, ngram = await two_lanes(start_engine, start_gateway, script, more=PLAIN_FIRST)
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

    running, plain, ngram = await two_lanes(start_engine, start_gateway, more=PLAIN_FIRST)
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
