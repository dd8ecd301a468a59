"""Providers: what goes to them, what they say of their limits, and how they are done without."""

import asyncio
import json
import time
from typing import Any

import pytest
from tests.conftest import RunningGateway, StartEngine, StartGateway, chat, lane
from tests.fake_engine import ANSWER, FakeEngine, Received, Script, Wire, answer, drops, status_500, token
from tests.patient import until

from paceline.serving import illness, limits, pace
from paceline.serving.attempts import Attempts
from paceline.serving.limits import Limits
from paceline.settings import RoutingSettings

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 3},
}
CHAT = chat(model="m")


def provider(name: str, engine: FakeEngine, kind: str = "openai-api", more: str = "") -> str:
    """An ``[[engine]]`` table of a provider."""
    keys = f'url = "{engine.url}"\nmodels = ["m"]\napi_key = "env:CLOUD_KEY"'
    return f'[[engine]]\nname = "{name}"\nkind = "{kind}"\n{keys}\n{more}\n'


def group(*lanes: str) -> str:
    """A ``[[model]]`` table of engines that may stand in for one another."""
    return f'[[model]]\nname = "m"\nlanes = {json.dumps(lanes)}\n'


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_KEY", "sk-operators-own")


async def post(running: RunningGateway, **headers: str) -> Any:
    return await running.http.post("/v1/chat/completions", json=CHAT, headers=headers)


