"""Faults of several parts at once, each by the smallest input that showed it."""

import asyncio
import gzip
import json
import sys
from time import perf_counter
from typing import Any

import pytest

from conftest import StartEngine, StartGateway, lane
from fake_engine import ANSWER, Received, Wire
from paceline.gateway.passing import _model_in_form

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
