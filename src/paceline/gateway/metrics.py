"""``/metrics``: counters and histograms for Prometheus."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from paceline.types import Decision, Outcome, Request, Signals

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
Lanes = Mapping[str, tuple[bool, int, int]]
"""By name, whether it is up, and the requests that it decodes, and that wait for it."""
LATENCIES_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
DECISIONS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05)


class Metrics:
    """Of one gateway. Names follow https://prometheus.io/docs/practices/naming/."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        by_lane, by_task = ("lane",), ("lane", "task")
        self._requests = self._counter("requests", "Requests that were served or failed.", ("lane", "task", "status"))
        self._fallbacks = self._counter(
            "fallbacks", "Requests that another lane than the chosen one has served.", by_lane
        )
        self._duration = self._histogram("request_duration_seconds", "From arrival to the end of the answer.", by_lane)
        self._queue = self._histogram("queue_duration_seconds", "Waiting for the device's turn.", by_lane)
        self._first = self._histogram(
            "time_to_first_byte_seconds",
            "From sending a request to its engine to the first byte of the answer.",
            by_lane,
        )
        self._decision = Histogram(
            "paceline_decision_duration_seconds",
            "Inspecting and deciding.",
            registry=self._registry,
            buckets=DECISIONS_S,
        )
        self._prompt = self._counter("prompt_tokens", "Prompt tokens that were processed.", by_lane)
        self._cached = self._counter("cached_prompt_tokens", "Prompt tokens that an engine had in its cache.", by_lane)
        self._generated = self._counter("generation_tokens", "Tokens that were decoded.", by_task)
        self._decode = self._counter("decode_seconds", "Time of decoding.", by_task)
        self._drafted = self._counter("draft_tokens", "Tokens that were drafted.", by_task)
        self._accepted = self._counter("accepted_tokens", "Drafted tokens that were accepted.", by_task)
        self._exploring = self._counter("exploration_seconds", "Expected cost of choices that were explored.", ())
        self._present = _Present()
        self._registry.register(self._present)

    def add(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> None:
        lane, task, seen = outcome.lane, str(signals.task), outcome.observed
        self._requests.labels(lane, task, str(outcome.status)).inc()
        self._decision.observe(outcome.decision_s)
        self._exploring.inc(max(0.0, decision.exploring_s))
        if lane != decision.lane:
            self._fallbacks.labels(lane).inc()
        self._queue.labels(lane).observe(outcome.queue_s)
        if outcome.first_byte_s is not None:
            self._first.labels(lane).observe(outcome.first_byte_s)
        if outcome.error is not None:
            return  # what fails fast must not look fast
        self._duration.labels(lane).observe(outcome.total_s)
        for counter, value in ((self._prompt, seen.prompt_tokens), (self._cached, seen.cached_tokens)):
            if value:
                counter.labels(lane).inc(value)
        for counter, number in (
            (self._generated, seen.completion_tokens),
            (self._decode, seen.decode_s),
            (self._drafted, seen.drafted),
            (self._accepted, seen.accepted),
        ):
            if number:
                counter.labels(lane, task).inc(number)

    def text(self, lanes: Lanes, failures: Mapping[str, int], log_lost: int | None) -> bytes:
        """The document.

        Args:
            failures: by part of routing.
            log_lost: entries that the decision log could not keep; ``None`` where there is no log.
        """
        self._present.lanes, self._present.failures, self._present.log_lost = lanes, failures, log_lost
        return generate_latest(self._registry)

    def _counter(self, name: str, about: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"paceline_{name}", about, labels, registry=self._registry)

    def _histogram(self, name: str, about: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(f"paceline_{name}", about, labels, registry=self._registry, buckets=LATENCIES_S)


class _Present(Collector):
    """What is counted elsewhere, as it is now."""

    def __init__(self) -> None:
        self.lanes: Lanes = {}
        self.failures: Mapping[str, int] = {}
        self.log_lost: int | None = None

    def collect(self) -> Iterator[Metric]:
        for number, (name, about) in enumerate(
            (
                ("up", "Whether a lane's engine is up."),
                ("requests_running", "Requests that a lane decodes."),
                ("requests_waiting", "Requests that wait for a lane."),
            )
        ):
            gauge = GaugeMetricFamily(f"paceline_lane_{name}", about, labels=["lane"])
            for lane, values in self.lanes.items():
                gauge.add_metric([lane], values[number])
            yield gauge
        failures = CounterMetricFamily(
            "paceline_routing_failures",
            "Requests that were served without a part of routing, since it failed.",
            labels=["part"],
        )
        for part, count in self.failures.items():
            failures.add_metric([part], count)
        yield failures
        if self.log_lost is not None:
            yield CounterMetricFamily(
                "paceline_log_entries_lost", "Requests that the decision log could not keep.", value=self.log_lost
            )
