"""ik_llama.cpp's driver against a server that answers as its source does (``get_timings``, ``launch_slot_with_task``),
and as a build of it did (docs/engines.md)."""

import json
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway
from tests.fake_engine import Received, Script, Wire

from paceline.engines.ik_llama_cpp import N_MAX, P_MIN, STAGES, IkLlamaCpp
from paceline.types import NO_CONTROL, Abilities, Api, Drafter, Observation, Request, Strategy

COMPLETION = "/completion"
CHAT = {"messages": [{"role": "user", "content": "Print the file again."}]}


def server(stages: dict[str, int], ignores_requests: bool = False) -> Script:
    """That was started with stages of these lengths; of a text that repeats itself it drafts with the first."""

    async def script(received: Received, wire: Wire) -> None:
        asked = received.json
        lengths = dict(stages)
        if N_MAX in asked and not ignores_requests:
            lengths = dict.fromkeys(stages, asked[N_MAX])
        if STAGES in asked:
            if [stage["type"] for stage in asked[STAGES]] != list(stages):
                said = "Error: speculative.stages must preserve the stage types configured at server startup"
                await wire.json({"error": {"code": 400, "message": said, "type": "invalid_request_error"}}, 400)
                return
            lengths |= {stage["type"]: stage["n_max"] for stage in asked[STAGES]}
        longest = next((length for length in lengths.values() if length), 0)
        choices = [{"index": 0, "message": {"role": "assistant", "content": "1"}, "finish_reason": "stop"}]
        answer = {"content": "1", "choices": choices, "timings": timings(longest)}
        if asked.get("n_probs"):
            answer["completion_probabilities"] = [{"content": "1", "probs": [{"tok_str": "1", "prob": 1.0}]}]
        await wire.json(answer)

    return script


def timings(longest: int) -> dict[str, Any]:
    told = {"prompt_n": 12, "prompt_ms": 50.0, "predicted_n": 32, "predicted_ms": 310.0, "n_ctx": 4096, "n_past": 44}
    if not longest:
        return told
    depths = [{"depth": n + 1, "draft_n": 6, "draft_n_accepted": 5 - n} for n in range(longest)]
    drafts = {"draft_n": 6 * longest, "draft_n_accepted": sum(depth["draft_n_accepted"] for depth in depths)}
    return told | drafts | {"draft_by_depth": depths}


def configured(url: str, more: str = 'strategy = "mtp"\nn_max = 4\n') -> str:
    return f'[[engine]]\nname = "ik"\nkind = "ik_llama.cpp"\nurl = "{url}"\n{more}'


async def test_requests_choose_how_far_is_drafted(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(server({"mtp": 4}), models=("qwen",))
    engine.props = {"n_ctx": 4096, "total_slots": 1, "default_generation_settings": {"n_ctx": 4096}}
    running = await start_gateway(configured(engine.url, 'strategy = "mtp"\nn_max = 4\np_min = 0.25\n'))
    fleet = running.gateway.fleet
    assert list(fleet.lanes) == ["ik/plain", "ik/mtp-1", "ik/mtp-2", "ik/mtp-4"]
    supervisor = fleet.engines["ik"].supervisor
    assert supervisor.warnings == ()
    assert not supervisor.abilities.not_when_drafting  # its drafted tokens have probabilities
    assert supervisor.facts
    assert (supervisor.facts.context_tokens, supervisor.facts.slots) == (4096, 1)
    sent = {
        "ik/plain": {N_MAX: 0},
        "ik/mtp-2": {N_MAX: 2, P_MIN: 0.25},
    }
    for number, (lane, fields) in enumerate(sent.items()):
        await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": lane})
        outcome = await running.outcome_number(number + 1)
        asked = engine.requests[-1].json
        assert {name: value for name, value in asked.items() if name.startswith("speculative.")} == fields
        assert outcome.observed.completion_tokens == 32
        assert outcome.observed.drafted == (12 if number else None)


async def test_of_several_stages_one_drafts(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(server({"ngram-mod": 64, "mtp": 4}), models=("qwen",))
    more = 'strategy = "mtp"\nn_max = 4\nstages = ["ngram-mod", "mtp"]\ncaps = [4]\n'
    running = await start_gateway(configured(engine.url, more))
    assert list(running.gateway.fleet.lanes) == ["ik/plain", "ik/ngram-mod-4", "ik/mtp-4"]
    await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "ik/mtp-4"})
    assert engine.requests[-1].json[STAGES] == [{"type": "ngram-mod", "n_max": 0}, {"type": "mtp", "n_max": 4}]
    await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "ik/plain"})
    assert engine.requests[-1].json[N_MAX] == 0


