"""Servers that can't run here: their modules with answers as their documentation and sources have them."""

import json
import re
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway
from tests.fake_engine import Received, Wire, event

from paceline.configuration import ConfigurationError, load
from paceline.engines import ENGINES
from paceline.engines.lm_studio import ACCEPTED, DRAFTED
from paceline.types import AS_STARTED, NO_CONTROL, Abilities, Api, Drafter, Observation, Request, Strategy

CHAT = {"model": "qwen", "messages": [{"role": "user", "content": "Print the file again."}]}
DRAFT = Strategy("draft")
LM_STUDIO = ENGINES["lmstudio"]
WITH_DRAFT_MODEL = Abilities((Drafter("draft", "small", None, "qwen"),))


def request(**fields: Any) -> Request:
    asked = CHAT | fields
    return Request(
        Api.OPENAI_CHAT,
        "/v1/chat/completions",
        json.dumps(asked).encode(),
        asked,
        model=asked["model"],
        stream=bool(asked.get("stream")),
    )


def seen(kind: str, answer: dict[str, Any], strategy: Strategy = DRAFT) -> Observation:
    observer = ENGINES[kind].observe(request(), strategy)
    observer.feed(json.dumps(answer).encode(), 1.0)
    return observer.observation()


# LM Studio: answers as recorded from 0.4.24

USAGE = {"prompt_tokens": 109, "completion_tokens": 171, "total_tokens": 280}
STATS = {"total_draft_tokens_count": 20, "accepted_draft_tokens_count": 17, "rejected_draft_tokens_count": 3}


