"""Engines that are up but fail: who is asked instead, how often, and when they are used again."""

import asyncio
import json
import socket

import pytest
from tests.conftest import CHAT, RunningGateway, StartEngine, StartGateway, chat, lane
from tests.fake_engine import (
    ANSWER,
    ERROR,
    FakeEngine,
    Received,
    Script,
    Wire,
    drops,
    error_in_200,
    event,
    status_500,
    token,
)
from tests.patient import until

from paceline.http.routes import GENERATION
from paceline.serving import illness, patience
from paceline.serving.attempt import MAX_SET_ASIDE_BYTES
from paceline.serving.attempts import MAX_DELIVERIES, Attempts
from paceline.serving.errors import EngineLost, NoLane
from paceline.serving.failure import Failure
from paceline.serving.illness import FAILURES_IN_A_ROW, Illness
from paceline.serving.trial import tiny_request
from paceline.types import Api


async def answer(received: Received, wire: Wire) -> None:
    """Well, streamed or not."""
    if received.json.get("stream"):
        await wire.stream_head()
        await wire.chunk(token("one") + token("two") + event(b"[DONE]"))
        await wire.end()
    else:
        await wire.json(ANSWER)


async def status_502(received: Received, wire: Wire) -> None:
    await wire.json(b"<html>bad gateway</html>", 502)


async def error_event(received: Received, wire: Wire) -> None:
    await wire.stream_head()
    await wire.chunk(event(ERROR))
    await wire.end()


async def half_an_answer(received: Received, wire: Wire) -> None:
    await wire.head(200, {"content-type": "application/json", "content-length": "1000"})
    await wire.raw(b'{"choices": [')
    wire.die()
    raise ConnectionError


async def garbage(received: Received, wire: Wire) -> None:
    await wire.raw(b"\x00\x01 this is no HTTP\r\n\r\n")


async def hangs(received: Received, wire: Wire) -> None:
    await asyncio.sleep(60)


async def hangs_after_the_head(received: Received, wire: Wire) -> None:
    await wire.stream_head()
    await asyncio.sleep(60)


JSON_ILLS: dict[str, Script] = {
    "500": status_500,
    "502": status_502,
    "an error in a 200": error_in_200,
    "a lost connection": drops,
    "half an answer": half_an_answer,
    "garbage": garbage,
    "silence": hangs,
}
STREAM_ILLS: dict[str, Script] = {
    "500": status_500,
    "an error event": error_event,
    "a lost connection": drops,
    "silence": hangs,
    "silence after the head": hangs_after_the_head,
}


async def ill_and_well(
    ill: Script, start_engine: StartEngine, start_gateway: StartGateway, first_byte_timeout_s: float = 30.0
) -> tuple[RunningGateway, FakeEngine, FakeEngine]:
    """The ill one is the default lane, so that it is decided on until it is known to be ill."""
    sick, well = await start_engine(ill), await start_engine(answer)
    running = await start_gateway(
        f"server.first_byte_timeout_s = {first_byte_timeout_s}\n" + lane("ill", sick.url) + lane("well", well.url)
    )
    return running, sick, well


