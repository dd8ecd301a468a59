"""Faults of several parts at once, each by the smallest input that showed it."""

import asyncio
import gzip
import json
import sys
from contextlib import nullcontext
from time import perf_counter
from typing import Any
from urllib.parse import unquote

import pytest

from conftest import StartEngine, StartGateway, lane
from fake_engine import ANSWER, Received, Wire, event, token
from paceline.configuration import parse
from paceline.engines import Health
from paceline.gateway import illness, pipeline
from paceline.gateway.access import Access
from paceline.gateway.errors import ApiError
from paceline.gateway.headers import to_client, to_engine
from paceline.gateway.passing import _model_in_form
from paceline.gateway.routes import Audience

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ERROR = {"error": {"message": "CUDA error: an illegal memory access", "type": "server_error"}}


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


async def status_500(received: Received, wire: Wire) -> None:
    await wire.json(ERROR, 500)


async def error_in_200(received: Received, wire: Wire) -> None:
    await wire.json(ERROR)


async def drops(received: Received, wire: Wire) -> None:
    wire.die()
    raise ConnectionError


async def slow_answer(received: Received, wire: Wire) -> None:
    await asyncio.sleep(0.05)
    await wire.json(ANSWER)


@pytest.mark.parametrize("ill", [status_500, error_in_200, drops])
async def test_two_ill_engines_of_three_are_found_though_each_request_reaches_only_two(
    ill: Any, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engines = [await start_engine(ill), await start_engine(ill), await start_engine(slow_answer)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("abc", engines, strict=True)))
    served = 0
    for number in range(20):
        answer = await running.http.post("/v1/chat/completions", json=chat(f"story {number}"))
        served += answer.status_code == 200 and "error" not in answer.json()
    assert served >= 16


async def test_one_request_that_fails_everywhere_ejects_nobody_however_often_it_comes(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await (wire.json(ERROR, 500) if b"poison" in received.body else wire.json(ANSWER))

    engines = [await start_engine(script), await start_engine(script)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    for _ in range(8):
        assert (await running.http.post("/v1/chat/completions", json=chat("poison"))).status_code == 500
    lanes = (await running.http.get("/paceline/lanes")).json()["lanes"]
    assert [one["problem"] for one in lanes] == [None, None]


FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n" + b"name=model\n" * 100_000,
        b"--b\r\n" + b' name="model"\r\n' + b"a: b\r\n" * 200_000,
        b"--b\r\n" + b' name="model"\r\n' * 50_000,
        b' name="model";' * 100_000,
    ],
)
def test_a_form_that_looks_like_many_fields_is_looked_through_quickly(body: bytes) -> None:
    began_s = perf_counter()
    assert _model_in_form(body) is None
    assert perf_counter() - began_s < 0.05


@pytest.mark.parametrize("attributes", [b"", b"\r\nContent-Type: text/plain", b"; charset=utf-8"])
@pytest.mark.parametrize("before", [b"", PART % (b"file", b'; filename="model"', b"x" * 1000)])
def test_a_forms_model_is_found(before: bytes, attributes: bytes) -> None:
    assert _model_in_form(before + PART % (b"model", attributes, b"whisper") + b"--b--") == "whisper"


BODY = json.dumps(chat("x" * 100)).encode()
PARTS = (BODY[:60], BODY[60:])


