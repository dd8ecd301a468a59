"""A span of every request for OpenTelemetry, by its conventions for generative AI
(https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/). Needs ``paceline[traces]``.

Spans are made when the outcome is known, and sent by a thread of OpenTelemetry's own. A collector that does not answer
keeps no request waiting. No text goes into them.
"""

import threading
from collections.abc import Callable
from typing import Any

from paceline import __version__
from paceline.types import Api, Decision, Outcome, Request, Signals

NANOSECONDS = 1_000_000_000
CLOSING_MS = 3000
"""How long the last spans may take to be sent."""
OPERATIONS = {Api.OPENAI_COMPLETIONS: "text_completion", Api.LLAMA_CPP: "text_completion"}
"""Those that are no ``chat``."""


class NoTraces(Exception):
    """OpenTelemetry is not installed; ``str()`` says what brings it."""


class Traces:
    """Sends spans to a collector.

    Args:
        url: of the collector's traces, OTLP over HTTP.

    Raises:
        NoTraces: as it says.
    """

    def __init__(self, url: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, Status, StatusCode
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise NoTraces(
                "evidence.traces: needs OpenTelemetry; `pip install 'paceline[traces]'` brings it"
            ) from error
        about = Resource.create({"service.name": "paceline", "service.version": __version__})
        self._provider = TracerProvider(resource=about, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=CLOSING_MS / 1000)))
        self._tracer = self._provider.get_tracer("paceline", __version__)
        self._kind = SpanKind.CLIENT
        self._failed: Callable[[str], Any] = lambda why: Status(StatusCode.ERROR, why)
        self._context = TraceContextTextMapPropagator().extract

    def add(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> None:
        operation = OPERATIONS.get(request.api, "chat")
        span = self._tracer.start_span(
            f"{operation} {request.model}" if request.model else operation,
            self._context({"traceparent": request.trace}) if request.trace else None,
            self._kind,
            _attributes(operation, request, signals, decision, outcome),
            start_time=int((outcome.at_s - outcome.total_s) * NANOSECONDS),
        )
        if outcome.error is not None:
            span.set_status(self._failed(outcome.error))
        span.end(int(outcome.at_s * NANOSECONDS))

    def close(self) -> None:
        """Send what waits, as far as the collector takes it in time."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSING_MS / 1000)


def _attributes(
    operation: str, request: Request, signals: Signals, decision: Decision, outcome: Outcome
) -> dict[str, Any]:
    """Those that are known."""
    seen = outcome.observed
    prompt = None if seen.prompt_tokens is None else seen.prompt_tokens + (seen.cached_tokens or 0)
    found = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "paceline",
        "gen_ai.request.model": request.model,
        "gen_ai.request.temperature": signals.temperature,
        "gen_ai.request.top_p": signals.top_p,
        "gen_ai.request.max_tokens": signals.max_tokens,
        "gen_ai.request.stream": request.stream,
        "gen_ai.conversation.id": signals.conversation or None,
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.cache_read.input_tokens": seen.cached_tokens,
        "gen_ai.usage.output_tokens": seen.completion_tokens,
        "http.response.status_code": outcome.status,
        "error.type": None if outcome.error is None else str(outcome.status),
        "paceline.request.id": request.id,
        "paceline.lane": outcome.lane,
        "paceline.task": str(signals.task),
        "paceline.reason": decision.reason,
        "paceline.propensity": decision.propensity,
        "paceline.queue_s": outcome.queue_s,
        "paceline.decision_s": outcome.decision_s,
        "paceline.time_to_first_byte_s": outcome.first_byte_s,
        "paceline.decode_s": seen.decode_s,
        "paceline.drafted_tokens": seen.drafted,
        "paceline.accepted_tokens": seen.accepted,
    }
    return {name: value for name, value in found.items() if value is not None}
