""""""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from tests.conftest import CHAT, RunningGateway, StartEngine, StartGateway, lane
from tests.fake_engine import Received, Wire, token
from tests.patient import until

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
print("deaf", flush=True)
while True:
    time.sleep(60)
"""


async def test_an_engine_that_is_being_stopped_does_not_outlive_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.processes.launched_process.STOP_GRACE_S", 1.0)
    command = json.dumps([sys.executable, "-c", STUBBORN, "{port}"])
    other = lane("b", "http://127.0.0.1:9")
    stubborn = f'[[engine]]\nname = "a"\nkind = "openai"\nlaunch = {command}\n'
    running = RunningGateway("server.port = 0\n" + other + stubborn, tmp_path)
    await running.start()
    supervisor = running.gateway.fleet.engines["a"].supervisor

    def has_said(word: str) -> bool:
        return supervisor.log_path.exists() and f"\n{word}\n" in supervisor.log_path.read_text()

    # its first line may be in the log before the gateway knows that it has been started
    await until(lambda: has_said("deaf") and supervisor.pid)
    pid = supervisor.pid
    assert pid
    running.text = "server.port = 0\n" + other
    assert (await running.http.post("/paceline/reload")).json()["stopped"] == ["a"]
    await until(lambda: has_said("asked"))
    await running.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


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
