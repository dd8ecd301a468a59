"""Counters and histograms for Prometheus, counted up by one thread.

``prometheus_client`` has its own, for many threads: looking series up and taking their locks made a
small request's numbers cost 123 thousand instructions, and these 43 (callgrind). What is scraped is the same.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from math import inf
from time import time

from msgspec import Struct
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

Labels = tuple[str, ...]
"""Values of a series' labels, in their order."""


class Number(Struct, frozen=True, array_like=True):
    """One series, as another process is told it."""

    labels: Labels
    sum: float
    created_s: float
    counts: tuple[int, ...] = ()
    """By bucket."""

    def plus(self, other: "Number") -> "Number":
        """Both together."""
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Number(self.labels, self.sum + other.sum, min(self.created_s, other.created_s), counts)


class Counts(Collector):
    """A counter by its labels; without any, it is there from the beginning."""

    def __init__(self, name: str, about: str, labels: Labels = ()) -> None:
        self._name, self._about, self._labels = name, about, labels
        self._values: dict[Labels, float] = {}
        self._created_s: dict[Labels, float] = {}
        if not labels:
            self.know(())

    def know(self, labels: Labels) -> None:
        """Have this series from now on."""
        if labels not in self._values:
            self._values[labels], self._created_s[labels] = 0.0, time()

    def keep(self, name: str, values: Collection[str]) -> None:
        """Drop the series whose label ``name`` has another value; all stay where there is no such label."""
        for labels in _others(self._values, self._labels, name, values):
            del self._values[labels], self._created_s[labels]

    def add(self, labels: Labels, number: float = 1.0) -> None:
        """Count up, by what is not negative."""
        if labels not in self._values:
            self.know(labels)
        self._values[labels] += number

    def numbers(self) -> list[Number]:
        """All of it, for another process to :meth:`absorb`."""
        return [Number(labels, value, self._created_s[labels]) for labels, value in self._values.items()]

    def absorb(self, numbers: Sequence[Number]) -> None:
        """Also count what another process has counted."""
        for number in numbers:
            self.know(number.labels)
            self._values[number.labels] += number.sum
            self._created_s[number.labels] = min(self._created_s[number.labels], number.created_s)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value, created=self._created_s[labels])
        yield family


class _Observed:
    """One series of a histogram."""

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum = 0.0
        self.created_s = time()


class Histogram(Collector):
    """A histogram by its labels; without any, it is there from the beginning.

    Args:
        bounds: upper ones of the buckets, ascending.
    """

    def __init__(self, name: str, about: str, bounds: Sequence[float], labels: Labels = ()) -> None:
        self._name, self._about, self._labels = name, about, labels
        self._bounds = (*map(float, bounds), inf)
        self._series: dict[Labels, _Observed] = {}
        if not labels:
            self.know(())

    def know(self, labels: Labels) -> None:
        """Have this series from now on."""
        self._series.setdefault(labels, _Observed(len(self._bounds)))

    def keep(self, name: str, values: Collection[str]) -> None:
        """As :meth:`Counts.keep`."""
        for labels in _others(self._series, self._labels, name, values):
            del self._series[labels]

    def observe(self, labels: Labels, value: float) -> None:
        """Count one value."""
        if labels not in self._series:
            self.know(labels)
        series = self._series[labels]
        series.counts[bisect_left(self._bounds, value)] += 1
        series.sum += value

    def numbers(self) -> list[Number]:
        """All of it, for another process to :meth:`absorb`."""
        return [
            Number(labels, series.sum, series.created_s, tuple(series.counts))
            for labels, series in self._series.items()
        ]

    def absorb(self, numbers: Sequence[Number]) -> None:
        """Also count what another process has observed, within the same bounds."""
        for number in numbers:
            self.know(number.labels)
            series = self._series[number.labels]
            series.counts = [mine + theirs for mine, theirs in zip(series.counts, number.counts, strict=True)]
            series.sum += number.sum
            series.created_s = min(series.created_s, number.created_s)

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        for labels, series in self._series.items():
            buckets, total = [], 0.0
            for bound, count in zip(self._bounds, series.counts, strict=True):
                total += count
                buckets.append(("+Inf" if bound == inf else str(bound), total))
            family.add_metric(labels, buckets, series.sum)
            family.add_sample(f"{self._name}_created", dict(zip(self._labels, labels, strict=True)), series.created_s)
        yield family


def _others(series: Iterable[Labels], names: Labels, name: str, values: Collection[str]) -> list[Labels]:
    """Those of the series whose label ``name`` has none of these values."""
    if name not in names:
        return []
    at = names.index(name)
    return [labels for labels in series if labels[at] not in values]
