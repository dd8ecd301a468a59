"""Our counters and histograms against those of ``prometheus_client``: what is scraped must be the same."""

import re
from random import Random

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as TheirCounter
from prometheus_client import Histogram as TheirHistogram
from prometheus_client.registry import Collector

from paceline.records.series import Counts, Histogram

BOUNDS = (0.05, 0.1, 1, 2.5, 10)
_CREATED = re.compile(rb"^(\w+_created(?:\{.*\})?) .*$", re.MULTILINE)


def scraped(collector: Collector | None = None, registry: CollectorRegistry | None = None) -> bytes:
    """The document, without the times at which the series were made."""
    registry = registry or CollectorRegistry()
    if collector is not None:
        registry.register(collector)
    return _CREATED.sub(rb"\1", generate_latest(registry))


@pytest.mark.parametrize("labels", [(), ("lane",), ("lane", "task")])
def test_counters_are_scraped_alike(labels: tuple[str, ...]) -> None:
    registry, random = CollectorRegistry(), Random(1)
    ours, theirs = (
        Counts("paceline_x", "About.", labels),
        TheirCounter("paceline_x", "About.", labels, registry=registry),
    )
    assert scraped(ours) == scraped(registry=registry)
    for _ in range(50):
        values, number = tuple(random.choice('ab"\\') for _ in labels), random.choice((0, 1, 0.25, 1e9))
        ours.add(values, number)
        (theirs.labels(*values) if labels else theirs).inc(number)
    assert scraped(ours) == scraped(registry=registry)


@pytest.mark.parametrize("labels", [(), ("lane",)])
def test_histograms_are_scraped_alike(labels: tuple[str, ...]) -> None:
    registry, random = CollectorRegistry(), Random(2)
    ours = Histogram("paceline_x", "About.", BOUNDS, labels)
    theirs = TheirHistogram("paceline_x", "About.", labels, registry=registry, buckets=BOUNDS)
    assert scraped(ours) == scraped(registry=registry)
    for _ in range(100):
        values, number = tuple(random.choice("ab") for _ in labels), random.choice((*BOUNDS, 0, 0.07, 3.3, 1e6))
        ours.observe(values, number)
        (theirs.labels(*values) if labels else theirs).observe(number)
    assert scraped(ours) == scraped(registry=registry)


def test_series_that_are_known_are_there_at_zero() -> None:
    counts, histogram = Counts("x", "About.", ("lane",)), Histogram("y", "About.", BOUNDS, ("lane",))
    for _ in range(2):
        counts.know(("plain",))
        histogram.know(("plain",))
    assert b'x_total{lane="plain"} 0.0' in scraped(counts)
    assert b'y_count{lane="plain"} 0.0' in scraped(histogram)


def test_series_of_what_is_gone_are_dropped() -> None:
    counts, histogram = Counts("c", "about", ("lane", "task")), Histogram("h", "about", (1.0,), ("lane",))
    for lane in ("a", "b"):
        counts.add((lane, "code"))
        histogram.observe((lane,), 0.5)
    for series in (counts, histogram):
        series.keep("engine", ())
        series.keep("lane", {"b"})
        assert [number.labels[0] for number in series.numbers()] == ["b"]
    counts.add(("a", "code"))
    assert {number.labels: number.sum for number in counts.numbers()} == {("a", "code"): 1.0, ("b", "code"): 1.0}
