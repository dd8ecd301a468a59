"""Compressed request bodies: unpacked here, since engines don't, and what can't be read can't be decided on."""

import asyncio
import sys
import zlib
from collections.abc import Callable
from typing import Any

from paceline.http.errors import ApiError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 65_536
"""That are unpacked at a time, so that a body that grows too large is noticed early."""
MAX_MEMBERS = 10_000
"""Of a gzip file, or frames of zstd; bgzip begins a new one every 64 kB."""
MAX_ENCODINGS = 4
"""Of one body; nobody needs more than one."""
SUPPORTED = "gzip, deflate, zstd, identity"


async def unpacked(body: bytes, encodings: bytes, max_bytes: int) -> bytes:
    """The body without its encodings, in the order of ``Content-Encoding``.

    Raises:
        ApiError: 415, an encoding is unknown; 413, it would be larger than ``max_bytes``; 400, it is damaged.
    """
    names = [name for name in encodings.decode("latin-1").lower().replace(" ", "").split(",") if name]
    if len(names) > MAX_ENCODINGS:
        raise ApiError(
            415, f"content-encoding: more than {MAX_ENCODINGS} encodings are not taken off", "unsupported_encoding"
        )
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
            # In a thread, however small it is: 2 kB may hold as much as is allowed, and others are served meanwhile.
            body = await asyncio.to_thread(_UNPACKERS[name], body, max_bytes)
        except (zlib.error, zstd.ZstdError, EOFError) as error:
            raise ApiError(400, f"content-encoding {name}: the body is damaged: {error}", "invalid_encoding") from error
    return body


def _inflated(body: bytes, max_bytes: int) -> bytes:
    """``deflate``: a zlib stream by the standard, a bare one from some clients."""
    try:
        return _all_of(zlib.decompressobj, body, max_bytes)
    except zlib.error:
        return _all_of(lambda: zlib.decompressobj(-zlib.MAX_WBITS), body, max_bytes)


def _gunzipped(body: bytes, max_bytes: int) -> bytes:
    return _all_of(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), body, max_bytes)


def _zstd(body: bytes, max_bytes: int) -> bytes:
    return _all_of(zstd.ZstdDecompressor, body, max_bytes)


def _all_of(new: Callable[[], Any], body: bytes, max_bytes: int) -> bytes:
    """All members of a gzip file, or frames of zstd, one behind the other (RFC 1952, section 2.2; RFC 8878, section 3):
    they are one body. Zeros behind them are padding."""
    pieces: list[bytes] = []
    size = at = 0
    view = memoryview(body)
    for _ in range(MAX_MEMBERS):
        unpacker = new()
        while not unpacker.eof:
            fed = view[at : at + PIECE_BYTES]
            if not fed:
                raise EOFError("it ends too soon")
            at += len(fed)
            piece = unpacker.decompress(fed, max_bytes + 1 - size)
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            pieces.append(piece)
        at -= len(unpacker.unused_data)
        if at == len(body) or body[at] == 0:
            if view[at:].tobytes().strip(b"\0"):
                raise EOFError("what follows its end is not compressed")
            return b"".join(pieces)
    raise EOFError(f"it has more than {MAX_MEMBERS} parts")


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
