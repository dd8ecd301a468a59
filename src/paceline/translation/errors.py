"""The shapes of errors in each dialect, so that its SDK raises what its user expects."""

from typing import Any

from paceline.engines.dialects import AnswerError, error_in
from paceline.types import Api

OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
"""By status, as OpenAI's API and llama-server name them."""
ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
"""By status; https://docs.anthropic.com/en/api/errors, which has 529 where we say 503."""


def error_document(api: Api, status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """The body of an error.

    Args:
        status: HTTP's, 400 or above.
        message: for people.
        code: for programs, in OpenAI's manner.
    """
    if api is Api.ANTHROPIC_MESSAGES:
        fallback = "invalid_request_error" if status < 500 else "api_error"
        return {"type": "error", "error": {"type": ANTHROPIC_TYPES.get(status, fallback), "message": message}}
    kind = OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    if api is Api.LLAMA_CPP:
        return {"error": {"code": status, "message": message, "type": kind}}
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def engines_error(document: Any, name: bytes = b"") -> AnswerError | None:
    """The error that an engine's answer or event is, in whichever dialect; ``None`` where it is none."""
    return error_in(document, name)