def test_lm_studio_is_asked_for_its_draft_model() -> None:
    def sent(asked: Request, strategy: Strategy = DRAFT) -> Any:
        return json.loads(LM_STUDIO.prepare(asked, strategy, WITH_DRAFT_MODEL, NO_CONTROL)).get("draft_model")

    assert sent(request()) == "small"
    assert sent(request(), Strategy()) is None
    assert sent(request(draft_model="own")) == "own"
    assert sent(request(model="another")) is None  # the draft model may not fit it
    streamed = json.loads(LM_STUDIO.prepare(request(stream=True), DRAFT, WITH_DRAFT_MODEL, NO_CONTROL))
    assert streamed["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("answer", [{"usage": USAGE, "stats": STATS}, {"usage": USAGE | STATS, "stats": {}}])
def test_lm_studio_tells_drafts_in_one_place_or_another(answer: dict[str, Any]) -> None:
    assert seen("lmstudio", answer) == Observation(109, None, 171, drafted=20, accepted=17)
    assert seen("lmstudio", answer, Strategy()).drafted is None


def lm_studio(drafts_with: str | None = "small", loaded: bool = True, always: bool = False) -> Any:
    """A script."""

    async def script(received: Received, wire: Wire) -> None:
        if received.target == "/api/v0/models":
            state = "loaded" if loaded else "not-loaded"
            entries = [{"id": "text-embedding", "type": "embeddings", "state": "loaded"}]
            await wire.json({"data": [*entries, {"id": "qwen", "type": "llm", "state": state}]})
            return
        draft_model = received.json.get("draft_model")
        if draft_model not in (None, drafts_with):
            await wire.json({"error": f"Draft model {draft_model} is not compatible with qwen"}, 400)
            return
        stats = STATS if draft_model or always else {}
        if received.json.get("stream"):
            await wire.stream_head()
            await wire.chunk(event({"choices": [{"index": 0, "delta": {"content": "Hi"}}]}))
            await wire.chunk(event({"choices": [], "usage": USAGE, "stats": stats}) + event(b"[DONE]"))
            await wire.end()
        else:
            await wire.json({"choices": [], "usage": USAGE, "stats": stats})

    return script


LM_STUDIO_ENGINE = '[[engine]]\nname = "lm"\nkind = "lmstudio"\nurl = "{url}"\ndraft_model = "small"\n'


async def test_lm_studio_offers_two_lanes(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(lm_studio(), models=("qwen", "another"))
    running = await start_gateway(LM_STUDIO_ENGINE.format(url=engine.url))
    assert list(running.gateway.fleet.lanes) == ["lm/plain", "lm/draft"]
    for number, (lane, drafted) in enumerate((("lm/plain", None), ("lm/draft", 20))):
        body = CHAT | {"stream": True}
        answer = await running.http.post("/v1/chat/completions", json=body, headers={"x-paceline-lane": lane})
        assert b"usage" not in answer.content
        outcome = await running.outcome_number(number + 1)
        assert (outcome.lane, outcome.observed.completion_tokens, outcome.observed.drafted) == (lane, 171, drafted)


@pytest.mark.parametrize(
    ("script", "warning"),
    [
        (lm_studio(loaded=False), "no model is loaded"),
        (lm_studio(drafts_with="other"), "does not take small as the draft model of qwen.*not compatible"),
        (lm_studio(always=True), "drafts without being asked"),
    ],
)
async def test_lm_studio_without_the_ability_is_one_lane(
    script: Any, warning: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(script, models=("qwen",))
    running = await start_gateway(LM_STUDIO_ENGINE.format(url=engine.url))
    assert list(running.gateway.fleet.lanes) == ["lm"]
    (told,) = running.gateway.fleet.engines["lm"].supervisor.warnings
    assert re.search(warning, told)
    assert (await running.http.post("/v1/chat/completions", json=CHAT)).status_code == 200


def test_a_draft_model_is_for_lm_studio_only(tmp_path: Any) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text('[[engine]]\nname = "v"\nkind = "vllm"\nurl = "http://127.0.0.1:1"\ndraft_model = "small"\n')
    with pytest.raises(ConfigurationError, match=r"draft_model.*lmstudio"):
        load(file)


# SGLang


async def test_sglang_is_checked_against_its_arguments(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def script(received: Received, wire: Wire) -> None:
        if received.target == "/get_server_info":
            await wire.json({"version": "0.5.21", "speculative_algorithm": "EAGLE3"})
        elif received.target == "/server_info":
            await wire.json({}, 404)
        else:
            await wire.json({"choices": [], "usage": USAGE})

    engine = await start_engine(script, models=("qwen",))
    configured = '[[engine]]\nname = "{name}"\nkind = "sglang"\nurl = "{url}"\nstrategy = "{strategy}"\n'
    running = await start_gateway(
        configured.format(name="a", url=engine.url, strategy="eagle3")
        + configured.format(name="b", url=engine.url, strategy="autoregressive")
    )
    a, b = (running.gateway.fleet.engines[name].supervisor for name in "ab")
    assert a.facts
    assert (a.facts.build, a.warnings) == ("0.5.21", ())
    assert "was started with speculative_algorithm EAGLE3" in b.warnings[0]


def test_sglang_tells_drafts_in_its_usage_or_when_the_client_asks() -> None:
    details = {"completion_tokens_details": {"accepted_prediction_tokens": 9, "rejected_prediction_tokens": 3}}
    assert seen("sglang", {"usage": USAGE | details}) == Observation(109, None, 171, drafted=12, accepted=9)
    told = {"spec_num_correct_drafts": 9, "spec_num_proposed_drafts": 20, "spec_verify_ct": 5}
    asked = {"usage": USAGE, "sglext": {"spec_tokens_details": told}}
    assert seen("sglang", asked) == Observation(109, None, 171, drafted=20, accepted=9, drafting_steps=5)
    assert seen("sglang", {"usage": USAGE | {"completion_tokens_details": None}}).drafted is None
    assert seen("sglang", {"usage": USAGE | details}, Strategy()).drafted is None


# TabbyAPI


def test_tabby_api_tells_times_in_its_usage() -> None:
    times = {"prompt_time": 0.25, "completion_time": 2.0, "completion_tokens_per_sec": 85.5, "total_time": 2.25}
    details = {"completion_tokens_details": {"accepted_prediction_tokens": 100, "rejected_prediction_tokens": 20}}
    assert seen("tabbyapi", {"usage": USAGE | times | details}) == Observation(
        109, None, 171, 0.25, 170, 2.0, drafted=120, accepted=100
    )
    assert seen("tabbyapi", {"usage": USAGE | {"completion_time": None}}).decode_s is None


@pytest.mark.parametrize(("tokens", "time_s"), [(1, 0.000001), (1, 2.0), (0, 0.0), (171, 0.0), (171, 0.000001)])
def test_times_that_engines_tell_of_nothing_are_no_rate(tokens: int, time_s: float) -> None:
    usage = USAGE | {"completion_tokens": tokens}
    tabby_api = seen("tabbyapi", {"usage": usage | {"prompt_time": 0.25, "completion_time": time_s}})
    vllm = seen(
        "vllm", {"usage": usage, "metrics": {"generation_time_ms": time_s * 1000, "time_to_first_token_ms": 250}}
    )
    assert tabby_api == vllm == Observation(109, None, tokens, 0.25)


def test_more_accepted_than_drafted_is_no_count() -> None:
    counts = {DRAFTED: 5, ACCEPTED: 6}
    assert seen("lmstudio", {"usage": USAGE, "stats": counts}) == Observation(109, None, 171)


# Ollama


async def test_ollama_tells_tokens_of_streams(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def script(received: Received, wire: Wire) -> None:
        if received.target == "/api/version":
            await wire.json({"version": "0.40.12"})
            return
        assert received.json["stream_options"] == {"include_usage": True}
        await wire.stream_head()
        await wire.chunk(event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}]}))
        await wire.chunk(event({"choices": [], "usage": USAGE}) + event(b"[DONE]"))
        await wire.end()

    engine = await start_engine(script, models=("gemma4",))
    running = await start_gateway(f'[[engine]]\nname = "o"\nkind = "ollama"\nurl = "{engine.url}"\n')
    facts = running.gateway.fleet.engines["o"].supervisor.facts
    assert facts
    assert facts.build == "0.40.12"
    answer = await running.http.post("/v1/chat/completions", json=CHAT | {"model": "gemma4", "stream": True})
    assert answer.content.count(b"data: ") == 2
    assert (await running.outcome_number(1)).observed.completion_tokens == 171


# mlx-lm: the parts that need no server; the rest in test_mlx_lm.py


def test_mlx_lm_is_asked_for_a_draft_length() -> None:
    def sent(asked: Request, strategy: Strategy, abilities: Abilities) -> Any:
        return json.loads(ENGINES["mlx-lm"].prepare(asked, strategy, abilities, NO_CONTROL)).get("num_draft_tokens")

    able = Abilities((Drafter("draft", "draft", 4),))
    assert sent(request(), Strategy("draft", 2), able) == 2
    assert sent(request(), Strategy(), able) == 0
    assert sent(request(), Strategy("draft", 2), AS_STARTED) is None
    assert sent(request(num_draft_tokens=1), Strategy("draft", 2), able) == 1


async def test_mlx_lm_that_does_not_read_the_field_is_one_lane(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(models=("m",))
    running = await start_gateway(
        f'[[engine]]\nname = "m"\nkind = "mlx-lm"\nurl = "{engine.url}"\nstrategy = "draft"\n'
    )
    assert list(running.gateway.fleet.lanes) == ["m"]
    assert "can't choose their num_draft_tokens" in running.gateway.fleet.engines["m"].supervisor.warnings[0]
