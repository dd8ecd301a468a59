"""Engines that are left out because they are ill, what is said of it, and when they are let in again."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.conftest import CHAT, RunningGateway, StartEngine, StartGateway, chat, lane
from tests.fake_engine import ANSWER, ERROR, Received, Wire, drops, error_in_200, event, status_500, token
from tests.patient import until

from paceline.serving import illness
from paceline.serving.illness import FAILURES_IN_A_ROW


async def slow_answer(received: Received, wire: Wire) -> None:
    await asyncio.sleep(0.05)
    await wire.json(ANSWER)


async def tried_again(running: RunningGateway, is_done: Callable[[], bool]) -> None:
    """Engines that were left out are tried until that is so."""

    def keep_house() -> bool:
        running.gateway.pipeline.keep_house()
        return is_done()

    await until(keep_house)


@pytest.mark.parametrize("ill", [status_500, error_in_200, drops])
async def test_two_ill_engines_of_three_are_found_though_each_request_reaches_only_two(
    ill: Any, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engines = [await start_engine(ill), await start_engine(ill), await start_engine(slow_answer)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("abc", engines, strict=True)))
    served = 0
    for number in range(20):
        answer = await running.http.post("/v1/chat/completions", json=chat(f"story {number}"))
        served += answer.status_code == 200 and "error" not in answer.json()
    assert served >= 16


async def test_one_request_that_fails_everywhere_ejects_nobody_however_often_it_comes(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await (wire.json(ERROR, 500) if b"poison" in received.body else wire.json(ANSWER))

    engines = [await start_engine(script), await start_engine(script)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    for _ in range(8):
        assert (await running.http.post("/v1/chat/completions", json=chat("poison"))).status_code == 500
    lanes = (await running.http.get("/paceline/lanes")).json()["lanes"]
    assert [one["problem"] for one in lanes] == [None, None]


async def test_an_engine_that_is_ill_for_streams_alone_is_found_among_other_requests(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def breaks_streams(received: Received, wire: Wire) -> None:
        if not received.json.get("stream"):
            await wire.json(ANSWER)
            return
        await wire.stream_head()
        await wire.chunk(token("one"))
        await wire.raw(b"400\r\ndata: {")
        await drops(received, wire)

    async def well(received: Received, wire: Wire) -> None:
        await asyncio.sleep(0.02)
        if not received.json.get("stream"):
            await wire.json(ANSWER)
            return
        await wire.stream_head()
        await wire.chunk(token("one") + event(b"[DONE]"))
        await wire.end()

    engines = [await start_engine(breaks_streams), await start_engine(well)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    broken = 0
    for number in range(40):
        answer = await running.http.post("/v1/chat/completions", json=chat(f"{number}", stream=number % 5 == 0))
        broken += b"error" in answer.content
    assert broken <= 3


async def test_an_engine_that_is_ill_for_one_model_is_tried_again_with_that(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(illness, "EJECTION_S", (0.05,))
    tried: list[str] = []

    async def ill_for_m2(received: Received, wire: Wire) -> None:
        if b"Say OK" in received.body:
            tried.append(received.json["model"])
        await (status_500 if received.json["model"] == "m2" else slow_answer)(received, wire)

    engines = [
        await start_engine(ill_for_m2, models=("m1", "m2")),
        await start_engine(slow_answer, models=("m1", "m2")),
    ]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    for number in range(40):
        body = chat(f"{number}", model="m2" if number % 2 else "m1")
        assert (await running.http.post("/v1/chat/completions", json=body)).status_code == 200
    await tried_again(running, lambda: bool(tried))
    assert set(tried) == {"m2"}
    assert running.gateway.fleet.engines["a"].illness.is_ejected
    assert sum(one.json["model"] == "m2" for one in engines[0].requests) - len(tried) <= 3


async def test_an_ejected_engine_stays_so_over_a_reload(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engines = [await start_engine(status_500), await start_engine(slow_answer)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    for number in range(4):
        await running.http.post("/v1/chat/completions", json=chat(f"{number}"))
    assert running.gateway.fleet.engines["a"].illness.is_ejected
    running.text += '[[key]]\nname = "n"\nkey = "k"\nadmin = true\n'
    assert (await running.http.post("/paceline/reload")).status_code == 200
    assert running.gateway.fleet.engines["a"].illness.is_ejected


@pytest.mark.parametrize(("status", "own_key"), [(401, True), (407, True), (408, False), (425, False)])
async def test_an_engine_that_lacks_a_key_or_time_is_left_for_the_next(
    status: int, own_key: bool, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def refuses(received: Received, wire: Wire) -> None:
        await wire.json(ERROR, status)

    refusing, well = await start_engine(refuses), await start_engine()
    key = 'api_key = "outdated"' if own_key else ""
    running = await start_gateway(lane("a", refusing.url, more=key) + lane("b", well.url))
    for number in range(6):
        answer = await running.http.post("/v1/chat/completions", json=chat(f"{number}"))
        assert answer.status_code == 200
    assert running.gateway.fleet.engines["a"].illness.is_ejected == own_key


async def test_a_clients_own_wrong_key_is_told_to_the_client(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def refuses(received: Received, wire: Wire) -> None:
        await wire.json(ERROR, 401)

    engines = [await start_engine(refuses), await start_engine(refuses)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    assert (await running.http.post("/v1/chat/completions", json=chat())).status_code == 401
    assert sum(len(one.requests) for one in engines) == 1


WHOLE = json.dumps(ANSWER).encode()
LIES = {
    "noise": bytes(range(256)),
    "a page": b"<html>all is well</html>",
    "half an answer": WHOLE[: len(WHOLE) // 2],
    "an answer without its end": WHOLE[:-1],
    "nothing": b"",
    "null": b"null",
    "an empty object": b" {} ",
    "a text": b'"hello"',
}


async def test_an_ejected_engine_is_told_of(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(illness, "EJECTION_S", (60.0,))
    is_ill = True

    async def script(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "it broke"}} if is_ill else ANSWER, 500 if is_ill else 200)

    engine = await start_engine(script)
    running = await start_gateway(lane("ill", engine.url) + lane("other", engine.url))

    async def told() -> tuple[float, str | None]:
        series = 'paceline_engine_ejected{engine="ill"} '
        text = (await running.http.get("/metrics")).text
        (line,) = (line for line in text.splitlines() if line.startswith(series))
        lanes = json.loads((await running.http.get("/paceline/lanes")).content)["lanes"]
        return float(line.removeprefix(series)), lanes[0]["ejected"]

    assert await told() == (0.0, None)
    for _ in range(FAILURES_IN_A_ROW):
        await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "ill"})
    ejected, why = await told()
    assert (ejected, why) == (1.0, "error: ill answered 500")
    failures = f'paceline_engine_failures_total{{engine="ill",kind="error"}} {FAILURES_IN_A_ROW}.0'
    assert failures in (await running.http.get("/metrics")).text
    is_ill = False
    running.text = lane("new", engine.url) + lane("other", engine.url)
    await running.http.post("/paceline/reload")
    assert 'paceline_engine_ejected{engine="ill"}' not in (await running.http.get("/metrics")).text


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_no_json_answer_is_a_failure_of_its_engine(
    lie: str, start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With status 200, as JSON by its word, and of the length that it declares."""
    monkeypatch.setattr(illness, "EJECTION_S", (0.2, 0.05))

    async def lies(received: Received, wire: Wire) -> None:
        await wire.json(LIES[lie])

    async def answers(received: Received, wire: Wire) -> None:
        await wire.json(ANSWER)

    ill, well = await start_engine(lies), await start_engine(answers)
    running = await start_gateway(lane("ill", ill.url) + lane("well", well.url))
    for _ in range(FAILURES_IN_A_ROW + 3):
        reply = await running.http.post("/v1/chat/completions", json=CHAT)
        assert (reply.status_code, reply.json()) == (200, ANSWER)
    assert len(ill.requests) == FAILURES_IN_A_ROW
    # the first trial was answered in the same way, or there would be no second one
    await tried_again(running, lambda: len(ill.requests) >= FAILURES_IN_A_ROW + 2)
    assert running.gateway.fleet.engines["ill"].illness.is_ejected


async def test_without_another_engine_it_is_the_clients_to_read(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def lies(received: Received, wire: Wire) -> None:
        await wire.json(LIES["a page"])

    running = await start_gateway(lane("ill", (await start_engine(lies)).url))
    reply = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (reply.status_code, reply.content) == (200, LIES["a page"])
    assert (await running.outcome_number(1)).error is not None


async def test_a_stream_that_is_none_passes_no_trial(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(illness, "EJECTION_S", (0.05,))

    async def noise(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(b"noise")
        await wire.end()

    async def answers(received: Received, wire: Wire) -> None:
        await wire.json(ANSWER)

    ill, well = await start_engine(noise), await start_engine(answers)
    running = await start_gateway(lane("ill", ill.url) + lane("well", well.url))
    for _ in range(FAILURES_IN_A_ROW):
        assert (await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})).status_code == 200
    await tried_again(running, lambda: len(ill.requests) == FAILURES_IN_A_ROW + 2)
    assert running.gateway.fleet.engines["ill"].illness.is_ejected
