"""What the endpoint picker counts beside what a gateway does, for Prometheus and for those that scale by it."""

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from paceline.integrations.endpoint_picker.picking import Picker


class PickerMetrics(Collector):
    """Of one picker, as it is now."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker

    def collect(self) -> Iterator[Metric]:
        picker = self._picker
        engines = list(picker.by_address().values())
        up = [engine for engine in engines if engine.is_up]
        yield GaugeMetricFamily("paceline_picker_endpoints", "Endpoints that were found.", value=len(engines))
        yield GaugeMetricFamily("paceline_picker_endpoints_up", "Endpoints that are up.", value=len(up))
        yield GaugeMetricFamily(
            "paceline_picker_requests", "Requests that are on their way to an endpoint.", value=picker.in_flight
        )
        yield CounterMetricFamily("paceline_picker_decided", "Requests that were decided on.", value=picker.decided)
        passed = CounterMetricFamily(
            "paceline_picker_passed", "Requests that were passed on undecided.", labels=["reason"]
        )
        for reason, count in picker.passed.items():
            passed.add_metric([reason], count)
        yield passed
        refused = CounterMetricFamily(
            "paceline_picker_refused", "Requests that no endpoint was picked for.", labels=["status"]
        )
        for status, count in picker.refused.items():
            refused.add_metric([str(status)], count)
        yield refused
