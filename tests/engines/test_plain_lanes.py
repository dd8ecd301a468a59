"""A lane that is called plain was seen to draft nothing."""

from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway
from tests.fake_engine import Received, Script, Wire

from paceline.types import Strategy


def llama_cpp(types: str, draft_n: int) -> Script:
    """A stock build, which takes no strategy from a request."""

    async def script(received: Received, wire: Wire) -> None:
        timings = {"prompt_n": 1, "prompt_ms": 1.0, "predicted_n": 16, "predicted_ms": 100.0}
        if received.json.get("n_predict", 16) > 1 and draft_n:
            timings |= {"draft_n": draft_n, "draft_n_accepted": draft_n}
        await wire.json(
            {"content": "1", "generation_settings": {"speculative.types": types}, "timings": timings, "choices": []}
        )

    return script


def vllm(drafted: int) -> Script:
    async def script(received: Received, wire: Wire) -> None:
        counts = {"num_spec_tokens": 6, "num_draft_tokens": drafted, "num_accepted_draft_tokens": drafted}
        await wire.json({"choices": [], "metrics": {"speculative_decoding": counts}})

    return script


def lm_studio(drafted: int) -> Script:
    async def script(received: Received, wire: Wire) -> None:
        if received.target == "/api/v0/models":
            await wire.json({"data": [{"id": "m", "type": "llm", "state": "loaded"}]})
        else:
            await wire.json({"choices": [], "stats": {"total_draft_tokens_count": drafted}})

    return script


def tabby_api(drafted: int) -> Script:
    async def script(received: Received, wire: Wire) -> None:
        details = {"accepted_prediction_tokens": drafted, "rejected_prediction_tokens": 0}
        await wire.json({"choices": [], "usage": {"completion_tokens_details": details}})

    return script


def sglang(algorithm: str | None) -> Script:
    async def script(received: Received, wire: Wire) -> None:
        await wire.json({"speculative_algorithm": algorithm, "choices": []})

    return script


@pytest.mark.parametrize(
    ("kind", "script", "strategy"),
    [
        ("llama.cpp", llama_cpp("none", 0), Strategy()),
        ("llama.cpp", llama_cpp("none", 12), Strategy("unknown")),
        ("llama.cpp", llama_cpp("ngram-mod", 12), Strategy("ngram-mod")),
        ("llama.cpp", llama_cpp("draft-mtp", 12), Strategy("mtp")),
        ("vllm", vllm(0), Strategy()),
        ("vllm", vllm(12), Strategy("unknown", 6)),
        ("lmstudio", lm_studio(0), Strategy()),
        ("lmstudio", lm_studio(12), Strategy("draft")),
        ("tabbyapi", tabby_api(0), Strategy()),
        ("tabbyapi", tabby_api(12), Strategy("unknown")),
        ("sglang", sglang(None), Strategy()),
        ("sglang", sglang("EAGLE3"), Strategy("eagle3")),
        ("sglang", sglang("STANDALONE"), Strategy("unknown")),
    ],
)
async def test_what_drafts_is_not_offered_as_plain(
    kind: str, script: Any, strategy: Strategy, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(script)
    engine.props = {"total_slots": 1, "default_generation_settings": {"n_ctx": 512}} if kind == "llama.cpp" else None
    running = await start_gateway(f'[[engine]]\nname = "e"\nkind = "{kind}"\nurl = "{engine.url}"\n')
    (handle,) = running.gateway.fleet.lanes.values()
    assert (handle.lane.name, handle.lane.strategy) == ("e", strategy)
    warnings = running.gateway.fleet.engines["e"].supervisor.warnings
    assert bool(warnings) is strategy.drafts
    if strategy.drafts:
        lanes = (await running.http.get("/paceline/lanes")).json()["lanes"]
        assert [(lane["strategy"]["kind"], lane["strategy"]["drafts"]) for lane in lanes] == [(strategy.kind, True)]
