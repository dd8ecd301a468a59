"""Estimates of what other policies would have done, against simulated truth."""

import random
from math import sqrt

import pytest
from benchmarks.evidence.logs import log_of, truth
from msgspec.structs import replace

from paceline.evidence.estimate import IN_COMMON, Sample, always, estimate


def made(requests: int, exploration: float, seed: int = 0) -> tuple[list[Sample], float]:
    """A log of a policy that takes the fast lane, or the other one with some probability, and what always taking the
    other one would have made of its time. The predictions are wrong by a fifth."""
    rng = random.Random(seed)
    samples, truth, taken = [], 0.0, 0.0
    for _ in range(requests):
        fast, slow = 0.1 * rng.lognormvariate(0, 0.2), 0.15 * rng.lognormvariate(0, 0.2)
        lane = "slow" if rng.random() < exploration else "fast"
        shares = {"fast": 1 - exploration, "slow": exploration}
        sample = Sample(
            task="code",
            lane=lane,
            tokens=100,
            s_per_token=slow if lane == "slow" else fast,
            propensities=shares,
            predicted={"fast": 0.12, "slow": 0.12},
            spread={"fast": 0.2, "slow": 0.2},
        )
        samples.append(sample)
        truth += slow
        taken += slow if lane == "slow" else fast
    return samples, truth / taken


def test_estimates_correct_what_predictions_miss() -> None:
    held, errors = 0, []
    for seed in range(60):
        samples, truth = made(400, 0.2, seed)
        found = estimate(samples, always("slow"))
        held += found.low <= truth <= found.high
        errors.append(abs(found.ratio - truth))
        assert found.inverse_propensity == pytest.approx(truth, rel=0.4)
        assert found.self_normalised == pytest.approx(truth, rel=0.15)
        assert found.on_predictions < 0.01
    assert held >= 54
    assert sum(errors) / len(errors) < 0.06
    naive = 0.12 / 0.1
    assert abs(naive - made(400, 0.2)[1]) > 0.15  # what the predictions alone would have said


def test_what_was_never_tried_rests_on_predictions() -> None:
    samples, _ = made(100, 0.0)
    found = estimate(samples, always("slow"))
    assert found.agreed == 0
    assert found.on_predictions == 1
    assert found.high - found.low > 0.4


def test_a_lane_that_nothing_is_known_of_is_an_error() -> None:
    samples, _ = made(40, 0.1)
    with pytest.raises(ValueError, match="nothing is known of lane 'x'"):
        estimate(samples, always("x"))


@pytest.mark.slow
@pytest.mark.parametrize("world", ["base", "embedded", "load-trtllm", "cost-by-content"])
def test_estimates_hold_where_the_truth_is_known(world: str) -> None:
    """`python -m benchmarks.evidence` does this with 50 logs, and in more worlds."""
    held: list[bool] = []
    for seed in range(1000, 1004):
        logged = log_of(world, 600, seed)
        samples = [each.request.sample for each in logged]
        for lane, true in truth(logged).items():
            found = estimate(samples, always(lane))
            held.append(found.low <= true <= found.high)
    assert sum(held) >= 0.9 * len(held)


def test_errors_of_different_tasks_are_in_part_their_own() -> None:
    samples, _ = made(100, 0.0)
    one = estimate(samples, always("slow"))
    halves = [replace(sample, task=str(number % 2)) for number, sample in enumerate(samples)]
    two = estimate(halves, always("slow"))
    assert two.ratio == one.ratio
    assert (two.high - two.ratio) / (one.high - one.ratio) == pytest.approx(
        sqrt(IN_COMMON + (1 - IN_COMMON) / 2), abs=0.01
    )
