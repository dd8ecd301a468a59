"""Compressed request bodies."""

import asyncio
import gzip
import json
import sys

import pytest
from tests.conftest import StartEngine, StartGateway, chat, lane
from tests.fake_engine import ANSWER, Received, Wire
from tests.patient import until

from paceline.http.errors import ApiError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

import sys
import zlib

from paceline.http.unpack import unpacked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BODY = b'{"messages": []}' * 20_000


def bare(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


PACKED = {
    "gzip": gzip.compress(BODY),
    "GZIP": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "deflate, identity": bare(BODY),
    "zstd": zstd.compress(BODY),
    "gzip, zstd": zstd.compress(gzip.compress(BODY)),
    "identity": BODY,
}


@pytest.mark.parametrize("encoding", PACKED)
async def test_encodings_are_taken_off(encoding: str) -> None:
    assert await unpacked(PACKED[encoding], encoding.encode(), len(BODY)) == BODY


@pytest.mark.parametrize("encoding", [name for name in PACKED if name != "identity"])
async def test_a_body_that_grows_beyond_the_limit_is_refused(encoding: str) -> None:
    with pytest.raises(ApiError) as refused:
        await unpacked(PACKED[encoding], encoding.encode(), len(BODY) - 1)
    assert refused.value.status == 413


@pytest.mark.parametrize("encoding", [name for name in PACKED if name != "identity"])
@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
async def test_a_damaged_body_is_refused(encoding: str, damage: str) -> None:
    good = PACKED[encoding]
    body = {"cut": good[:-9], "changed": b"\xff\x00\xfe" + good[3:], "empty": b""}[damage]
    with pytest.raises(ApiError) as refused:
        await unpacked(body, encoding.encode(), len(BODY))
    assert refused.value.status == 400


async def test_an_unknown_encoding_is_said_with_those_that_are_known() -> None:
    with pytest.raises(ApiError, match="gzip, deflate, zstd") as refused:
        await unpacked(b"x", b"br", 10)
    assert refused.value.status == 415
    assert (b"accept-encoding", b"gzip, deflate, zstd, identity") in refused.value.headers


# In a gateway

SENT = json.dumps(chat("x" * 100)).encode()
PARTS = (SENT[:60], SENT[60:])


@pytest.mark.parametrize(
    ("encodings", "packed"),
    [
        (["gzip"], b"".join(map(gzip.compress, PARTS))),
        (["gzip"], gzip.compress(SENT) + bytes(100)),
        (["gzip"], b"".join(gzip.compress(SENT[at : at + 1]) for at in range(len(SENT)))),
        (["zstd"], b"".join(map(zstd.compress, PARTS))),
        (["gzip", "zstd"], zstd.compress(gzip.compress(SENT))),
        (["gzip", "gzip"], gzip.compress(gzip.compress(SENT))),
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
    assert engine.requests[-1].body == SENT
    assert "content-encoding" not in engine.requests[-1].headers


@pytest.mark.parametrize(
    ("packed", "status"),
    [(gzip.compress(SENT)[:-20], 400), (gzip.compress(SENT) + b"rubbish", 400), (b"", 400)],
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
    await until(lambda: sum(one.done() for one in waiting) >= 3)
    release.set()
    assert sorted(await asyncio.gather(*waiting)) == [200, 200, 503, 503, 503]
    assert await send() == 200  # the place is given back
