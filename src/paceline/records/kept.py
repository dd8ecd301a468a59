"""What may be kept of a request: bounded, and free of the client's text.

Whatever keeps something of a request (the decision log, the last requests, spans, metrics, the line on standard
output) takes it through these functions, and keeps nothing of it beside: names only where they are the operator's own,
identifiers only where they look like one, and of errors what the gateway itself says.
"""

import re

from msgspec.structs import replace

from paceline.types import Answered, Outcome, Request

MAX_NAME_CHARS = 120
MAX_ID_CHARS = 128
MAX_PATH_CHARS = 200
MAX_ERROR_CHARS = 300
MAX_CHOICES = 16
"""Answers to one request of which the reason for ending is kept."""
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
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*(?:'|\Z)|\"(?:[^\"\\]|\\.)*(?:\"|\Z)|`[^`]*(?:`|\Z)|“[^”]*(?:”|\Z)")
"""Text in quotes, also if its end was cut off."""
_APOSTROPHE = re.compile(r"(?<=[A-Za-z])'(?=(?:t|s|re|ve|ll|d)\b)")
"""As in "can't"."""


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
    said = error[: 4 * MAX_ERROR_CHARS]
    for text in (request.model, request.forced_lane, request.id, request.path.partition("?")[2]):
        if text:
            said = said.replace(text, "…").replace(repr(text)[1:-1], "…")
            if len(text) > MIN_CUT_CHARS and (begun := said.find(text[:MIN_CUT_CHARS])) >= 0:
                said = said[:begun] + "…"  # quoted in part
    said = _APOSTROPHE.sub("’", said)
    said = _QUOTED.sub("…", said).replace("’", "'")
    said = _one_line(said.replace("…", "..."))
    return said if len(said) <= MAX_ERROR_CHARS else said[: MAX_ERROR_CHARS - 3] + "..."


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


def _one_line(text: str) -> str:
    """With all but printable ASCII escaped, so that it ends no line, moves no cursor, and forges no entry."""
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
