"""What the chaos benchmark has brought to light, each in its smallest form."""

import asyncio
import json
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway, lane
from tests.fake_engine import ANSWER, Received, Wire

from paceline.engines.observation import Observer
from paceline.serving import illness
from paceline.serving.illness import FAILURES_IN_A_ROW
from paceline.types import Api, Request

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_an_ejected_engine_is_told_of(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(illness, "EJECTION_S", (0.2,))
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


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_no_json_answer_is_a_failure_of_its_engine(
    lie: str, start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With status 200, as JSON by its word, and of the length that it declares."""
    monkeypatch.setattr(illness, "EJECTION_S", (0.05,))

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
    await asyncio.sleep(0.1)
    running.gateway.pipeline.keep_house()
    while len(ill.requests) == FAILURES_IN_A_ROW:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert running.gateway.fleet.engines["ill"].illness.is_ejected  # the trial was answered in the same way


async def test_without_another_engine_it_is_the_clients_to_read(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def lies(received: Received, wire: Wire) -> None:
        await wire.json(LIES["a page"])

    running = await start_gateway(lane("ill", (await start_engine(lies)).url))
    reply = await running.http.post("/v1/chat/completions", json=CHAT)
    assert (reply.status_code, reply.content) == (200, LIES["a page"])
    assert (await running.outcome_number(1)).error is not None


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        b"\n" + WHOLE + b"\n",
        b"[" + WHOLE + b"]",
        b'{"a": NaN}',
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["whole", "with white space", "several", "not a number", "deep"],
)
def test_whatever_may_be_an_answer_is_one(body: bytes) -> None:
    observer = Observer(Request(Api.OPENAI_CHAT, "/", b"", {}))
    observer.read_whole(body)
    assert observer.error is None


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
    await asyncio.sleep(0.1)
    running.gateway.pipeline.keep_house()
    while len(ill.requests) == FAILURES_IN_A_ROW:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert running.gateway.fleet.engines["ill"].illness.is_ejected
