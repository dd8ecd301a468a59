"""What is passed through as it came: its model, its engine, its turn, and redirects."""

import asyncio
import json

import pytest
from tests.conftest import StartEngine, StartGateway, chat, lane
from tests.fake_engine import Received, Wire, status_500
from tests.patient import shortest_s, until

from paceline.serving import in_flight, passing
from paceline.serving.model_in_body import Named, model_in_form, named_model

FORM_TYPE = b"multipart/form-data; boundary=b"
FORM = {"content-type": FORM_TYPE.decode()}
PART = b'--b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n" + b"name=model\n" * 100_000,
        b"--b\r\n" + b' name="model"\r\n' + b"a: b\r\n" * 200_000,
        b"--b\r\n" + b' name="model"\r\n' * 50_000,
        b' name="model";' * 100_000,
        b"--b\r\na: b\r\n\r\nx\r\n" * 100_000,
        PART % (b"file", b"", b'{"custom_id": "1", "body": {"model": "house"}}') + b"--b--",
    ],
)
def test_a_form_that_names_no_model_surely_is_looked_through_quickly(body: bytes) -> None:
    assert model_in_form(FORM_TYPE, body) == Named(is_sure=False)
    assert shortest_s(lambda: model_in_form(FORM_TYPE, body), 0.05) <= 0.05


@pytest.mark.parametrize("attributes", [b"", b"\r\nContent-Type: text/plain", b"; charset=utf-8"])
@pytest.mark.parametrize("before", [b"", PART % (b"file", b'; filename="model"', b"x" * 1000)])
def test_a_forms_model_is_found(before: bytes, attributes: bytes) -> None:
    form = before + PART % (b"model", attributes, b"whisper") + b"--b--"
    found = model_in_form(FORM_TYPE, form)
    assert found.is_sure
    assert found.model == "whisper"
    assert found.span is not None
    assert form[found.span[0] : found.span[1]] == b"whisper"


@pytest.mark.parametrize("kind", [b"multipart/form-data; boundary=c", b"multipart/form-data"])
def test_a_field_within_a_forms_file_is_none_of_the_form(kind: bytes) -> None:
    form = b"--c\r\n\r\n" + PART % (b"model", b"", b"public") + b"--c--"
    assert model_in_form(kind, form) == Named(is_sure=False)


@pytest.mark.parametrize("size", [0, 3_000_000])
async def test_the_model_is_the_objects_own_whatever_its_size(size: int) -> None:
    nested = json.dumps({"input": [{"model": "public"}], "text": '"model": "public"' + "x" * size})
    for name in ('"model"', r'"mod\u0065l"'):
        body = f'{nested[:-1]}, {name}: "house", "more": {{"model": "public"}}}}'.encode()
        for whole in (body, b"\xef\xbb\xbf" + body + b"\0"):
            found = await named_model([], whole)
            assert (found.model, found.is_sure) == ("house", True)
            assert found.span is not None
            assert whole[found.span[0] : found.span[1]] == b'"house"'
    assert (await named_model([], nested.encode())) == Named()
    assert (await named_model([], b'{"model": "house", "model": "public"}')).models == ("house", "public")
    for doubtful in (nested.encode("utf-16"), nested[:-1].encode(), b"x" + nested.encode()):
        assert not (await named_model([], doubtful)).is_sure


async def test_a_model_is_found_behind_a_byte_order_mark() -> None:
    assert (await named_model([], b'\xef\xbb\xbf{"model": "house"}\0')).models == ("house",)


async def test_a_forms_model_has_the_engines_name(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine(models=("whisper-large-v3",))
    running = await start_gateway(
        lane("a", engine.url) + '[[model]]\nname = "whisper-1"\nlanes = ["a"]\nengine_model = "whisper-large-v3"\n'
    )
    form = PART % (b"file", b'; filename="a.wav"', b"\r\n\0x") + PART % (b"model", b"", b"%b") + b"--b--\r\n"
    await running.http.post("/v1/audio/transcriptions", content=form % b"whisper-1", headers=FORM)
    assert engine.requests[-1].body == form % b"whisper-large-v3"


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


@pytest.mark.parametrize("is_silent", [False, True])
async def test_what_is_passed_through_gives_an_unused_turn_up(
    is_silent: bool, start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "MIN_STALLED_S", 0.2)
    monkeypatch.setattr(in_flight, "SLOW_READER_S", 0.2)

    async def never_ends(received: Received, wire: Wire) -> None:
        if is_silent:
            await asyncio.sleep(60)
        await wire.stream_head()
        while True:
            await wire.chunk(b"x" * 10_000)

    engines = [await start_engine(never_ends), await start_engine()]
    running = await start_gateway(
        "".join(lane(name, one.url, more='device = "cpu"') for name, one in zip("ab", engines, strict=True))
    )
    _, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]), limit=1)
    writer.write(b"POST /v1/embeddings HTTP/1.1\r\nHost: a\r\nx-paceline-lane: a\r\nContent-Length: 2\r\n\r\n{}")
    await until(lambda: engines[0].requests)
    answer = await running.http.post("/v1/chat/completions", json=chat(), headers={"x-paceline-lane": "b"})
    assert answer.status_code == 200
    writer.close()


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
