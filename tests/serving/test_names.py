"""What names of models stand for."""

import json
from typing import Any

import pytest
from tests.conftest import StartEngine, StartGateway, chat, lane
from tests.fake_engine import FakeEngine, Received, Wire
from tests.patient import until

from paceline.processes import Health
from paceline.processes.supervisor import Timing
from paceline.serving import resolver

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
PROPS = {"default_generation_settings": {"n_ctx": 512}, "total_slots": 1}


def table(name: str, engine: FakeEngine, kind: str) -> str:
    return lane(name, engine.url).replace('kind = "openai"', f'kind = "{kind}"')


def asked_for(engine: FakeEngine) -> list[Any]:
    """The models that its generations named."""
    return [one.json.get("model") for one in engine.requests if one.target == "/v1/chat/completions"]


@pytest.mark.parametrize("name", ["gpt-4o-mini", "claude-haiku-4-5", "default", "M"])
async def test_an_unknown_name_is_served_by_the_default_model(
    name: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    first, second = await start_engine(models=("m",)), await start_engine(models=("other",))
    running = await start_gateway(lane("a", first.url) + lane("b", second.url))
    body = b'{"messages" : [],  "model":\t"%b", "seed": 12345678901234567890, "x": "\\u00e9"}' % name.encode()
    answer = await running.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 200
    assert answer.headers["x-paceline-lane"] == "a"
    assert first.requests[-1].body == body.replace(name.encode(), b"m")
    assert not second.requests


async def test_strict_names_are_404_and_say_what_there_is(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(models=("m",))
    running = await start_gateway("server.strict_models = true\n" + lane("a", engine.url))
    answer = await running.http.post("/v1/chat/completions", json=CHAT | {"model": "x" * 5000})
    assert answer.status_code == 404
    assert "there are: m" in answer.json()["error"]["message"]
    assert len(answer.content) < 1000


async def test_configured_names_and_patterns_lead_to_what_each_engine_calls_it(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    small, large = await start_engine(models=("qwen3:8b", "embed")), await start_engine(models=("Qwen3-8B-Q4",))
    running = await start_gateway(
        lane("gpu", small.url)
        + lane("cpu", large.url)
        + '[[model]]\nname = "coder"\naliases = ["claude-*", "gpt-4o*"]\nlanes = ["cpu", "gpu"]\n'
        + 'engine_models = { gpu = "qwen3:8b", cpu = "Qwen3-8B-Q4" }\n'
        + '[[model]]\nname = "vectors"\nengine_model = "embed"\n'
    )
    for name in ("coder", "claude-sonnet-4-5", "GPT-4o-mini", "CODER"):
        for forced, engine, own in (("gpu", small, "qwen3:8b"), ("cpu", large, "Qwen3-8B-Q4")):
            answer = await running.http.post(
                "/v1/chat/completions", json=CHAT | {"model": name}, headers={"x-paceline-lane": forced}
            )
            assert answer.status_code == 200
            assert asked_for(engine)[-1] == own
        assert (await running.http.post("/v1/chat/completions", json=CHAT | {"model": name})).status_code == 200
    await running.http.post("/v1/embeddings", json={"model": "vectors", "input": "x"})
    assert json.loads(small.requests[-1].body) == {"model": "embed", "input": "x"}
    listed = [entry["id"] for entry in (await running.http.get("/v1/models")).json()["data"]]
    assert listed == ["coder", "vectors", "qwen3:8b", "embed", "Qwen3-8B-Q4"]
    assert (await running.http.get("/v1/models/coder")).json()["id"] == "coder"
    kept = [record.model for record in running.records]
    assert set(kept) == {"coder"}


async def test_a_configured_model_keeps_to_its_lanes(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    a, b = await start_engine(models=("m",)), await start_engine(models=("m",))
    running = await start_gateway(lane("a", a.url) + lane("b", b.url) + '[[model]]\nname = "mine"\nlanes = ["b"]\n')
    for _ in range(3):
        answer = await running.http.post("/v1/chat/completions", json=CHAT | {"model": "mine"})
        assert answer.headers["x-paceline-lane"] == "b"
    assert asked_for(b) == ["m"] * 3


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("llama3.2", "llama3.2:latest"),
        ("Llama3.2:Latest", "llama3.2:latest"),
        ("qwen3:8B", "Qwen3:8b"),
        ("hf.co/org/model", "hf.co/org/model:latest"),
    ],
)
async def test_ollamas_tags_and_case_are_as_ollama_has_them(
    name: str, own: str, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    other = await start_engine(models=("m",))
    ollama = await start_engine(models=("llama3.2:latest", "Qwen3:8b", "hf.co/org/model:latest"))
    running = await start_gateway(lane("a", other.url) + lane("o", ollama.url).replace('"openai"', '"ollama"'))
    answer = await running.http.post("/v1/chat/completions", json=CHAT | {"model": name})
    assert answer.headers["x-paceline-lane"] == "o"
    assert asked_for(ollama) == [name]  # as the client wrote it: Ollama knows it
    assert running.records[-1].model == own


async def test_another_tag_is_another_model(start_gateway: StartGateway, start_engine: StartEngine) -> None:
    ollama = await start_engine(models=("llama3.2:latest",))
    running = await start_gateway(
        "server.strict_models = true\n" + lane("o", ollama.url).replace('"openai"', '"ollama"')
    )
    assert (await running.http.post("/v1/chat/completions", json=CHAT | {"model": "llama3.2:1b"})).status_code == 404


async def test_a_llama_server_with_one_model_gets_the_name_as_it_is(
    start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    async def answers(received: Received, wire: Wire) -> None:
        await wire.json({"content": "a", "choices": []})

    engine = await start_engine(answers)
    engine.props = PROPS
    running = await start_gateway(table("a", engine, "llama.cpp"))
    body = b'{"model" : "gpt-4o", "messages": []}'
    assert (await running.http.post("/v1/chat/completions", content=body)).status_code == 200
    assert engine.requests[-1].body == body


async def test_a_request_that_names_none_is_for_the_default_model(
    start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    one, several = await start_engine(models=("m",)), await start_engine(models=("x", "m"))
    running = await start_gateway(lane("one", one.url) + lane("several", several.url))
    for forced, engine, named in (("one", one, None), ("several", several, "x")):
        await running.http.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": forced})
        assert asked_for(engine)[-1] == named


async def test_a_new_model_behind_a_url_is_known_at_once(
    start_gateway: StartGateway, start_engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.serving.fleet.LOOK_INTERVAL_S", 0.0)
    a, b = await start_engine(models=("m",)), await start_engine(models=("n",))
    running = await start_gateway("server.strict_models = true\n" + lane("a", a.url) + lane("b", b.url))
    running.gateway.fleet.engines["b"].supervisor.timing = Timing(health_interval_s=60.0)
    looks = b.looks
    await until(lambda: b.looks > looks)  # the last look at the former interval
    b.models = ("n", "brand-new")
    answer = await running.http.post("/v1/chat/completions", json=CHAT | {"model": "brand-new"})
    assert answer.status_code == 200
    assert answer.headers["x-paceline-lane"] == "b"
    looks = b.looks
    assert (await running.http.post("/v1/chat/completions", json=CHAT | {"model": "none"})).status_code == 404
    assert b.looks == looks + 1


@pytest.mark.parametrize("end", ["/v1", "/v1/", "/"])
async def test_the_version_at_the_end_of_an_engines_url_is_understood(
    end: str, start_gateway: StartGateway, start_engine: StartEngine
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url + end))
    assert (await running.http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert engine.requests[-1].target == "/v1/chat/completions"


async def test_a_form_names_its_model(start_gateway: StartGateway, start_engine: StartEngine) -> None:
    a, b = await start_engine(models=("m",)), await start_engine(models=("whisper",))
    running = await start_gateway(lane("a", a.url) + lane("b", b.url))
    form = {"model": "whisper", "language": "en"}
    answer = await running.http.post("/v1/audio/transcriptions", data=form, files={"file": ("a.wav", b"RIFF" * 1000)})
    assert answer.headers["x-paceline-lane"] == "b"
    assert b"RIFF" in b.requests[-1].body


async def test_an_unknown_name_is_served_though_another_engine_takes_long_to_start(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "START_PATIENCE_S", 0.3)
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url) + lane("b", engine.url))
    starting = running.gateway.fleet.engines["b"].supervisor
    await starting.stop()
    starting.health, starting.facts = Health.STARTING, None
    for _ in range(2):
        answer = await running.http.post("/v1/chat/completions", json=chat(model="gpt-4o"))
        assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "a")


async def test_a_name_goes_before_a_pattern(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    one, other = await start_engine(models=("qwen3:8b", "big")), await start_engine(models=("gpt-4o", "x[1]"))
    running = await start_gateway(
        lane("a", one.url)
        + lane("b", other.url)
        + '[[model]]\nname = "fast"\naliases = ["*"]\nlanes = ["a"]\nengine_model = "big"\n'
        + '[[model]]\nname = "exact"\naliases = ["gpt-4o-mini"]\nlanes = ["b"]\nengine_model = "gpt-4o"\n'
        + '[[model]]\nname = "odd[1]"\nlanes = ["b"]\nengine_model = "x[1]"\n'
    )
    for asked, engine, own in (
        ("qwen3:8b", one, "qwen3:8b"),
        ("gpt-4o", other, "gpt-4o"),
        ("GPT-4o-mini", other, "gpt-4o"),
        ("odd[1]", other, "x[1]"),
        ("claude-x", one, "big"),
        ("a\nb", one, "big"),
    ):
        answer = await running.http.post("/v1/chat/completions", json=chat(model=asked))
        assert answer.status_code == 200
        assert engine.requests[-1].json["model"] == own, asked


@pytest.mark.parametrize("asked", ["library/llama3.2", "registry.ollama.ai/library/Llama3.2:latest"])
async def test_ollamas_default_host_and_namespace_may_be_written(
    asked: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine(models=("first:latest", "llama3.2:latest"))
    running = await start_gateway(lane("a", engine.url).replace('"openai"', '"ollama"'))
    await running.http.post("/v1/chat/completions", json=chat(model=asked))
    assert engine.requests[-1].json["model"] == asked  # and not the default model
