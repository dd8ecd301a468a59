"""A span of every request for OpenTelemetry, by its conventions for generative AI clients
(https://github.com/open-telemetry/semantic-conventions-genai, gen-ai/client-inference). Needs ``paceline[traces]``.

Spans are made when the outcome is known, and sent by a thread of OpenTelemetry's own. A collector that does not answer
keeps no request waiting. No text goes into them, as :mod:`paceline.records.kept` has it; and an attribute has the same
type in all of them, since some collectors refuse one that changes its type.
"""

import threading
from collections.abc import Callable
from math import isfinite
from typing import Any

from paceline import __version__
from paceline.records.kept import MAX_INTEGER
from paceline.records.record import Parameters, Record
from paceline.types import Answered, Api

NANOSECONDS = 1_000_000_000
"""In a second: spans count in them."""
CLOSING_MS = 3000
"""How long the last spans may take to be sent."""
OPERATIONS = {Api.OPENAI_COMPLETIONS: "text_completion", Api.LLAMA_CPP: "text_completion"}
"""Those that are no ``chat``."""
Address = tuple[str, int]
"""Host and port."""


class NoTraces(Exception):
    """OpenTelemetry is not installed; ``str()`` says what brings it."""


class Traces:
    """Sends spans to a collector.

    Args:
        url: of the collector's traces, OTLP over HTTP.
        address_of: the address of the engine behind a lane, if it is known.

    Raises:
        NoTraces: as it says.
    """

    def __init__(self, url: str, address_of: Callable[[str], Address | None] = lambda _: None) -> None:
        self.address_of = address_of
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

    def record(self, record: Record, /) -> None:
        outcome, parameters = record.outcome, record.parameters or Parameters()
        operation = _operation(parameters)
        span = self._tracer.start_span(
            f"{operation} {record.model}" if record.model else operation,
            self._context({"traceparent": parameters.trace}) if parameters.trace else None,
            self._kind,
            attributes(record, self.address_of(outcome.lane)),
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


def attributes(record: Record, server: Address | None) -> dict[str, Any]:
    """Those that are known.

    Args:
        server: the engine's address.
    """
    signals, decision, outcome = record.signals, record.decision, record.outcome
    parameters, observed = record.parameters or Parameters(), outcome.observed
    prompt_tokens = observed.prompt_tokens
    if prompt_tokens is not None:
        prompt_tokens += observed.cached_tokens or 0
    answered = outcome.answered or Answered()
    values = {
        "gen_ai.operation.name": _operation(parameters),
        "gen_ai.provider.name": "paceline",
        "gen_ai.request.model": record.model,
        "gen_ai.request.temperature": _finite(signals.temperature),
        "gen_ai.request.top_p": _finite(signals.top_p),
        "gen_ai.request.top_k": parameters.top_k,
        "gen_ai.request.seed": parameters.seed,
        "gen_ai.request.max_tokens": signals.max_tokens,
        "gen_ai.request.choice.count": None if parameters.answers == 1 else parameters.answers,
        "gen_ai.request.stop_sequences": parameters.stops,
        "gen_ai.request.reasoning.level": parameters.effort,
        "gen_ai.request.stream": record.stream or None,
        "gen_ai.output.type": "json" if signals.structure and signals.structure != "tool_choice" else None,
        "gen_ai.conversation.id": signals.conversation if signals.conversation_is_named else None,
        "gen_ai.response.id": answered.id,
        "gen_ai.response.model": answered.model,
        "gen_ai.response.finish_reasons": answered.finish_reasons or None,
        "gen_ai.response.time_to_first_chunk": _finite(outcome.first_byte_s) if record.stream else None,
        "gen_ai.usage.input_tokens": _bounded(prompt_tokens),
        "gen_ai.usage.cache_read.input_tokens": _bounded(observed.cached_tokens),
        "gen_ai.usage.output_tokens": _bounded(observed.completion_tokens),
        "server.address": server[0] if server else None,
        "server.port": server[1] if server else None,
        "http.response.status_code": outcome.status,
        "error.type": None if outcome.error is None else str(outcome.status),
        "paceline.request.id": record.id,
        "paceline.lane": outcome.lane or None,
        "paceline.task": str(record.task),
        "paceline.reason": decision.reason,
        "paceline.propensity": float(decision.propensity),
        "paceline.queue_s": _finite(outcome.queue_s),
        "paceline.decision_s": _finite(outcome.decision_s),
        "paceline.decode_s": _finite(observed.decode_s),
        "paceline.drafted_tokens": _bounded(observed.drafted),
        "paceline.accepted_tokens": _bounded(observed.accepted),
    }
    return {name: value for name, value in values.items() if value is not None}


def _operation(parameters: Parameters) -> str:
    return OPERATIONS.get(parameters.api, "chat")


def _finite(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else float(value)


def _bounded(value: int | None) -> int | None:
    return None if value is None or abs(value) > MAX_INTEGER else value
