"""What stands in a store, as bytes: a byte for the format, then compressed MessagePack. Anybody may have written there:
whatever can't be a message is refused."""

import zlib
from typing import Any, TypeVar

import msgspec

Message = TypeVar("Message", bound=msgspec.Struct)

FORMAT = 1
"""Changes when messages mean something else; those of another format are left out."""
MAX_BYTES = 16_000_000
"""Of a message, unpacked. The largest delta of a full time model has some 2 MB."""
LEVEL = 1
"""Of compression: most of a matrix is zeros."""


class Refused(Exception):
    """It can't be a message; ``str()`` says why, in a word or two."""


def encoded(message: msgspec.Struct) -> bytes:
    return bytes([FORMAT]) + zlib.compress(msgspec.msgpack.encode(message), LEVEL)


def decoded(content: bytes, of: type[Message]) -> Message:
    """
    Raises:
        Refused: it is damaged, too large, or of another format.
    """
    if not content or content[0] != FORMAT:
        raise Refused("format")
    unpacking = zlib.decompressobj()
    try:
        plain = unpacking.decompress(content[1:], MAX_BYTES)
    except zlib.error as error:
        raise Refused("damaged") from error
    if not unpacking.eof:
        raise Refused("too large" if len(plain) == MAX_BYTES else "damaged")
    try:
        message: Any = msgspec.msgpack.decode(plain, type=of)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise Refused("damaged") from error
    return message  # type: ignore[no-any-return]
