"""What the chaos benchmark has brought to light, each in its smallest form."""

import json
from typing import Any

import pytest

from conftest import StartEngine, StartGateway, lane
from fake_engine import ANSWER, Received, Wire
from paceline.gateway import illness
from paceline.gateway.illness import FAILURES_IN_A_ROW

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
