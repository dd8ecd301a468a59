"""Faults of several parts at once, each by the smallest input that showed it."""

import asyncio
import gzip
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import quote, unquote

import pytest
from tests.conftest import StartEngine, StartGateway, lane
from tests.fake_engine import ANSWER, ERROR, Received, Wire, drops, error_in_200, event, status_500, token
from tests.patient import shortest_s

from paceline.configuration import parse
from paceline.http.access import Access
from paceline.http.routes import Audience
from paceline.processes import Health
from paceline.records.secret import conversation_key
from paceline.serving import illness, passing, pipeline
from paceline.serving.errors import ApiError
from paceline.serving.headers import to_client, to_engine
from paceline.serving.passing import _model_in_form
from paceline.serving.stored import StoredIds

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


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
    assert _model_in_form(body) is None
    assert shortest_s(lambda: _model_in_form(body), 0.05) <= 0.05


@pytest.mark.parametrize("attributes", [b"", b"\r\nContent-Type: text/plain", b"; charset=utf-8"])
@pytest.mark.parametrize("before", [b"", PART % (b"file", b'; filename="model"', b"x" * 1000)])
def test_a_forms_model_is_found(before: bytes, attributes: bytes) -> None:
    form = before + PART % (b"model", attributes, b"whisper") + b"--b--"
    found = _model_in_form(form)
    assert found is not None
    name, (begin, end) = found
    assert name == "whisper" == form[begin:end].decode()


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
    ids=["two parts", "padded", "a part a byte", "two zstd parts", "gzip in zstd", "gzip in gzip"],
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
    ids=["cut short", "with rubbish behind", "empty"],
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
            await wire.json(ANSWER)
            return
        await wire.stream_head()
        await wire.chunk(token("one"))
        await wire.raw(b"400\r\ndata: {")
        await drops(received, wire)

    async def well(received: Received, wire: Wire) -> None:
        await asyncio.sleep(0.02)
        if not received.json.get("stream"):
            await wire.json(ANSWER)
            return
        await wire.stream_head()
        await wire.chunk(token("one") + event(b"[DONE]"))
        await wire.end()

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
    running.gateway.pipeline.keep_house()
    async with asyncio.timeout(10):
        while not tried:
            await asyncio.sleep(0.05)
            running.gateway.pipeline.keep_house()
    assert set(tried) == {"m2"}
    assert running.gateway.fleet.engines["a"].illness.is_ejected
    assert sum(one.json["model"] == "m2" for one in engines[0].requests) - len(tried) <= 3


@pytest.mark.parametrize("name", ["resp_bGl0ZQ==", "resp/a+b", "a b", "r", "resp_" + "a" * 300, "rësp", "a%2fb"])
async def test_a_response_is_found_again_whatever_its_id(
    name: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def keeps(received: Received, wire: Wire) -> None:
        await wire.json({"id": name, "object": "response", "status": "completed"})

    async def knows_nothing(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "not found", "code": 404}}, 404)

    engines = [await start_engine(knows_nothing), await start_engine(keeps)]
    running = await start_gateway("".join(lane(a, one.url) for a, one in zip("ab", engines, strict=True)))
    for forget in (False, True):
        body = {"input": "x"}
        made = await running.http.post("/v1/responses", json=body, headers={"x-paceline-lane": "b"})
        assert made.status_code == 200
        if forget:
            running.gateway.pipeline.stored_ids = StoredIds()
        answer = await running.http.post("/v1/responses", json=body | {"previous_response_id": name})
        assert answer.headers["x-paceline-lane"] == "b"
        answer = await running.http.request("DELETE", f"/v1/responses/{quote(name, safe='')}")
        assert answer.headers["x-paceline-lane"] == "b"


def test_a_pipe_in_the_place_of_a_key_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "conversation.key")
    assert len(conversation_key(tmp_path)) == 32


