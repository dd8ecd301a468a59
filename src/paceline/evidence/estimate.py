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
NORMAL_95 = 1.96
IN_COMMON = 0.4
"""Share of the variance of a lane's predictions that is one error for all tasks, such as what a step costs; the rest is
one for each task, such as its acceptance. On the simulated machines of ``python -m benchmarks.evidence`` 0.3 was too
little: of 100 logs of 2,000 requests, 93 intervals held the truth for the lane that was hardly ever tried."""
MIN_RESIDUAL, MAX_RESIDUAL = 0.05, 2.0
"""Of a request's time, how far it is from its prediction, as a share of that."""


class Logged(Struct, frozen=True):
    """A request of a log as far as estimates need it."""

    task: str
    lane: str
    tokens: int
    s_per_token: float
    probabilities: Mapping[str, float]
    """With which each lane was picked; those that are missing were not."""
    predicted: Mapping[str, float]
    """Seconds per token by lane; in plain steps where no second was known yet."""
    spread: Mapping[str, float]
    """Of the predictions' logarithm, as standard deviation."""
    in_seconds: bool = True
    model: str | None = None
    """The model that the request named."""

    @property
    def seconds(self) -> float:
        return self.tokens * self.s_per_token


Policy = Callable[[Logged], Mapping[str, float]]
"""With which probability a policy picks which lane for a request; it may only use what was known before."""


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


def estimate(entries: Sequence[Logged], policy: Policy) -> Estimate:
    """
    Raises:
        ValueError: there are no entries, or a policy picks a lane that an entry knows nothing of.
    """
    if not entries:
        raise ValueError("nothing is logged")
    step_s = _plain_step_s(entries)
    residual = _residuals(entries, step_s)
    total = taken = expected_variance = seen_variance = alone = 0.0
    systematic: dict[str, float] = defaultdict(float)
    weighted_s = weighted_tokens = 0.0
    agreed = 0
    for one in entries:
        taken += one.seconds
        for lane, share in policy(one).items():
            if lane not in one.predicted:
                raise ValueError(f"nothing is known of lane {lane!r} for a request")
            chance = one.probabilities.get(lane, 0.0)
            expected = one.tokens * _expected_s(one, lane, step_s)
            weight = min(1 / chance, MAX_WEIGHT) if chance > 0 else 0.0
            left_out = share * (1 - chance * weight) * expected
            total += share * expected
            alone += left_out
            systematic[one.task] += left_out * one.spread.get(lane, 0.0)
            noise = max(residual, one.spread.get(lane, 0.0))
            expected_variance += chance * (share * weight * expected * noise) ** 2
            if lane == one.lane:
                agreed += 1
                beyond = share * weight * (one.seconds - expected)
                total += beyond
                seen_variance += beyond * beyond
                weighted_s += share * one.seconds / chance if chance > 0 else 0.0
                weighted_tokens += share * one.tokens / chance if chance > 0 else 0.0
    tokens = sum(one.tokens for one in entries)
    variance = max(expected_variance, seen_variance)  # few that agree may miss what the others would have shown
    common = sum(systematic.values())
    by_task = sum(one * one for one in systematic.values())
    lasting = IN_COMMON * common * common + (1 - IN_COMMON) * by_task
    half = NORMAL_95 * sqrt(variance + lasting)
    return Estimate(
        total / taken,
        max(0.0, total - half) / taken,
        (total + half) / taken,
        weighted_s / taken,
        weighted_s / weighted_tokens * tokens / taken if weighted_tokens else 0.0,
        agreed,
        alone / total if total > 0 else 1.0,
        NORMAL_95 * sqrt(lasting) / taken,
    )


def always(lane: str) -> Policy:
    return lambda _: {lane: 1.0}


def _expected_s(one: Logged, lane: str, step_s: float) -> float:
    return one.predicted[lane] * (1.0 if one.in_seconds else step_s)


def _plain_step_s(entries: Sequence[Logged]) -> float:
    """Of the requests that were decided on before any second was known."""
    early = [one.s_per_token / one.predicted[one.lane] for one in entries if not one.in_seconds]
    return median(early) if early else 1.0


def _residuals(entries: Sequence[Logged], step_s: float) -> float:
    """Standard deviation of the times about their predictions, relative to them; a stall counts as no more than
    :data:`MAX_RESIDUAL`."""
    misses = (one.s_per_token / _expected_s(one, one.lane, step_s) - 1 for one in entries)
    squares = [min(miss, MAX_RESIDUAL) ** 2 for miss in misses]
    return max(MIN_RESIDUAL, sqrt(sum(squares) / len(squares)))
