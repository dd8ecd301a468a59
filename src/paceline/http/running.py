"""The requests that are in flight, for who watches."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from paceline.records.in_words import in_words
from paceline.records.kept import kept_record
from paceline.serving.exchange import Exchange
from paceline.serving.pipeline import Pipeline
from paceline.types import Decision, Outcome

MAX_SHOWN = 200
"""The oldest ones of more."""


def running(pipeline: Pipeline) -> list[dict[str, Any]]:
    """Each request that is decided on or answered now, the oldest first, without its text."""
    exchanges = sorted(pipeline.in_flight.exchanges, key=lambda exchange: -exchange.age_s)
    return [_document(exchange) for exchange in exchanges[:MAX_SHOWN]]


def oldest(of_processes: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Those of several processes together."""
    return sorted(chain.from_iterable(of_processes), key=lambda one: -one["age_s"])[:MAX_SHOWN]


def _document(exchange: Exchange) -> dict[str, Any]:
    decision, request, attempt = exchange.decision, exchange.request, exchange.last_attempt
    lane = attempt.lane.lane.name if attempt else decision.lane if decision else None
    prediction = decision.predictions.get(lane) if decision and lane else None
    s_per_token = prediction.s_per_token if prediction else None
    return {
        "model": request.served_model,
        "client": request.client,
        "task": exchange.signals.task if decision else None,
        "lane": lane,
        "phase": _phase(exchange),
        "age_s": exchange.age_s,
        "why": _why(exchange, decision) if decision else None,
        "expected_s": prediction.prefill_s + prediction.tokens * s_per_token if prediction and s_per_token else None,
    }


def _why(exchange: Exchange, decision: Decision) -> str:
    as_ended = Outcome(decision.lane, status=200, total_s=exchange.age_s)
    return in_words(kept_record(exchange.request, exchange.signals, decision, as_ended))


def _phase(exchange: Exchange) -> str:
    """What it waits for."""
    if exchange.decision is None:
        return "being decided"
    attempt = exchange.last_attempt
    if attempt is None or not attempt.was_delivered:
        return "waits for its turn"
    return "reads the prompt" if attempt.first_byte_s is None else "answers"
