"""Which fields of a request drafting may change the meaning of, or have an engine refuse.

Which engine keeps them is found out by trying (``engines/examination.py``); where they stand in
:attr:`paceline.types.LaneState.cannot_keep`, the request is decoded elsewhere.
"""

from typing import Any

from paceline.types import LOGPROBS, Api, Request

TOKEN_LOGPROBS_OF_RESPONSES = "message.output_text.logprobs"
_SENSITIVE = LOGPROBS | {"include", "n", "n_cmpl", "best_of", "min_p", "min_tokens", "logit_bias"}


def asked(request: Request) -> frozenset[str]:
    """Those of the sensitive fields that a request really uses: they ask for the probabilities of tokens
    (:data:`paceline.types.LOGPROBS`), for several answers, or bend the sampling."""
    fields = request.fields
    if fields.keys().isdisjoint(_SENSITIVE):  # nearly all requests
        return frozenset()
    used: set[str] = set()
    if _probabilities(request):
        used |= LOGPROBS & fields.keys() or {"logprobs"}
    if _more_than(fields.get("n"), 1) or _more_than(fields.get("n_cmpl"), 1):
        used.add("n")
    if _more_than(fields.get("best_of"), 1):
        used.add("best_of")
    if _more_than(fields.get("min_p"), 0):
        used.add("min_p")
    if _more_than(fields.get("min_tokens"), 1):
        used.add("min_tokens")
    if _biases(fields.get("logit_bias")):
        used.add("logit_bias")
    return frozenset(used)


def _probabilities(request: Request) -> bool:
    fields = request.fields
    if _given(fields.get("top_logprobs")) or _given(fields.get("n_probs")):
        return True
    logprobs = fields.get("logprobs")
    if request.api is Api.OPENAI_COMPLETIONS and type(logprobs) is int:
        return True  # 0: the probability of each token, without alternatives
    if _given(logprobs):
        return True
    include = fields.get("include")
    return isinstance(include, list) and TOKEN_LOGPROBS_OF_RESPONSES in include


def _given(value: Any) -> bool:
    return value not in (None, False, 0, "", [], {})


def _more_than(value: Any, neutral: float) -> bool:
    """Whether a number is above the one that changes nothing. What is no number is for the engine to judge."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value is not None and not isinstance(value, bool)
    return value > neutral


def _biases(value: Any) -> bool:
    """Whether any token is made likelier or less likely: an object of numbers, or llama.cpp's list of pairs."""
    if isinstance(value, dict):
        return any(bias != 0 for bias in value.values())
    return _given(value)
