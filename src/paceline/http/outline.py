"""The outline of a large JSON body: what is small as it is, of what is large the beginning and the end.

Decoding makes a Python object of each value, and nothing else runs meanwhile: 24 MB of small objects take 0.6 s.
Passing over a value is 20 to 30 times as fast (``msgspec.Raw``), so a large body is passed over first, member by
member, and only as much of it is decoded as the inspection reads.
"""

import asyncio
import re
from typing import Any

import msgspec

from paceline.json_members import Unclear, members

MAX_MEMBER_BYTES = 64_000
"""A member of the document that is smaller is decoded whole."""
MAX_LIST_BYTES = 200_000
"""Of a longer list, decoded elements may have so many bytes; the newest are taken, and of the oldest one."""
MAX_MEMBERS = 1000
"""Of a document; a larger one is no request."""
MAX_ELEMENTS = 300_000
"""Of a list that is looked into, those of nested lists included; a longer one, such as a prompt in tokens, is left out
whole."""
SAMPLES, SAMPLE_BYTES = 16, 4096
"""By which the elements of a list are estimated."""
DENSE_BYTES, MAX_DENSE_ELEMENTS = 4_000_000, 1_000_000
"""A larger document with more values is not even passed over: 60 MB of ``[[1]],`` take 0.3 s. Whether it is valid
is then the engine's to say."""
NAMED = ("model", "stream")
"""Members that requests are routed by."""
PASS_BYTES = 1_000_000
"""A pass over more waits until others have run: 60 MB of text take some 20 ms."""
STRING_BYTES = 32_000
"""Of a longer string, its first and its last so many bytes are decoded."""
MAX_DEPTH = 4
"""Levels of lists and objects that are looked into: messages, a message, its content, a block."""

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_elements = msgspec.json.Decoder(list[msgspec.Raw])


async def outlined(document: bytes) -> tuple[dict[str, Any], int]:
    """The outline of a JSON object, and how many of its bytes are left out. Lets others run between two passes.

    Raises:
        msgspec.DecodeError: it is not valid JSON, or no object.
        RecursionError: it is nested too deeply.
    """
    if len(document) > DENSE_BYTES and _elements_at_most(memoryview(document)) > MAX_DENSE_ELEMENTS:
        return await _named(document), len(document)
    return await _object(document, MAX_DEPTH)


async def _object(raw: bytes | msgspec.Raw, depth: int) -> tuple[dict[str, Any], int]:
    await _let_others_run(raw)
    outline: dict[str, Any] = {}
    left_out = 0
    for number, (name, member) in enumerate(_members.decode(raw).items()):
        if number >= MAX_MEMBERS and name not in NAMED:
            continue
        outline[name], less = await _value(member, depth - 1)
        left_out += less
    return outline, left_out


async def _list(raw: msgspec.Raw, depth: int) -> tuple[list[Any], int]:
    await _let_others_run(raw)
    elements = _elements.decode(raw)
    newest: list[Any] = []
    left_bytes, left_out = MAX_LIST_BYTES, 0
    for element in reversed(elements[1:]):
        if left_bytes <= 0:
            left_out += len(element)
            continue
        value, less = await _value(element, depth - 1)
        newest.append(value)
        left_out += less
        left_bytes -= len(element) - less
    oldest, less = await _value(elements[0], depth - 1)
    return [oldest, *reversed(newest)], left_out + less


async def _value(raw: msgspec.Raw, depth: int) -> tuple[Any, int]:
    size = len(raw)
    if size <= MAX_MEMBER_BYTES:
        return msgspec.json.decode(raw), 0
    view = memoryview(raw)
    first = bytes(view[:1])
    if first == b'"':
        head, tail = bytes(view[1 : 1 + STRING_BYTES]), bytes(view[-1 - STRING_BYTES : -1])
        return f"{_beginning(head)}\n{_ending(tail)}", size - 2 * STRING_BYTES
    if depth > 0 and first == b"{":
        return await _object(raw, depth)
    if depth > 0 and first == b"[" and _elements_at_most(view) <= MAX_ELEMENTS:
        return await _list(raw, depth)
    return None, size


def _elements_at_most(view: memoryview) -> float:
    """About how many elements a list has, nested ones counted, by a few samples of it."""
    step = max(SAMPLE_BYTES, len(view) // SAMPLES)
    samples = [bytes(view[at : at + SAMPLE_BYTES]) for at in range(0, len(view), step)]
    return 1 + sum(sample.count(b",") for sample in samples) / sum(map(len, samples)) * len(view)


async def _named(document: bytes) -> dict[str, Any]:
    """The members that a request is routed by.

    Raises:
        msgspec.DecodeError: they can't be told.
    """
    try:
        found = await members(document, NAMED)
    except Unclear as error:
        raise msgspec.DecodeError(f"JSON is malformed: {error} (byte 0)") from error
    return {name: values[-1][0] for name, values in found.items() if values and values[-1][0] is not ...}


async def _let_others_run(raw: bytes | msgspec.Raw) -> None:
    if len(raw) > PASS_BYTES:
        await asyncio.sleep(0)


def _beginning(string: bytes) -> str:
    """Of the bytes with which a JSON string begins, the characters that are whole."""
    whole = _UNITS.match(string)
    assert whole is not None
    return _text(_HALF_OF_A_PAIR_AT_THE_END.sub(b"", whole[0]))


def _ending(string: bytes) -> str:
    """The same of the bytes with which it ends: read from the first place on where a character can't be cut, which is
    not behind a backslash."""
    space = _NO_ESCAPE.search(string)
    aligned = string[space.end() :] if space else b""
    return _text(_HALF_OF_A_PAIR_AT_THE_BEGINNING.sub(b"", aligned))


def _text(piece: bytes) -> str:
    """A piece of a JSON string that cuts no escape."""
    return str(msgspec.json.decode(b'"' + piece.decode("utf-8", "ignore").encode() + b'"'))


_UNITS = re.compile(rb"(?:[^\\]+|\\u[0-9a-fA-F]{4}|\\[^u])*", re.DOTALL)
_HALF_OF_A_PAIR_AT_THE_END = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")
_HALF_OF_A_PAIR_AT_THE_BEGINNING = re.compile(rb"\A\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_NO_ESCAPE = re.compile(rb"[^\\]{6}|(?<=[^\\])\\u[0-9a-fA-F]{4}", re.DOTALL)
"""Six bytes without a backslash hold the end of any escape that was cut; so does a whole escape behind a byte that is
none."""
