"""What one router has observed since it last told others, as sums."""

from typing import NamedTuple, Self

import numpy as np

from paceline.decision.arrays import Floats, Indexes


class Sums(NamedTuple):
    """Of observations of some unknowns. Those of several may be added, in any order."""

    drift: Floats
    """Variances by which the unknowns were taken to have changed."""
    information: Floats
    """What was observed, as an inverse covariance."""
    values: Floats
    """That times the values."""


class Observed:
    """Sums over all unknowns of a belief, in its order; it has room for more than there are."""

    def __init__(self, size: int) -> None:
        self._drift, self._values = np.zeros(size), np.zeros(size)
        self._information = np.zeros((size, size))

    def add(self, indexes: Indexes, factors: Floats, values: Floats) -> None:
        """Note sums that were observed, in units in which their noise is 1 and independent: a row of factors for
        each."""
        self.add_sums(indexes, factors.T @ factors, factors.T @ values)

    def add_sums(self, indexes: Indexes, information: Floats, values: Floats) -> None:
        """Note what was observed of some unknowns, as in :class:`Sums`."""
        self._information[indexes[:, None], indexes] += information
        self._values[indexes] += values

    def widen(self, indexes: Indexes, variances: Floats) -> None:
        """Note that unknowns may have changed."""
        self._drift[indexes] += variances

    def forget(self, number: int, prior: float) -> None:
        """An unknown with that variance before anything was observed; what was observed of others with it stays."""
        across = self._information[number].copy()
        if across[number] > 0:
            share = across / (across[number] + 1 / prior)
            self._values -= share * self._values[number]
            self._information -= np.outer(share, across)
        self._information[number] = self._information[:, number] = 0.0
        self._drift[number] = self._values[number] = 0.0

    def kept(self, indexes: Indexes, prior: Floats, size: int) -> Self:
        """Of these unknowns alone, in this order, with room for so many.

        Args:
            prior: of all unknowns, their variances before anything was observed.
        """
        for number in sorted(set(range(len(prior))) - set(indexes.tolist())):
            self.forget(number, float(prior[number]))
        return self.placed(indexes, np.arange(len(indexes)), size)

    def placed(self, indexes: Indexes, places: Indexes, size: int) -> Self:
        """The sums of some unknowns, in other places of room for so many."""
        new = type(self)(size)
        new._drift[places], new._values[places] = self._drift[indexes], self._values[indexes]
        new._information[places[:, None], places] = self._information[indexes[:, None], indexes]
        return new

    def plus(self, other: "Observed") -> None:
        """Note all that another one, of the same size, has noted."""
        self._drift += other._drift
        self._values += other._values
        self._information += other._information

    def taken(self) -> tuple[Indexes, Sums]:
        """The unknowns of which something was noted, and what; then nothing is."""
        numbers = np.flatnonzero((self._information.diagonal() > 0) | (self._drift > 0))
        sums = Sums(self._drift[numbers], self._information[numbers[:, None], numbers], self._values[numbers])
        self._drift[:] = self._values[:] = self._information[:] = 0.0
        return numbers, sums
