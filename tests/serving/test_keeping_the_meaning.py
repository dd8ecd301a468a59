"""Requests whose meaning some lanes would change."""

from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway, chat, lane
from tests.fake_engine import status_500

from paceline.types import LOGPROBS, Abilities, Drafter


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