async def test_stages_that_it_was_not_started_with_are_said(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(server({"mtp": 4}), models=("qwen",))
    running = await start_gateway(configured(engine.url, 'strategy = "mtp"\nstages = ["ngram-mod", "mtp"]\n'))
    assert list(running.gateway.fleet.lanes) == ["ik"]
    assert "must preserve the stage types" in running.gateway.fleet.engines["ik"].supervisor.warnings[0]


@pytest.mark.parametrize(
    ("stages", "ignores", "more", "lanes", "warning"),
    [
        ({}, False, "", {"ik": Strategy()}, None),
        ({}, False, 'strategy = "mtp"\n', {"ik": Strategy("mtp")}, "is configured as mtp, but drafted 0"),
        ({"mtp": 3}, True, 'strategy = "mtp"\n', {"ik": Strategy("mtp")}, None),
        ({"mtp": 3}, True, "", {"ik": Strategy("unknown", 3)}, "configured as autoregressive, but drafted 18"),
        (
            {"mtp": 2},
            False,
            "",
            {"ik/plain": Strategy(), "ik/unknown-1": Strategy("unknown", 1), "ik/unknown-2": Strategy("unknown", 2)},
            "configured as autoregressive, but drafted 12",
        ),
    ],
    ids=["plain", "drafts nothing", "does not listen", "is not plain, and does not listen", "is not plain"],
)
async def test_lanes_are_what_was_seen(
    stages: dict[str, int],
    ignores: bool,
    more: str,
    lanes: dict[str, Strategy],
    warning: str | None,
    start_engine: StartEngine,
    start_gateway: StartGateway,
) -> None:
    engine = await start_engine(server(stages, ignores), models=("qwen",))
    running = await start_gateway(configured(engine.url, more))
    fleet = running.gateway.fleet
    assert {name: handle.lane.strategy for name, handle in fleet.lanes.items()} == lanes
    running.assert_warned("ik", warning)


def observed(told: dict[str, Any]) -> Observation:
    request = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"{}", {})
    observer = IkLlamaCpp().observe(request, Strategy("mtp", 3))
    observer.feed(json.dumps({"choices": [], "timings": told}).encode(), 1.0)
    return observer.observation()


def test_drafts_are_read_by_depth() -> None:
    seen = observed(timings(3))
    assert (seen.drafted, seen.accepted, seen.drafting_steps) == (18, 12, 6)
    assert seen.accepted_by_position == (5, 4, 3)
    assert observed(timings(0)).drafted == 0
    gaps = timings(3) | {"draft_by_depth": [{"depth": 2, "draft_n": 6, "draft_n_accepted": 5}]}
    assert observed(gaps).accepted_by_position == ()
    assert observed(timings(3) | {"draft_by_depth": "deep"}).drafted == 18


def test_what_the_client_asks_for_stays() -> None:
    fields = {"prompt": "1", STAGES: []}
    request = Request(Api.LLAMA_CPP, COMPLETION, b'{"prompt": "1", "speculative.stages": []}', fields)
    able = Abilities((Drafter("mtp", "mtp", 4),))
    assert IkLlamaCpp().prepare(request, Strategy("mtp", 2), able, NO_CONTROL) == request.body
