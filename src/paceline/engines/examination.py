"""What examinations have in common: short completions that show by their effect what an engine does.

Among that, which fields of a request it does not keep the meaning of while it drafts, or refuses. Probabilities are the
commonest: llama.cpp computes none for tokens that come out of a verified draft and tells them as certain (llama.cpp
#27972), as vLLM did (vllm #17876). vLLM refuses ``min_p``, ``logit_bias`` and ``min_tokens`` while it drafts. That is a
matter of engine and build, so it is found out by trying.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from paceline.types import LOGPROBS
from paceline.wire.client import Client, ConnectionLost

REPEATED_TEXT = "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20\n" * 4
"""A text that any drafter drafts from, to see whether an engine does when it is asked not to."""
COMPLETION_TIMEOUT_S = 30.0
"""For each of the short completions of an examination: time for 16 tokens on a slow machine that also serves others."""
TOO_SLOW = "it was too slow to find out whether requests may choose their strategy; it is used as it was started"
TRIES: Mapping[str, Mapping[str, Any]] = {
    "min_p": {"min_p": 0.1},
    "logit_bias": {"logit_bias": {"1": 1}},
    "min_tokens": {"min_tokens": 2, "max_tokens": 2},
    "n": {"n": 2, "temperature": 1},
    "best_of": {"best_of": 2, "temperature": 1},
}
"""One completion each."""
CONTROLLED_LENGTH = 4
"""Tokens of the drafts that an engine's control is tried with."""
CHEAP, DEAR = 1.0, 1000.0
"""Plain steps that a step is said to cost to it: always worth a draft, and never."""
ALTERNATIVES = ("top_logprobs", "top_probs", "probs")
"""Under which a token has them: OpenAI's and llama.cpp's, llama.cpp's of sampled probabilities, and ik_llama.cpp's."""
FIELD_REFUSALS = (400, 422, 501)
"""A field that is not taken. Other errors tell of keys, filters and load."""


async def lost_when_drafting(client: Client, model: str | None) -> frozenset[str]:
    """The fields that an engine which speaks OpenAI's API and drafts without being asked refuses or answers wrongly."""
    lost: set[str] = set()
    base: dict[str, Any] = {"prompt": REPEATED_TEXT, "max_tokens": 1, "temperature": 0} | (
        {"model": model} if model else {}
    )
    status, answer = await _tried(client, base | {"max_tokens": 16, "logprobs": 2, "ignore_eos": True})
    if status != 200 or has_bare_tokens(answer) is not False:
        lost |= LOGPROBS
    for name, fields in TRIES.items():
        status, _ = await _tried(client, {**base, **fields})
        if status in FIELD_REFUSALS:
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
        logprobs_of_choice = choices[0].get("logprobs")
        if isinstance(logprobs_of_choice, dict):
            tokens = logprobs_of_choice.get("content")
            if tokens is None and isinstance(logprobs_of_choice.get("token_logprobs"), list):
                alternatives = logprobs_of_choice.get("top_logprobs")
                alternatives = alternatives if isinstance(alternatives, list) else []
                logprobs: Sequence[Any] = logprobs_of_choice["token_logprobs"]
                return not logprobs or any(
                    logprob is None or not (alternatives[number : number + 1] or [None])[0]
                    for number, logprob in enumerate(logprobs)
                )
    if not isinstance(tokens, list) or not tokens:
        return None
    return any(not isinstance(token, dict) or not any(token.get(key) for key in ALTERNATIVES) for token in tokens)


async def _tried(client: Client, fields: Mapping[str, Any]) -> tuple[int, Any]:
    """Status and decoded answer of a completion; status 0 where the engine broke it off or could not be understood."""
    headers = [(b"content-type", b"application/json")]
    try:
        status, answer = await client.fetch(
            "POST", "/v1/completions", headers, msgspec.json.encode(fields), COMPLETION_TIMEOUT_S, fresh=True
        )
        return status, msgspec.json.decode(answer)
    except (ConnectionLost, TimeoutError, ValueError, RecursionError):
        return 0, None
