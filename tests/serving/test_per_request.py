"""Engines that take their strategy from each request: the parts that need no such engine."""

import json
from typing import Any

from tests.conftest import RunningGateway, StartEngine, StartGateway, lane
from tests.fake_engine import ANSWER, Received, Script, Wire
from tests.patient import until

from paceline.engines.body import with_fields
from paceline.engines.llama_cpp import LlamaCpp
from paceline.engines.vllm import Vllm
from paceline.inside.yield_guard import MAX_PAUSE, MIN_PAUSE, STEPS_IN_FULL, YieldGuard
from paceline.types import AS_STARTED, NO_CONTROL, Abilities, Api, DraftControl, Drafter, Request, Strategy

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Print the file again."}]}
NGRAM_12 = Abilities((Drafter("ngram", "ngram-simple", 12),))


def request(body: str, api: Api = Api.OPENAI_CHAT) -> Request:
    fields = json.loads(body)
    return Request(api, "/v1/chat/completions", body.encode(), fields, stream=fields.get("stream", False))


def test_a_ladder_of_caps_for_each_drafter() -> None:
    two = Abilities((Drafter("ngram", "ngram-simple", 12), Drafter("mtp", "draft-mtp", 3)))
    names = [strategy.name for strategy in two.strategies()]
    assert names == ["plain", "ngram-2", "ngram-3", "ngram-6", "ngram-12", "mtp-1", "mtp-2", "mtp-3"]
    assert [strategy.name for strategy in NGRAM_12.strategies((4, 8, 99))] == [
        "plain",
        "ngram-4",
        "ngram-8",
        "ngram-12",
    ]
    assert AS_STARTED.strategies() == []


def test_kinds_of_drafters_where_the_engine_decides_at_each_step() -> None:
    drafters = (Drafter("ngram", "ngram-simple", 12), Drafter("mtp", "draft-mtp", 3))
    two = Abilities(drafters, controls_drafts=True)
    assert [strategy.name for strategy in two.strategies()] == ["plain", "ngram", "mtp", "all"]
    assert two.strategies((2, 8))[-1].among == (Strategy("ngram", 8), Strategy("mtp", 3))
    one = Abilities(drafters[:1], controls_drafts=True)
    assert [strategy.name for strategy in one.strategies()] == ["plain", "ngram"]
    assert Abilities(controls_drafts=True).strategies() == []


def test_the_strategy_is_written_before_the_rest_of_the_body() -> None:
    body = LlamaCpp().prepare(
        request('{"prompt": "Hi", "seed": 1.50}'), Strategy("ngram", 6), NGRAM_12, DraftControl(min_yield=3.5)
    )
    own = b'"speculative.n_max":6,"speculative.types":"ngram-simple","speculative.min_yield":3.5'
    assert body == b"{" + own + b',"prompt": "Hi", "seed": 1.50}'
    assert LlamaCpp().prepare(request("{ }"), Strategy(), NGRAM_12, NO_CONTROL) == b'{"speculative.n_max":0}'


def test_an_engine_without_the_ability_gets_the_body_as_it_came() -> None:
    asked = request('{"prompt": "Hi"}')
    for engine in (LlamaCpp(), Vllm()):
        assert engine.prepare(asked, Strategy("ngram", 6), AS_STARTED, DraftControl(min_yield=2.0)) is asked.body


def test_what_the_client_asks_for_itself_counts() -> None:
    asked = request('{"prompt": "Hi", "speculative.n_max": 2}')
    assert LlamaCpp().prepare(asked, Strategy("ngram", 6), NGRAM_12, DraftControl(min_yield=2.0)) is asked.body
    xargs = '{"prompt": "Hi", "vllm_xargs": {"paceline_n_max": 2, "other": "x"}}'
    sent = json.loads(Vllm().prepare(request(xargs), Strategy("ngram", 6), NGRAM_12, DraftControl(min_yield=2.0)))
    assert sent["vllm_xargs"] == {"paceline_n_max": 2, "other": "x", "paceline_min_yield": 2.0}


def test_fields_take_the_place_of_those_of_the_same_name() -> None:
    assert json.loads(with_fields(request('{"a": 1, "b": 2}'), {"b": 3, "c": 4})) == {"a": 1, "b": 3, "c": 4}


def test_a_stream_of_vllm_hides_the_usage_that_the_client_did_not_ask_for() -> None:
    asked = request('{"stream": true, "messages": []}')
    assert json.loads(Vllm().prepare(asked, Strategy(), AS_STARTED, NO_CONTROL))["stream_options"] == {
        "include_usage": True
    }
    text = b'data: {"choices":[{"delta":{"content":"\\"choices\\":[]"}}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"completion_tokens":3},"metrics":{"generation_time_ms":500}}\n\n'
    end = b"data: [DONE]\n\n"
    observer = Vllm().observe(asked, Strategy())
    assert observer.feed(text + usage + end, 0.1) == text + end
    assert observer.feed(usage, 0.1) == b""
    seen = observer.observation()
    assert (seen.decode_tokens, seen.decode_s) == (2, 0.5)
    wants = request('{"stream": true, "stream_options": {"include_usage": true}}')
    assert Vllm().prepare(wants, Strategy(), AS_STARTED, NO_CONTROL) is wants.body
    assert Vllm().observe(wants, Strategy()).feed(usage, 0.1) == usage


