"""How a stream of server-sent events is split and read, by the rules of the standard."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.engines.events import MAX_EVENT_BYTES, Beginning, EventReader, Part, name_and_data

LINE_ENDS = (b"\n", b"\r", b"\r\n")
EVENTS = st.lists(st.sampled_from((b"\n", b"\r", b"\r\n", b"data: {}", b"data:x", b": c", b"id: 7", b"event: e")))


def read(pieces: Iterable[bytes]) -> list[bytes]:
    """All that is given out, the rest last."""
    reader = EventReader()
    return [*(event for piece in pieces for event in reader.feed(piece)), reader.end()]


def cut(data: bytes, borders: Sequence[int]) -> list[bytes]:
    at = [0, *sorted(border % (len(data) + 1) for border in borders), len(data)]
    return [data[begin:end] for begin, end in pairwise(at)]


def joined(events: Iterable[bytes]) -> list[bytes]:
    """With the second half of a CRLF put back to its event."""
    found: list[bytes] = []
    for event in events:
        if isinstance(event, Part) and found:
            found[-1] += event
        else:
            found.append(event)
    return found


@pytest.mark.parametrize("first", LINE_ENDS)
@pytest.mark.parametrize("second", LINE_ENDS)
def test_an_empty_line_ends_an_event_however_lines_end(first: bytes, second: bytes) -> None:
    if first + second == b"\r\n":
        pytest.skip("this is one line's end")
    one = b"event: a" + first + b"data: 1" + first + second
    assert read([one + b"data: 2\n\n"]) == [one, b"data: 2\n\n", b""]


def test_a_crlf_is_one_end_and_not_two() -> None:
    assert read([b"data: 1\r\ndata: 2\r\n\r\n"]) == [b"data: 1\r\ndata: 2\r\n\r\n", b""]


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n"])
def test_an_event_is_given_out_as_soon_as_it_has_ended(end: bytes) -> None:
    reader = EventReader()
    for number in range(3):
        event = b"data: %d" % number + end
        for at in range(len(event) - 1):
            given = [piece for piece in reader.feed(event[at : at + 1]) if not isinstance(piece, Part)]
            assert given == ([event[:-1]] if end == b"\r\n\r\n" and at == len(event) - 2 else [])
        assert b"".join(reader.feed(event[-1:])).endswith(event[-1:])


@given(EVENTS.map(b"".join) | st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=20))
def test_the_borders_of_pieces_change_nothing(data: bytes, borders: list[int]) -> None:
    assert b"".join(read(cut(data, borders))) == data
    assert joined(read(cut(data, borders))) == joined(read([data]))


@given(st.lists(st.binary(max_size=30), max_size=10))
def test_an_event_has_one_end(pieces: list[bytes]) -> None:
    for event in joined(read(pieces))[:-1]:
        lines = event.splitlines()
        assert lines[-1] == b""
        assert all(line or number in (0, len(lines) - 1) for number, line in enumerate(lines))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (b"data: {}\n\n", (b"", b"{}")),
        (b"data:{}\n\n", (b"", b"{}")),
        (b"data:  {}\n\n", (b"", b" {}")),
        (b"data: {}\r\n\r\n", (b"", b"{}")),
        (b"data: {}\r\r", (b"", b"{}")),
        (b"\n\ndata: {}\n\n", (b"", b"{}")),
        (b"\xef\xbb\xbfdata: {}\n\n", (b"", b"{}")),
        (b"event: e\ndata: {}\n\n", (b"e", b"{}")),
        (b"event:e\r\nid: 7\r\nretry: 9\r\ndata:{}\r\n\r\n", (b"e", b"{}")),
        (b": comment\ndata: {}\n: another\n\n", (b"", b"{}")),
        (b'data: {"a":\ndata: 1}\n\n', (b"", b'{"a":\n1}')),
        (b"data\ndata: x\n\n", (b"", b"\nx")),
        (b"error: {}\n\n", (b"error", b"{}")),
        (b": ping\n\n", (b"", b"")),
        (b"retry: 3000\n\n", (b"", b"")),
        (b"\n\n", (b"", b"")),
        (b"", (b"", b"")),
        (b"data: a:b\n\n", (b"", b"a:b")),
        (b"database: 1\n\n", (b"", b"")),
        (b"data: no end", (b"", b"no end")),
    ],
)
def test_the_fields_of_an_event(event: bytes, expected: tuple[bytes, bytes]) -> None:
    assert name_and_data(event) == expected


@pytest.mark.parametrize("size", [1, 1000, 65536])
def test_an_endless_line_is_given_out_in_parts(size: int) -> None:
    reader, total = EventReader(), 0
    for _ in range(2**20 // size if size > 1 else 3 * MAX_EVENT_BYTES):
        given = reader.feed(b"x" * size)
        total += sum(map(len, given))
        assert all(isinstance(event, Part) for event in given)
        assert len(reader._rest) <= MAX_EVENT_BYTES
    assert [reader.is_inside, isinstance(reader.feed(b"\n\n")[0], Part), reader.is_inside] == [True, True, False]
    assert reader.feed(b"data: 1\n\n") == (b"data: 1\n\n",)
    assert total > 2 * MAX_EVENT_BYTES


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n"])
@given(borders=st.lists(st.integers(0, 3 * MAX_EVENT_BYTES), max_size=6))
def test_a_long_event_ends_where_it_ends(end: bytes, borders: list[int]) -> None:
    long = b"data: " + b"x" * (2 * MAX_EVENT_BYTES) + end
    given = read(cut(long + b"data: 2\n\n", borders))
    assert b"".join(given) == long + b"data: 2\n\n"
    whole = [bytes(event) for event in given if event and not isinstance(event, Part)]
    assert whole in ([b"data: 2\n\n"], [long, b"data: 2\n\n"])  # it may have come in one piece
    assert sum(isinstance(event, Beginning) for event in given) == 2 - len(whole)