@pytest.mark.parametrize(
    ("encodings", "packed"),
    [
        (["gzip"], b"".join(map(gzip.compress, PARTS))),
        (["gzip"], gzip.compress(BODY) + bytes(100)),
        (["gzip"], b"".join(gzip.compress(BODY[at : at + 1]) for at in range(len(BODY)))),
        (["zstd"], b"".join(map(zstd.compress, PARTS))),
        (["gzip", "zstd"], zstd.compress(gzip.compress(BODY))),
        (["gzip", "gzip"], gzip.compress(gzip.compress(BODY))),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_packed_body_arrives_whole_however_it_was_packed(
    path: str, encodings: list[str], packed: bytes, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url))
    headers = [("content-type", "application/json"), *(("content-encoding", one) for one in encodings)]
    answer = await running.http.post(path, content=packed, headers=headers)
    assert answer.status_code == 200, answer.text
    assert engine.requests[-1].body == BODY
    assert "content-encoding" not in engine.requests[-1].headers


@pytest.mark.parametrize(
    ("packed", "status"),
    [(gzip.compress(BODY)[:-20], 400), (gzip.compress(BODY) + b"rubbish", 400), (b"", 400)],
)
async def test_a_damaged_packed_body_reaches_no_engine(
    packed: bytes, status: int, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url))
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        assert (await running.http.post(path, content=packed, headers=headers)).status_code == status
    assert not engine.requests