def test_the_guard_pauses_for_longer_and_longer_until_drafting_pays() -> None:
    guard = YieldGuard(3.0)
    pauses = []
    for _ in range(7):
        assert guard.limit(12) == 4  # on probation
        guard.drafted(1)
        length = 0
        while guard.limit(12) == 0:
            guard.decoded(1)
            length += 1
        pauses.append(length)
    assert pauses[:4] == [MIN_PAUSE, 2 * MIN_PAUSE, 4 * MIN_PAUSE, 8 * MIN_PAUSE]
    assert max(pauses) == MAX_PAUSE
    for _ in range(50):
        guard.drafted(4)
        assert guard.limit(12) == 12


def test_the_guard_asks_a_part_of_the_gain_of_a_part_of_the_draft() -> None:
    guard = YieldGuard(4.0)
    guard.drafted(2)
    assert guard.limit(12) == 12
    for _ in range(STEPS_IN_FULL):
        assert guard.limit(12) == 12
        guard.drafted(2)  # enough on probation only
    assert guard.limit(12) == 0


def test_without_a_limit_the_guard_never_pauses() -> None:
    guard = YieldGuard(0)
    for _ in range(100):
        guard.drafted(1)
        assert guard.limit(12) == 12


async def takes_a_cap(received: Received, wire: Wire) -> None:
    """Like llama.cpp with our patch: drafts unless it is asked not to."""
    asked = received.json
    drafted = asked.get("speculative.n_max", 8)
    timings = {"prompt_n": 20, "prompt_ms": 10, "predicted_n": 41, "predicted_ms": 400}
    if drafted:
        timings |= {"draft_n": 4 * drafted, "draft_n_accepted": 12, "draft_n_steps": 4}
    settings = {"speculative.types": "ngram-simple"}
    await wire.json(ANSWER | {"timings": timings, "generation_settings": settings, "asked": asked})


async def ignores_caps(received: Received, wire: Wire) -> None:
    """Like a stock build: a field that it does not know is passed over."""
    timings = {"predicted_n": 41, "predicted_ms": 400, "draft_n": 16, "draft_n_accepted": 12}
    await wire.json({"timings": timings, "generation_settings": {"speculative.types": "ngram-simple"}})


LONGEST = {"total_slots": 2, "speculative": {"n_max": {"ngram-simple": 8}}}


async def engine(
    start_engine: StartEngine, start_gateway: StartGateway, script: Script, more: str = ""
) -> RunningGateway:
    fake = await start_engine(script)
    fake.props = LONGEST
    table = f'[[engine]]\nname = "gpu"\nkind = "llama.cpp"\nurl = "{fake.url}"\nstrategy = "ngram"\n'
    running = await start_gateway(more + table)
    await until(lambda: running.gateway.fleet.engines["gpu"].is_up)
    return running


async def test_lanes_follow_from_what_an_engine_was_seen_to_do(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running = await engine(start_engine, start_gateway, takes_a_cap, 'server.default_lane = "gpu"\n')
    names = ["gpu/plain", "gpu/ngram-1", "gpu/ngram-2", "gpu/ngram-4", "gpu/ngram-8"]
    assert [one["lane"] for one in (await running.http.get("/paceline/lanes")).json()["lanes"]] == names
    for number, name in enumerate(names, 1):
        answer = await running.http.post("/v1/chat/completions", json=ASK, headers={"x-paceline-lane": name})
        assert answer.headers["x-paceline-lane"] == name
        assert answer.json()["asked"]["speculative.n_max"] == int(name.rpartition("-")[2] if "-" in name else 0)
        outcome = await running.outcome_number(number)
        assert outcome.observed.drafting_steps == (4 if "-" in name else None)
    any_lane = await running.http.post("/v1/chat/completions", json=ASK, headers={"x-paceline-lane": "gpu"})
    assert any_lane.headers["x-paceline-reason"].startswith("the request forces gpu; ")
    unknown = await running.http.post("/v1/chat/completions", json=ASK, headers={"x-paceline-lane": "gpu/ngram-5"})
    assert unknown.status_code == 400
    assert "gpu/ngram-4" in unknown.json()["error"]["message"]


async def test_a_build_that_passes_the_field_over_has_one_lane(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running = await engine(start_engine, start_gateway, ignores_caps)
    assert list(running.gateway.fleet.lanes) == ["gpu"]


async def test_a_rule_may_name_an_engine_or_one_of_its_lanes(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    rules = '[[rule]]\nlane = "gpu/ngram-2"\nheader = "x-team"\n[[rule]]\nlane = "gpu"\nmodel = "m"\n'
    running = await engine(start_engine, start_gateway, takes_a_cap, rules)
    pinned = await running.http.post("/v1/chat/completions", json=ASK, headers={"x-team": "a"})
    assert pinned.headers["x-paceline-lane"] == "gpu/ngram-2"
    free = await running.http.post("/v1/chat/completions", json=ASK)
    assert free.headers["x-paceline-reason"].startswith("rule: model m; ")


async def test_an_engine_that_is_lost_is_not_asked_again_through_its_other_lanes(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def dies(received: Received, wire: Wire) -> None:
        if received.target == "/completion":
            return await takes_a_cap(received, wire)
        return wire.die()

    other = await start_engine()
    running = await engine(start_engine, start_gateway, dies, lane("other", other.url))
    answer = await running.http.post("/v1/chat/completions", json=ASK, headers={"x-paceline-lane": "gpu"})
    assert answer.status_code == 502
    assert answer.json()["error"]["message"].count("was lost") == 1
    await until(lambda: running.gateway.fleet.engines["gpu"].is_up)
    answer = await running.http.post("/v1/chat/completions", json=ASK)
    assert answer.status_code == 200
    assert answer.headers["x-paceline-lane"] == "other"
