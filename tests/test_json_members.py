"""Members of an object that is not decoded: the same as where it is, whatever is nested, quoted or escaped in it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from paceline import json_members
from paceline.json_members import MAX_SHORT_TEXTS, Unclear, members

NAMES = ("model", "stream")


class Written(str):
    """JSON of an object whose names may come twice."""


def written(pairs: list[tuple[str, Any]]) -> Written:
    return Written("{" + ", ".join(f"{json.dumps(name)}:\t{dumped(value)}" for name, value in pairs) + "}")


def dumped(value: Any) -> str:
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, list):
        return "[" + ",".join(map(dumped, value)) + "]"
    return json.dumps(value)


texts = some.sampled_from(["model", "stream", 'x"model": "y', "\\", '\\"', "é😀", "", ":", "{[", "]}", "a" * 40])
values = some.recursive(
    texts | some.booleans() | some.none() | some.integers() | some.floats(allow_nan=False, allow_infinity=False),
    lambda inner: some.lists(inner, max_size=3) | some.lists(some.tuples(texts, inner), max_size=3).map(written),
    max_leaves=12,
)


@given(some.lists(some.tuples(texts, values), max_size=5).map(written), some.sampled_from([1, 2, 3, 7, 131_072]))
async def test_what_is_found_is_what_a_decoder_finds(document: Written, piece_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_members, "PIECE_BYTES", piece_bytes)
        found = await members(f"  {document}\n".encode() if piece_bytes > 2 else document.encode(), NAMES)
    told = json.loads(document, object_pairs_hook=lambda pairs: pairs)
    for name in NAMES:
        expected = [... if isinstance(value, list) else value for other, value in told if other == name]
        assert [value for value, _ in found[name]] == expected


async def test_where_a_value_stands_is_told_and_a_name_may_be_escaped() -> None:
    document = rb'{"m\u006fdel" : "a", "x": {"model": "nested"}, "model":"b"}'
    found = (await members(document, NAMES))["model"]
    assert [(value, document[begin:end]) for value, (begin, end) in found] == [("a", b'"a"'), ("b", b'"b"')]


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b'["model", "a"]',
        b'{"model": "a"',
        b'{"a": "model": "b',
        '{"model": "a"}'.encode("utf-16"),
        b'{"model" "a"}',
        b'{"model": "' + b"x" * 5000 + b'"}',
        b"{" + b'"model":1,' * (MAX_SHORT_TEXTS + 1) + b'"a":1}',
    ],
)
async def test_what_can_not_be_told_is_not_guessed(document: bytes) -> None:
    with pytest.raises(Unclear):
        await members(document, NAMES)
