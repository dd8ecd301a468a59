"""HTTP in, HTTP out: which path is answered by whom. An ASGI application without a framework: a relay needs none."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

import msgspec

from paceline.evidence.log import DecisionLog
from paceline.gateway import admin, dashboard
from paceline.gateway.errors import ApiError
from paceline.gateway.fleet import LaneHandle
from paceline.gateway.gain import Gain
from paceline.gateway.headers import given_key, to_client, to_engine
from paceline.gateway.metrics import CONTENT_TYPE
from paceline.gateway.parse import parse_request
from paceline.gateway.pipeline import Pipeline
from paceline.gateway.turns import QueueFull, Turn
from paceline.http.client import ConnectFailed, ConnectionLost
from paceline.types import Api

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Reload = Callable[[], Awaitable[dict[str, Any]]]

GENERATION: dict[str, Api] = {
    "/v1/chat/completions": Api.OPENAI_CHAT,
    "/chat/completions": Api.OPENAI_CHAT,
    "/v1/completions": Api.OPENAI_COMPLETIONS,
    "/v1/responses": Api.OPENAI_RESPONSES,
    "/responses": Api.OPENAI_RESPONSES,
    "/v1/messages": Api.ANTHROPIC_MESSAGES,
    "/completion": Api.LLAMA_CPP,
    "/completions": Api.LLAMA_CPP,
    "/infill": Api.LLAMA_CPP,
}
"""The paths whose requests are decided on. ``/completions`` without ``/v1`` is llama.cpp's own."""
COMPUTING = ("/embedding", "/embeddings", "/rerank", "/reranking")
"""Endings of passed-through paths that make the engine compute, and so need its device's turn."""
OPEN = ("/health", "/v1/health", "/paceline")
"""Paths that need no key, beside the dashboard's own files, which hold no data."""
log = logging.getLogger("paceline.gateway")
JSON = (b"content-type", b"application/json")


