"""Compressed request bodies."""

import gzip
import sys
import zlib

import pytest

from paceline.http.errors import ApiError
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
