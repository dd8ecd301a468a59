"""How long an engine may be silent. A long prompt is no illness, and neither is a long thought: what is known of its
pace counts, and where nothing is known it has time."""

from paceline.settings import ServerSettings
from paceline.types import Prediction, Request, Signals

TIMES_EXPECTED = 3.0
"""An engine may take so many times what is predicted before its time is up."""
TIMES_SUSPICIOUS = 4.0
"""Silence of so many times what is predicted is taken for a sign of illness, though nothing is ended for it."""
MIN_SUSPICIOUS_S = 1.0
"""Less silence than this is never suspicious: others' prompts are read meanwhile."""
MIN_STALLED_S = 8.0
"""Of silence after which the device's turn is taken away at the earliest, and where an engine's pace is not known."""
MIN_CHARS_PER_TOKEN = 3.0
"""Few, so that a prompt is not underestimated (code and Asian scripts)."""
MIN_PREFILL_TOKENS_PER_S = 30.0
"""Of an engine whose pace is not known: a processor with a large model."""
MIN_TOKENS_PER_S = 2.0
"""Likewise, while it answers."""
MAX_UNKNOWN_STALL_S = 60.0
"""Of silence that is not suspicious where no pace is known: taking the device's turn away by mistake only makes two
engines decode at once for a while, where one that hangs would keep all others waiting."""
MAX_UNKNOWN_ANSWER_TOKENS = 4096
"""Of an answer whose length nothing limits."""


def first_byte_limit_s(
    server: ServerSettings, prediction: Prediction | None, request: Request, signals: Signals
) -> float:
    """Until an answer has to begin; one that is no stream comes only when all of it is made."""
    return min(server.total_timeout_s, max(server.first_byte_timeout_s, _generous_s(prediction, request, signals)))


def expected_s(prediction: Prediction | None, request: Request, signals: Signals, has_begun: bool) -> float:
    """The silence from which on something seems to be wrong."""
    s_per_token = prediction.s_per_token if prediction else None
    if prediction is None or s_per_token is None:
        generous_s = 0.0 if has_begun else _generous_s(None, request, signals)
        return min(MAX_UNKNOWN_STALL_S, max(MIN_STALLED_S, generous_s))
    tokens = _tokens(prediction, signals) if not request.stream else 2.0 + (prediction.strategy.n_max or 0)
    silence_s = tokens * s_per_token + (0.0 if has_begun else prediction.prefill_s)
    return TIMES_SUSPICIOUS * silence_s


def _generous_s(prediction: Prediction | None, request: Request, signals: Signals) -> float:
    s_per_token = prediction.s_per_token if prediction else None
    if prediction is not None and s_per_token is not None:
        answer_s = 0.0 if request.stream else _tokens(prediction, signals) * s_per_token
        return TIMES_EXPECTED * (prediction.prefill_s + answer_s)
    prefill_s = signals.prompt_chars / MIN_CHARS_PER_TOKEN / MIN_PREFILL_TOKENS_PER_S
    tokens = min(signals.max_tokens or MAX_UNKNOWN_ANSWER_TOKENS, MAX_UNKNOWN_ANSWER_TOKENS)
    return prefill_s + (0.0 if request.stream else tokens / MIN_TOKENS_PER_S)


def _tokens(prediction: Prediction, signals: Signals) -> float:
    """Of the answer, at most: a prediction is a mean."""
    return float(signals.max_tokens) if signals.max_tokens is not None else 4 * prediction.tokens
