"""A Gaussian belief about named unknowns, and what an observation changes of it.

Before anything is observed the unknowns are independent, with a mean of 0 and a deviation each. What is observed is a
weighted sum of some of them, with noise: a Kalman filter's update (Kalman 1960) tells what follows for all of them.
"""

from collections.abc import Collection, Iterable, Sequence
from math import sqrt
from typing import TypeAlias

import numpy as np

from paceline.decision.arrays import Floats, Indexes
from paceline.decision.observed import Observed, Sums
from paceline.decision.tuning import TAILS, USUAL_SCORE

Name: TypeAlias = tuple[str, ...]
"""Of an unknown: what it is, and of what: ``("strength", "task", "code")``."""

GROWS_BY = 48
"""Unknowns that room is made for at a time."""
MAX_MEAN = 50.0
"""Of unknowns, which are of logarithms: further off is nothing."""
SMALL = 1e-6
"""Variance that may be missing from rounding."""
GATHERED = 16
"""Rows that are taken from the covariance together."""


class Belief:
    """Mean and covariance of all unknowns.

    What an observation takes from the covariance is the square of one row. Such rows are gathered, and taken together
    as one product of matrices, instead of passing through the whole covariance for each.
    """

    def __init__(self) -> None:
        self.numbers: dict[Name, int] = {}
        """Where each unknown stands."""
        self.shape = 0
        """Changes whenever unknowns are added, or stand elsewhere."""
        self.kept = 0
        """Changes whenever unknowns stand elsewhere."""
        self._mean, self._prior = np.zeros(GROWS_BY), np.zeros(GROWS_BY)
        self._covariance = np.zeros((GROWS_BY, GROWS_BY))
        """Before the gathered rows are taken from it."""
        self._rows, self._gathered = np.zeros((GROWS_BY, GATHERED)), 0
        """As columns, so that what few unknowns have of them lies close; 0 where none is gathered."""
        self.untold: Observed | None = None
        """What was observed since others were told; ``None`` where nobody shares."""

    @property
    def nowhere(self) -> int:
        """Where an unknown stands that there is not: its mean and covariances are 0."""
        return len(self._mean) - 1

    @property
    def mean(self) -> Floats:
        return self._mean[: len(self.numbers)]

    @property
    def covariance(self) -> Floats:
        count, rows = len(self.numbers), self._rows[: len(self.numbers)]
        covariance: Floats = self._covariance[:count, :count] - rows @ rows.T
        return covariance

    @property
    def prior(self) -> Floats:
        """Variances before anything was observed."""
        return self._prior[: len(self.numbers)]

    def add(self, name: Name, variance: float) -> int:
        """A new unknown, of which nothing is known yet; where it stands."""
        number = len(self.numbers)
        if number == self.nowhere:
            self._take()
            self._resize(number, number + 1 + GROWS_BY)
        self.numbers[name] = number
        self._prior[number] = self._covariance[number, number] = variance
        self.shape += 1
        return number

    def replace(self, old: Name, name: Name, variance: float) -> int:
        """A new unknown in the place of one that is forgotten."""
        number = self.numbers.pop(old)
        self.numbers[name] = number
        self._mean[number] = 0.0
        self._rows[number] = 0.0
        if self.untold is not None:
            self.untold.forget(number, float(self._prior[number]))
        self._covariance[number, :] = self._covariance[:, number] = 0.0
        self._prior[number] = self._covariance[number, number] = variance
        return number

    def keep(self, names: Collection[Name]) -> None:
        """Forgets all other unknowns, and what was told of them."""
        self._take()
        kept = sorted((name for name in self.numbers if name in names), key=self.numbers.__getitem__)
        indexes = np.array([self.numbers[name] for name in kept], np.intp)
        untold, before = self.untold, self.prior
        self.restore(kept, self._prior[indexes], self._mean[indexes], self._covariance[indexes[:, None], indexes])
        if untold is not None:
            self.untold = untold.kept(indexes, before, len(self._mean))

    def restore(self, names: Sequence[Name], prior: Floats, mean: Floats, covariance: Floats) -> None:
        """Takes over a belief as it was."""
        self.numbers = {name: number for number, name in enumerate(names)}
        self._prior, self._mean, self._covariance = prior, mean, covariance
        self._gathered = 0
        self.kept += 1
        self._resize(len(names), len(names) + GROWS_BY)
        self.shape += 1

    def _resize(self, count: int, size: int) -> None:
        """Makes room for ``size`` unknowns; so many there are."""
        room = (0, size - count)
        self._prior, self._mean = np.pad(self._prior[:count], room), np.pad(self._mean[:count], room)
        self._covariance = np.pad(self._covariance[:count, :count], room)
        self._rows = np.zeros((size, GATHERED))
        if self.untold is not None:
            indexes = np.arange(count)
            self.untold = self.untold.placed(indexes, indexes, size)

    def widen(self, indexes: Sequence[int] | Indexes, variances: Sequence[float] | Floats) -> None:
        """Says that unknowns may have changed."""
        diagonal = self._covariance.reshape(-1)[:: len(self._mean) + 1]
        diagonal[indexes] += variances
        if self.untold is not None:
            self.untold.widen(np.asarray(indexes, np.intp), np.asarray(variances))

    def means(self, indexes: Indexes) -> Floats:
        """Of some unknowns, which there may not be."""
        return self._mean.take(indexes)

    def variance(self, number: int) -> float:
        """Of the unknown that stands there."""
        rows = self._rows[number]
        return float(self._covariance[number, number] - rows @ rows)

    def pairs(self, indexes: Indexes) -> Indexes:
        """Where the covariances between some unknowns stand, for :meth:`of`; as long as :attr:`shape` is the same."""
        pairs: Indexes = indexes[:, None] * len(self._mean) + indexes
        return pairs

    def of(self, indexes: Indexes, pairs: Indexes, factors: Floats) -> Floats:
        """Covariance of weighted sums: a row of factors for each. Unknowns that there are not count as certain."""
        covariance: Floats = factors.dot(self._covariance.take(pairs)).dot(factors.T)
        if self._gathered:
            rows = factors.dot(self._rows.take(indexes, axis=0))
            covariance -= rows.dot(rows.T)
        return covariance

    def observe(self, indexes: Indexes, factors: Floats, value: float, noise: float) -> tuple[float, float]:
        """Learns the value of one sum; what it was off by, and the variance that this was expected to have. An odd
        value counts less: its noise is taken for as large as Student's t says."""
        across = self._across(indexes, factors)
        of_sum = float(factors.dot(across.take(indexes)))
        miss = value - float(factors.dot(self._mean.take(indexes)))
        expected = of_sum + noise
        square = miss * miss / expected
        if square > USUAL_SCORE**2:
            noise *= (TAILS + square) / (TAILS + 1)
        deviation = sqrt(of_sum + noise)
        across = across / deviation
        self._mean += across * (miss / deviation)
        self._gather(across[None])
        if self.untold is not None:
            self.untold.add(indexes, factors[None] / sqrt(noise), np.array([value / sqrt(noise)]))
        return miss, expected

    def observe_together(
        self, indexes: Indexes, factors: Floats, values: Floats, noise: Floats
    ) -> tuple[Floats, Floats]:
        """Learns several sums whose noise is correlated: a row of factors for each, and the noise's covariance; what
        they were off by, and the variances that these were expected to have. Odd values count less as a whole."""
        across = self._across(indexes, factors)
        of_sums = across.take(indexes, axis=1).dot(factors.T)
        misses = values - factors.dot(self._mean.take(indexes))
        expected = of_sums + noise
        square = float(misses @ np.linalg.solve(expected, misses)) / len(misses)
        if square > USUAL_SCORE**2:
            noise = noise * (TAILS + square) / (TAILS + 1)
        root = np.linalg.cholesky(of_sums + noise)
        rows = np.linalg.solve(root, across).astype(np.float64, copy=False)
        self._mean += np.linalg.solve(root, misses) @ rows
        self._gather(rows)
        if self.untold is not None:
            root = np.linalg.cholesky(noise)
            self.untold.add(indexes, np.linalg.solve(root, factors), np.linalg.solve(root, values))
        return misses, expected.diagonal()

    def _across(self, indexes: Indexes, factors: Floats) -> Floats:
        """Covariances of sums with all unknowns."""
        across: Floats = factors.dot(self._covariance.take(indexes, axis=0))
        if self._gathered:
            across -= factors.dot(self._rows.take(indexes, axis=0)).dot(self._rows.T)
        return across

    def _gather(self, rows: Floats) -> None:
        """Takes the rows' squares from the covariance, later."""
        if self._gathered + len(rows) > GATHERED:
            self._take()
        if len(rows) > GATHERED:
            self._covariance -= rows.T @ rows
            return
        self._rows[:, self._gathered : self._gathered + len(rows)] = rows.T
        self._gathered += len(rows)

    def _take(self) -> None:
        if self._gathered:
            self._covariance -= self._rows.dot(self._rows.T)
            self._rows.fill(0.0)
            self._gathered = 0

    # What several beliefs have learned adds up

    def share(self) -> None:
        """From now on, note what is observed for others to learn."""
        if self.untold is None:
            self.untold = Observed(len(self._mean))

    def tell_all(self) -> None:
        """Have others told all that is known, as if it had been observed now."""
        self.untold = Observed(len(self._mean))
        names = sorted(self.numbers, key=self.numbers.__getitem__)
        if names:
            self.untold.add_sums(np.arange(len(names)), *self.evidence(names))

    def take_over(self, other: "Belief") -> None:
        """Tell what another belief, whose unknowns are all here, was to tell."""
        if self.untold is None or other.untold is None:
            return
        indexes = np.arange(len(other.numbers))
        names = sorted(other.numbers, key=other.numbers.__getitem__)
        places = np.array([self.numbers[name] for name in names], np.intp)
        self.untold.plus(other.untold.placed(indexes, places, len(self._mean)))

    def take_untold(self) -> tuple[list[Name], Floats, Sums]:
        """What was observed since the last time: of these unknowns, whose prior variances come next."""
        if self.untold is None:
            return [], np.zeros(0), Sums(np.zeros(0), np.zeros((0, 0)), np.zeros(0))
        numbers, sums = self.untold.taken()
        names = {number: name for name, number in self.numbers.items()}
        return [names[number] for number in numbers.tolist()], self._prior[numbers], sums

    def evidence(self, names: Iterable[Name]) -> tuple[Floats, Floats]:
        """What observations told of these unknowns beside the prior: information (an inverse covariance), and the same
        times the values. Where what was forgotten left less than the prior, it is none."""
        indexes = np.array([self.numbers[name] for name in names], np.intp)
        before = np.diag(1 / self._prior[indexes])
        information = np.linalg.inv(self.covariance[indexes[:, None], indexes]) - before
        scales, directions = np.linalg.eigh((information + information.T) / 2)
        known = (directions * np.maximum(scales, 0.0)) @ directions.T
        return known, (known + before) @ self._mean[indexes]

    def add_evidence(
        self, names: Iterable[Name], information: Floats, values: Floats, drift: Floats | None = None
    ) -> None:
        """Learns what another belief has learned of these unknowns, which may meanwhile have changed by the variances
        ``drift``. Nothing of that is told again.

        Raises:
            ValueError: nobody can have learned that; nothing has changed.
        """
        indexes = np.array([self.numbers[name] for name in names], np.intp)
        self._take()
        count = len(self.numbers)
        covariance = self._covariance[:count, :count].copy()
        if drift is not None:
            covariance[indexes, indexes] += drift
        across = covariance[:, indexes]
        try:
            inverse = np.linalg.inv(np.eye(len(indexes)) + information @ across[indexes])
        except np.linalg.LinAlgError as error:
            raise ValueError("evidence that can't be") from error
        mean = self.mean + across @ inverse @ (values - information @ self._mean[indexes])
        covariance = covariance - across @ inverse @ information @ across.T
        if not (np.abs(mean) < MAX_MEAN).all() or not (covariance.diagonal() > -SMALL).all():
            raise ValueError("evidence that can't be")
        self.mean[...] = mean
        self._covariance[:count, :count] = (covariance + covariance.T) / 2
