"""What may be kept of a request: bounded, and free of the client's text.

It is decided here alone, when :func:`kept_record` makes the record that all sinks are given: names only where they are
the operator's own, identifiers only where they look like one, and of errors what the gateway itself says.
"""

import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from paceline.records.record import Parameters, Record
from paceline.types import Answered, Decision, Outcome, Request, Signals

MAX_NAME_CHARS = 120
"""Of a model's name; the longest on hubs have some 100."""
MAX_ID_CHARS = 128
"""A UUID has 36; some programs put several identifiers into one."""
MAX_PATH_CHARS = 200
"""Of a path; those of the APIs have some 50, with an identifier in them."""
MAX_ERROR_CHARS = 300
"""The gateway's own sentences are shorter but for lists of names."""
MAX_CHOICES = 16
"""Answers to one request of which the reason for ending is kept."""
MAX_TEXT_BYTES = 4_000_000
"""Of a longer body, only so much is kept, so that a record takes bounded time and memory."""
MAX_INTEGER = 2**63 - 1
"""Of a client's number: what SQLite, Parquet and OpenTelemetry can hold; a larger one is left out."""
MAX_STOPS = 4
"""As many stop sequences as OpenAI's API takes; a longer list is left out."""
MAX_STOP_CHARS = 4
"""Stop sequences are a client's text: they are kept only where they are too short to be any."""
EFFORTS = frozenset(("none", "minimal", "low", "medium", "high", "xhigh", "max"))
"""Of OpenAI's and Anthropic's interfaces."""
MIN_CUT_CHARS = 12
"""A client's string is known again in an error by so many of its first characters, where it was cut."""
NO_LANE = "none"
"""Stands for the lane of a request that was refused before one was chosen."""
FINISH_REASONS = frozenset(
    "stop length tool_calls content_filter function_call end_turn max_tokens stop_sequence tool_use pause_turn refusal "
    "model_context_window_exceeded completed incomplete failed cancelled limit eos word none".split()
)
"""Of OpenAI's, Anthropic's and llama.cpp's interfaces."""
_ID = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_ID_CHARS}}}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header, as far as version 00 has it."""
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*(?:'|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)|`[^`]*(?:`|\Z)|“[^”]*(?:”|\Z)")
"""Text in quotes, also if its end was cut off."""
_APOSTROPHE = re.compile(r"(?<=[A-Za-z])'(?=(?:t|s|re|ve|ll|d)\b)")
"""As in "can't"."""


def kept_record(
    request: Request,
    signals: Signals,
    decision: Decision,
    outcome: Outcome,
    *,
    with_text: bool = False,
    with_parameters: bool = False,
) -> Record:
    """What happened with a request, as it may be kept.

    Args:
        with_text: whether the body may be kept, too.
        with_parameters: whether what spans tell of a request is wanted.
    """
    prediction = decision.predictions.get(outcome.lane)
    strategy = prediction.strategy if prediction else None
    return Record(
        id=kept_id(request.id),
        path=kept_path(request.path),
        model=kept_name(request.served_model),
        stream=request.stream,
        forced=request.forced_lane is not None,
        task=signals.task,
        strategy=strategy.kind if strategy else None,
        n_max=strategy.n_max if strategy else None,
        signals=signals,
        decision=replace(decision, lane=decision.lane or NO_LANE, signals=None),  # they stand in the record already
        outcome=kept_outcome(outcome, request),
        text=request.body[:MAX_TEXT_BYTES].decode("utf-8", "replace") if with_text else None,
        client=request.client,
        parameters=kept_parameters(request) if with_parameters else None,
    )


def kept_parameters(request: Request) -> Parameters:
    """What a request asked beside its prompt, without any text."""
    fields = request.fields
    return Parameters(
        api=request.api,
        trace=request.trace if request.trace is not None and _TRACE.fullmatch(request.trace) else None,
        top_k=_integer(fields.get("top_k")),
        seed=_integer(fields.get("seed")),
        answers=_integer(fields.get("n")),
        stops=_stops(fields),
        effort=_effort(fields),
    )


def kept_name(name: str | None) -> str | None:
    """A name that is the operator's or an engine's own, cut and on one line."""
    return None if name is None else _one_line(name[:MAX_NAME_CHARS])


def kept_id(value: str | None) -> str | None:
    """An identifier, if it looks like one: letters, digits, ``.``, ``_``, ``:`` and ``-``; else ``None``."""
    return value if value is not None and _ID.fullmatch(value) else None


def kept_path(target: str) -> str:
    """The path of a request's target, without its query, cut, and on one line.

    Nothing is decoded: what is kept is written as it was on the wire.
    """
    # The query is looked for only in the part that is kept: a target may be megabytes long.
    return _one_line(target[:MAX_PATH_CHARS].partition("?")[0].partition("#")[0])


def kept_error(error: str | None, request: Request) -> str | None:
    """What the gateway says went wrong, on one line and cut, without what it quotes of the request.

    Its sentences quote what a client sent in quotes; so whatever stands in quotes is left out, and the client's
    strings that errors are about are, wherever they stand.
    """
    if error is None:
        return None
    line = error[: 4 * MAX_ERROR_CHARS]
    for text in (request.model, request.forced_lane, request.id, request.path.partition("?")[2]):
        if text:
            line = line.replace(text, "…").replace(repr(text)[1:-1], "…")
            if len(text) > MIN_CUT_CHARS and (begun := line.find(text[:MIN_CUT_CHARS])) >= 0:
                line = line[:begun] + "…"  # quoted in part
    line = _APOSTROPHE.sub("’", line)
    line = _QUOTED.sub("…", line).replace("’", "'")
    line = _one_line(line.replace("…", "..."))
    return line if len(line) <= MAX_ERROR_CHARS else line[: MAX_ERROR_CHARS - 3] + "..."


def kept_outcome(outcome: Outcome, request: Request) -> Outcome:
    """The outcome as it may be kept; the same object where nothing has to be left out."""
    if outcome.error is None and outcome.lane and outcome.answered is None:
        return outcome
    answered = outcome.answered
    return replace(
        outcome,
        lane=outcome.lane or NO_LANE,
        error=kept_error(outcome.error, request),
        answered=answered and kept_answered(answered, request),
    )


def kept_answered(answered: Answered, request: Request) -> Answered:
    """What an engine said of its answer, as far as it is no text: a name that the request was served by, an
    identifier, and reasons that are known."""
    return Answered(
        id=kept_id(answered.id),
        model=answered.model if answered.model == request.served_model else None,
        finish_reasons=tuple(
            reason if reason in FINISH_REASONS else "other" for reason in answered.finish_reasons[:MAX_CHOICES]
        ),
    )


def _integer(value: object) -> int | None:
    is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER
    return value if is_integer and isinstance(value, int) else None


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


def _one_line(text: str) -> str:
    """With all but printable ASCII escaped, so that it ends no line, moves no cursor, and forges no entry."""
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
