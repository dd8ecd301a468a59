"""What another policy would have taken on the traffic of a log.

The log knows, for each request, the lane that served and the probability with which it was picked, its time per token,
and what was predicted for every lane at that moment, before the outcome. From these:

- *inverse propensity* (Horvitz and Thompson 1952): the requests on which both policies agree stand for the others,
- *self-normalised* (Swaminathan and Joachims 2015): the same, divided by the weights that came of it,
- *doubly robust* (Dudik, Langford and Li 2011, arXiv:1103.4601): the predictions, corrected by what the requests on
  which both agree took beyond theirs. Weights are clipped (:data:`MAX_WEIGHTS`); for the part of the traffic that this
  leaves out, and for lanes that were never picked, the estimate rests on the predictions, and their uncertainty counts
  as an error that a task's requests have in common, and in part those of all tasks (:data:`IN_COMMON`). They are
  clipped where the interval is the narrowest, as far as that is known before the outcomes.

An answer has the same tokens on every lane, so times per token are compared, weighted by tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from statistics import median
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

MAX_WEIGHTS = (10.0, 20.0, 50.0, 100.0, 200.0, 400.0)
"""Requests that one request may stand for, at most: a larger bound lets a single slow answer decide, with a smaller one
more rests on the predictions. Each estimate takes that with which its error can be expected to be the least."""
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


Floats: TypeAlias = NDArray[np.float64]
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
    parts = _parts(picks, step_s, _residuals(samples, step_s))
    # 1. The estimate, what of it rests on predictions alone, and how far it may be off.
    weighed = min((_weighed(parts, bound) for bound in MAX_WEIGHTS), key=lambda each: each.variance + each.lasting)
    beyond_s = np.where(parts.agreed, parts.share * weighed.weights * (parts.seconds - parts.expected_s), 0.0)
    total_s = float((parts.share * parts.expected_s).sum() + beyond_s.sum())
    # 2. The interval. Few requests that agree may miss what the others would have shown.
    variance = max(weighed.variance, float((beyond_s**2).sum()))
    half_s = NORMAL_95 * sqrt(variance + weighed.lasting)
    # 3. All of it as shares of the time that was taken.
    taken_s, tokens = sum(sample.seconds for sample in samples), sum(sample.tokens for sample in samples)
    agreed = parts.agreed & (parts.propensity > 0)
    whole = parts.share[agreed] / parts.propensity[agreed]
    weighted_s, weighted_tokens = float(whole @ parts.seconds[agreed]), float(whole @ parts.tokens[agreed])
    return Estimate(
        ratio=total_s / taken_s,
        low=max(0.0, total_s - half_s) / taken_s,
        high=(total_s + half_s) / taken_s,
        inverse_propensity=weighted_s / taken_s,
        self_normalised=weighted_s / weighted_tokens * tokens / taken_s if weighted_tokens else 0.0,
        agreed=int(parts.agreed.sum()),
        on_predictions=float(weighed.left_out_s.sum()) / total_s if total_s > 0 else 1.0,
        lasting=NORMAL_95 * sqrt(weighed.lasting) / taken_s,
    )


class _Parts(Struct, frozen=True):
    """Of an estimate: each lane that the policy might pick for a request is an item of these arrays."""

    share: Floats
    """With which probability it does."""
    propensity: Floats
    """With which probability it was picked."""
    agreed: NDArray[np.bool_]
    """Whether it was."""
    tokens: Floats
    """Of the request."""
    seconds: Floats
    """That the request took."""
    expected_s: Floats
    """That it was predicted to take on the lane."""
    spread: Floats
    """Standard deviation of what was not known of that, as a share."""
    noise: Floats
    """Standard deviation of single requests about their predictions, as a share."""
    task: NDArray[np.int64]
    """Equal for requests of one task."""


def _parts(picks: Sequence[tuple[Sample, Shares]], step_s: float, residual: float) -> _Parts:
    rows: list[tuple[float, ...]] = []
    tasks: dict[str, int] = {}
    for sample, shares in picks:
        task = tasks.setdefault(sample.task, len(tasks))
        for lane, share in shares.items():
            if lane not in sample.predicted:
                raise ValueError(f"nothing is known of lane {lane!r} for a request")
            spread = sample.spread.get(lane, 0.0)
            rows.append(
                (
                    share,
                    sample.propensities.get(lane, 0.0),
                    lane == sample.lane,
                    sample.tokens,
                    sample.seconds,
                    sample.tokens * _expected_s(sample, lane, step_s),
                    spread,
                    max(residual, spread),
                    task,
                )
            )
    share, propensity, agreed, tokens, seconds, expected_s, spreads, noise, task_of = np.array(rows).T
    return _Parts(
        share,
        propensity,
        agreed.astype(np.bool_),
        tokens,
        seconds,
        expected_s,
        spreads,
        noise,
        task_of.astype(np.int64),
    )


class _Weighed(Struct, frozen=True):
    """What comes of a bound on weights."""

    weights: Floats
    left_out_s: Floats
    """What rests on predictions alone."""
    variance: float
    """In seconds squared: of requests, as it can be expected before the outcomes."""
    lasting: float
    """And of what predictions have in common."""


def _weighed(parts: _Parts, bound: float) -> _Weighed:
    weights = np.where(parts.propensity > 0, 1 / np.maximum(parts.propensity, 1 / bound), 0.0)
    left_out_s = parts.share * (1 - parts.propensity * weights) * parts.expected_s
    variance = parts.propensity * (parts.share * weights * parts.expected_s * parts.noise) ** 2
    of_each_task = np.bincount(parts.task, weights=left_out_s * parts.spread)
    lasting = IN_COMMON * of_each_task.sum() ** 2 + (1 - IN_COMMON) * (of_each_task**2).sum()
    return _Weighed(weights, left_out_s, float(variance.sum()), float(lasting))


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
