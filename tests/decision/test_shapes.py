"""What strategies are taken for before anything was measured."""

from itertools import pairwise
from math import exp

import pytest

from paceline.decision.shapes import draft_length, load_shape, shape_of
from paceline.types import Strategy

CAPS = (1, 2, 3, 4, 6, 8, 12, 16)


@pytest.mark.parametrize("kind", ["mtp", "eagle3", "draft", "ngram", "ngram-mod"])
def test_longer_drafts_are_expected_to_yield_and_cost_more(kind: str) -> None:
    plain = shape_of(Strategy())
    assert (plain.cost, plain.length, plain.feels, plain.strength, plain.drafts) == (0.0, 0.0, 0.0, 0.0, False)
    for shorter, longer in pairwise([plain, *(shape_of(Strategy(kind, cap)) for cap in CAPS)]):
        assert shorter.cost < longer.cost
        assert shorter.length < longer.length or (longer.looks_up and longer.drafted > 8)
        assert shorter.feels <= longer.feels
        assert shorter.strength <= longer.strength


def test_a_cap_of_none_drafts_nothing() -> None:
    assert shape_of(Strategy("mtp", 0)) == shape_of(Strategy())


def test_a_draft_of_three_feels_its_drafters_strength_as_it_is() -> None:
    assert shape_of(Strategy("mtp", 3)).strength == pytest.approx(1.0)
    assert shape_of(Strategy("mtp", 8)).strength == pytest.approx(1.9, abs=0.1)


def test_lookups_feel_less_since_they_draft_in_few_steps_and_they_alone_tilt() -> None:
    lookup, head = shape_of(Strategy("ngram", 8)), shape_of(Strategy("mtp", 8))
    assert lookup.looks_up
    assert not head.looks_up
    assert lookup.cost < head.cost
    assert lookup.strength < head.strength
    assert shape_of(Strategy("ngram", 16)).tilt > 0 > shape_of(Strategy("ngram", 1)).tilt
    assert head.tilt == 0


def test_neighbours_have_more_in_common_than_others() -> None:
    def common(first: int, second: int) -> float:
        knots = [shape_of(Strategy("mtp", cap)).knots for cap in (first, second)]
        return sum([one * other for one, other in zip(knots[0], knots[1], strict=True)])

    assert common(3, 4) > common(3, 8) > common(1, 8)
    assert common(3, 3) == pytest.approx(1, abs=0.15)


def test_a_cap_that_is_not_known_is_the_usual_one() -> None:
    assert draft_length(Strategy("mtp")) == 3
    assert draft_length(Strategy("ngram-mod")) == draft_length(Strategy("ngram")) == 8
    assert draft_length(Strategy("never-heard-of")) == 4
    assert draft_length(Strategy("mtp", 5)) == 5


def test_load_is_felt_by_its_logarithm() -> None:
    assert load_shape(0.0) == (0.0, (0.0,) * 7)
    for beside, doublings in ((1.0, 1), (3.0, 2), (7.0, 3)):
        assert load_shape(beside)[0] == pytest.approx(0.6931 * doublings, abs=1e-3)
    between, (below, above) = load_shape(2.0)[1], (load_shape(beside)[1] for beside in (1.0, 3.0))
    assert all(min(pair) - 0.01 <= one <= max(pair) + 0.01 for one, *pair in zip(between, below, above, strict=True))
    assert load_shape(1e9) == load_shape(127.0), "more is told apart no further"


def test_a_card_s_cost_takes_the_place_of_the_usual_one() -> None:
    usual, cheap, dear = (shape_of(Strategy("mtp", 4), cost) for cost in (None, 0.16, 0.98))
    assert cheap.cost < usual.cost < dear.cost
    assert exp(cheap.cost) == pytest.approx(1.64)
    assert cheap.length == usual.length == dear.length
    assert shape_of(Strategy(), 0.98).cost == 0.0
