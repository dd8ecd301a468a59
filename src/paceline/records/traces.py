"""A span of every request for OpenTelemetry, by its conventions for generative AI clients
(https://github.com/open-telemetry/semantic-conventions-genai, gen-ai/client-inference). Needs ``paceline[traces]``.

Spans are made when the outcome is known, and sent by a thread of OpenTelemetry's own. A collector that does not answer
keeps no request waiting. No text goes into them, as :mod:`paceline.records.kept` has it; and an attribute has the same
type in all of them, since some collectors refuse one that changes its type.
"""

import threading
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from paceline import __version__
from paceline.records.kept import kept_answered, kept_error, kept_id, kept_name
from paceline.types import Answered, Api, Decision, Outcome, Request, Signals

NANOSECONDS = 1_000_000_000
CLOSING_MS = 3000
"""How long the last spans may take to be sent."""
OPERATIONS = {Api.OPENAI_COMPLETIONS: "text_completion", Api.LLAMA_CPP: "text_completion"}
"""Those that are no ``chat``."""
MAX_INTEGER = 2**63 - 1
"""Of an attribute (OTLP's ``int_value``); a larger number is left out."""
MAX_STOPS = 4
MAX_STOP_CHARS = 4
"""Stop sequences are a client's text: they are told only where they are too short to be any."""
EFFORTS = frozenset(("none", "minimal", "low", "medium", "high", "xhigh", "max"))
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

    def add(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> None:
        operation = OPERATIONS.get(request.api, "chat")
        model = kept_name(request.served_model)
        span = self._tracer.start_span(
            f"{operation} {model}" if model else operation,
            self._context({"traceparent": request.trace}) if request.trace else None,
            self._kind,
            attributes(operation, request, signals, decision, outcome, self.address_of(outcome.lane)),
            start_time=int((outcome.at_s - outcome.total_s) * NANOSECONDS),
        )
        if outcome.error is not None:
            span.set_status(self._failed(kept_error(outcome.error, request) or ""))
        span.end(int(outcome.at_s * NANOSECONDS))

    def close(self) -> None:
        """Send what waits, as far as the collector takes it in time."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSING_MS / 1000)


def attributes(
    operation: str, request: Request, signals: Signals, decision: Decision, outcome: Outcome, server: Address | None
) -> dict[str, Any]:
    """Those that are known."""
    seen, fields = outcome.observed, request.fields
    prompt = None if seen.prompt_tokens is None else seen.prompt_tokens + (seen.cached_tokens or 0)
    answered = kept_answered(outcome.answered, request) if outcome.answered else Answered()
    choices = _whole(fields.get("n"))
    found = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "paceline",
        "gen_ai.request.model": kept_name(request.served_model),
        "gen_ai.request.temperature": _real(signals.temperature),
        "gen_ai.request.top_p": _real(signals.top_p),
        "gen_ai.request.top_k": _whole(fields.get("top_k")),
        "gen_ai.request.seed": _whole(fields.get("seed")),
        "gen_ai.request.max_tokens": signals.max_tokens,
        "gen_ai.request.choice.count": None if choices == 1 else choices,
        "gen_ai.request.stop_sequences": _stops(fields),
        "gen_ai.request.reasoning.level": _effort(fields),
        "gen_ai.request.stream": request.stream or None,
        "gen_ai.output.type": "json" if signals.structure and signals.structure != "tool_choice" else None,
        "gen_ai.conversation.id": signals.conversation if signals.conversation_is_named else None,
        "gen_ai.response.id": answered.id,
        "gen_ai.response.model": answered.model,
        "gen_ai.response.finish_reasons": answered.finish_reasons or None,
        "gen_ai.response.time_to_first_chunk": _real(outcome.first_byte_s) if request.stream else None,
        "gen_ai.usage.input_tokens": _whole(prompt),
        "gen_ai.usage.cache_read.input_tokens": _whole(seen.cached_tokens),
        "gen_ai.usage.output_tokens": _whole(seen.completion_tokens),
        "server.address": server[0] if server else None,
        "server.port": server[1] if server else None,
        "http.response.status_code": outcome.status,
        "error.type": None if outcome.error is None else str(outcome.status),
        "paceline.request.id": kept_id(request.id),
        "paceline.lane": outcome.lane or None,
        "paceline.task": str(signals.task),
        "paceline.reason": decision.reason,
        "paceline.propensity": float(decision.propensity),
        "paceline.queue_s": _real(outcome.queue_s),
        "paceline.decision_s": _real(outcome.decision_s),
        "paceline.decode_s": _real(seen.decode_s),
        "paceline.drafted_tokens": _whole(seen.drafted),
        "paceline.accepted_tokens": _whole(seen.accepted),
    }
    return {name: value for name, value in found.items() if value is not None}


def _real(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else float(value)


def _whole(value: object) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER
    return value if is_whole and isinstance(value, int) else None


def _stops(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    stops = fields.get("stop", fields.get("stop_sequences"))
    if isinstance(stops, str):
        stops = [stops]
    if not isinstance(stops, list) or not 0 < len(stops) <= MAX_STOPS:
        return None
    are_short = all(isinstance(stop, str) and len(stop) <= MAX_STOP_CHARS for stop in stops)
    return tuple(stops) if are_short else None


def _effort(fields: Mapping[str, Any]) -> str | None:
    effort = fields.get("reasoning_effort")
    if effort is None and isinstance(asked := fields.get("reasoning"), dict):
        effort = asked.get("effort")
    return effort if isinstance(effort, str) and effort in EFFORTS else None
