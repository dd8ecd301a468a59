"""A belief is what a filter makes of its prior and its observations."""

from random import Random

import numpy as np
import pytest

from paceline.decision.belief import GROWS_BY, Belief

ONE = np.ones(1)


def at(*numbers: int) -> "np.typing.NDArray[np.intp]":
    return np.array(numbers, np.intp)


def named(*variances: float) -> Belief:
    """Of unknowns 0, 1 ..."""
    belief = Belief()
    for number, variance in enumerate(variances):
        belief.add((str(number),), variance)
    return belief


def test_an_unknown_is_learned_as_a_mean_is() -> None:
    belief = named(1.0)
    for value in (1.0, 0.5, 0.9):
        belief.observe(at(0), ONE, value, 1.0)
    assert belief.mean[0] == pytest.approx(2.4 / 4)
    assert belief.covariance[0, 0] == pytest.approx(1 / 4)
    together = named(1.0)
    together.observe_together(at(0), np.ones((3, 1)), np.array([1.0, 0.5, 0.9]), np.eye(3))
    assert together.mean[0] == pytest.approx(2.4 / 4)
    assert together.covariance[0, 0] == pytest.approx(1 / 4)


def test_an_observation_tells_what_it_was_off_by_and_what_was_expected() -> None:
    belief = named(4.0, 1.0)
    miss, expected = belief.observe(at(0, 1), np.array([0.5, 1.0]), 0.3, 0.25)
    assert (miss, expected) == pytest.approx((0.3, 1 + 1 + 0.25))
    miss, expected = belief.observe(at(0, 1), np.array([0.5, 1.0]), 0.3, 0.25)
    assert (miss, expected) == pytest.approx((0.3 * 0.25 / 2.25, 2 * 0.25 / 2.25 + 0.25))


def test_a_sum_teaches_its_parts_in_proportion_to_their_variance() -> None:
    belief = named(3.0, 1.0, 1.0)
    belief.observe(at(0, 1), np.ones(2), 1.0, 1e-9)
    assert belief.mean == pytest.approx([0.75, 0.25, 0.0])
    assert belief.covariance[0, 1] < 0, "if one is more, the other is less"
    belief.observe(at(0), ONE, 1.0, 1e-9)
    assert belief.mean == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_observations_one_by_one_and_together_teach_the_same() -> None:
    factors = np.array([[1.0, 0.0, 0.5], [0.2, 1.0, 0.0], [1.0, 1.0, 1.0]])
    values, noise = np.array([0.4, -0.2, 0.3]), np.array([0.5, 1.0, 0.7])
    single, together = named(1.0, 2.0, 0.5), named(1.0, 2.0, 0.5)
    for row, value, each in zip(factors, values, noise, strict=True):
        single.observe(at(0, 1, 2), row, float(value), float(each))
    together.observe_together(at(0, 1, 2), factors, values, np.diag(noise))
    assert single.mean == pytest.approx(together.mean)
    assert single.covariance == pytest.approx(together.covariance)


def test_an_odd_value_counts_less() -> None:
    far, near = named(1.0), named(1.0)
    far.observe(at(0), ONE, 20.0, 1.0)
    near.observe(at(0), ONE, 1.0, 1.0)
    assert near.mean[0] == pytest.approx(0.5)
    assert far.mean[0] < 0.1 * 20
    together = named(1.0)
    together.observe_together(at(0), np.ones((1, 1)), np.array([20.0]), np.eye(1))
    assert together.mean[0] == pytest.approx(far.mean[0])


def test_the_covariance_stays_one_after_many_observations() -> None:
    rng, belief = Random(0), named(*[1.0] * 30)
    for _ in range(3000):
        numbers = rng.sample(range(30), 5)
        belief.observe(at(*numbers), np.array([rng.gauss(0, 1) for _ in numbers]), rng.gauss(0, 3), 0.01)
        belief.widen(numbers, [1e-4] * 5)
    assert np.linalg.eigvalsh(belief.covariance).min() > -1e-9
    assert belief.covariance == pytest.approx(belief.covariance.T, abs=1e-9)