class Application:
    """The ASGI application.

    Args:
        reload: takes up a changed configuration and tells what changed; raises ``ApiError`` if it can't.
        log: the decision log, if one is kept.
    """

    def __init__(self, pipeline: Pipeline, reload: Reload, log: DecisionLog | None) -> None:
        self._pipeline = pipeline
        self._reload = reload
        self._log = log
        self._gain = Gain(log.path if log else None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = AsgiReply(send)
        api = _api_of(scope["path"])
        try:
            self._check_key(scope)
            await self._route(scope, receive, reply)
        except _ClientLeft:
            return
        except ApiError as error:
            await reply.error(error, api)
        except asyncio.CancelledError:
            await reply.error(ApiError(503, "the gateway is stopping", "stopping", 5), api)
            raise
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            await reply.error(ApiError(500, "internal error; the gateway's log has more", "internal_error"), api)

    async def _route(self, scope: Scope, receive: Receive, reply: "AsgiReply") -> None:
        method, path = scope["method"], scope["path"]
        fleet = self._pipeline.fleet
        if method == "POST" and path in GENERATION and not _is_encoded(scope["headers"]):
            body = await self._body(scope, receive)
            request = parse_request(GENERATION[path], _target(scope), body, scope["headers"])
            await _until_client_leaves(self._pipeline.serve(request, scope["headers"], reply), receive)
        elif method == "GET" and path in ("/health", "/v1/health"):
            status, document = admin.health(fleet)
            await reply.json(status, document)
        elif method == "GET" and path in ("/v1/models", "/models"):
            await reply.json(200, admin.models(fleet))
        elif method == "GET" and path.startswith("/v1/models/"):
            await reply.json(200, admin.model(fleet, path.removeprefix("/v1/models/")))
        elif method == "GET" and path == "/paceline/lanes":
            await reply.json(200, admin.lanes(self._pipeline, self._log))
        elif method == "GET" and (page := dashboard.document(path)):
            kind, body = page
            length = (b"content-length", b"%d" % len(body))
            await reply.start(200, [(b"content-type", kind), length, *dashboard.HEADERS])
            await reply.end(body)
        elif method == "GET" and path == "/paceline":
            await reply.start(308, [(b"location", b"/paceline/"), (b"content-length", b"0")])
            await reply.end()
        elif method == "GET" and path == "/metrics" and b"x-paceline-lane" not in dict(scope["headers"]):
            text = admin.metrics(self._pipeline, self._log)
            await reply.start(200, [(b"content-type", CONTENT_TYPE), (b"content-length", b"%d" % len(text))])
            await reply.end(text)
        elif method == "GET" and path == "/paceline/requests":
            await reply.json(200, self._pipeline.recent.after(_number_after(scope["query_string"])))
        elif method == "GET" and path == "/paceline/report":
            await reply.json(200, await self._gain.document())
        elif method == "POST" and path == "/paceline/reload":
            await reply.json(200, await self._reload())
        elif method == "POST" and path.startswith("/paceline/explain/"):
            target = path.removeprefix("/paceline/explain")
            if target not in GENERATION:
                raise ApiError(404, f"{target} is no path that is decided on; those are: {', '.join(GENERATION)}")
            body = await self._body(scope, receive)
            request = parse_request(GENERATION[target], target, body, scope["headers"])
            await reply.json(200, admin.explain(self._pipeline, request, scope["headers"]))
        elif path.startswith("/paceline/"):
            known = (
                "GET /paceline/ (the dashboard), GET /paceline/lanes, GET /paceline/requests, GET /paceline/report, "
                "POST /paceline/explain/PATH, POST /paceline/reload"
            )
            raise ApiError(404, f"{method} {path} does not exist; there are {known}")
        else:
            body = await self._body(scope, receive)
            await _until_client_leaves(self._pass_through(scope, body, reply), receive)

    async def _pass_through(self, scope: Scope, body: bytes, reply: "AsgiReply") -> None:
        """Relay whatever else an engine offers, to the default lane's engine, unless the request names another
        lane, or a model that another one serves."""
        lane = self._lane_to_pass_to(scope, body)
        engine = lane.engine
        path: str = scope["path"]
        keep_key = not self._pipeline.fleet.configuration.server.api_keys
        headers = to_engine(scope["headers"], api_key=engine.api_key, keep_key=keep_key, plain=False)
        turn: Turn | None = None
        try:
            if path.endswith(COMPUTING):
                turn = await engine.device.acquire(engine.name, engine.slots)
            async with await engine.client.send(scope["method"], _target(scope), headers, body) as answer:
                own = [(b"x-paceline-lane", lane.lane.name.encode())]
                await reply.start(answer.status, [*own, *to_client(answer.headers)])
                while piece := await answer.read():
                    await reply.send(piece)
                await reply.end()
        except ConnectFailed as error:
            engine.supervisor.report_failure(str(error))
            raise ApiError(503, f"{lane.lane.name} can't be reached: {error}", "engine_unavailable", 2) from error
        except QueueFull as error:
            raise ApiError(503, f"{lane.lane.name}: {error}", "engine_unavailable", 2) from error
        except ConnectionLost as error:
            raise ApiError(502, f"{lane.lane.name} was lost: {error}", "engine_lost") from error
        finally:
            if turn:
                turn.release()

    def _lane_to_pass_to(self, scope: Scope, body: bytes) -> LaneHandle:
        fleet = self._pipeline.fleet
        forced = dict(scope["headers"]).get(b"x-paceline-lane")
        if forced is not None:
            return fleet.forced(forced.decode("latin-1"), None)[0]
        try:
            model = msgspec.json.decode(body, type=_NamesModel).model
        except msgspec.MsgspecError:
            model = None
        lanes = fleet.serving(model if model in fleet.models() else None)
        return next((lane for lane in lanes if lane.is_up), lanes[0])

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._pipeline.fleet.configuration.server.max_body_bytes
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientLeft
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > limit:
                raise _too_large(limit)
            more = message.get("more_body", False)
        return b"".join(pieces)

    def _check_key(self, scope: Scope) -> None:
        keys = self._pipeline.fleet.configuration.server.api_keys
        if not keys or scope["method"] == "OPTIONS" or scope["path"] in OPEN or dashboard.document(scope["path"]):
            return
        given = given_key(scope["headers"])
        if not any(hmac.compare_digest(given, key.encode()) for key in keys):
            raise ApiError(
                401,
                "a valid API key is needed: Authorization: Bearer KEY, or x-api-key: KEY",
                "invalid_api_key",
            )


class AsgiReply:
    """The client's side of an exchange, over ASGI's ``send``."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = self._streams = False

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._started = True
        self._streams = any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
        )
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data})

    async def error(self, error: ApiError, api: Api) -> None:
        """End with an error. An answer that has begun and is no stream of events can only be cut off: its client
        must not take it for whole."""
        if not self._started:
            headers = [JSON]
            if error.retry_after_s is not None:
                headers.append((b"retry-after", b"%d" % error.retry_after_s))
            await self.start(error.status, headers)
            await self.end(error.body(api))
        elif self._streams:
            await self.end(error.event(api))

    async def json(self, status: int, document: Any) -> None:
        body = msgspec.json.encode(document)
        await self.start(status, [JSON, (b"content-length", b"%d" % len(body))])
        await self.end(body)


class _NamesModel(msgspec.Struct):
    model: str | None = None


class _ClientLeft(Exception):
    """The client closed the connection before it had its answer."""


async def _until_client_leaves(work: Awaitable[None], receive: Receive) -> None:
    """Await ``work``, cancelling it at once when the client closes the connection.

    Raises:
        _ClientLeft: it did.
    """
    task = asyncio.current_task()
    assert task is not None
    left = finished = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        if not finished:
            left = True
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        await work
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        raise _ClientLeft from None
    finally:
        finished = True
        watcher.cancel()


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request body is larger than {limit} bytes (server.max_body_bytes)", "body_too_large")


def _number_after(query: bytes) -> int:
    value = parse_qs(query.decode("latin-1")).get("after", ["0"])[0]
    if not value.isdecimal():
        raise ApiError(400, f"after: is {value!r}, not the number of a request", "invalid_query")
    return int(value)


def _target(scope: Scope) -> str:
    """Path and query as the client wrote them."""
    path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
    query: str = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


def _api_of(path: str) -> Api:
    """The dialect in which a path's errors are said."""
    if path.startswith("/v1/messages"):
        return Api.ANTHROPIC_MESSAGES
    return GENERATION.get(path, Api.OPENAI_CHAT if path.startswith(("/v1/", "/paceline/")) else Api.LLAMA_CPP)


def _is_encoded(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether the body is compressed: it can't be read here, the engine may be able to."""
    return any(name == b"content-encoding" and value != b"identity" for name, value in headers)
