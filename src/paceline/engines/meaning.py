"""Which fields of a request an engine does not keep the meaning of while it drafts, or refuses.

Probabilities are the commonest: llama.cpp computes none for tokens that come out of a verified draft and tells them as
certain (llama.cpp #27972), as vLLM did (vllm #17876). vLLM refuses ``min_p``, ``logit_bias`` and ``min_tokens`` while
it drafts. That is a matter of engine and build, so it is found out by trying.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from paceline.engines.interface import REPEATED, TRY_LIMIT_S
from paceline.types import LOGPROBS, Abilities, Strategy
from paceline.wire.client import Client, ConnectionLost

TRIES: Mapping[str, Mapping[str, Any]] = {
    "min_p": {"min_p": 0.1},
    "logit_bias": {"logit_bias": {"1": 1}},
    "min_tokens": {"min_tokens": 2, "max_tokens": 2},
    "n": {"n": 2, "temperature": 1},
    "best_of": {"best_of": 2, "temperature": 1},
}
"""One completion each."""
REFUSALS = (400, 422, 501)
"""A field that is not taken. Other errors tell of keys, filters and load."""


def assumed(strategy: Strategy) -> Abilities:
    """The abilities of an engine that could not be asked: it decodes as it was started; and if that is with drafts,
    their tokens come without probabilities."""
    return Abilities(not_when_drafting=LOGPROBS if strategy.drafts else frozenset())


async def lost_when_drafting(client: Client, model: str | None) -> frozenset[str]:
    """The fields that an engine which speaks OpenAI's API and drafts without being asked refuses or answers wrongly."""
    lost: set[str] = set()
    base: dict[str, Any] = {"prompt": REPEATED, "max_tokens": 1, "temperature": 0} | ({"model": model} if model else {})
    status, answer = await _tried(client, base | {"max_tokens": 16, "logprobs": 2, "ignore_eos": True})
    if status != 200 or has_bare_tokens(answer) is not False:
        lost |= LOGPROBS
    for name, fields in TRIES.items():
        status, _ = await _tried(client, {**base, **fields})
        if status in REFUSALS:
            lost.add(name)
    return frozenset(lost)


def has_bare_tokens(answer: Any) -> bool | None:
    """Whether an answer that was asked for alternatives has tokens without any, or without a probability; ``None``
    where it has no list of tokens."""
    if not isinstance(answer, dict):
        return None
    tokens = answer.get("completion_probabilities")  # llama.cpp's own API
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        told = choices[0].get("logprobs")
        if isinstance(told, dict):
            tokens = told.get("content")
            if tokens is None and isinstance(told.get("token_logprobs"), list):
                alternatives = told.get("top_logprobs")
                alternatives = alternatives if isinstance(alternatives, list) else []
                logprobs: Sequence[Any] = told["token_logprobs"]
                return not logprobs or any(
                    logprob is None or not (alternatives[number : number + 1] or [None])[0]
                    for number, logprob in enumerate(logprobs)
                )
    if not isinstance(tokens, list) or not tokens:
        return None
    return any(
        not isinstance(token, dict) or not (token.get("top_logprobs") or token.get("top_probs")) for token in tokens
    )


async def _tried(client: Client, fields: Mapping[str, Any]) -> tuple[int, Any]:
    """Status and decoded answer of a completion; status 0 where the engine broke it off or could not be understood."""
    headers = [(b"content-type", b"application/json")]
    try:
        status, answer = await client.fetch(
            "POST", "/v1/completions", headers, msgspec.json.encode(fields), TRY_LIMIT_S, fresh=True
        )
        return status, msgspec.json.decode(answer)
    except (ConnectionLost, TimeoutError, ValueError, RecursionError):
        return 0, None
