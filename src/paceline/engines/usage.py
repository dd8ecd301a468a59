"""What the usage of OpenAI's APIs tells. Of a stream it is the last event, and some servers send it only if asked."""

from typing import Any

import msgspec

from paceline.engines.observation import Observer, count
from paceline.types import Api, Observation, Request

ON_REQUEST = (Api.OPENAI_CHAT, Api.OPENAI_COMPLETIONS)
"""APIs whose streams tell usage only if asked."""
FIELD = "stream_options"
"""The field that asks for it."""


def is_missing(request: Request) -> bool:
    """Whether it has to be asked for in the client's place."""
    if not request.stream or request.api not in ON_REQUEST:
        return False
    options = request.fields.get(FIELD) or {}
    return isinstance(options, dict) and not options.get(
        "include_usage"
    )  # what is no object is for the engine to refuse


def question(request: Request) -> dict[str, Any]:
    """The field that asks for it; none where it comes anyway."""
    if not is_missing(request):
        return {}
    return {FIELD: (request.fields.get(FIELD) or {}) | {"include_usage": True}}


class UsageObserver(Observer):
    """Takes the event out of the stream again where only Paceline has asked for it.

    Args:
        drafts: whether the lane drafts, so that draft counts mean something.
    """

    def __init__(self, request: Request, drafts: bool) -> None:
        super().__init__(request)
        self.hides_usage = is_missing(request)
        self._drafts = drafts


class PredictedTokensObserver(UsageObserver):
    """For servers that count drafts as OpenAI counts predicted outputs."""

    def _observed(self) -> Observation:
        observation = super()._observed()
        details = self.report(b'"completion_tokens_details"')
        accepted, rejected = (count(details, f"{which}_prediction_tokens") for which in ("accepted", "rejected"))
        if not self._drafts or accepted is None or rejected is None:
            return observation
        return msgspec.structs.replace(observation, drafted=accepted + rejected, accepted=accepted)
