"""Requests whose meaning drafting may change, and engines that are asked whether it does."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import NGRAM, EngineTable, StartEngine, engine_settings
from tests.fake_engine import Received, Script, Wire
from tests.patient import until

from paceline.engines import ENGINES
from paceline.engines.examination import TRIES, has_bare_tokens
from paceline.engines.interface import assumed
from paceline.inspection.meaning import asked
from paceline.processes import Health, Supervisor
from paceline.types import AS_STARTED, LOGPROBS, Api, Request, Strategy
from paceline.wire.client import Client

CHAT, COMPLETIONS, RESPONSES = Api.OPENAI_CHAT, Api.OPENAI_COMPLETIONS, Api.OPENAI_RESPONSES
ANTHROPIC, LLAMA_CPP = Api.ANTHROPIC_MESSAGES, Api.LLAMA_CPP


def request(api: Api, fields: dict[str, Any]) -> Request:
    return Request(api, "/", json.dumps(fields).encode(), fields)


@pytest.mark.parametrize(
    ("api", "fields", "names"),
    [
        (CHAT, {}, set()),
        (CHAT, {"logprobs": True}, {"logprobs"}),
        (CHAT, {"logprobs": True, "top_logprobs": 3}, {"logprobs", "top_logprobs"}),
        (CHAT, {"top_logprobs": 3}, {"top_logprobs"}),
        (CHAT, {"logprobs": False, "top_logprobs": 0}, set()),
        (CHAT, {"logprobs": None, "n": None, "min_p": None, "logit_bias": None, "best_of": None}, set()),
        (CHAT, {"n": 1, "min_p": 0, "logit_bias": {}, "best_of": 1, "min_tokens": 0}, set()),
        (CHAT, {"n": 1.0, "min_p": 0.0, "logit_bias": {"50256": 0}}, set()),
        (CHAT, {"n": 2, "min_p": 0.05, "logit_bias": {"50256": -100}}, {"n", "min_p", "logit_bias"}),
        (CHAT, {"min_tokens": 8, "best_of": 3}, {"min_tokens", "best_of"}),
        (COMPLETIONS, {"logprobs": 3}, {"logprobs"}),
        (COMPLETIONS, {"logprobs": 0}, {"logprobs"}),
        (COMPLETIONS, {"logprobs": None}, set()),
        (COMPLETIONS, {"logprobs": False}, set()),
        (LLAMA_CPP, {"n_probs": 2}, {"n_probs"}),
        (LLAMA_CPP, {"n_probs": 2, "post_sampling_probs": True}, {"n_probs"}),
        (LLAMA_CPP, {"n_probs": 0, "post_sampling_probs": True}, set()),
        (LLAMA_CPP, {"logit_bias": [[15043, 1.0]]}, {"logit_bias"}),
        (LLAMA_CPP, {"logit_bias": []}, set()),
        (LLAMA_CPP, {"n_cmpl": 2}, {"n"}),
        (RESPONSES, {"include": ["message.output_text.logprobs"]}, {"logprobs"}),
        (RESPONSES, {"include": ["file_search_call.results"]}, set()),
        (RESPONSES, {"include": "message.output_text.logprobs"}, set()),
        (RESPONSES, {"top_logprobs": 2}, {"top_logprobs"}),
        (ANTHROPIC, {"max_tokens": 5}, set()),
        (CHAT, {"n": "two", "logit_bias": "odd"}, {"n", "logit_bias"}),
    ],
)
def test_what_a_request_really_uses(api: Api, fields: dict[str, Any], names: set[str]) -> None:
    assert asked(request(api, fields)) == names


def test_an_engine_that_drafts_and_can_not_be_asked() -> None:
    assert assumed(Strategy("draft", 4)).not_when_drafting == LOGPROBS
    assert assumed(Strategy()).not_when_drafting == frozenset()
    assert assumed(Strategy("draft", 0)).not_when_drafting == frozenset()


CERTAIN = {"token": "1", "logprob": 0.0, "top_logprobs": []}
TOLD = {"token": "1", "logprob": -0.1, "top_logprobs": [{"token": "1", "logprob": -0.1}]}


@pytest.mark.parametrize(
    ("answer", "bare"),
    [
        ({"completion_probabilities": [TOLD, TOLD]}, False),
        ({"completion_probabilities": [TOLD, CERTAIN]}, True),
        ({"completion_probabilities": [{"token": "1", "prob": 1.0, "top_probs": [{"prob": 1.0}]}]}, False),
        ({"choices": [{"logprobs": {"content": [TOLD]}}]}, False),
        ({"choices": [{"logprobs": {"content": [CERTAIN]}}]}, True),
        ({"choices": [{"logprobs": {"token_logprobs": [-0.1], "top_logprobs": [{"a": -0.1}]}}]}, False),
        ({"choices": [{"logprobs": {"token_logprobs": [0.0], "top_logprobs": [None]}}]}, True),
        ({"choices": [{"logprobs": {"token_logprobs": [None], "top_logprobs": [{}]}}]}, True),
        ({"choices": [{"logprobs": {"token_logprobs": [-0.1], "top_logprobs": None}}]}, True),
        ({"choices": [{"logprobs": None}]}, None),
        ({"choices": []}, None),
        ({"choices": [7]}, None),
        ([], None),
        ("odd", None),
    ],
)
def test_tokens_without_their_probabilities(answer: Any, bare: bool | None) -> None:
    assert has_bare_tokens(answer) is bare


def vllm(refused: set[str], bare: bool = False, metrics: bool = True) -> Script:
    """A vLLM that drafts, and refuses some fields as it does."""

    async def script(received: Received, wire: Wire) -> None:
        if received.target == "/version":
            return await wire.json({"version": "0.30"})
        if received.method == "GET":
            return await wire.json({}, 404)
        fields = received.json
        if fields.keys() & refused:
            message = "The min_p and logit_bias sampling parameters are not yet supported with speculative decoding."
            return await wire.json({"error": {"message": message}}, 400)
        answer: dict[str, Any] = {"choices": [{"text": "1", "logprobs": None}]}
        if fields.get("logprobs"):
            alternatives = [None] if bare else [{"a": -0.1, "b": -2.0}]
            answer["choices"][0]["logprobs"] = {"token_logprobs": [0.0], "top_logprobs": alternatives}
        if metrics:
            answer["metrics"] = {"speculative_decoding": {"num_draft_tokens": 8, "num_spec_tokens": 4}}
        return await wire.json(answer)

    return script


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize(
    ("refused", "bare", "lost"),
    [
        (set(), False, set()),
        (set(), True, LOGPROBS),
        ({"logprobs"}, False, LOGPROBS),
        ({"min_p", "logit_bias"}, False, {"min_p", "logit_bias"}),
        ({"best_of", "n"}, True, LOGPROBS | {"best_of", "n"}),
        ({"min_tokens"}, False, {"min_tokens"}),
    ],
)
async def test_what_an_engine_with_a_drafter_refuses(
    refused: set[str], bare: bool, lost: set[str], metrics: bool, kind: str, start_engine: StartEngine
) -> None:
    engine = await start_engine(vllm(refused, bare, metrics))
    client = Client(engine.url)
    seen = await ENGINES[kind].examine(client, engine_settings(kind, strategy="draft", n_max=4))
    assert seen.abilities.not_when_drafting == lost
    tries = len([one for one in engine.requests if one.target == "/v1/completions"])
    assert tries <= len(TRIES) + 3
    plain = await start_engine(vllm(refused, bare, metrics=False))
    client = Client(plain.url)
    assert (await ENGINES[kind].examine(client, engine_settings(kind))).abilities.not_when_drafting == set()
    assert len([one for one in plain.requests if one.target == "/v1/completions"]) <= 1
    client.close()


@pytest.mark.parametrize("status", [401, 404, 429, 503])
async def test_other_errors_tell_nothing_of_a_field(status: int, start_engine: StartEngine) -> None:
    async def filtered(received: Received, wire: Wire) -> None:
        await wire.json({"speculative_algorithm": "EAGLE"}, 200 if "info" in received.target else status)

    client = Client((await start_engine(filtered)).url)
    seen = await ENGINES["sglang"].examine(client, engine_settings("sglang", strategy="eagle3"))
    assert seen.abilities.not_when_drafting == LOGPROBS
    client.close()


@pytest.fixture
async def real(
    embedded_engine: EngineTable, model: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Supervisor]:
    """The embedded engine on the bundled model, plain or drafting by n-grams."""
    mode, *more = request.param.split()
    flags = ("-m", str(model), "--port", "{port}", "--threads", "1", "-c", "1024", *more)
    drafts = mode == "ngram"
    settings = engine_settings(
        "llama.cpp",
        launch=("embedded", *flags, *(NGRAM if drafts else ())),
        strategy="ngram" if drafts else "autoregressive",
    )
    one = Supervisor(settings, ENGINES["llama.cpp"], log_directory=tmp_path)
    one.start()
    await until(lambda: one.health is Health.UP, within_s=60)
    yield one
    await one.stop()


@pytest.mark.parametrize(("real", "lost"), [("ngram", LOGPROBS), ("autoregressive", frozenset())], indirect=["real"])
async def test_a_real_engine_loses_probabilities_when_it_drafts(real: Supervisor, lost: frozenset[str]) -> None:
    assert real.warnings == ()
    assert real.abilities.not_when_drafting == lost
    assert real.abilities.drafters == ()
    text = real.log_path.read_text()
    assert text.count("POST /completion") <= 4  # it is not asked more than it has to be
    # Nobody gets past the gateway: without its key, and from a page.
    assert real.url and real.client and real.api_key
    stranger = Client(real.url)
    body = json.dumps({"prompt": "1", "n_predict": 1}).encode()
    assert (await stranger.fetch("POST", "/completion", body=body))[0] == 401
    assert (await real.client.fetch("POST", "/completion", body=body))[0] == 200
    async with await real.client.send("GET", "/health", [(b"origin", b"http://evil.example")]) as answer:
        assert (await answer.read_all(), answer.status) == (b'{"status":"ok"}', 200)
        assert answer.header(b"access-control-allow-origin") in (None, b"")
    assert real.api_key not in text
    stranger.close()


@pytest.mark.parametrize(
    ("real", "path", "body"),
    [
        ("plain --embeddings --pooling last", "/v1/embeddings", {"input": "hi"}),
        ("plain --reranking", "/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("plain --no-slots -fa auto -ctk q8_0 --no-mmap --no-warmup", "/completion", {"prompt": "1", "n_predict": 1}),
    ],
    indirect=["real"],
)
async def test_real_engines_of_other_modes_come_up_and_serve(real: Supervisor, path: str, body: dict[str, Any]) -> None:
    assert (real.warnings, real.abilities) == ((), AS_STARTED)
    assert real.client
    assert (await real.client.fetch("POST", path, body=json.dumps(body).encode(), timeout_s=30))[0] == 200
