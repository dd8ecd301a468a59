"""How requests end that no engine could serve, or that take too long: what the client gets, and what is kept of it."""

import asyncio
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from tests.conftest import StartEngine, StartGateway, chat, engine_settings, lane
from tests.fake_engine import ANSWER, ERROR, Received, Script, Wire, drops, error_in_200, event, status_500, token
from tests.patient import shortest_async_s, until

from paceline.configuration import parse
from paceline.serving.answering import ERROR_INSIDE, Refusal
from paceline.serving.attempts import Attempts
from paceline.serving.handles import EngineHandle, LaneHandle
from paceline.serving.plan import Plan
from paceline.serving.stored import MAX_IDS, Stored, StoredIds
from paceline.settings import Configuration
from paceline.wire.client import Client

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def answer(received: Received, wire: Wire) -> None:
    await wire.json(ANSWER)


async def hangs(received: Received, wire: Wire) -> None:
    await asyncio.sleep(60)


async def refuses(received: Received, wire: Wire) -> None:
    await wire.json(ERROR, 503)


async def keeps(received: Received, wire: Wire) -> None:
    await wire.json({"id": "resp_old"})


async def slowly_refuses(received: Received, wire: Wire) -> None:
    await asyncio.sleep(0.4)
    await wire.json(ERROR, 503)


async def slowly_answers(received: Received, wire: Wire) -> None:
    await asyncio.sleep(0.5)
    await wire.json(ANSWER)