async def test_what_was_unpacked_counts_among_the_bytes_in_flight(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    release = asyncio.Event()

    async def waits(received: Received, wire: Wire) -> None:
        await release.wait()
        await wire.json(ANSWER)

    engine = await start_engine(waits)
    running = await start_gateway("server.max_buffered_bytes = 3_000_000\n" + lane("a", engine.url))
    packed = gzip.compress(json.dumps(chat("x" * 1_000_000)).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}

    async def send() -> int:
        return (await running.http.post("/v1/chat/completions", content=packed, headers=headers)).status_code

    waiting = [asyncio.create_task(send()) for _ in range(5)]
    async with asyncio.timeout(10):
        while sum(one.done() for one in waiting) < 3:
            await asyncio.sleep(0.01)
    release.set()
    assert sorted(await asyncio.gather(*waiting)) == [200, 200, 503, 503, 503]
    assert await send() == 200  # the place is given back


async def test_an_unknown_name_is_served_though_another_engine_takes_long_to_start(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "START_PATIENCE_S", 0.3)
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


@pytest.mark.parametrize("base", ["", "/v1", "/base", "/base/v1/"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_a_redirect_of_an_engine_to_itself_leads_to_the_gateway(
    base: str, path: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def redirects(received: Received, wire: Wire) -> None:
        await wire.json({}, 307, {"location": f"{engine.url}{base.strip('/').removesuffix('v1') and '/base'}{path}/"})

    engine = await start_engine(redirects)
    running = await start_gateway(lane("a", engine.url))
    supervisor = running.gateway.fleet.engines["a"].supervisor
    supervisor.url = engine.url + base
    answer = await running.http.post(path, json=chat())
    assert answer.headers["location"] == f"{path}/"


def test_headers_that_come_twice_are_one_list() -> None:
    given = [(b"connection", b"x-a"), (b"x-a", b"1"), (b"connection", b"X-B, close"), (b"x-b", b"2"), (b"x-c", b"3")]
    given += [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")]
    sent = dict(to_engine(given, api_key=None, keep_key=True, plain=False, client="3.3.3.3"))
    assert sent.keys() == {b"x-c", b"x-forwarded-for", b"x-forwarded-proto"}
    assert sent[b"x-forwarded-for"] == b"1.1.1.1, 2.2.2.2, 3.3.3.3"
    assert to_client(given[:5]) == [(b"x-c", b"3")]


@pytest.mark.parametrize(("status", "own_key"), [(401, True), (407, True), (408, False), (425, False)])
async def test_an_engine_that_lacks_a_key_or_time_is_left_for_the_next(
    status: int, own_key: bool, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def refuses(received: Received, wire: Wire) -> None:
        await wire.json(ERROR, status)

    refusing, well = await start_engine(refuses), await start_engine()
    key = 'api_key = "outdated"' if own_key else ""
    running = await start_gateway(lane("a", refusing.url, more=key) + lane("b", well.url))
    for number in range(6):
        answer = await running.http.post("/v1/chat/completions", json=chat(f"{number}"))
        assert answer.status_code == 200
    assert running.gateway.fleet.engines["a"].illness.is_ejected == own_key


async def test_a_clients_own_wrong_key_is_told_to_the_client(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def refuses(received: Received, wire: Wire) -> None:
        await wire.json(ERROR, 401)

    engines = [await start_engine(refuses), await start_engine(refuses)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    assert (await running.http.post("/v1/chat/completions", json=chat())).status_code == 401
    assert sum(len(one.requests) for one in engines) == 1


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/files/..\\..\\slots", 403),
        ("/v1/files/..;/slots", 403),
        ("/v1/files/%252e%252e/slots", 403),
        ("/v1/files/%2e%2e%5cslots", 403),
        ("/v1/files/a..b", 200),
    ],
)
def test_a_path_leads_up_in_no_spelling(path: str, status: int) -> None:
    access = Access(parse('[[key]]\nname = "a"\nkey = "k"\npaths = ["/v1/files/*"]\n' + lane("a", "http://a"), "t"))
    client = access.identify([(b"authorization", b"Bearer "), (b"x-api-key", b"k")])
    refused = pytest.raises(ApiError, match="does not open") if status == 403 else nullcontext()
    with refused:
        access.admit(client, Audience.CLIENTS, unquote(path))


@pytest.mark.parametrize(
    ("host", "origin", "is_let_in"),
    [
        ("127.1", None, True),
        ("0x7f.1:8080", None, True),
        ("1.2.3.4.example", None, False),
        ("localhost", "http://LOCALHOST:80", True),
        ("LocalHost:80", "http://localhost", True),
        ("localhost:8080", "http://localhost", False),
        ("localhost:8080", "http://localhost:80", False),
        ("null", "null", False),
    ],
)
def test_spellings_of_hosts_and_origins(host: str, origin: str | None, is_let_in: bool) -> None:
    headers = [(b"host", host.encode()), *([(b"origin", origin.encode())] if origin else [])]
    try:
        Access(parse(lane("a", "http://a"), "t")).check_origin(headers, opens_a_page=False)
        assert is_let_in
    except ApiError:
        assert not is_let_in


async def test_an_engine_that_is_ill_for_streams_alone_is_found_among_other_requests(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def breaks_streams(received: Received, wire: Wire) -> None:
        if not received.json.get("stream"):
            return await wire.json(ANSWER)
        await wire.stream_head()
        await wire.chunk(token("one"))
        await wire.raw(b"400\r\ndata: {")
        await drops(received, wire)
        return None

    async def well(received: Received, wire: Wire) -> None:
        await asyncio.sleep(0.02)
        if not received.json.get("stream"):
            return await wire.json(ANSWER)
        await wire.stream_head()
        await wire.chunk(token("one") + event(b"[DONE]"))
        await wire.end()
        return None

    engines = [await start_engine(breaks_streams), await start_engine(well)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    broken = 0
    for number in range(40):
        answer = await running.http.post("/v1/chat/completions", json=chat(f"{number}", stream=number % 5 == 0))
        broken += b"error" in answer.content
    assert broken <= 3


async def test_an_engine_that_is_ill_for_one_model_is_tried_again_with_that(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(illness, "EJECTION_S", (0.05,))
    tried: list[str] = []

    async def ill_for_m2(received: Received, wire: Wire) -> None:
        if b"Say OK" in received.body:
            tried.append(received.json["model"])
        await (status_500 if received.json["model"] == "m2" else slow_answer)(received, wire)

    engines = [
        await start_engine(ill_for_m2, models=("m1", "m2")),
        await start_engine(slow_answer, models=("m1", "m2")),
    ]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    for number in range(40):
        body = chat(f"{number}", model="m2" if number % 2 else "m1")
        assert (await running.http.post("/v1/chat/completions", json=body)).status_code == 200
    await running.gateway.pipeline.keep_house()
    async with asyncio.timeout(10):
        while not tried:
            await asyncio.sleep(0.05)
            await running.gateway.pipeline.keep_house()
    assert set(tried) == {"m2"}
    assert running.gateway.fleet.engines["a"].illness.is_ejected
    assert sum(one.json["model"] == "m2" for one in engines[0].requests) - len(tried) <= 3
