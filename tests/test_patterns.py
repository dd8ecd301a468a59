"""Operators' patterns: those are taken that can be searched in bounded time, and what they should find they find."""

from time import perf_counter

import pytest
from tests.patient import shortest_s

from paceline.patterns import MAX_S, PIECE_CHARS, TooCostly, TooLong, compiled_pattern, first_found

LONG = 100_000
TAKEN = [
    r"(?i)patient",
    r"\bIBAN\s*[A-Z]{2}\d{2}",
    r"\b(?:\d{4}[ -]?){3}\d{4}\b",
    r"a.{0,60}b.{0,60}c",
    r"foo.*bar",
    r"x{1,40}+:y{1,40}+:z{1,40}+",
    r"(?<!\w)secret(?!\w)",
]
REFUSED = [
    r"(a+)+b",
    r"(a|a)*b",
    r".*a.*",
    r"(?:a|b|ab){1,10}c",
    r"(?:\w{0,63}\s?\d{0,90})z",
    r"x*",
    r"(",
    r"a{99999999999}",
]


@pytest.mark.parametrize("text", TAKEN)
def test_patterns_that_are_taken_take_bounded_time(text: str) -> None:
    pattern = compiled_pattern(text)
    for hard in ("x" * LONG, "a1 " * (LONG // 3), "foo" * (LONG // 3), "1234 " * (LONG // 5), "ab" * (LONG // 2)):

        def search(hard: str = hard) -> None:
            try:
                first_found([pattern], hard)
            except TooLong:
                pass

        assert shortest_s(search, 2 * MAX_S) < 5 * MAX_S


@pytest.mark.parametrize("text", REFUSED)
def test_patterns_that_may_take_too_long_are_refused(text: str) -> None:
    with pytest.raises(TooCostly):
        compiled_pattern(text)


@pytest.mark.parametrize(
    "at", [0, 1, PIECE_CHARS // 2 - 3, PIECE_CHARS - 3, PIECE_CHARS * 3 // 2 - 1, 3 * PIECE_CHARS - 7]
)
def test_what_stands_across_two_pieces_is_found(at: int) -> None:
    found = "needle" + "-" * (PIECE_CHARS // 2 - 20) + "end"
    text = "." * at + found + "." * PIECE_CHARS
    assert first_found([compiled_pattern("needle-{0,2040}end")], text) is not None
    assert first_found([compiled_pattern("needle")], "." * at + "needle") is not None
    assert first_found([compiled_pattern("needle")], text.replace("needle", "noodle")) is None


def test_a_text_that_can_not_be_searched_in_time_is_said() -> None:
    began_s = perf_counter()
    with pytest.raises(TooLong):
        first_found([compiled_pattern("x.*y")], "x" * 10_000_000)
    assert perf_counter() - began_s < 20 * MAX_S
