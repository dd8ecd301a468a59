"""Of traffic that a real gateway recorded, the code decides, learns, reports and exports what it did when it was
recorded (:mod:`recorded`)."""

from collections.abc import Iterator
from itertools import islice
from math import isclose
from pathlib import Path
from typing import Any

import pytest
from tests.recorded.behaviour import behaviour_of
from tests.recorded.files import expected, unpacked_log

RELATIVE, ABSOLUTE = 1e-6, 1e-9
"""By which numbers may differ, since logarithms and products of matrices differ between platforms."""
MOST_TOLD = 10
EXPECTED = expected()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("recorded")
    return behaviour_of(unpacked_log(folder), folder)


def test_nothing_is_missing_or_new(found: dict[str, Any]) -> None:
    assert list(found) == list(EXPECTED)


@pytest.mark.parametrize("part", EXPECTED)
def test_it_is_as_recorded(part: str, found: dict[str, Any]) -> None:
    told = list(islice(differences(EXPECTED[part], found[part], part), MOST_TOLD))
    assert not told, "\n".join(told)


def test_numbers_may_differ_by_rounding_and_nothing_else_may() -> None:
    assert not list(differences({"a": [1.0, None, "x"]}, {"a": [1.0 + 1e-12, None, "x"]}, ""))
    for other in ([1.0 + 1e-4, None, "x"], [1.0, 0.0, "x"], [1.0, None, "y"], [1.0, None], [True, None, "x"]):
        assert list(differences({"a": [1.0, None, "x"]}, {"a": other}, ""))
    assert list(differences({"a": 1, "b": 2}, {"b": 2, "a": 1}, ""))


def differences(expected: Any, found: Any, place: str) -> Iterator[str]:
    """In words. Also the order of keys counts: the first of a mapping often is the likeliest."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if list(expected) != list(found):
            yield f"{place}: expected the keys {list(expected)}, found {list(found)}"
        for key in [key for key in expected if key in found]:
            yield from differences(expected[key], found[key], f"{place} / {key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{place}: expected {len(expected)}, found {len(found)}"
        for number, (one, other) in enumerate(zip(expected, found, strict=False)):
            yield from differences(one, other, f"{place} / {number}")
    elif not _is_alike(expected, found):
        yield f"{place}: expected {expected!r}, found {found!r}"


def _is_alike(expected: Any, found: Any) -> bool:
    if type(expected) is float and type(found) is float:
        return isclose(expected, found, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(expected) is type(found) and bool(expected == found)
