"""Rules, what was learned, and explanations, in a running gateway before fake engines."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.conftest import RunningGateway, StartEngine, StartGateway, lane
from tests.fake_engine import Received, Wire, slow_to_tell
from tests.patient import until

STORY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Write a poem about the sea."}]}


@pytest.mark.parametrize(
    ("rule", "headers", "expected"),
    [
        ('task = "create"', {}, "ruled"),
        ('task = "math"', {}, "default"),
        ('model = "m"', {}, "ruled"),
        ('model = "other"', {}, "default"),
        ('header = "x-team"', {"x-team": "any"}, "ruled"),
        ('header = "X-Team: batch"', {"x-team": "batch"}, "ruled"),
        ('header = "x-team: batch"', {"x-team": "other"}, "default"),
        ('header = "x-team"', {}, "default"),
        ('api_key = "secret"', {"authorization": "Bearer secret"}, "ruled"),
        ('api_key = "secret"', {"x-api-key": "secret"}, "ruled"),
        ('api_key = "secret"', {"authorization": "Bearer other"}, "default"),
        ('task = "create"\nheader = "x-team"', {}, "default"),
    ],
)
async def test_rules_come_before_predictions(
    rule: str, headers: dict[str, str], expected: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    lanes = lane("default", engine.url) + lane("ruled", engine.url)
    running = await start_gateway(f'[[rule]]\nlane = "ruled"\n{rule}\n{lanes}')
    answer = await running.http.post("/v1/chat/completions", json=STORY, headers=headers)
    assert answer.headers["x-paceline-lane"] == expected
    if expected == "ruled":
        assert answer.headers["x-paceline-reason"].startswith("rule: ")
        assert "secret" not in answer.headers["x-paceline-reason"]


async def test_a_rule_whose_lane_is_down_does_not_lose_the_request(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    lanes = lane("plain", engine.url) + lane("ngram", "http://127.0.0.1:9", "ngram")
    running = await start_gateway(f'[[rule]]\nlane = "ngram"\ntask = "create"\n{lanes}')
    answer = await running.http.post("/v1/chat/completions", json=STORY)
    assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "plain")


async def test_the_decision_is_explained_with_what_was_learned(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(slow_to_tell)
    shared = 'device = "gpu0"'
    lanes = lane("plain", engine.url, more=shared) + lane("ngram", engine.url, "ngram", more=shared)
    running = await start_gateway(lanes)
    explain = "/paceline/explain/v1/chat/completions"
    before = (await running.http.post(explain, json=STORY)).json()
    assert before["signals"]["task"] == "create"
    assert before["predictions"]["plain"]["ms_per_token"] is None
    asked = len(engine.requests)
    await running.http.post("/v1/chat/completions", json=STORY, headers={"x-paceline-lane": "plain"})
    await running.outcome_number(1)  # it is learned from when it has been answered
    after = (await running.http.post(explain, json=STORY)).json()
    assert after["predictions"]["plain"]["ms_per_token"] == pytest.approx(1, rel=0.3)
    assert "ms/token" in after["decision"]["reason"]
    assert len(engine.requests) == asked + 1, "explaining sends nothing"
    wrong = await running.http.post("/paceline/explain/v1/models", json=STORY)
    assert (wrong.status_code, "no path that is decided on" in wrong.text) == (404, True)


async def test_what_was_learned_survives_a_restart(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine(slow_to_tell)
    text = "server.port = 0\n" + lane("plain", engine.url)
    for turn in range(2):
        running = RunningGateway(text, tmp_path / "log", tmp_path / "learned.sqlite")
        await running.start()
        await running.lanes_settle()
        predictions = (await running.http.post("/paceline/explain/v1/chat/completions", json=STORY)).json()[
            "predictions"
        ]
        assert (predictions["plain"]["ms_per_token"] is None) is (turn == 0)
        await running.http.post("/v1/chat/completions", json=STORY)
        await running.stop()


async def test_load_beside_a_request_is_measured(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    expected = 1

    async def script(received: Received, wire: Wire) -> None:
        await until(lambda: len(engine.requests) == expected)
        await asyncio.sleep(0.3)
        await slow_to_tell(received, wire)

    engine = await start_engine(script)
    running = await start_gateway(lane("plain", engine.url, more='device = "gpu0"'))
    await running.http.post("/v1/chat/completions", json=STORY)
    assert running.outcome.concurrent == pytest.approx(0, abs=0.05)
    expected += 3
    await asyncio.gather(*(running.http.post("/v1/chat/completions", json=STORY) for _ in range(3)))
    await running.outcome_number(4)
    of_the_last_to_come = max(record.outcome.concurrent for record in running.records)
    assert of_the_last_to_come == pytest.approx(2, abs=0.5)


async def test_what_others_draft_beside_a_request_is_counted(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """As far as it is known: a lookup's drafts are not."""
    names = ["plain", "head", "head"]

    async def script(received: Received, wire: Wire) -> None:
        await until(lambda: len(engine.requests) % len(names) == 0)
        await asyncio.sleep(0.3)
        await slow_to_tell(received, wire)

    engine = await start_engine(script)
    on_device = 'device = "gpu0"\n'
    tables = lane("plain", engine.url, more=on_device) + lane("lookup", engine.url, "ngram", on_device)
    running = await start_gateway(tables + lane("head", engine.url, "mtp", on_device + "n_max = 3"))
    seen = []
    for round_number in range(2):
        await asyncio.gather(
            *(
                running.http.post("/v1/chat/completions", json=STORY, headers={"x-paceline-lane": name})
                for name in names
            )
        )
        await running.outcome_number(3 * round_number + 3)
        seen.append({record.outcome.lane: record.outcome.drafted_beside for record in running.records[-3:]})
        names[2] = "lookup"
    assert seen[0]["plain"] == pytest.approx(6, abs=1)
    assert seen[0]["head"] == pytest.approx(3, abs=1)
    assert seen[1]["plain"] is seen[1]["head"] is None
    assert seen[1]["lookup"] == pytest.approx(3, abs=1)


async def test_explaining_counts_no_failure_and_draws_no_number_that_requests_are_decided_with(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url) + lane("b", engine.url))
    drawn_from: list[Random] = []

    def broken(_signals: object, _lanes: object, _state: object, rng: Random, *_: object) -> object:
        drawn_from.append(rng)
        raise RuntimeError("a defect")

    monkeypatch.setattr("paceline.routing.router.decide", broken)
    for _ in range(2):
        explained = await running.http.post("/paceline/explain/v1/chat/completions", json=STORY)
        assert explained.json()["decision"]["reason"] == "the default lane: the decision failed"
    assert (await running.http.get("/paceline/lanes")).json()["routing_failures"] == {}
    for _ in range(2):
        await running.http.post("/v1/chat/completions", json=STORY)
    assert (await running.http.get("/paceline/lanes")).json()["routing_failures"] == {"decision": 2}
    explaining, deciding = drawn_from[:2], drawn_from[2:]
    assert deciding[0] is deciding[1]
    assert not any(rng is deciding[0] for rng in explaining)