async def is_ejected(running: RunningGateway, engine: str) -> bool:
    return running.gateway.fleet.engines[engine].illness.is_ejected


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "ill",
    [
        pytest.param(ill, marks=pytest.mark.slow) if "silence" in ill else ill
        for ill in sorted({*JSON_ILLS, *STREAM_ILLS})
    ],
)
async def test_nobody_notices_an_ill_engine_while_another_is_well(
    ill: str,
    stream: bool,
    start_engine: StartEngine,
    start_gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = (STREAM_ILLS if stream else JSON_ILLS).get(ill)
    if script is None:
        pytest.skip("not an illness of this kind of answer")
    monkeypatch.setattr(patience, "MIN_TOKENS_PER_S", 1e9)  # so that an answer that is no stream is given up, too
    timeout_s = 1.0 if "silence" in ill else 30.0
    running, sick, well = await ill_and_well(script, start_engine, start_gateway, timeout_s)
    for _ in range(FAILURES_IN_A_ROW + 5):
        reply = await running.http.post("/v1/chat/completions", json=CHAT | {"stream": stream})
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-paceline-lane"] == "well"
        assert b"error" not in reply.content
    assert len(sick.requests) == FAILURES_IN_A_ROW  # then it is left alone
    assert await is_ejected(running, "ill")
    assert len(well.requests) == FAILURES_IN_A_ROW + 5


async def test_an_ejected_engine_is_let_in_by_a_request_of_our_own(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(illness, "EJECTION_S", (0.05, 0.05))
    is_ill = True

    async def script(received: Received, wire: Wire) -> None:
        await (status_500 if is_ill else answer)(received, wire)

    running, sick, _ = await ill_and_well(script, start_engine, start_gateway)
    for _ in range(FAILURES_IN_A_ROW):
        await running.http.post("/v1/chat/completions", json=CHAT)
    await until(lambda: len(sick.requests) >= FAILURES_IN_A_ROW + 2)  # trials, which it fails
    assert await is_ejected(running, "ill")
    tried = sick.requests[-1].json
    assert tried["max_tokens"] == 2
    assert tried["model"] == "m"
    is_ill = False
    await until(lambda: not running.gateway.fleet.engines["ill"].illness.is_ejected)
    reply = await running.http.post("/v1/chat/completions", json=CHAT)
    assert reply.headers["x-paceline-lane"] == "ill"
    assert reply.status_code == 200


async def test_a_clients_own_mistake_is_no_illness(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def refuses(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "max_tokens is too large"}}, 400)

    running, sick, well = await ill_and_well(refuses, start_engine, start_gateway)
    for _ in range(10):
        assert (await running.http.post("/v1/chat/completions", json=CHAT)).status_code == 400
    assert not await is_ejected(running, "ill")
    assert not well.requests
    assert len(sick.requests) == 10


async def test_an_engine_is_used_though_ill_where_there_is_no_other(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(status_500)
    running = await start_gateway(lane("only", engine.url))
    for number in range(8):
        reply = await running.http.post("/v1/chat/completions", json=CHAT)
        assert (reply.status_code, reply.json()) == (500, ERROR)
        assert len([one for one in engine.requests if one.json.get("max_tokens") is None]) == number + 1


@pytest.mark.parametrize(
    "ill", ["500", "a lost connection", "garbage", pytest.param("silence", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("engines", [1, 4])
@pytest.mark.parametrize("idle", [0, 8])
async def test_a_poison_request_reaches_two_engines_at_most_whatever_connections_are_idle(
    ill: str,
    engines: int,
    idle: int,
    start_engine: StartEngine,
    start_gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "MIN_TOKENS_PER_S", 1e9)

    async def poisoned(received: Received, wire: Wire) -> None:
        if b"poison" in received.body:
            await JSON_ILLS[ill](received, wire)
        else:
            await asyncio.sleep(0.05)
            await wire.json(ANSWER)

    started = [await start_engine(poisoned) for _ in range(engines)]
    tables = "".join(lane(f"e{number}", engine.url) for number, engine in enumerate(started))
    timeout_s = 1.0 if ill == "silence" else 30.0
    running = await start_gateway(f"server.first_byte_timeout_s = {timeout_s}\n" + tables)
    names = [f"e{number % engines}" for number in range(idle * engines)]
    await asyncio.gather(
        *(running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": name}) for name in names)
    )
    before = sum(len(engine.requests) for engine in started)
    poison = CHAT | {"messages": [{"role": "user", "content": "poison"}]}
    reply = await running.http.post("/v1/chat/completions", json=poison)
    assert reply.status_code >= 500
    delivered = sum(len(engine.requests) for engine in started) - before
    assert 1 <= delivered <= MAX_DELIVERIES
    others = await asyncio.gather(*(running.http.post("/v1/chat/completions", json=CHAT) for _ in range(5)))
    assert [other.status_code for other in others] == [200] * 5
    if engines > 1 or ill in ("500", "garbage"):
        assert not any([await is_ejected(running, name) for name in running.gateway.fleet.engines])


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_without_end_keeps_its_status(
    stream: bool, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def quotes(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "can't parse: " + "x" * 2 * MAX_SET_ASIDE_BYTES}}, 500)

    engine = await start_engine(quotes)
    running = await start_gateway(lane("only", engine.url))
    reply = await running.http.post("/v1/chat/completions", json=CHAT | {"stream": stream})
    assert reply.status_code == 500
    assert "the engine answered 500" in reply.json()["error"]["message"]
    assert len(engine.requests) == 1


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/pull", "/models/load"])
async def test_what_is_passed_through_is_sent_once(
    path: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await (answer if received.target == "/v1/chat/completions" else drops)(received, wire)

    engines = [await start_engine(script), await start_engine(script)]
    running = await start_gateway(lane("a", engines[0].url) + lane("b", engines[1].url))
    await asyncio.gather(*(running.http.post("/v1/chat/completions", json=CHAT) for _ in range(8)))
    reply = await running.http.post(path, json={"model": "m"})
    assert reply.status_code == 502
    assert len([one for engine in engines for one in engine.requests if one.target == path]) == 1


async def test_a_stream_that_breaks_ends_with_an_error_event_and_counts(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def breaks(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one"))
        wire.die()
        raise ConnectionError

    running, _, _ = await ill_and_well(breaks, start_engine, start_gateway)
    for _ in range(FAILURES_IN_A_ROW):
        reply = await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
        assert reply.content.startswith(token("one"))
        assert (
            json.loads(reply.content.removeprefix(token("one")).removeprefix(b"data: "))["error"]["code"]
            == "engine_lost"
        )
    reply = await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert reply.headers["x-paceline-lane"] == "well"
    metrics = (await running.http.get("/metrics")).text
    assert f'paceline_engine_failures_total{{engine="ill",kind="lost"}} {FAILURES_IN_A_ROW}.0' in metrics


@pytest.mark.slow
async def test_silence_within_a_stream_ends_it(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def pauses(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one"))
        for _ in range(6):  # pings are life
            await asyncio.sleep(0.3)
            await wire.chunk(b": ping\n\n")
        await asyncio.sleep(60)

    engine = await start_engine(pauses)
    running = await start_gateway("server.idle_timeout_s = 1.2\n" + lane("a", engine.url))
    reply = await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert reply.content.count(b": ping\n\n") == 6
    assert b"server.idle_timeout_s" in reply.content


async def test_a_request_has_an_end(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def endless(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        while True:
            await wire.chunk(token("one"))
            await asyncio.sleep(0.05)

    engine = await start_engine(endless)
    running = await start_gateway("server.total_timeout_s = 1.5\n" + lane("a", engine.url))
    reply = await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert b"server.total_timeout_s" in reply.content
    assert reply.content.startswith(token("one"))


async def test_the_queue_has_an_end(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    a, b = await start_engine(hangs), await start_engine(answer)
    more = 'device = "cpu"'
    running = await start_gateway(
        "server.queue_timeout_s = 0.3\n" + lane("a", a.url, more=more) + lane("b", b.url, more=more)
    )
    first = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "a"}))
    await until(lambda: a.requests)
    reply = await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "b"})
    assert reply.status_code == 503
    assert "server.queue_timeout_s" in reply.json()["error"]["message"]
    assert "retry-after" in reply.headers
    first.cancel()


async def test_an_engine_that_hangs_with_its_devices_turn_loses_it(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.serving.attempt.MIN_STALLED_S", 0.3)
    monkeypatch.setattr(patience, "MIN_STALLED_S", 0.3)
    monkeypatch.setattr(patience, "MIN_TOKENS_PER_S", 1e9)
    a, b = await start_engine(hangs), await start_engine(answer)
    more = 'device = "cpu"'
    running = await start_gateway(lane("a", a.url, more=more) + lane("b", b.url, more=more))
    first = asyncio.create_task(running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "a"}))
    await until(lambda: a.requests)
    reply = await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "b"})
    assert reply.status_code == 200
    assert not first.done()
    first.cancel()


@pytest.mark.slow
async def test_clients_that_leave_an_engine_after_long_silence_tell_of_it(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    is_ill = asyncio.Event()
    timings = {"timings": {"prompt_n": 5, "prompt_ms": 5.0, "predicted_n": 8, "predicted_ms": 20.0}}

    async def timed(received: Received, wire: Wire) -> None:
        if is_ill.is_set():
            await hangs(received, wire)
        await wire.json(ANSWER | timings)

    running, _, _ = await ill_and_well(timed, start_engine, start_gateway)
    ask = CHAT | {"max_tokens": 8}
    for _ in range(5):
        await running.http.post("/v1/chat/completions", json=ask, headers={"x-paceline-lane": "ill"})
    is_ill.set()
    for number in range(FAILURES_IN_A_ROW):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                running.http.post("/v1/chat/completions", json=ask, headers={"x-paceline-lane": "ill"}), 1.5
            )
        await running.outcome_number(6 + number)
    assert await is_ejected(running, "ill")


async def test_every_connection_is_kept_alive(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(answer)
    running = await start_gateway(lane("a", engine.url))
    await running.http.post("/v1/chat/completions", json=CHAT)
    client = running.gateway.fleet.engines["a"].client
    towards_engine = [one._transport.get_extra_info("socket") for one in client._open]
    assert towards_engine
    assert all(one.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for one in towards_engine)


def test_attempts_are_counted_in_one_place() -> None:
    attempts = Attempts()
    for kind in (Failure.QUEUE, Failure.UNREACHABLE, Failure.BUSY):
        attempts.failed(str(kind), kind, "a problem")
    may_go_on = [attempts.may_go_on]  # nothing was sent, or it was refused
    assert isinstance(attempts.error("a problem"), NoLane)
    attempts.failed("a", Failure.LOST, "a problem")
    may_go_on.append(attempts.may_go_on)
    assert not attempts.may_try("a")
    assert attempts.may_return("a")
    attempts.failed("b", Failure.ERROR, "a problem")
    assert [*may_go_on, attempts.may_go_on] == [True, True, False]
    assert isinstance(attempts.error("a problem"), EngineLost)


async def test_an_engine_that_fails_in_most_requests_is_ejected_too() -> None:
    ill, request = Illness(), tiny_request(Api.OPENAI_CHAT, False, None)
    ejected = []
    for _ in range(illness.MAX_FAILED):
        ejected.append(ill.failed(request, Failure.ERROR, "a problem"))
        if not ejected[-1]:
            ill.served(request)
    assert ejected == [False] * (illness.MAX_FAILED - 1) + [True]
    assert "a problem" in (ill.problem or "")
    ill.let_in()
    assert ill.problem is None


async def test_a_request_that_fails_meanwhile_is_as_good_as_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, ejection_s = 1000.0, illness.EJECTION_S[0]
    monkeypatch.setattr(illness, "_now_s", lambda: now_s)
    ill, request = Illness(), tiny_request(Api.OPENAI_CHAT, False, None)
    for _ in range(FAILURES_IN_A_ROW):
        ill.failed(request, Failure.ERROR, "a problem")
    for _ in range(20):  # it is used though ejected, as the only one
        now_s += ejection_s / 10
        assert not ill.failed(request, Failure.ERROR, "a problem")
        assert not ill.is_due_for_trial()
    now_s += ejection_s
    assert ill.is_due_for_trial()


@pytest.mark.parametrize("api", list(Api))
def test_a_trial_speaks_every_dialect(api: Api) -> None:
    request = tiny_request(api, True, "m")
    fields = json.loads(request.body)
    assert (fields["model"], fields["stream"]) == ("m", True)
    assert GENERATION[request.path] is api


@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/plain", None])
@pytest.mark.parametrize("body", [b'{"choices": [', b"", b"<html>bad gateway</html>", json.dumps(ERROR).encode()])
async def test_an_answer_that_is_none_is_asked_for_elsewhere(
    kind: str | None, body: bytes, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def lies(received: Received, wire: Wire) -> None:
        await wire.head(200, {"content-type": kind} if kind else {})
        await wire.raw(body)
        await wire.close()
        raise ConnectionError

    engines = [await start_engine(lies), await start_engine()]
    running = await start_gateway("".join(lane(a, one.url) for a, one in zip("ab", engines, strict=True)))
    answer = await running.http.post("/v1/chat/completions", json=chat())
    assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "b")
    assert answer.json() == ANSWER
    await engines[1].stop()
    await running.gateway.fleet.engines["b"].supervisor.look_again(0)
    answer = await running.http.post("/v1/chat/completions", json=chat())
    assert (answer.status_code, answer.content) == (200, body)  # there is nothing better
    assert running.outcome.error
