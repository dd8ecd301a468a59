"""What another policy would have taken on the traffic of a log.

The log knows, for each request, the lane that served and the probability with which it was picked, its time per token,
and what was predicted for every lane at that moment, before the outcome. From these:

- *inverse propensity* (Horvitz and Thompson 1952): the requests on which both policies agree stand for the others,
- *self-normalised* (Swaminathan and Joachims 2015): the same, divided by the weights that came of it,
- *doubly robust* (Dudik, Langford and Li 2011, arXiv:1103.4601): the predictions, corrected by what the requests on
  which both agree took beyond theirs. Weights are clipped (:data:`MAX_WEIGHT`); for the part of the traffic that this
  leaves out, and for lanes that were never picked, the estimate rests on the predictions, and their uncertainty counts
  as an error that a task's requests have in common, and in part those of all tasks (:data:`IN_COMMON`).

An answer has the same tokens on every lane, so times per token are compared, weighted by tokens.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from statistics import median

from msgspec import Struct

MAX_WEIGHT = 50.0
"""Requests that one request may stand for; set by hand: a larger one lets a single slow answer decide, a smaller one
rests more on the predictions."""
NORMAL_95 = 1.96
"""Standard deviations of a normal distribution within which 95 % lie."""
IN_COMMON = 0.4
"""Share of the variance of a lane's predictions that is one error for all tasks, such as what a step costs; the rest is
one for each task, such as its acceptance. On the simulated machines of ``python -m benchmarks.evidence`` 0.3 was too
little: of 100 logs of 2,000 requests, 93 intervals held the truth for the lane that was hardly ever tried."""
MIN_RESIDUAL, MAX_RESIDUAL = 0.05, 2.0
"""Of a request's time, how far it is from its prediction, as a share of that."""


class Sample(Struct, frozen=True):
    """A request of a log as far as estimates need it."""

    task: str
    lane: str
    tokens: int
    s_per_token: float
    propensities: Mapping[str, float]
    """With which each lane was picked; those that are missing were not."""
    predicted: Mapping[str, float]
    """Seconds per token by lane; in plain steps where no second was known yet."""
    spread: Mapping[str, float]
    """Of the predictions' logarithm, as standard deviation."""
    in_seconds: bool = True

    @property
    def seconds(self) -> float:
        return self.tokens * self.s_per_token


Shares = Mapping[str, float]
"""With which probability a policy picks which lane for one request."""
LoggedPolicy = Callable[[Sample], Shares]
"""A way to choose that a log can be asked about. It may only use what was known before the outcome."""


class Estimate(Struct, frozen=True):
    """Of the time that a policy would have taken, as a share of the time that was taken."""

    ratio: float
    low: float
    high: float
    inverse_propensity: float
    self_normalised: float
    agreed: int
    """Requests that went down a lane which the policy might have picked, too."""
    on_predictions: float
    """Share of the estimate that rests on predictions alone."""
    lasting: float = 0.0
    """Part of ``high - ratio`` that comes from errors which a task's requests have in common: more requests alone do
    not narrow it. The two parts add as squares."""


def always(lane: str) -> LoggedPolicy:
    return lambda _: {lane: 1.0}


def estimate(samples: Sequence[Sample], policy: LoggedPolicy) -> Estimate:
    """
    Raises:
        ValueError: there are no samples, or a policy picks a lane that a sample knows nothing of.
    """
    return estimate_shares([(sample, policy(sample)) for sample in samples])


def estimate_shares(picks: Sequence[tuple[Sample, Shares]]) -> Estimate:
    """The same of a policy whose choice for each request is given.

    Raises:
        ValueError: as :func:`estimate`.
    """
    if not picks:
        raise ValueError("nothing is logged")
    samples = [sample for sample, _ in picks]
    step_s = _plain_step_s(samples)
    residual = _residuals(samples, step_s)
    # 1. The estimate, what of it rests on predictions alone, and how far it may be off.
    taken_s = total_s = alone_s = expected_variance = observed_variance = 0.0
    common_s: dict[str, float] = defaultdict(float)  # by task: errors that its requests have in common
    weighted_s = weighted_tokens = 0.0
    agreed = 0
    for sample, shares in picks:
        taken_s += sample.seconds
        for lane, share in shares.items():
            if lane not in sample.predicted:
                raise ValueError(f"nothing is known of lane {lane!r} for a request")
            propensity = sample.propensities.get(lane, 0.0)
            expected_s = sample.tokens * _expected_s(sample, lane, step_s)
            weight = min(1 / propensity, MAX_WEIGHT) if propensity > 0 else 0.0
            left_out_s = share * (1 - propensity * weight) * expected_s
            total_s += share * expected_s
            alone_s += left_out_s
            common_s[sample.task] += left_out_s * sample.spread.get(lane, 0.0)
            noise = max(residual, sample.spread.get(lane, 0.0))
            expected_variance += propensity * (share * weight * expected_s * noise) ** 2
            if lane == sample.lane:
                agreed += 1
                beyond_s = share * weight * (sample.seconds - expected_s)
                total_s += beyond_s
                observed_variance += beyond_s * beyond_s
                weighted_s += share * sample.seconds / propensity if propensity > 0 else 0.0
                weighted_tokens += share * sample.tokens / propensity if propensity > 0 else 0.0
    # 2. The interval. Few requests that agree may miss what the others would have shown.
    variance = max(expected_variance, observed_variance)
    of_all_tasks_s = sum(common_s.values())
    of_each_task = sum(seconds * seconds for seconds in common_s.values())
    lasting = IN_COMMON * of_all_tasks_s * of_all_tasks_s + (1 - IN_COMMON) * of_each_task
    half_s = NORMAL_95 * sqrt(variance + lasting)
    # 3. All of it as shares of the time that was taken.
    tokens = sum(sample.tokens for sample in samples)
    return Estimate(
        ratio=total_s / taken_s,
        low=max(0.0, total_s - half_s) / taken_s,
        high=(total_s + half_s) / taken_s,
        inverse_propensity=weighted_s / taken_s,
        self_normalised=weighted_s / weighted_tokens * tokens / taken_s if weighted_tokens else 0.0,
        agreed=agreed,
        on_predictions=alone_s / total_s if total_s > 0 else 1.0,
        lasting=NORMAL_95 * sqrt(lasting) / taken_s,
    )


def _expected_s(sample: Sample, lane: str, step_s: float) -> float:
    return sample.predicted[lane] * (1.0 if sample.in_seconds else step_s)


def _plain_step_s(samples: Sequence[Sample]) -> float:
    """Of the requests that were decided on before any second was known."""
    early = [sample.s_per_token / sample.predicted[sample.lane] for sample in samples if not sample.in_seconds]
    return median(early) if early else 1.0


def _residuals(samples: Sequence[Sample], step_s: float) -> float:
    """Standard deviation of the times about their predictions, relative to them; a stall counts as no more than
    :data:`MAX_RESIDUAL`."""
    misses = (sample.s_per_token / _expected_s(sample, sample.lane, step_s) - 1 for sample in samples)
    squares = [min(miss, MAX_RESIDUAL) ** 2 for miss in misses]
    return max(MIN_RESIDUAL, sqrt(sum(squares) / len(squares)))
