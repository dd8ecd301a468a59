"""Control of one request's drafts, in an engine that drafts anyway: what is cut is compared with what comes."""

from collections.abc import Callable
from itertools import cycle, islice
from random import Random

import pytest

from paceline.inside.request_control import RequestControl

COSTS = [1.25, 1.4, 1.6, 1.8]
Draft = Callable[[int], list[int]]
"""At which token of the text -> what is drafted from there."""


def decode(control: RequestControl, text: list[int], draft: Draft, is_watched: bool = True) -> tuple[float, list[int]]:
    """As a scheduler does it: the plain steps that it takes, and the lengths that were verified."""
    at, cost, lengths = 0, 0.0, []
    while at < len(text):
        drafted = draft(at)
        limit = control.limit(len(drafted))
        if not limit and drafted and is_watched:
            control.cut(drafted)
        accepted = 0
        while accepted < limit and at + accepted < len(text) and text[at + accepted] == drafted[accepted]:
            accepted += 1
        control.generated(text[at : at + accepted + 1] or [0], limit)
        lengths.append(limit)
        at += accepted + 1
        cost += COSTS[limit - 1] if limit else 1
    return cost, lengths


def text_of(tokens: int, seed: int = 1) -> list[int]:
    random = Random(seed)
    return [random.randrange(1000) for _ in range(tokens)]


def right(text: list[int]) -> Draft:
    return lambda at: text[at : at + 4]


def wrong(at: int) -> list[int]:
    return [-1, -2, -3, -4]


def given(acceptance: float, **more: float) -> dict[str, object]:
    return {"costs": COSTS, "acceptance": [acceptance], **more}


@pytest.mark.parametrize("is_watched", [True, False])
def test_drafts_that_are_right_are_verified_and_wrong_ones_are_not(is_watched: bool) -> None:
    text = text_of(600)
    cost, lengths = decode(RequestControl(given(0.7), 4, is_watched), text, right(text), is_watched)
    assert cost < 600 / 2.5
    assert lengths[-4] == 4
    cost, lengths = decode(RequestControl(given(0.7), 4, is_watched), text, wrong, is_watched)
    assert cost < 600 * 1.02
    assert sum(length > 0 for length in lengths[100:]) < 25  # the tries


def test_what_is_cut_teaches_that_drafts_are_right_again() -> None:
    """Of a pessimistic prior, without a single step that costs more than a plain one."""
    text = text_of(200)
    watched = RequestControl(given(0.15), 4, True)
    _, lengths = decode(watched, text, right(text))
    assert lengths[0] == 0
    assert lengths[-4] >= 3
    first = next(number for number, length in enumerate(lengths) if length)
    assert first > 2
    assert all(lengths[first:-1])  # of the last token, no draft is left


def test_a_cut_draft_is_over_at_the_first_token_that_is_another() -> None:
    """Half right, so that no length pays."""
    text = text_of(400)
    control = RequestControl({"costs": [2.6, 2.8, 3.0, 3.2], "acceptance": [0.9], "weight": 2}, 4, True)
    halves = cycle([True, False])
    flags = list(islice(halves, 400))

    def draft(at: int) -> list[int]:
        return [text[at], -1, -1, -1] if flags[at] else [-1, -1, -1, -1]

    _, lengths = decode(control, text, draft)
    assert sum(length > 0 for length in lengths[50:]) == 0


def test_no_draft_is_longer_than_the_engine_s() -> None:
    text = text_of(60)
    control = RequestControl({"costs": [1.0] * 16, "acceptance": [0.9]}, 3, True)
    assert max(decode(control, text, right(text))[1]) == 3
    assert RequestControl(given(0.9), 4, True).limit(0) == 0


@pytest.mark.parametrize("nonsense", [7, {}, {"costs": COSTS}, {"costs": [0], "acceptance": [0.5]}])
def test_what_makes_no_sense_is_said(nonsense: object) -> None:
    with pytest.raises(ValueError, match=r"have to|has to"):
        RequestControl(nonsense, 4, True)
