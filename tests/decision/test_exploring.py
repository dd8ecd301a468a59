"""What is worth a try, and how often."""

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paceline.decision.exploring import Other, expected_gain, explored
from paceline.decision.tuning import MAX_EXPLORED


def other(behind: float, variance: float, horizon: float = 50.0, name: str = "a", more: float = 0.0) -> Other:
    return Other(name, behind, variance, 0.01, horizon, more)


def test_the_expected_gain_is_that_of_a_normal_distribution() -> None:
    assert expected_gain(0.0, 1.0) == pytest.approx(0.3989, abs=1e-4)
    rng = Random(1)
    for behind, deviation in ((0.1, 0.2), (0.5, 0.3)):
        mean = sum(max(0.0, -rng.gauss(behind, deviation)) for _ in range(100_000)) / 100_000
        assert expected_gain(behind, deviation) == pytest.approx(mean, rel=0.05)


def test_only_what_may_turn_out_better_is_tried() -> None:
    assert set(explored([other(0.1, 0.04), other(0.1, 1e-6, name="known"), other(0.9, 0.01, name="far")])) == {"a"}
    assert explored([]) == {}


def test_what_profits_few_requests_is_not_tried() -> None:
    assert explored([other(0.1, 0.04, horizon=50.0)])
    assert not explored([other(0.1, 0.04, horizon=0.5)])


def test_the_more_it_is_worth_the_oftener_it_is_tried() -> None:
    assert explored([other(0.1, 0.04, 4.0)])["a"] < explored([other(0.1, 0.04, 5.0)])["a"]
    shares = explored([other(0.1, 0.04), other(0.05, 0.04, name="nearer")])
    assert shares["nearer"] > shares["a"]


def test_what_else_a_try_is_worth_counts_even_where_it_is_far_behind() -> None:
    assert not explored([other(0.9, 0.01)])
    assert explored([other(0.9, 0.01, more=3.0)])


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(1e-9, 2), st.floats(0, 300)), max_size=12))
@example([(0.0, 1.0, 2.225073858507e-311)])
def test_no_more_is_tried_than_may_be(drawn: list[tuple[float, float, float]]) -> None:
    shares = explored([other(*each, name=str(number)) for number, each in enumerate(drawn)])
    assert sum(shares.values()) <= MAX_EXPLORED + 1e-9
    assert all(share > 0 for share in shares.values())
