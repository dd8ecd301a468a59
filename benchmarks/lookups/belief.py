"""A small Bayesian linear regression over groups of requests and statistics of the prompt, learned one turn at a time.

    value = mean + strength of each of the turn's groups + coefficient of each statistic * its value + noise

It stands for what a linear decision can learn of a lookup, and is no part of one.
"""

from collections.abc import Mapping, Sequence
from math import log, pi
from typing import TypeAlias

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

SPREAD_TURNS = 6.0
"""Turns that the prior of an application's noise is worth."""


class Coefficient(Struct, frozen=True):
    """What is believed of a statistic's coefficient at first."""

    mean: float = 0.0
    deviation: float = 0.5


class Prior(Struct, frozen=True):
    """Standard deviations, in the value's unit, but for means."""

    mean: float = 0.4
    mean_deviation: float = 0.2
    noise: float = 0.4
    """Of single turns about what is expected of them; then learned by application."""
    groups: Mapping[str, float] = {}
    """Of strengths, by the kind of group."""
    statistics: Mapping[str, Coefficient] = {}


class Turn(Struct, frozen=True):
    """What the belief sees of a turn."""

    groups: Mapping[str, str]
    """The turn's group of each kind."""
    statistics: Mapping[str, float]
    """Centred."""
    application: str


class Expected(Struct, frozen=True):
    mean: float
    deviation: float
    """Of the single turn's value."""

    def log_score(self, value: float) -> float:
        """Logarithm of the density at what turned out."""
        return -0.5 * (((value - self.mean) / self.deviation) ** 2 + log(2 * pi * self.deviation**2))


class Belief:
    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._numbers: dict[tuple[str, str], int] = {}
        coefficients = list(prior.statistics.values())
        self._mean: Floats = np.array([prior.mean, *[one.mean for one in coefficients]])
        self._covariance: Floats = np.diag([prior.mean_deviation, *[one.deviation for one in coefficients]]) ** 2
        self._squares: dict[str, tuple[float, float]] = {}

    def expect(self, turn: Turn) -> Expected:
        factors, new = self._factors(turn)
        about = float(factors @ self._covariance @ factors) + new + self._noise(turn)
        return Expected(float(factors @ self._mean), about**0.5)

    def learn(self, turn: Turn, value: float) -> None:
        for kind, name in self._groups(turn):
            self._add(kind, name)
        factors, _ = self._factors(turn)
        noise = self._noise(turn)
        shared = self._covariance @ factors
        variance = float(factors @ shared) + noise
        miss = value - float(factors @ self._mean)
        self._mean = self._mean + shared * (miss / variance)
        self._covariance = self._covariance - np.outer(shared, shared) / variance
        turns, squares = self._squared(turn)
        self._squares[turn.application] = (turns + 1, squares + miss**2 * noise / variance)

    def coefficients(self) -> dict[str, Coefficient]:
        """What is believed now of the ``mean`` and of the statistics' coefficients."""
        deviations = np.sqrt(np.diag(self._covariance))
        return {
            name: Coefficient(float(self._mean[number]), float(deviations[number]))
            for number, name in enumerate(("mean", *self._prior.statistics))
        }

    def _groups(self, turn: Turn) -> Sequence[tuple[str, str]]:
        return [(kind, turn.groups[kind]) for kind in self._prior.groups]

    def _add(self, kind: str, name: str) -> None:
        if (kind, name) in self._numbers:
            return
        size = len(self._mean)
        self._numbers[kind, name] = size
        covariance = np.zeros((size + 1, size + 1))
        covariance[:size, :size] = self._covariance
        covariance[size, size] = self._prior.groups[kind] ** 2
        self._mean, self._covariance = np.append(self._mean, 0.0), covariance

    def _factors(self, turn: Turn) -> tuple[Floats, float]:
        """How much of each unknown the turn feels, and the variance of its groups that are new."""
        factors, new = np.zeros(len(self._mean)), 0.0
        factors[0] = 1.0
        for number, name in enumerate(self._prior.statistics, start=1):
            factors[number] = turn.statistics[name]
        for group in self._groups(turn):
            if group in self._numbers:
                factors[self._numbers[group]] = 1.0
            else:
                new += self._prior.groups[group[0]] ** 2
        return factors, new

    def _noise(self, turn: Turn) -> float:
        turns, squares = self._squared(turn)
        return squares / turns

    def _squared(self, turn: Turn) -> tuple[float, float]:
        return self._squares.get(turn.application, (SPREAD_TURNS, SPREAD_TURNS * self._prior.noise**2))
