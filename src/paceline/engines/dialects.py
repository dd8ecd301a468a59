"""What a decoded event or answer holds: text that the model made, an error, usage. In all dialects that are decided on.

Sources: OpenAI's references of streaming for chat, completions and responses; Anthropic's of messages; llama.cpp's
``format_error_response`` and ``format_oai_sse``; ``ErrorResponse`` of vLLM and SGLang.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from paceline.printable import printable

MAX_ERROR_CHARS = 300
"""Of an error, that are kept: its first sentence or two."""
MAX_DEPTH = 6
"""To which text is looked for within a delta."""
MAX_ENTRIES = 64
"""Of a list, that are looked at."""
FAILED_FINISHES = ("error", "abort")
"""Values of ``finish_reason`` with which an engine breaks off (OpenRouter, vLLM, SGLang)."""

_TEXT_OF_CHOICE = ("delta", "text", "message", "reasoning", "reasoning_content")
_NO_TEXT = frozenset(
    ("role", "id", "type", "index", "object", "format", "status", "call_id", "item_id", "signature", "name", "model")
)
"""Fields of a delta that the model did not make, or that come with text it made."""
_NOT_THE_CLIENTS = frozenset((401, 403, 407, 408, 409, 425, 429, 499))
"""Statuses of the 400s that tell of a key, of load, or of time: not of a request that is wrong everywhere."""
_CLIENTS_WORDS = (
    "invalid",
    "badrequest",
    "bad_request",
    "notfound",
    "not_found",
    "not_supported",
    "unsupported",
    "unprocessable",
    "validation",
    "context_length",
    "context_size",
    "too_large",
    "too_long",
    "content_filter",
    "content_policy",
)
_NOT_THE_CLIENTS_WORDS = ("api_key", "auth", "permission", "server", "internal", "overloaded", "rate_limit", "timeout")


class AnswerError(Struct, frozen=True):
    """An error that an answer told of although its status was a success."""

    message: str
    """In one line, bounded, without control characters."""
    is_clients: bool
    """Whether the engine says that the request was wrong, so that it would fail elsewhere too."""


class Text(NamedTuple):
    """What an event of a stream adds to the answer."""

    key: str
    """Of the field that holds it."""
    text: str
    is_thought: bool


def first_text(document: Any) -> Text | None:
    """The first text that an event of a stream adds to the answer; ``None`` where it adds none: a role, an empty
    string, progress. Thinking, refusals, audio and the arguments of tool calls are text, too."""
    if not isinstance(document, dict):
        return None
    choices = document.get("choices")
    if choices is None:
        kind = document.get("type")
        if not isinstance(kind, str):
            return _text(document.get("content"), "content")
        is_delta = kind == "content_block_delta" or (kind.startswith("response.") and kind.endswith(".delta"))
        text = _text(document.get("delta"), "delta") if is_delta else None
        return text._replace(is_thought=True) if text and _is_thought(kind) else text
    for choice in choices[:MAX_ENTRIES] if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            for key in _TEXT_OF_CHOICE:
                if (value := choice.get(key)) and (text := _text(value, key)):
                    return text
    return None


def has_several_choices(document: Any) -> bool:
    """Whether an event belongs to a second answer to the same request, or holds two."""
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices:
        return False
    return len(choices) > 1 or (isinstance(choices[0], dict) and choices[0].get("index") not in (0, None))


def is_usage_only(document: Any) -> bool:
    """Whether a chunk of OpenAI's chat or completions tells usage and nothing that was asked for."""
    if not isinstance(document, dict) or document.get("choices") or document.get("error"):
        return False
    return isinstance(document.get("usage"), dict)


def error_in(document: Any, name: bytes = b"") -> AnswerError | None:
    """The error that a whole answer or an event of a stream is.

    Args:
        name: the event's.
    """
    if not isinstance(document, dict):
        return _error(document, {}) if name == b"error" else None
    kind = document.get("type")
    if kind == "response.failed":
        response = document.get("response")
        inner = response.get("error") if isinstance(response, dict) else None
        return _error(inner or "the response failed", document)
    if error := document.get("error"):
        return _error(error, document)
    if name == b"error" or kind == "error" or document.get("object") == "error":
        return _error(document, document)
    if document.get("object") == "response" and document.get("status") == "failed":
        return _error("the response failed", document)
    choices = document.get("choices")
    for choice in choices[:MAX_ENTRIES] if isinstance(choices, list) else ():
        reason = choice.get("finish_reason") if isinstance(choice, dict) else None
        if isinstance(reason, str) and reason in FAILED_FINISHES:
            inner = choice.get("error")
            return _error(inner or f"it ended with finish_reason {reason}", document)
    return None


def clean(text: str) -> str:
    """One bounded line without control characters."""
    return printable(text[:MAX_ERROR_CHARS]).strip()


def _text(value: Any, key: str, depth: int = MAX_DEPTH) -> Text | None:
    if isinstance(value, str):
        return Text(key, value, _is_thought(key)) if value else None
    if depth and isinstance(value, dict):
        for inner_key, inner in value.items():
            if inner_key not in _NO_TEXT and (text := _text(inner, inner_key, depth - 1)):
                return text._replace(is_thought=True) if _is_thought(inner_key) else text
    elif depth and isinstance(value, list):
        for inner in value[:MAX_ENTRIES]:
            if text := _text(inner, key, depth - 1):
                return text
    return None


def _is_thought(name: str) -> bool:
    return "reasoning" in name or "think" in name


def _error(error: Any, document: Mapping[str, Any]) -> AnswerError:
    parts = (error, document) if isinstance(error, dict) else (document,)
    texts: list[Any] = [error] if isinstance(error, str) else []
    texts += [part.get(key) for part in parts for key in ("message", "msg", "detail", "type", "code")]
    message = next((text for text in texts if isinstance(text, str) and text.strip()), "an error without a message")
    return AnswerError(clean(message) or "an error without a readable message", _is_clients(parts))


def _is_clients(parts: tuple[Mapping[str, Any], ...]) -> bool:
    """By a status where one is named, else by the words of type and code."""
    keys = ("code", "status", "status_code", "http_code", "type")
    values = [value for part in parts for key in keys if not isinstance(value := part.get(key), bool)]
    for value in values:
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if isinstance(value, int):
            return 400 <= value < 500 and value not in _NOT_THE_CLIENTS
    words = " ".join(value[:MAX_ERROR_CHARS].lower() for value in values if isinstance(value, str))
    if any(word in words for word in _NOT_THE_CLIENTS_WORDS):
        return False
    return any(word in words for word in _CLIENTS_WORDS)
