"""Compressed request bodies: unpacked here, since engines don't, and what can't be read can't be decided on."""

import asyncio
import sys
import zlib
from collections.abc import Callable
from typing import Any

from paceline.gateway.errors import ApiError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 65_536
BESIDE_BYTES = 100_000
"""A larger body is unpacked in a thread, so that others are served meanwhile."""
SUPPORTED = "gzip, deflate, zstd, identity"


async def unpacked(body: bytes, encodings: bytes, max_bytes: int) -> bytes:
    """The body without its encodings, in the order of ``Content-Encoding``.

    Raises:
        ApiError: 415, an encoding is unknown; 413, it would be larger than ``max_bytes``; 400, it is damaged.
    """
    names = [name for name in encodings.decode("latin-1").lower().replace(" ", "").split(",") if name]
    for name in reversed(names):
        if name in ("identity", ""):
            continue
        if name not in _UNPACKERS:
            raise ApiError(
                415,
                f"content-encoding: {name[:40]!r} can't be read here; send the body as it is, or as: {SUPPORTED}",
                "unsupported_encoding",
                headers=[(b"accept-encoding", SUPPORTED.encode())],
            )
        try:
            if len(body) > BESIDE_BYTES:
                body = await asyncio.to_thread(_UNPACKERS[name], body, max_bytes)
            else:
                body = _UNPACKERS[name](body, max_bytes)
        except (zlib.error, zstd.ZstdError, EOFError) as error:
            raise ApiError(400, f"content-encoding {name}: the body is damaged: {error}", "invalid_encoding") from error
    return body


def _inflated(body: bytes, max_bytes: int) -> bytes:
    """``deflate``: a zlib stream by the standard, a bare one from some clients."""
    try:
        return _all_of(zlib.decompressobj(), body, max_bytes)
    except zlib.error:
        return _all_of(zlib.decompressobj(-zlib.MAX_WBITS), body, max_bytes)


def _gunzipped(body: bytes, max_bytes: int) -> bytes:
    return _all_of(zlib.decompressobj(zlib.MAX_WBITS | 16), body, max_bytes)


def _zstd(body: bytes, max_bytes: int) -> bytes:
    unpacker = zstd.ZstdDecompressor()
    pieces, size, data = [], 0, body
    while not unpacker.eof:
        piece = unpacker.decompress(data, PIECE_BYTES)
        data = b""
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
        if not piece and unpacker.needs_input:
            raise EOFError("it ends too soon")
    return b"".join(pieces)


def _all_of(unpacker: Any, body: bytes, max_bytes: int) -> bytes:
    unpacked_body: bytes = unpacker.decompress(body, max_bytes + 1)
    if len(unpacked_body) > max_bytes:
        raise _too_large(max_bytes)
    if not unpacker.eof:
        raise EOFError("it ends too soon")
    return unpacked_body


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413, f"the unpacked request body is larger than {max_bytes} bytes (server.max_body_bytes)", "body_too_large"
    )


_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gunzipped,
    "x-gzip": _gunzipped,
    "deflate": _inflated,
    "zstd": _zstd,
}
