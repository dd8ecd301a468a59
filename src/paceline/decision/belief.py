"""A Gaussian belief about named unknowns, and what an observation changes of it.

Before anything is observed the unknowns are independent, with a mean of 0 and a deviation each. What is observed is a
weighted sum of some of them, with noise: a Kalman filter's update (Kalman 1960) tells what follows for all of them.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from paceline.decision.tuning import TAILS, USUAL_SCORE

Floats: TypeAlias = NDArray[np.float64]
Indexes: TypeAlias = NDArray[np.intp]
Name: TypeAlias = tuple[str, ...]
"""Of an unknown: what it is, and of what: ``("strength", "task", "code")``."""

GROWS_BY = 48
"""Unknowns that room is made for at a time."""


class Belief:
    """Mean and covariance of all unknowns."""

    def __init__(self) -> None:
        self.numbers: dict[Name, int] = {}
        """Where each unknown stands."""
        self.shape = 0
        """Changes whenever unknowns are added, or stand elsewhere."""
        self._mean, self._prior = np.zeros(GROWS_BY), np.zeros(GROWS_BY)
        self._covariance, self._scratch = np.zeros((GROWS_BY, GROWS_BY)), np.zeros((GROWS_BY, GROWS_BY))

    @property
    def nowhere(self) -> int:
        """Where an unknown stands that there is not: its mean and covariances are 0."""
        return len(self._mean) - 1

    @property
    def mean(self) -> Floats:
        return self._mean[: len(self.numbers)]

    @property
    def covariance(self) -> Floats:
        count = len(self.numbers)
        return self._covariance[:count, :count]

    @property
    def prior(self) -> Floats:
        """Variances before anything was observed."""
        return self._prior[: len(self.numbers)]

    def add(self, name: Name, variance: float) -> int:
        """A new unknown, of which nothing is known yet; where it stands."""
        number = len(self.numbers)
        if number == self.nowhere:
            self._mean, self._prior = (np.pad(values, (0, GROWS_BY)) for values in (self._mean, self._prior))
            self._covariance, self._scratch = (
                np.pad(matrix, (0, GROWS_BY)) for matrix in (self._covariance, self._scratch)
            )
        self.numbers[name] = number
        self._prior[number] = self._covariance[number, number] = variance
        self.shape += 1
        return number

    def keep(self, names: Collection[Name]) -> None:
        """Forgets all other unknowns."""
        kept = sorted((name for name in self.numbers if name in names), key=self.numbers.__getitem__)
        indexes = np.array([self.numbers[name] for name in kept], np.intp)
        count = len(kept)
        covariance = self._covariance[indexes[:, None], indexes]
        self._mean[:count], self._prior[:count] = self._mean[indexes], self._prior[indexes]
        self._mean[count:] = self._prior[count:] = 0.0
        self._covariance[...] = 0.0
        self._covariance[:count, :count] = covariance
        self.numbers = {name: number for number, name in enumerate(kept)}
        self.shape += 1

    def restore(self, names: Sequence[Name], prior: Floats, mean: Floats, covariance: Floats) -> None:
        """Takes over a belief as it was."""
        count = len(names)
        room = (0, GROWS_BY)
        self.numbers = {name: number for number, name in enumerate(names)}
        self._prior, self._mean = np.pad(prior, room), np.pad(mean, room)
        self._covariance = np.pad(covariance, room)
        self._scratch = np.zeros((count + GROWS_BY, count + GROWS_BY))
        self.shape += 1

    def widen(self, indexes: Sequence[int] | Indexes, variances: Sequence[float] | Floats) -> None:
        """Says that unknowns may have changed."""
        diagonal = self._covariance.reshape(-1)[:: len(self._mean) + 1]
        diagonal[indexes] += variances

    def means(self, indexes: Indexes) -> Floats:
        """Of some unknowns, which there may not be."""
        return self._mean[indexes]

    def of(self, indexes: Indexes, factors: Floats) -> Floats:
        """Covariance of weighted sums: a row of factors for each. Unknowns that there are not count as certain."""
        return factors @ self._covariance[indexes[:, None], indexes] @ factors.T

    def observe(self, indexes: Indexes, factors: Floats, value: float, noise: float) -> tuple[float, float]:
        """Learns the value of one sum; what it was off by, and the variance that this was expected to have. An odd
        value counts less: its noise is taken for as large as Student's t says."""
        count = len(self.numbers)
        covariance = self._covariance[:count, :count]
        across = factors @ covariance[indexes]
        of_sum = float(factors @ across[indexes])
        miss = value - float(factors @ self._mean[indexes])
        expected = of_sum + noise
        square = miss * miss / expected
        if square > USUAL_SCORE**2:
            noise *= (TAILS + square) / (TAILS + 1)
        gain = across / (of_sum + noise)
        self._mean[:count] += gain * miss
        change = self._scratch[:count, :count]
        np.multiply(gain[:, None], across, out=change)
        covariance -= change
        return miss, expected

    def observe_together(
        self, indexes: Indexes, factors: Floats, values: Floats, noise: Floats
    ) -> tuple[Floats, Floats]:
        """Learns several sums whose noise is correlated: a row of factors for each, and the noise's covariance; what
        they were off by, and the variances that these were expected to have. Odd values count less as a whole."""
        count = len(self.numbers)
        covariance = self._covariance[:count, :count]
        across = factors @ covariance[indexes]
        of_sums = across[:, indexes] @ factors.T
        misses = values - factors @ self._mean[indexes]
        expected = of_sums + noise
        inverse = np.linalg.inv(expected)
        square = float(misses @ inverse @ misses) / len(misses)
        if square > USUAL_SCORE**2:
            inverse = np.linalg.inv(of_sums + noise * (TAILS + square) / (TAILS + 1))
        gains = across.T @ inverse
        self._mean[:count] += gains @ misses
        change = self._scratch[:count, :count]
        np.matmul(gains, across, out=change)
        covariance -= change
        return misses, expected.diagonal()

    # What several beliefs have learned adds up

    def evidence(self, names: Iterable[Name]) -> tuple[Floats, Floats]:
        """What observations told of these unknowns beside the prior: information (an inverse covariance), and the same
        times the values. Where what was forgotten left less than the prior, it is none."""
        indexes = np.array([self.numbers[name] for name in names], np.intp)
        before = np.diag(1 / self._prior[indexes])
        information = np.linalg.inv(self._covariance[indexes[:, None], indexes]) - before
        scales, directions = np.linalg.eigh((information + information.T) / 2)
        known = (directions * np.maximum(scales, 0.0)) @ directions.T
        return known, (known + before) @ self._mean[indexes]

    def add_evidence(self, names: Iterable[Name], information: Floats, values: Floats) -> None:
        """Learns what another belief has learned of these unknowns."""
        indexes = np.array([self.numbers[name] for name in names], np.intp)
        covariance = self._covariance[indexes[:, None], indexes]
        inverse = np.linalg.inv(np.eye(len(indexes)) + information @ covariance)
        across = self._covariance[: len(self.numbers), indexes]
        self._mean[: len(self.numbers)] += across @ inverse @ (values - information @ self._mean[indexes])
        self.covariance[...] -= across @ inverse @ information @ across.T
