"""``/metrics``: counters and histograms for Prometheus.

The number of series is bounded whatever clients and engines send: labels are names out of the configuration, or one of
a fixed set. The series of the lanes that are known are there from the first scrape on, at zero, so that ``rate()`` sees
their first event.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Gauge, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from paceline.records.record import Record
from paceline.records.series import Counts, Histogram, Number
from paceline.types import CLIENT_LEFT, Outcome, Task

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
Spending = Sequence[tuple[str, str, float, float]]
"""Of each budget: the key that it is for, its period, what was spent, and its limit."""
Lanes = Mapping[str, tuple[bool, int, int]]
"""By name, whether it is up, and the requests that it decodes, and that wait for it."""


class Sharing(NamedTuple):
    """How it is to share what is learned with other gateways."""

    is_up: bool
    peers: int
    told: int
    learned: int
    lost: int
    refused: int


LATENCIES_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250)
"""Bounds of the histograms of requests: from the first byte of a short answer to the end of a long one."""
DECISIONS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05)
"""Bounds of the histogram of inspecting and deciding, which mostly takes less than a millisecond."""
PARTS = ("inspection", "placement", "decision", "prediction", "learning")
"""Of routing, that may fail."""
DENIALS = ("invalid_api_key", "forbidden", "foreign_origin", "unknown_host")
"""Why a request was not let in."""
OTHER = "other"
"""Label of what is none of a fixed set."""
STATUSES = frozenset((*(status.value for status in HTTPStatus), CLIENT_LEFT, 529))
"""Those that are counted by their number: HTTP's own, a client that left, and Anthropic's overload."""
MIN_TIMED_TOKENS = 2
"""The first token of an answer comes out of the prefill, so that one alone tells no speed."""
MIN_S_PER_TOKEN = 1e-5
"""No engine decodes faster. llama.cpp reports a microsecond for answers of one token, which comes with the prompt."""


class Metrics:
    """Of one gateway. Names follow https://prometheus.io/docs/practices/naming/.

    Args:
        failure_kinds: what may go wrong with a request that an engine may have worked on.
    """

    def __init__(self, failure_kinds: Collection[str] = ()) -> None:
        self._failure_kinds = tuple(failure_kinds)
        self._registry = CollectorRegistry()
        self._series: dict[str, Counts | Histogram] = {}
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
        self._decision = self._histogram("decision_duration_seconds", "Inspecting and deciding.", (), DECISIONS_S)
        self._prompt = self._counter("prompt_tokens", "Prompt tokens that were processed.", by_lane)
        self._cached = self._counter("cached_prompt_tokens", "Prompt tokens that an engine had in its cache.", by_lane)
        self._cache_writes = self._counter(
            "cache_write_tokens", "Prompt tokens that were put into a provider's cache.", by_lane
        )
        self._cancelled = self._counter(
            "cancelled_copies", "Copies of requests that were cancelled, since another lane was quicker.", by_lane
        )
        self._completion = self._counter("completion_tokens", "Tokens of answers, as engines count them.", by_task)
        self._generated = self._counter("generation_tokens", "Tokens whose decoding was timed.", by_task)
        self._decode = self._counter("decode_seconds", "Time of decoding generation_tokens.", by_task)
        self._drafted = self._counter("draft_tokens", "Tokens that were drafted.", by_task)
        self._accepted = self._counter("accepted_tokens", "Drafted tokens that were accepted.", by_task)
        self._cost = self._counter("cost", "What is to be paid for answers, in the configured currency.", by_lane)
        self._exploring = self._counter("exploration_seconds", "Expected cost of choices that were explored.", ())
        self._denied = self._counter("denied", "Requests that were not let in.", ("reason",))
        self._passed = self._counter(
            "passed_through", "Requests that were passed through undecided.", ("lane", "status")
        )
        self._engine_failures = self._counter(
            "engine_failures", "Requests that an engine failed, whatever became of them.", ("engine", "kind")
        )
        self._ejected = Gauge(
            "paceline_engine_ejected",
            "Whether an engine gets no requests for a while, since it kept failing.",
            ("engine",),
            registry=self._registry,
        )
        self._known_lanes: set[str] = set()
        for reason in (*DENIALS, OTHER):
            self._denied.know((reason,))
        self._present = _Present()
        self._registry.register(self._present)

    def numbers(self) -> dict[str, list[Number]]:
        """All that was counted, by the name of its metric, for another process to :meth:`absorb`."""
        return {name: series.numbers() for name, series in self._series.items()}

    def absorb(self, numbers: Mapping[str, Sequence[Number]]) -> None:
        """Also count what another process has counted."""
        for name, of_name in numbers.items():
            self._series[name].absorb(of_name)

    def plus(self, others: Iterable[Mapping[str, Sequence[Number]]]) -> "Metrics":
        """With what other processes have counted; itself where there are none."""
        all_of_it = list(others)
        if not all_of_it:
            return self
        whole = Metrics(self._failure_kinds)
        for numbers in (self.numbers(), *all_of_it):
            whole.absorb(numbers)
        return whole

    def record(self, record: Record, /) -> None:
        decision, outcome, observed = record.decision, record.outcome, record.outcome.observed
        lane, task = outcome.lane, str(record.task)
        of_lane, of_task = (lane,), (lane, task)
        self._requests.add((lane, task, _status(outcome.status)))
        self._decision.observe((), outcome.decision_s)
        self._exploring.add((), max(0.0, decision.exploring_s))
        if lane != decision.lane:
            self._fallbacks.add(of_lane)
        for other, _ in outcome.cancelled:
            if other != lane:
                self._cancelled.add((other,))
        self._queue.observe(of_lane, outcome.queue_s)
        if outcome.first_byte_s is not None:
            self._first.observe(of_lane, outcome.first_byte_s)
        if outcome.cost:
            self._cost.add(of_lane, outcome.cost)
        if outcome.error is not None:
            return  # what fails fast must not look fast
        self._duration.observe(of_lane, outcome.total_s)
        for counter, value in (
            (self._prompt, observed.prompt_tokens),
            (self._cached, observed.cached_tokens),
            (self._cache_writes, observed.cache_write_tokens),
        ):
            if value:
                counter.add(of_lane, value)
        tokens, decode_s = _decoded(outcome)
        for counter, number in (
            (self._completion, observed.completion_tokens),
            (self._generated, tokens),
            (self._decode, decode_s),
            (self._drafted, observed.drafted),
            (self._accepted, observed.accepted),
        ):
            if number:
                counter.add(of_task, number)

    def denied(self, reason: str) -> None:
        """Count a request that was not let in.

        Args:
            reason: one of ``DENIALS``.
        """
        self._denied.add((reason if reason in DENIALS else OTHER,))

    def passed_through(self, lane: str, status: int) -> None:
        """Count a request that was passed through undecided.

        Args:
            lane: a lane of the fleet, or ``NO_LANE`` where none took it.
        """
        self._passed.add((lane, _status(status)))

    def engine_failure(self, engine: str, kind: str) -> None:
        """Count a failure of an engine.

        Args:
            engine: one of the fleet's.
            kind: one of ``failure_kinds``.
        """
        self._engine_failures.add((engine, kind if kind in self._failure_kinds else OTHER))

    def know_engines(self, engines: Mapping[str, bool]) -> None:
        """Have the series of these engines from now on.

        Args:
            engines: the fleet's, and whether they get no requests for a while.
        """
        self._ejected.clear()  # one that is gone is not ejected for ever
        for engine, is_ejected in engines.items():
            self._ejected.labels(engine).set(is_ejected)
            for kind in (*self._failure_kinds, OTHER):
                self._engine_failures.know((engine, kind))

    def know_lanes(self, lanes: Mapping[str, bool]) -> None:
        """Have the series of these lanes from now on.

        Args:
            lanes: by name, whether it drafts.
        """
        for lane, drafts in lanes.items():
            if lane in self._known_lanes:
                continue
            self._known_lanes.add(lane)
            of_tasks = (
                self._completion,
                self._generated,
                self._decode,
                *((self._drafted, self._accepted) if drafts else ()),
            )
            self._passed.know((lane, _status(200)))
            for by_lane in (self._fallbacks, self._prompt, self._cached, self._cache_writes, self._cancelled):
                by_lane.know((lane,))
            for histogram in (self._duration, self._queue, self._first):
                histogram.know((lane,))
            for task in Task:
                self._requests.know((lane, str(task), _status(200)))
                for by_task in of_tasks:
                    by_task.know((lane, str(task)))

    def forget_others(self, lanes: Collection[str], engines: Collection[str]) -> None:
        """Drop the series of all other lanes and engines: where these come and go, they would become ever more."""
        for series in self._series.values():
            series.keep("lane", lanes)
            series.keep("engine", engines)
        self._known_lanes &= set(lanes)

    def text(
        self,
        lanes: Lanes,
        failures: Mapping[str, int],
        log_lost: int | None,
        spending: Spending = (),
        sharing: Sharing | None = None,
    ) -> bytes:
        """The document.

        Args:
            spending: against the budgets.
            failures: by part of routing.
            log_lost: entries that the decision log could not keep; ``None`` where there is no log.
            sharing: ``None`` where nothing is shared.
        """
        self._present.sharing = sharing
        self._present.lanes, self._present.failures, self._present.log_lost = lanes, failures, log_lost
        self._present.spending = spending
        return generate_latest(self._registry)

    def add(self, collector: Collector) -> None:
        """Have the document hold what somebody else counts."""
        self._registry.register(collector)

    def _counter(self, name: str, about: str, labels: tuple[str, ...]) -> Counts:
        counter = Counts(f"paceline_{name}", about, labels)
        self._registry.register(counter)
        self._series[name] = counter
        return counter

    def _histogram(
        self, name: str, about: str, labels: tuple[str, ...], bounds: Sequence[float] = LATENCIES_S
    ) -> Histogram:
        histogram = Histogram(f"paceline_{name}", about, bounds, labels)
        self._registry.register(histogram)
        self._series[name] = histogram
        return histogram


def _status(status: int) -> str:
    """As a label: an engine may answer any three digits."""
    return str(status) if status in STATUSES else f"{status // 100 % 10}xx"


def _decoded(outcome: Outcome) -> tuple[int | None, float | None]:
    """Tokens and the time that it took to decode them, for speeds to be made of; where no time is known or it can't be
    believed, neither counts, else the tokens of some answers would be divided by the time of others."""
    observed = outcome.observed
    if observed.decode_s is None or observed.decode_tokens is None:
        return None, None
    if observed.decode_tokens < MIN_TIMED_TOKENS or observed.decode_s < MIN_S_PER_TOKEN * observed.decode_tokens:
        return None, None
    return observed.completion_tokens or observed.decode_tokens, observed.decode_s


class _Present(Collector):
    """What is counted elsewhere, as it is now."""

    def __init__(self) -> None:
        self.lanes: Lanes = {}
        self.failures: Mapping[str, int] = {}
        self.log_lost: int | None = None
        self.spending: Spending = ()
        self.sharing: Sharing | None = None

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
        for part in dict.fromkeys((*PARTS, *self.failures)):
            failures.add_metric([part], self.failures.get(part, 0))
        yield failures
        for number, (name, about) in enumerate(
            (("spent", "Spent of a budget in its present period."), ("limit", "The limit of a budget.")), 2
        ):
            gauge = GaugeMetricFamily(f"paceline_budget_{name}", about, labels=["key", "per"])
            for budget in self.spending:
                gauge.add_metric(list(budget[:2]), float(budget[number]))
            yield gauge
        if self.sharing is not None:
            yield from _of_sharing(self.sharing)
        if self.log_lost is not None:
            yield CounterMetricFamily(
                "paceline_log_entries_lost", "Requests that the decision log could not keep.", value=self.log_lost
            )


def _of_sharing(sharing: Sharing) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "paceline_sharing_up", "Whether the store that gateways share can be used.", float(sharing.is_up)
    )
    yield GaugeMetricFamily("paceline_sharing_peers", "Other gateways that share, and are there.", sharing.peers)
    for name, about, value in (
        ("told", "Messages that were put into the store.", sharing.told),
        ("learned", "Messages of other gateways that were learned.", sharing.learned),
        ("lost", "Times that messages of another gateway were gone before they were read.", sharing.lost),
        ("refused", "Messages that were left out, since they can't be learned.", sharing.refused),
    ):
        yield CounterMetricFamily(f"paceline_sharing_messages_{name}", about, value=value)