async def test_nothing_is_asked_of_a_provider_but_what_clients_ask(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway(provider("cloud", engine))
    assert (await running.http.get("/v1/models")).json()["data"][0]["id"] == "m"
    assert (await running.http.post("/v1/chat/completions", json=CHAT | {"model": "unheard-of"})).status_code == 200
    assert engine.looks == 0
    assert [one.target for one in engine.requests] == ["/v1/chat/completions"]
    assert engine.requests[0].json["model"] == "m"


async def test_bytes_are_relayed_where_the_provider_speaks_the_clients_api(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    body = b'{ "id": "c1",  "odd":1.0e+5, "choices" : [] }\n'

    async def script(received: Received, wire: Wire) -> None:
        await wire.json(body)

    engine = await start_engine(script)
    running = await start_gateway(provider("cloud", engine))
    sent = b'{"model" : "m", "messages":[], "seed":12345678901234567890}'
    got = await running.http.post("/v1/chat/completions", content=sent)
    assert (got.content, engine.requests[0].body) == (body, sent)


async def test_only_listed_headers_go_out_and_come_back(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUD_ORGANISATION", "org-1")

    async def script(received: Received, wire: Wire) -> None:
        theirs = {"openai-organization": "org-1", "set-cookie": "__cf_bm=1", "x-request-id": "req_1", "server": "x"}
        await wire.json(ANSWER, headers=theirs)

    engine = await start_engine(script)
    more = 'headers = { OpenAI-Organization = "env:CLOUD_ORGANISATION", X-App = "an app" }\npass_headers = ["X-Title"]'
    running = await start_gateway(provider("cloud", engine, more=more))
    got = await post(
        running,
        **{"authorization": "Bearer clients", "x-api-key": "clients", "cookie": "a=b", "x-title": "agent"},
        **{"x-forwarded-for": "10.0.0.1", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"},
    )
    assert engine.requests[0].headers == {
        "host": engine.url.removeprefix("http://"),
        "content-length": str(len(engine.requests[0].body)),
        "content-type": "application/json",
        "user-agent": engine.requests[0].headers["user-agent"],
        "authorization": "Bearer sk-operators-own",
        "openai-organization": "org-1",
        "x-app": "an app",
        "x-title": "agent",
    }
    assert engine.requests[0].headers["user-agent"].startswith("paceline/")
    assert got.headers["x-request-id"] == "req_1"
    assert not {"openai-organization", "set-cookie", "server"} & set(got.headers)


@pytest.mark.parametrize("status", [401, 402, 403])
async def test_what_a_provider_says_of_the_operators_account_is_no_clients_business(
    status: int, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "Incorrect API key provided: sk-op***wn"}}, status)

    engine = await start_engine(script)
    running = await start_gateway(provider("cloud", engine))
    got = await post(running)
    assert got.status_code == 503
    assert "sk-op" not in got.text
    assert f"answered {status}" in got.json()["error"]["message"]


def spoken_by(text: str, *, status: int = 200, form: str = "json", cut: int = 1) -> Script:
    """Answers with a text of which others' secrets are a part.

    Args:
        form: ``json``, ``chunked``, or a stream's ``events``, of which each piece has ``cut`` bytes.
    """

    async def script(received: Received, wire: Wire) -> None:
        said = {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
        document = {"error": {"message": text}} if status >= 400 else said
        headers = {"x-request-id": text}
        if form == "json":
            await wire.json(document, status, headers=headers)
            return
        if form == "events":
            await wire.stream_head(headers)
            whole = token(text) + b"data: [DONE]\n\n"
        else:
            await wire.head(status, {"content-type": "application/json", "transfer-encoding": "chunked", **headers})
            whole = json.dumps(document).encode()
        for at in range(0, len(whole), cut):
            await wire.chunk(whole[at : at + cut])
        await wire.end()

    return script


@pytest.mark.parametrize("kind", ["openai-api", "anthropic-api"])
@pytest.mark.parametrize("status", [200, 400, 422, 429, 500])
@pytest.mark.parametrize("form", ["json", "chunked", "events"])
@pytest.mark.parametrize("cut", [1, 7, 10_000])
async def test_a_provider_that_quotes_the_operators_secrets_tells_nobody_else(
    kind: str,
    status: int,
    form: str,
    cut: int,
    start_engine: StartEngine,
    start_gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if form == "events" and status != 200:
        return
    monkeypatch.setattr(Attempts, "pause_s", 0.0)
    monkeypatch.setenv("CLOUD_PROJECT", "project/of-the-operator")
    monkeypatch.setenv("CLOUD_KEY", "sk-sk-operators-own")
    secrets = ("sk-sk-operators-own", "project/of-the-operator", r"project\/of-the-operator")
    text = f"Wrong key: {secrets[0]}, sk-sk-sk-operators-own! {secrets[1]} sk-operators"
    engine = await start_engine(spoken_by(text, status=status, form=form, cut=cut))
    more = 'headers = { X-Project = "env:CLOUD_PROJECT" }\n' + 'apis = ["openai-chat"]\n'
    running = await start_gateway(provider("cloud", engine, kind=kind, more=more))
    path, body = "/v1/chat/completions", CHAT | {"stream": form == "events"}
    got = await running.http.post(path, json=body)
    seen = got.text + json.dumps(dict(got.headers)) + caplog.text + str(running.records)
    assert not [secret for secret in secrets if secret in seen]
    assert engine.requests[-1].headers["x-project"] == secrets[1]
    if status in (200, 400, 422):
        assert f"Wrong key: {'*' * 19}, sk-{'*' * 19}! {'*' * 23} sk-operators" in got.text
    looked = (await running.http.get("/paceline/lanes")).text + (await running.http.get("/paceline/requests")).text
    assert not [secret for secret in secrets if secret in looked]


async def test_an_engine_of_ones_own_is_first_and_a_provider_stands_in(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    local, cloud = await start_engine(), await start_engine()
    running = await start_gateway(group("own", "cloud") + provider("cloud", cloud) + lane("own", local.url))
    running.gateway.pipeline.router.settings = RoutingSettings(exploration=0.5)
    for _ in range(30):
        assert (await post(running)).headers["x-paceline-lane"] == "own"
    assert not cloud.requests
    local.script = status_500
    assert (await post(running)).headers["x-paceline-lane"] == "cloud"


async def test_who_asks_for_no_model_is_not_sent_away(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    local, cloud = await start_engine(models=("own-model",)), await start_engine()
    running = await start_gateway(provider("cloud", cloud) + lane("own", local.url))
    for model in (None, "unheard-of"):
        got = await running.http.post("/v1/chat/completions", json=chat(**({"model": model} if model else {})))
        assert got.headers["x-paceline-lane"] == "own"
    assert not cloud.requests


async def test_a_provider_is_always_told_its_model(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    cloud = await start_engine()
    running = await start_gateway(provider("cloud", cloud))
    for model in (None, "unheard-of", "m"):
        await running.http.post("/v1/chat/completions", json=chat(**({"model": model} if model else {})))
        assert cloud.requests[-1].json["model"] == "m"


async def test_a_model_has_another_name_at_a_provider(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def says(received: Received, wire: Wire) -> None:
        await wire.json(MESSAGE)

    local, cloud = await start_engine(models=("qwen",)), await start_engine(says)
    group = '[[model]]\nname = "coder"\nlanes = ["own", "claude"]\nengine_models = { own = "qwen", claude = "m" }\n'
    running = await start_gateway(lane("own", local.url) + provider("claude", cloud, "anthropic-api") + group)
    await running.http.post("/v1/chat/completions", json=CHAT | {"model": "coder"})
    assert local.requests[-1].json["model"] == "qwen"
    local.script = status_500
    got = await running.http.post("/v1/chat/completions", json=CHAT | {"model": "coder"})
    assert got.headers["x-paceline-lane"] == "claude"
    assert cloud.requests[-1].json["model"] == "m"


async def test_what_is_not_decided_on_goes_to_no_provider(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    cloud = await start_engine()
    running = await start_gateway(provider("cloud", cloud))
    for method, path in (("GET", "/v1/files"), ("POST", "/v1/embeddings"), ("DELETE", "/v1/responses/resp_1")):
        got = await running.http.request(method, path)
        assert got.status_code == 404, path
    assert not cloud.requests
    local = await start_engine()
    running = await start_gateway(provider("cloud", cloud) + lane("own", local.url))
    assert (await running.http.post("/v1/embeddings", json={"model": "m", "input": "x"})).status_code == 200
    got = await running.http.get("/v1/files", headers={"x-paceline-lane": "cloud"})
    assert got.status_code == 404
    assert not cloud.requests


async def test_a_large_body_is_translated_whole(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def says(received: Received, wire: Wire) -> None:
        await wire.json(MESSAGE)

    engine = await start_engine(says)
    running = await start_gateway(provider("claude", engine, "anthropic-api"))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * 100_000}}
    asked = {"model": "m", "messages": [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]}
    got = await running.http.post("/v1/chat/completions", content=b"\xef\xbb\xbf" + json.dumps(asked).encode())
    assert got.json()["choices"][0]["message"]["content"] == "hello"
    shown, text = engine.requests[0].json["messages"][0]["content"]
    assert shown["source"] == {"type": "base64", "media_type": "image/png", "data": "iVBORw0K" * 100_000}
    assert text == {"type": "text", "text": "What is it?"}


async def test_explain_tells_who_cannot_be_asked(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    claude, gpt = await start_engine(), await start_engine()
    running = await start_gateway(provider("claude", claude, "anthropic-api") + provider("gpt", gpt))
    got = await running.http.post("/paceline/explain/v1/chat/completions", json=CHAT | {"seed": 7})
    decision = got.json()["decision"]
    assert decision["lane"] == "gpt"
    assert "not claude: seed: " in decision["reason"]
    assert decision["alternatives"] == []


# Limits


def reached(status: int = 200, **headers: str) -> float:
    """For how long a provider is left out that answers so."""
    one = Limits()
    one.note(status, [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])
    return one.left_s()


def test_limits_are_read_as_providers_tell_them() -> None:
    assert reached() == 0
    assert reached(429) == pytest.approx(limits.DEFAULT_PAUSE_S, abs=0.2)
    assert reached(429, retry_after="17") == pytest.approx(17, abs=0.2)
    assert reached(429, retry_after_ms="250.5", retry_after="1") == pytest.approx(0.25, abs=0.1)
    assert reached(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT") == 0
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))
    assert reached(503, retry_after=soon) == pytest.approx(60, abs=2)
    assert reached(200, retry_after="17") == 0
    assert reached(429, retry_after="86400") == pytest.approx(limits.MAX_PAUSE_S, abs=1)
    assert reached(x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="6m0s") == pytest.approx(360, abs=1)
    assert reached(x_ratelimit_remaining_tokens="0", x_ratelimit_reset_tokens="120ms") == pytest.approx(0.12, abs=0.1)
    assert reached(x_ratelimit_remaining_tokens="5", x_ratelimit_reset_tokens="9s") == 0
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 30))
    told = {"anthropic_ratelimit_input_tokens_remaining": "0", "anthropic_ratelimit_input_tokens_reset": stamp}
    assert reached(200, **told) == pytest.approx(30, abs=2)
    milliseconds = str(int((time.time() + 45) * 1000))
    assert reached(429, x_ratelimit_remaining="0", x_ratelimit_reset=milliseconds) == pytest.approx(45, abs=2)
    for odd in ("", "soon", "-1", "1e9999", "9" * 400, "nan", "\xff"):
        assert reached(429, retry_after=odd) <= limits.MAX_PAUSE_S
        assert reached(x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests=odd) <= limits.MAX_PAUSE_S


def test_a_clock_that_is_set_changes_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Limits()
    one.note(429, [(b"retry-after", b"30")])
    for now_s in (0.0, time.time() - 86_400, time.time() + 86_400):
        monkeypatch.setattr(limits, "time", lambda now_s=now_s: now_s)
        assert one.left_s() == pytest.approx(30, abs=1)


async def test_a_provider_is_left_out_until_its_limit_is_over(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def full(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "slow down"}}, 429, {"retry-after": "40"})

    first, second = await start_engine(full), await start_engine()
    running = await start_gateway(provider("a", first) + provider("b", second))
    assert (await post(running)).headers["x-paceline-lane"] == "b"
    assert (await post(running)).headers["x-paceline-lane"] == "b"
    assert len(first.requests) == 1
    got = await post(running, **{"x-paceline-lane": "a"})
    assert got.status_code == 429
    assert 30 <= int(got.headers["retry-after"]) <= 40
    assert got.json()["error"]["type"] == "rate_limit_error"
    assert len(first.requests) == 1


async def test_a_short_limit_is_waited_for(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def full_once(received: Received, wire: Wire) -> None:
        if len(engine.requests) == 1:
            await wire.json({"error": {"message": "slow down"}}, 429, {"retry-after-ms": "300"})
        else:
            await wire.json(ANSWER)

    engine = await start_engine(full_once)
    running = await start_gateway(provider("cloud", engine))
    got = await post(running)
    assert got.status_code == 200
    assert running.outcome.total_s >= 0.3


@pytest.mark.parametrize("script", [status_500, drops])
async def test_a_provider_that_fails_once_is_asked_once_more(
    script: Script, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def ill_once(received: Received, wire: Wire) -> None:
        await (script if len(engine.requests) == 1 else answer)(received, wire)

    engine = await start_engine(ill_once)
    running = await start_gateway(provider("cloud", engine))
    assert (await post(running)).status_code == 200
    assert len(engine.requests) == 2
    engine.script = script
    got = await post(running)
    assert got.status_code in (500, 502)
    assert len(engine.requests) == 4  # two engines may have worked on it, and no more


async def test_a_provider_that_fails_is_tried_again_by_one_request(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(illness, "EJECTION_S", (0.2,))
    cloud, other = await start_engine(status_500), await start_engine()
    running = await start_gateway(group("cloud", "other") + provider("cloud", cloud) + provider("other", other))
    engine = running.gateway.fleet.engines["cloud"]
    while not engine.illness.is_ejected:
        assert (await post(running)).headers["x-paceline-lane"] == "other"
    sent = len(cloud.requests)
    assert (await post(running)).headers["x-paceline-lane"] == "other"
    assert len(cloud.requests) == sent  # it is left out
    await until(lambda: not engine.illness.is_ejected)
    named = {"x-paceline-lane": "cloud"}
    assert (await post(running, **named)).status_code == 500
    assert len(cloud.requests) == sent + 1  # the trial was a request of a user's
    assert engine.illness.is_ejected
    cloud.script = answer
    await until(lambda: not engine.illness.is_ejected)
    assert (await post(running, **named)).headers["x-paceline-lane"] == "cloud"
    assert engine.illness.problem is None


async def test_a_provider_that_cannot_be_reached_is_left_out_too(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    cloud, other = await start_engine(), await start_engine()
    running = await start_gateway(provider("cloud", cloud) + provider("other", other))
    await cloud.stop()
    for _ in range(illness.FAILURES_IN_A_ROW):
        assert (await post(running)).headers["x-paceline-lane"] == "other"
    assert running.gateway.fleet.engines["cloud"].illness.is_ejected


async def test_a_translated_request_falls_back_to_an_engine_that_speaks_another_api(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def says(received: Received, wire: Wire) -> None:
        await wire.json(MESSAGE if received.target == "/v1/messages" else ANSWER)

    claude, gpt = await start_engine(status_500), await start_engine(says)
    running = await start_gateway(provider("claude", claude, "anthropic-api") + provider("gpt", gpt))
    asked = CHAT | {"max_tokens": 5, "logit_bias": {"1": 5}}
    got = await running.http.post("/v1/chat/completions", json=asked)
    assert got.headers["x-paceline-lane"] == "gpt"
    assert "not claude: logit_bias" in got.headers["x-paceline-reason"]
    assert not claude.requests
    got = await running.http.post("/v1/messages", json=CHAT | {"max_tokens": 5})
    assert got.headers["x-paceline-lane"] == "gpt"
    assert got.json()["content"] == [{"type": "text", "text": "hello"}]
    claude.script = says
    got = await running.http.post("/v1/messages", json=CHAT | {"max_tokens": 5}, headers={"x-paceline-lane": "claude"})
    assert json.loads(got.content) == MESSAGE


# Streams that hang, and second copies


DONE = b"data: [DONE]\n\n"


def streams(*, before_s: float = 0.0, within_s: float = 0.0) -> Script:
    """A stream of two tokens, with pauses."""

    async def script(received: Received, wire: Wire) -> None:
        await asyncio.sleep(before_s)
        await wire.stream_head()
        await wire.chunk(token("one"))
        await asyncio.sleep(within_s)
        await wire.chunk(token("two") + DONE)
        await wire.end()

    return script


async def stream(running: RunningGateway) -> Any:
    return await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})


async def test_a_stream_that_hangs_is_given_up(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(streams(within_s=30))
    running = await start_gateway(provider("cloud", engine, more="stall_timeout_s = 0.3"))
    got = await stream(running)
    assert got.content.startswith(token("one"))
    assert b"no byte for 0.3 s" in got.content
    assert "given up" in str((await running.outcome_number(1)).error)


async def test_a_stream_that_does_not_begin_is_left_to_the_next(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    late, other = await start_engine(streams(before_s=30)), await start_engine(streams())
    more = "first_byte_timeout_s = 0.3"
    running = await start_gateway(provider("late", late, more=more) + provider("other", other))
    got = await stream(running)
    assert (got.headers["x-paceline-lane"], got.content) == ("other", token("one") + token("two") + DONE)


async def test_how_long_streams_pause_is_learned(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "MIN_STALL_S", 0.2)
    monkeypatch.setattr(pace, "MIN_STREAMS", 4)
    engine = await start_engine(streams(within_s=0.1))
    running = await start_gateway(provider("cloud", engine))
    seen = running.gateway.fleet.engines["cloud"].pace
    for number in range(4):
        assert seen.stall_limit_s is None
        assert DONE in (await stream(running)).content
        await running.outcome_number(number + 1)
    assert seen.stall_limit_s is not None
    assert 0.4 < seen.stall_limit_s < 5
    engine.script = streams(within_s=60)
    got = await stream(running)
    assert b"error" in got.content and DONE not in got.content


def asked(running: RunningGateway, name: str) -> int:
    """How many answers of an engine are awaited or read."""
    return running.gateway.fleet.engines[name].client.busy_connections


async def hedging(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, first: Script
) -> tuple[RunningGateway, FakeEngine, FakeEngine]:
    """A gateway that knows how soon the first provider's streams begin, and what it does next."""
    monkeypatch.setattr(pace, "MIN_STREAMS", 3)
    one, two = await start_engine(streams()), await start_engine(streams())
    running = await start_gateway("routing.hedging = true\n" + provider("one", one) + provider("two", two))
    for _ in range(3):
        assert (await stream(running)).headers["x-paceline-lane"] == "one"
    one.script = first
    return running, one, two


async def test_a_second_copy_is_sent_where_the_first_is_late(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, _one, two = await hedging(start_engine, start_gateway, monkeypatch, streams(before_s=60))
    got = await stream(running)
    assert got.headers["x-paceline-lane"] == "two"
    assert got.content == token("one") + token("two") + DONE
    outcome = await running.outcome_number(4)
    assert (outcome.lane, [name for name, _ in outcome.cancelled], outcome.failed) == ("two", ["one"], ())
    await until(lambda: asked(running, "one") == 0)  # the loser is told at once
    assert 'paceline_cancelled_copies_total{lane="one"} 1.0' in (await running.http.get("/metrics")).text
    assert len(two.requests) == 1


async def test_the_first_may_still_win(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, _, two = await hedging(start_engine, start_gateway, monkeypatch, streams(before_s=0.5))
    two.script = streams(before_s=60)
    got = await stream(running)
    assert got.headers["x-paceline-lane"] == "one"
    outcome = await running.outcome_number(4)
    assert (outcome.lane, [name for name, _ in outcome.cancelled]) == ("one", ["two"])
    await until(lambda: asked(running, "two") == 0)


async def test_a_first_one_that_fails_leaves_it_to_the_second(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails_late(received: Received, wire: Wire) -> None:
        await asyncio.sleep(0.4)
        await status_500(received, wire)

    running, _, two = await hedging(start_engine, start_gateway, monkeypatch, fails_late)
    two.script = streams(before_s=0.8)
    got = await stream(running)
    assert got.headers["x-paceline-lane"] == "two"
    outcome = await running.outcome_number(4)
    assert (outcome.cancelled, [name for name, _ in outcome.failed]) == ((), ["one"])


async def test_a_client_that_leaves_ends_both(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, _one, two = await hedging(start_engine, start_gateway, monkeypatch, streams(before_s=60))
    two.script = streams(before_s=60)
    leaving = asyncio.ensure_future(stream(running))
    await until(lambda: len(two.requests) == 1)
    leaving.cancel()
    await until(lambda: asked(running, "one") == asked(running, "two") == 0)
    assert (await running.outcome_number(4)).status == 499


async def test_no_second_copy_unless_it_is_turned_on(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    one, two = await start_engine(streams()), await start_engine()
    running = await start_gateway(provider("one", one) + provider("two", two))
    for _ in range(pace.MIN_STREAMS):
        await stream(running)
    one.script = streams(before_s=0.5)
    assert (await stream(running)).headers["x-paceline-lane"] == "one"
    assert not two.requests


# All of it together


async def test_nothing_is_lost_that_could_be_served_and_each_delivery_is_recorded(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that fails in every way, and one that is often at its limit."""
    monkeypatch.setattr(pace, "MIN_STREAMS", 5)
    monkeypatch.setattr(illness, "EJECTION_S", (0.05,))

    async def limited(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "slow down"}}, 429, {"retry-after-ms": "50"})

    async def overloaded(received: Received, wire: Wire) -> None:
        error = b'event: error\ndata: {"error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
        await wire.stream_head()
        await wire.chunk(error)
        await wire.end()

    well = streams()
    faults = [limited, status_500, drops, overloaded, streams(before_s=0.1)]

    async def fails(received: Received, wire: Wire) -> None:
        number = len(one.requests)
        await (faults[number // 2 % len(faults)] if number % 2 else well)(received, wire)

    async def is_full(received: Received, wire: Wire) -> None:
        await (limited if len(two.requests) % 5 == 0 else well)(received, wire)

    one, two = await start_engine(fails), await start_engine(is_full)
    running = await start_gateway("routing.hedging = true\n" + provider("one", one) + provider("two", two))
    for _ in range(10):
        for got in await asyncio.gather(*(stream(running) for _ in range(8))):
            assert got.content == token("one") + token("two") + DONE
    await running.outcome_number(80)
    outcomes = [record.outcome for record in running.records]
    assert {outcome.status for outcome in outcomes} == {200}
    assert sum(outcome.deliveries for outcome in outcomes) == len(one.requests) + len(two.requests) > 80
    assert all(outcome.deliveries >= 1 + len(outcome.failed) + len(outcome.cancelled) for outcome in outcomes)


async def test_a_new_key_is_taken_up_by_a_reload(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start_engine()
    running = await start_gateway(provider("cloud", engine))
    await post(running)
    supervisor = running.gateway.fleet.engines["cloud"].supervisor
    await running.http.post("/paceline/reload")
    assert running.gateway.fleet.engines["cloud"].supervisor is supervisor
    monkeypatch.setenv("CLOUD_KEY", "sk-new")
    await running.http.post("/paceline/reload")
    await running.lanes_settle()
    await post(running)
    assert [one.headers["authorization"] for one in engine.requests] == ["Bearer sk-operators-own", "Bearer sk-new"]
