"""OpenAI's API in front of a deployment of :class:`EngineReplica`."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from paceline.integrations.ray_serve.engine import Head, NotServed
from paceline.integrations.replicas.notes import FIELD, PROMPTS, Tried, with_note

MAX_ATTEMPTS = 3
"""For a request of whose answer nothing was passed on: the first, and two at other replicas."""
GENERATING = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/responses"))


class Ingress:
    """Takes OpenAI's requests over HTTP. A request whose replica dies or whose engine fails is sent to another one, as
    long as nothing of its answer has gone to the client.

    Args:
        engines: the deployment of :class:`EngineReplica`.
    """

    def __init__(self, engines: DeploymentHandle) -> None:
        self._answers = engines.options(stream=True).answer
        self._models = engines.models

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        path = request.url.path
        if request.method == "GET" and path.endswith("/v1/models"):
            return Response(await self._models.remote(), media_type="application/json")
        if request.method != "POST" or not any(path.endswith(each) for each in GENERATING):
            return _error(
                404, f"there is nothing at {path}; generation requests go to /v1/chat/completions", "not_found"
            )
        try:
            body = msgspec.json.decode(await request.body())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _error(400, f"the request body is not valid JSON: {error}", "invalid_json")
        if not isinstance(body, dict) or PROMPTS.keys().isdisjoint(body):
            return _error(400, "the request body has neither messages nor a prompt nor an input", "invalid_body")
        body.pop(FIELD, None)
        parts = self.answer(body)
        try:
            head = await anext(parts)
        except (NotServed, ActorDiedError, ActorUnavailableError) as error:
            return _error(503, f"no replica could serve the request: {error}", "not_served")
        assert isinstance(head, Head)
        headers = {
            "x-paceline-lane": head.lane,
            "x-paceline-reason": head.reason,
            "x-paceline-replica": head.replica,
        }
        return StreamingResponse(parts, head.status, headers, head.content_type)

    async def answer(self, body: Mapping[str, Any]) -> AsyncIterator[Head | bytes]:
        """The head of the answer to a generation request, then its body as it comes.

        Raises:
            NotServed: no replica that was asked could serve it.
            ActorDiedError, ActorUnavailableError: the last of them died.
        """
        tried: tuple[str, ...] = ()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            has_begun = False
            try:
                async for part in self._answers.remote(with_note(body, Tried(tried)) if tried else body):
                    has_begun = True
                    yield part
                return
            except (NotServed, ActorDiedError, ActorUnavailableError) as error:
                if has_begun or attempt == MAX_ATTEMPTS:
                    raise
                if isinstance(error, NotServed):
                    tried = (*tried, error.replica)


def _error(status: int, message: str, code: str) -> Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": code}}, status)
