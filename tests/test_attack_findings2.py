"""Further faults of several parts at once, each by the smallest input that showed it."""

import asyncio
import json
import os
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from tests.conftest import RunningGateway, StartEngine, StartGateway, lane
from tests.fake_engine import Received, Wire, event, status_500, token

from paceline.cli.common import state_directory
from paceline.processes import Health
from paceline.serving import pipeline
from paceline.types import LOGPROBS, Abilities, Drafter


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize("rule", ["", '[[rule]]\nheader = "x-team"\nlane = "plain"\n'])
@pytest.mark.parametrize("asked", [{"logprobs": True}, {"top_logprobs": 2}])
async def test_where_no_lane_that_keeps_the_meaning_is_well_another_serves(
    asked: dict[str, Any], rule: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engines = [await start_engine(), await start_engine()]
    tables = lane("plain", engines[0].url) + lane("drafts", engines[1].url, "draft", "n_max = 4")
    running = await start_gateway(tables + rule)
    team = {"x-team": "a"}
    answer = await running.http.post("/v1/chat/completions", json=chat(**asked), headers=team)
    assert answer.headers["x-paceline-lane"] == "plain"
    engines[0].script = status_500
    for _ in range(4):  # as long as it counts as well, and when it is ejected
        answer = await running.http.post("/v1/chat/completions", json=chat(**asked), headers=team)
        assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "drafts")
    assert running.gateway.fleet.engines["plain"].illness.is_ejected
    assert "no lane is well that keeps" in answer.headers["x-paceline-reason"]
    await engines[0].stop()  # and where it can't be reached any more
    running.gateway.fleet.engines["plain"].illness.let_in()
    answer = await running.http.post("/v1/chat/completions", json=chat(**asked), headers=team)
    assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "drafts")


async def test_an_engine_that_is_asked_for_by_name_keeps_the_meaning_too(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("e", engine.url, "ngram"))
    supervisor = running.gateway.fleet.engines["e"].supervisor
    supervisor._examiner.abilities = Abilities((Drafter("ngram", "ngram-simple", 8),), LOGPROBS)
    supervisor.on_change()
    decided = []
    for name in ("e", "e/ngram-8"):
        for more in ({}, {"logprobs": True}):
            answer = await running.http.post(
                "/v1/chat/completions",
                json=chat("Copy this: " + "tick tock " * 50, **more),
                headers={"x-paceline-lane": name},
            )
            decided.append((answer.headers["x-paceline-lane"], answer.headers["x-paceline-reason"]))
    assert [name.partition("/")[2][:5] for name, _ in decided] == ["ngram", "plain", "ngram", "ngram"]
    assert decided[3][1].startswith("logprobs changed by its drafts; the request forces this lane")


async def test_a_request_waits_for_an_engine_that_starts_for_one_patience_and_not_two(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "START_PATIENCE_S", 1.0)
    running = await start_gateway(lane("a", (await start_engine()).url))
    starting = running.gateway.fleet.engines["a"].supervisor
    await starting.stop()
    starting.health = Health.STARTING
    began_s = perf_counter()
    assert (await running.http.post("/v1/chat/completions", json=chat())).status_code == 503
    assert perf_counter() - began_s < 1.9  # of twice a second


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


async def test_an_engine_that_is_being_stopped_does_not_outlive_the_gateway(
    tmp_path: Path,
) -> None:
    command = json.dumps([sys.executable, "-c", STUBBORN, "{port}"])
    other = lane("b", "http://127.0.0.1:9")
    stubborn = f'[[engine]]\nname = "a"\nkind = "openai"\nlaunch = {command}\n'
    running = RunningGateway("server.port = 0\n" + other + stubborn, tmp_path)
    await running.start()
    supervisor = running.gateway.fleet.engines["a"].supervisor
    async with asyncio.timeout(20):
        # its first line may be in the log before the gateway knows that it has been started
        while not (supervisor.log_path.exists() and "\ndeaf\n" in supervisor.log_path.read_text() and supervisor.pid):
            await asyncio.sleep(0.05)
    pid = supervisor.pid
    running.text = "server.port = 0\n" + other
    assert (await running.http.post("/paceline/reload")).json()["stopped"] == ["a"]
    await asyncio.sleep(0.3)  # it was asked to end by now
    await running.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


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


@pytest.mark.parametrize("given", [None, "", "state", "./state"])
def test_a_state_directory_is_the_same_from_every_folder(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_STATE_HOME", given)
    assert state_directory() == Path("/home/a/.local/state/paceline")


def test_a_user_who_has_no_home_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_none(_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(has_none))
    assert state_directory() == Path("/.local/state/paceline")
