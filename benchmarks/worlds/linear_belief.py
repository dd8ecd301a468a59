"""A Gaussian belief about unknowns that are added as they come up, and what an observation changes of it."""

from collections.abc import Sequence
from math import sqrt
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.worlds.published import Floats

Indexes: TypeAlias = NDArray[np.intp]

GROWS_BY = 48
"""Unknowns that room is made for at a time."""
TAILS = 4.0
"""Degrees of freedom of Student's t: how far off single requests may be. Between 3 and 8 nothing changes."""
USUAL_SCORE = 1.5
"""Standard deviations within which an observation is taken at its word."""


SLACK = 0.5
"""Standard deviations by which a miss may be off to one side again and again: half of the shift that is to be told."""
MAX_SCORE = 7.0
"""Standard deviations that one miss counts as at most; a single one of so many tells a change."""
MAX_KEYS = 4096
"""That are remembered, of groups that clients can name as they like."""

Value = TypeVar("Value")


class Recent(dict[object, Value]):
    """A dictionary of bounded size: what was not written for the longest time gives way."""

    def __setitem__(self, key: object, value: Value) -> None:
        self.pop(key, None)
        if len(self) >= MAX_KEYS:
            del self[next(iter(self))]
        super().__setitem__(key, value)


class Belief:
    """Mean and covariance of all unknowns. What is observed is a weighted sum of some of them, with noise."""

    def __init__(self) -> None:
        self.count = 0
        self._mean, self._prior_mean = np.zeros(0), np.zeros(0)
        self._covariance, self._prior = np.zeros((0, 0)), np.zeros((0, 0))
        self._scratch = np.zeros((0, 0))

    @property
    def mean(self) -> Floats:
        return self._mean[: self.count]

    @property
    def covariance(self) -> Floats:
        return self._covariance[: self.count, : self.count]

    def add(self, mean: Floats, covariance: Floats) -> int:
        """Adds unknowns, of which nothing that was observed tells; the index of the first."""
        first, self.count = self.count, self.count + len(mean)
        if self.count > len(self._mean):
            more = self.count + GROWS_BY - len(self._mean)
            self._mean, self._prior_mean = (np.pad(values, (0, more)) for values in (self._mean, self._prior_mean))
            self._covariance, self._prior, self._scratch = (
                np.pad(matrix, (0, more)) for matrix in (self._covariance, self._prior, self._scratch)
            )
        self._mean[first : self.count] = self._prior_mean[first : self.count] = mean
        self._covariance[first : self.count, first : self.count] = covariance
        self._prior[first : self.count, first : self.count] = covariance
        return first

    def forget(self, first: int, mean: Floats, variances: Floats) -> None:
        """Lets unknowns stand for something else, of which nothing is known."""
        last = first + len(mean)
        self._mean[first:last] = self._prior_mean[first:last] = mean
        for matrix in (self._covariance, self._prior):
            matrix[first:last, :] = matrix[:, first:last] = 0.0
            matrix[first:last, first:last] = np.diag(variances)

    def evidence(self, indexes: Indexes) -> tuple[Floats, Floats]:
        """What observations told of these unknowns, beside the prior: information (an inverse covariance), and the same
        times the values. It is a sum over the observations, so that what several beliefs learned adds up."""
        information, before = (
            np.linalg.inv(self._of(self._covariance, indexes)),
            np.linalg.inv(self._of(self._prior, indexes)),
        )
        return information - before, information @ self._mean[indexes] - before @ self._prior_mean[indexes]

    def add_evidence(self, indexes: Indexes, information: Floats, values: Floats) -> None:
        """Learns what another belief, or this one before it was saved, has learned."""
        covariance = self._of(self._covariance, indexes)
        inverse = np.linalg.inv(np.eye(len(indexes)) + information @ covariance)
        across = self._covariance[: self.count, indexes]
        self._mean[: self.count] += across @ inverse @ (values - information @ self._mean[indexes])
        self.covariance[...] -= across @ inverse @ information @ across.T

    @staticmethod
    def _of(matrix: Floats, indexes: Indexes) -> Floats:
        return matrix[indexes[:, None], indexes]

    def widen(self, indexes: Sequence[int], variances: Sequence[float]) -> None:
        """Says that unknowns may have changed."""
        diagonal = self._covariance.reshape(-1)[:: len(self._mean) + 1]
        diagonal[indexes] += variances

    def of(self, indexes: Indexes, factors: Floats) -> tuple[Floats, Floats]:
        """Mean and covariance of weighted sums: a row of factors for each."""
        covariance: Floats = factors @ self._covariance[indexes[:, None], indexes] @ factors.T
        return factors @ self._mean[indexes], covariance

    def observe(self, indexes: Indexes, factors: Floats, value: float, noise: float) -> tuple[float, float]:
        """Learns the value of one sum (a Kalman filter's update); what it was off by, and the variance that this was
        expected to have. An odd value counts less: its noise is taken for as large as Student's t says."""
        covariance = self.covariance
        across = factors @ covariance[indexes]
        of_sum = float(factors @ across[indexes])
        miss = value - float(factors @ self._mean[indexes])
        expected = of_sum + noise
        square = miss * miss / expected
        if square > USUAL_SCORE**2:
            noise *= (TAILS + square) / (TAILS + 1)
        gain = across / (of_sum + noise)
        self._mean[: self.count] += gain * miss
        change = self._scratch[: self.count, : self.count]
        np.multiply(gain[:, None], across, out=change)
        covariance -= change
        return miss, expected

    def observe_together(
        self, indexes: Indexes, factors: Floats, values: Floats, noise: Floats
    ) -> tuple[Floats, Floats]:
        """Learns several sums whose noise is correlated: a row of factors for each, and the noise's covariance; what
        they were off by, and the variances that these were expected to have. Odd values count less as a whole."""
        covariance = self.covariance
        across = factors @ covariance[indexes]
        of_sums = across[:, indexes] @ factors.T
        misses = values - factors @ self._mean[indexes]
        expected = of_sums + noise
        variances = expected.diagonal()
        inverse = np.linalg.inv(expected)
        square = float(misses @ inverse @ misses) / len(misses)
        if square > USUAL_SCORE**2:
            inverse = np.linalg.inv(of_sums + noise * (TAILS + square) / (TAILS + 1))
        gains = across.T @ inverse
        self._mean[: self.count] += gains @ misses
        change = self._scratch[: self.count, : self.count]
        np.matmul(gains, across, out=change)
        covariance -= change
        return misses, variances