def test_what_may_have_changed_is_less_certain_and_as_likely_as_before() -> None:
    belief = named(1.0, 1.0)
    belief.observe(at(0, 1), np.ones(2), 1.0, 1.0)
    before, mean = belief.covariance.copy(), belief.mean.copy()
    belief.widen([1], [0.5])
    assert belief.mean == pytest.approx(mean)
    assert belief.covariance - before == pytest.approx(np.diag([0.0, 0.5]))


def test_there_is_room_for_ever_more_unknowns() -> None:
    belief = named(1.0)
    belief.observe(at(0), ONE, 1.0, 1.0)
    for number in range(1, 3 * GROWS_BY):
        belief.add((str(number),), 2.0)
    assert belief.numbers["140",] == 140
    assert belief.mean[0] == pytest.approx(0.5)
    assert belief.covariance[:2, :2] == pytest.approx(np.diag([0.5, 2.0]))
    belief.observe(at(0, 140), np.ones(2), 3.0, 0.5)
    assert belief.mean[140] > belief.mean[0] - 0.5 > 0


def test_what_is_forgotten_takes_nothing_along() -> None:
    belief = named(1.0, 1.0, 1.0)
    belief.observe(at(0, 1, 2), np.ones(3), 1.0, 0.5)
    kept = belief.covariance[np.ix_([0, 2], [0, 2])].copy(), belief.mean[[0, 2]].copy()
    shape = belief.shape
    belief.keep({("0",), ("2",), ("none",)})
    assert belief.numbers == {("0",): 0, ("2",): 1}
    assert belief.shape != shape
    assert belief.covariance == pytest.approx(kept[0])
    assert belief.mean == pytest.approx(kept[1])
    assert belief.add(("new",), 3.0) == 2
    assert belief.mean[2] == 0.0
    assert belief.covariance[2] == pytest.approx([0.0, 0.0, 3.0])


def test_of_what_there_is_not_nothing_is_known() -> None:
    belief = named(1.0)
    belief.observe(at(0), ONE, 1.0, 1.0)
    assert belief.means(at(0, belief.nowhere)) == pytest.approx([0.5, 0.0])
    assert belief.of(at(0, belief.nowhere), belief.pairs(at(0, belief.nowhere)), np.eye(2)) == pytest.approx(
        np.diag([0.5, 0.0])
    )


def test_a_belief_is_restored_as_it_was() -> None:
    belief, again = named(1.0, 2.0), Belief()
    belief.observe(at(0, 1), np.ones(2), 1.0, 0.5)
    again.restore(sorted(belief.numbers), belief.prior.copy(), belief.mean.copy(), belief.covariance.copy())
    for each in (belief, again):
        each.add(("new",), 1.0)
        each.observe(at(1, 2), np.ones(2), 0.4, 0.5)
    assert again.numbers == belief.numbers
    assert again.mean == pytest.approx(belief.mean)
    assert again.covariance == pytest.approx(belief.covariance)


def test_evidence_of_two_adds_up_to_that_of_one_that_saw_both() -> None:
    observations = [(at(0, 1), 0.5), (at(1, 2), -0.3), (at(0, 2), 0.2), (at(0), 0.1)]
    first, second, both = (named(1.0, 0.5, 2.0) for _ in range(3))
    for number, (indexes, value) in enumerate(observations):
        for belief in ((first, second)[number % 2], both):
            belief.observe(indexes, np.ones(len(indexes)), value, 0.7)
    names = sorted(second.numbers)
    first.add_evidence(names, *second.evidence(names))
    assert first.mean == pytest.approx(both.mean)
    assert first.covariance == pytest.approx(both.covariance)


def test_no_evidence_teaches_nothing() -> None:
    belief, new = named(1.0, 2.0), named(1.0, 2.0)
    belief.observe(at(0, 1), np.ones(2), 1.0, 0.5)
    mean, covariance = belief.mean.copy(), belief.covariance.copy()
    new.widen([0], [5.0])
    belief.add_evidence(sorted(new.numbers), *new.evidence(sorted(new.numbers)))
    assert belief.mean == pytest.approx(mean)
    assert belief.covariance == pytest.approx(covariance)