async def endless_refusal(received: Received, wire: Wire) -> None:
    await wire.head(503, {"content-type": "application/json", "content-length": "1000"})
    await wire.raw(b"{")
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("first", "status", "error"),
    [
        (refuses, 503, "the engine answered 503"),
        (status_500, 500, "the engine answered 500"),
        (error_in_200, 200, ERROR_INSIDE),
    ],
)
async def test_a_refusal_that_was_set_aside_counts_as_its_own_engines(
    first: Script, status: int, error: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """The engine that was tried after it has another fingerprint; the outcome must not mix the two."""
    a, b = await start_engine(first), await start_engine(drops)
    running = await start_gateway(lane("a", a.url) + lane("b", b.url))
    reply = await running.http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == status
    assert reply.json() == ERROR
    assert reply.headers["x-paceline-lane"] == "a"
    outcome = await running.outcome_number(1)
    engines = running.gateway.fleet.engines
    assert (outcome.lane, outcome.fingerprint) == ("a", engines["a"].identity("m")[0])
    assert outcome.fingerprint != engines["b"].identity("m")[0]
    assert outcome.error == error
    assert outcome.failed == (("b", engines["b"].identity("m")[0]),)
    measured = running.gateway.pipeline.router.knowledge.measured
    assert set(measured) == {(engines[name].identity("m")[0], name) for name in "ab"}


async def test_a_refusal_that_does_not_end_is_given_up_by_its_silence(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(endless_refusal)
    running = await start_gateway("server.idle_timeout_s = 0.2\n" + lane("a", engine.url))
    reply = await running.http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 504
    assert "server.idle_timeout_s" in reply.json()["error"]["message"]


@pytest.mark.parametrize("what", ["before the head", "in the queue", "at the next engine"])
async def test_a_request_has_an_end_before_its_answer_begins(
    what: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """``total_timeout_s`` counts from the arrival on, whatever the request waits for."""
    slow = await start_engine(slowly_refuses if what == "at the next engine" else hangs)
    well = await start_engine(slowly_answers if what == "at the next engine" else answer)
    more = 'device = "cpu"' if what == "in the queue" else ""
    running = await start_gateway(
        "server.total_timeout_s = 0.6\n" + lane("a", slow.url, more=more) + lane("b", well.url, more=more)
    )
    headers = {} if what == "at the next engine" else {"x-paceline-lane": "a"}

    async def ask() -> None:
        reply = await running.http.post("/v1/chat/completions", json=CHAT, headers=headers)
        assert reply.status_code == 504
        assert "server.total_timeout_s" in reply.json()["error"]["message"]

    async def ask_behind_another() -> None:
        slow.requests.clear()
        first = asyncio.create_task(ask())
        await until(lambda: slow.requests)
        await asyncio.gather(first, ask())

    action = ask_behind_another if what == "in the queue" else ask
    assert await shortest_async_s(action, 1.0) < 1.0  # with 0.6 s of its own in each place it would take longer
    await until(lambda: running.gateway.pipeline.in_flight.requests == 0)
    fleet = running.gateway.fleet
    assert all(one.running == one.waiting == 0 for one in fleet.lanes.values())
    assert not any(engine.device.running for engine in fleet.engines.values())
    assert not any(engine.illness.is_ejected for engine in fleet.engines.values())


async def test_traces_that_fail_keep_the_record_from_nothing(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a defect of the exporter")

    monkeypatch.setattr("paceline.http.storage.Traces", lambda _: SimpleNamespace(record=fail, close=lambda: None))
    engine = await start_engine()
    running = await start_gateway('[evidence]\ntraces = "http://127.0.0.1:9/v1/traces"\n' + lane("a", engine.url))
    reply = await running.http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 200
    assert (await running.outcome_number(1)).status == 200
    assert running.gateway.pipeline.failures == {"traces": 1}


async def test_the_configuration_that_was_read_last_is_the_one_in_force(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """Two reloads at once, the first of which takes longer to read its file."""
    engine = await start_engine()
    running = await start_gateway(lane("old", engine.url))
    second_is_read = threading.Event()
    names = iter(("first", "second"))

    def load() -> Configuration:
        name = next(names)
        if name == "first":
            second_is_read.wait(0.3)
            time.sleep(0.1)
        else:
            second_is_read.set()
        return parse("server.port = 0\n" + lane(name, engine.url))

    running.gateway._load = load
    await asyncio.gather(running.gateway.reload(), running.gateway.reload())
    assert list(running.gateway.fleet.engines) == ["second"]


async def test_ids_that_were_asked_for_are_forgotten_like_others(start_engine: StartEngine) -> None:
    engines = [
        cast(
            EngineHandle,
            SimpleNamespace(
                name=name,
                is_up=True,
                settings=engine_settings(),
                key_headers=[],
                client=Client((await start_engine(keeps)).url),
            ),
        )
        for name in "ab"
    ]
    ids = StoredIds()
    for number in range(MAX_IDS):
        ids.note(b'{"id": "resp_%d"}' % number, "a")
    assert await ids.find(Stored("responses", "resp_old"), engines) == "a"
    assert ids.engine_of("resp_0") is None
    ids.note(b'{"id": "resp_1"}', "a")
    ids.note(b'{"id": "resp_new"}', "a")
    assert ids.engine_of("resp_1") == "a"
    assert ids.engine_of("resp_2") is None
    for engine in engines:
        engine.client.close()


async def test_a_reload_drops_no_request_that_is_passed_through(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    go = asyncio.Event()

    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(b"one")
        await go.wait()
        await wire.chunk(b"two")
        await wire.end()

    kept, dropped = await start_engine(), await start_engine(script)
    running = await start_gateway(lane("kept", kept.url) + lane("dropped", dropped.url))
    engine = running.gateway.fleet.engines["dropped"]
    passed = asyncio.create_task(
        running.http.post("/v1/embeddings", json={"input": "a"}, headers={"x-paceline-lane": "dropped"})
    )
    await until(lambda: dropped.requests)
    assert engine.in_flight == 1
    running.text = "server.port = 0\n" + lane("kept", kept.url)
    assert (await running.http.post("/paceline/reload")).json()["stopped"] == ["dropped"]
    assert (await running.http.post("/v1/embeddings", json={"input": "a"})).headers["x-paceline-lane"] == "kept"
    go.set()
    assert (await passed).content == b"onetwo"
    assert engine.in_flight == 0


@pytest.mark.slow
async def test_who_waits_for_another_engine_tells_nothing_of_the_one_that_failed(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt failed at once, and the request waits for an engine to come up: nobody is silent meanwhile."""
    monkeypatch.setattr("paceline.serving.attempt.expected_s", lambda *_: 0.0)
    engine = await start_engine(drops)
    running = await start_gateway(lane("a", engine.url))
    pipeline = running.gateway.pipeline
    left_to_try = pipeline._left_to_try

    async def waits(plan: Plan, attempts: Attempts, refusal: Refusal | None) -> Sequence[LaneHandle]:
        if attempts.failures:
            await asyncio.sleep(2.0)
            return ()
        return await left_to_try(plan, attempts, refusal)

    monkeypatch.setattr(pipeline, "_left_to_try", waits)
    reply = await running.http.post("/v1/chat/completions", json=CHAT)
    assert reply.status_code == 502
    counted = (await running.http.get("/metrics")).text
    assert 'paceline_engine_failures_total{engine="a",kind="lost"} 1.0' in counted
    assert 'paceline_engine_failures_total{engine="a",kind="silent"} 0.0' in counted


@pytest.mark.parametrize(
    ("path", "last", "is_whole"),
    [
        ("/v1/chat/completions", b"", False),
        ("/v1/chat/completions", b"data: [DONE]\n\n", True),
        ("/v1/chat/completions", event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), True),
        ("/v1/messages", b"", False),
        ("/v1/messages", b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        ("/v1/responses", b"", False),
        ("/v1/responses", b'event: response.completed\ndata: {"type":"response.completed"}\n\n', True),
        ("/completion", b'data: {"content":"","stop":false}\n\n', False),
        ("/completion", b'data: {"content":"","stop":true}\n\n', True),
        ("/v1/chat/completions", b'data: {"choices":[{"delta":{"content":"tw', False),
    ],
)
async def test_a_stream_that_ends_with_its_connection_is_whole_only_if_it_says_so(
    path: str, last: bytes, is_whole: bool, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def ends_by_closing(received: Received, wire: Wire) -> None:
        await wire.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        await wire.raw(token("one"))
        await asyncio.sleep(0.05)
        await wire.raw(last)
        await wire.close()
        raise ConnectionError

    running = await start_gateway(lane("a", (await start_engine(ends_by_closing)).url))
    answer = await running.http.post(path, json=chat(stream=True, input="hi", prompt="hi", max_tokens=5))
    assert answer.content.startswith(token("one") + last)
    assert (b"in the middle of its answer" in answer.content) is not is_whole
    assert (running.outcome.error is None) is is_whole