class Changes:
    """Tells a change by misses that go on to one side (a two-sided cumulative sum, Page 1954, Biometrika 41)."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        """Standard deviations that a sum has to reach; each miss adds what it is beyond :data:`SLACK`."""
        self._sums: Recent[tuple[float, float]] = Recent()

    def has(self, key: object, miss: float, expected: float) -> bool:
        """Whether this miss, of which the variance ``expected`` was expected, says so together with those before under
        the same key."""
        score = max(-MAX_SCORE, min(MAX_SCORE, miss / sqrt(expected)))
        above, below = self._sums.get(key, (0.0, 0.0))
        above, below = max(0.0, above + score - SLACK), max(0.0, below - score - SLACK)
        has_changed = max(above, below) > self._interval
        self._sums[key] = (0.0, 0.0) if has_changed else (above, below)
        return has_changed


class Variances:
    """Variances by key that are learned from squares, each from a believed one that counts as so many squares."""

    def __init__(self, weight: float, fading: float) -> None:
        self._weight, self._fading = weight, fading
        self._sums: Recent[tuple[float, float]] = Recent()

    def of(self, key: object, believed: float) -> float:
        total, weight = self._sums.get(key, (0.0, 0.0))
        return (self._weight * believed + total) / (self._weight + weight)

    def learn(self, key: object, square: float) -> None:
        total, weight = self._sums.get(key, (0.0, 0.0))
        self._sums[key] = self._fading * total + square, self._fading * weight + 1
