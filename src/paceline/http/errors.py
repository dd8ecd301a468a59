"""Errors in the shape of the API that the request speaks, so that its SDK raises what its user expects.

How the errors of the other rooms are said in these shapes, which stand in `translation/errors.py`.
"""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import msgspec

from paceline.serving.errors import (
    CannotBeSaid,
    EngineGivenUp,
    EngineLost,
    EngineRefused,
    LimitReached,
    NoLane,
    NotPassedOn,
    NotPlaced,
    ServingError,
    TookTooLong,
    UnknownLane,
    UnknownModel,
)
from paceline.translation.errors import error_document
from paceline.types import Api
from paceline.wire.server import Refused

RETRY_AFTER_S = 2
"""Told with errors that may pass: an engine that is restarted or busy is usually back by then, and SDKs wait for as
long as they are told."""

_CODES: Mapping[type[ServingError], str] = {
    UnknownLane: "unknown_lane",
    UnknownModel: "model_not_found",
    CannotBeSaid: "unsupported_by_engine",
    LimitReached: "rate_limit_exceeded",
    NotPassedOn: "not_found",
    NotPlaced: "not_placed",
    NoLane: "engine_unavailable",
    EngineLost: "engine_lost",
    EngineGivenUp: "engine_timeout",
    EngineRefused: "engine_error",
    TookTooLong: "timeout",
}
"""For programs, in OpenAI's manner."""


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: HTTP status, 400 or above.
        message: for people: what was wrong and what to do.
        code: for programs, in OpenAI's manner: ``"model_not_found"``.
        retry_after_s: when trying again may help, in whole seconds.
        headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        retry_after_s: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        retry = [(b"retry-after", b"%d" % retry_after_s)] if retry_after_s is not None else []
        self.headers = [*retry, *headers]

    def body(self, api: Api) -> bytes:
        """The JSON body of an error answer."""
        return msgspec.json.encode(self._document(api))

    def event(self, api: Api) -> bytes:
        """The server-sent event that ends a stream that can't go on.

        Sources: OpenAI's and Anthropic's streaming references; llama.cpp's ``format_oai_sse`` of an error.
        """
        document = self._document(api)
        if api is Api.OPENAI_RESPONSES:
            document = {
                "type": "error",
                "code": self.code or "server_error",
                "message": self.message,
                "param": None,
            }
        named = b"event: error\n" if api in (Api.OPENAI_RESPONSES, Api.ANTHROPIC_MESSAGES) else b""
        return named + b"data: " + msgspec.json.encode(document) + b"\n\n"

    def _document(self, api: Api) -> dict[str, Any]:
        return error_document(api, self.status, self.message, self.code)


def api_error(error: ServingError | Refused) -> ApiError:
    """What another room raised, as it is answered."""
    if isinstance(error, Refused):
        return ApiError(error.status, error.message, error.code, error.retry_after_s)
    retry_after_s = RETRY_AFTER_S if error.may_pass else None
    if error.retry_after_s is not None:
        retry_after_s = max(1, ceil(error.retry_after_s))
    return ApiError(error.status, str(error), _CODES.get(type(error)), retry_after_s)