async def test_the_whole_time_counts_over_all_attempts_and_the_queue(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def hangs(received: Received, wire: Wire) -> None:
        await asyncio.sleep(30)

    engines = [await start_engine(hangs), await start_engine(hangs)]
    running = await start_gateway(
        "server.total_timeout_s = 1\nserver.first_byte_timeout_s = 0.7\n"
        + "".join(lane(a, one.url, more='device = "cpu"') for a, one in zip("ab", engines, strict=True))
    )
    for stream in (False, True):
        began_s = perf_counter()
        sent = [running.http.post("/v1/chat/completions", json=chat(stream=stream, max_tokens=1)) for _ in range(3)]
        assert {answer.status_code for answer in await asyncio.gather(*sent)} == {504}
        assert perf_counter() - began_s < 2.5  # each attempt and each turn with a second of its own would take 4
    assert running.outcome.status == 504


@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/plain", None])
@pytest.mark.parametrize("body", [b'{"choices": [', b"", b"<html>bad gateway</html>", json.dumps(ERROR).encode()])
async def test_an_answer_that_is_none_is_asked_for_elsewhere(
    kind: str | None, body: bytes, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def lies(received: Received, wire: Wire) -> None:
        await wire.head(200, {"content-type": kind} if kind else {})
        await wire.raw(body)
        await wire.close()
        raise ConnectionError

    engines = [await start_engine(lies), await start_engine()]
    running = await start_gateway("".join(lane(a, one.url) for a, one in zip("ab", engines, strict=True)))
    answer = await running.http.post("/v1/chat/completions", json=chat())
    assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "b")
    assert answer.json() == ANSWER
    await engines[1].stop()
    await running.gateway.fleet.engines["b"].supervisor.look_again(0)
    answer = await running.http.post("/v1/chat/completions", json=chat())
    assert (answer.status_code, answer.content) == (200, body)  # there is nothing better
    assert running.outcome.error


async def test_an_ejected_engine_stays_so_over_a_reload(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engines = [await start_engine(status_500), await start_engine(slow_answer)]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    for number in range(4):
        await running.http.post("/v1/chat/completions", json=chat(f"{number}"))
    assert running.gateway.fleet.engines["a"].illness.is_ejected
    running.text += '[[key]]\nname = "n"\nkey = "k"\nadmin = true\n'
    assert (await running.http.post("/paceline/reload")).status_code == 200
    assert running.gateway.fleet.engines["a"].illness.is_ejected


async def test_what_is_passed_through_goes_to_an_engine_that_is_well(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engines = [await start_engine(status_500), await start_engine()]
    running = await start_gateway("".join(lane(name, one.url) for name, one in zip("ab", engines, strict=True)))
    for number in range(4):
        await running.http.post("/v1/chat/completions", json=chat(f"{number}"))
    for body in ({"input": "x"}, {"input": "x", "model": "m"}):
        answer = await running.http.post("/v1/embeddings", json=body)
        assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "b")


async def test_a_forms_model_has_the_engines_name(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(models=("whisper-large-v3",))
    running = await start_gateway(
        lane("a", engine.url) + '[[model]]\nname = "whisper-1"\nlanes = ["a"]\nengine_model = "whisper-large-v3"\n'
    )
    form = PART % (b"file", b'; filename="a.wav"', b"\r\n\0x") + PART % (b"model", b"", b"%b") + b"--b--\r\n"
    await running.http.post("/v1/audio/transcriptions", content=form % b"whisper-1", headers=FORM)
    assert engine.requests[-1].body == form % b"whisper-large-v3"


@pytest.mark.parametrize("is_silent", [False, True])
async def test_what_is_passed_through_gives_an_unused_turn_up(
    is_silent: bool, start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "MIN_STALLED_S", 0.2)
    monkeypatch.setattr(pipeline, "SLOW_READER_S", 0.2)

    async def never_ends(received: Received, wire: Wire) -> None:
        if is_silent:
            await asyncio.sleep(30)
        await wire.stream_head()
        while True:
            await wire.chunk(b"x" * 10_000)

    engines = [await start_engine(never_ends), await start_engine()]
    running = await start_gateway(
        "".join(lane(name, one.url, more='device = "cpu"') for name, one in zip("ab", engines, strict=True))
    )
    _, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]), limit=1)
    writer.write(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nx-paceline-lane: a\r\nContent-Length: 2\r\n\r\n{}")
    async with asyncio.timeout(5):
        while not engines[0].requests:
            await asyncio.sleep(0.01)
        answer = await running.http.post("/v1/chat/completions", json=chat(), headers={"x-paceline-lane": "b"})
    assert answer.status_code == 200
    writer.close()
