"""HTTP in, HTTP out: who may, which address is answered by whom, and errors in the words of the API that is spoken."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any
from urllib.parse import parse_qs

import msgspec

from paceline.http import dashboard
from paceline.http import documents as admin
from paceline.http.access import Access, Client
from paceline.http.gain import Gain
from paceline.http.parse import parse_request
from paceline.http.routes import GENERATION, ROUTES, Audience, api_of, route
from paceline.http.unpack import unpacked
from paceline.records.decision_log import DecisionLog
from paceline.records.metrics import CONTENT_TYPE
from paceline.serving.errors import ApiError
from paceline.serving.passing import Passed, pass_through
from paceline.serving.pipeline import Pipeline
from paceline.types import Api, Request
from paceline.wire.headers import Headers
from paceline.wire.server import ClientLeft, HttpRequest, Refused, Reply

Answers = Callable[[HttpRequest, "ApiReply", Client], Awaitable[None]]
Reload = Callable[[], Awaitable[dict[str, Any]]]

JSON = (b"content-type", b"application/json")
DENIED_LINE_INTERVAL_S = 1.0
"""At most one line is logged in so many seconds for requests that are denied; the others are counted."""

log = logging.getLogger("paceline.gateway")


class Application:
    """Answers requests.

    Args:
        access: who may; may be replaced.
        reload: takes up a changed configuration and tells what changed; raises ``ApiError`` if it can't.
        log: the decision log, if one is kept.
    """

    def __init__(self, pipeline: Pipeline, access: Access, reload: Reload, log: DecisionLog | None) -> None:
        self.access = access
        self.is_stopping = False
        """From SIGTERM on: requests are served still, but ``/readyz`` sends load balancers away."""
        self._pipeline = pipeline
        self._take_up = reload
        self._log = log
        self._gain = Gain(log.path if log else None)
        self._denied = _Denied()
        self._answers: dict[str, Answers] = {row.name: getattr(self, f"_{row.name}") for row in ROUTES}
        """What answers the addresses of routes.py, by name."""

    async def __call__(self, incoming: HttpRequest, wire: Reply) -> None:
        """Answer one request, whatever happens."""
        reply = ApiReply(wire, self.access.cors_headers(incoming.headers), incoming)
        api = api_of(incoming.path)
        try:
            await self._answer(incoming, reply)
        except (ClientLeft, ConnectionError):
            return
        except ApiError as error:
            await reply.error(error, api)
        except Refused as error:
            await reply.error(ApiError(error.status, error.message, error.code, error.retry_after_s), api)
        except asyncio.CancelledError:
            if not incoming.client_left:
                await reply.error(ApiError(503, "the gateway is stopping", "stopping", 5), api)
            raise
        except Exception:
            log.exception("%s %s failed", incoming.method, incoming.path[:200])
            await reply.error(ApiError(500, "internal error; the gateway's log has more", "internal_error"), api)

    async def _answer(self, incoming: HttpRequest, reply: "ApiReply") -> None:
        method, path = incoming.method, incoming.path
        row, methods = route(method, path)
        audience = row.audience_of(method) if row else Audience.CLIENTS
        if method == "OPTIONS":
            self.access.check_origin(_without_origin(incoming.headers), opens_a_page=False)
            await reply.empty(200, self.access.preflight_headers(incoming.headers, methods))
            return
        client = self._admit(incoming, audience)
        if row is None and method not in methods:
            allowed = ", ".join(methods)
            raise ApiError(
                405, f"{method} is not for {path[:200]}; it takes {allowed}", headers=[(b"allow", allowed.encode())]
            )
        if row is None or (row.name == "metrics" and _header(incoming, b"x-paceline-lane") is not None):
            await self._pass_through(incoming, reply)
        else:
            await self._answers[row.name](incoming, reply, client)

    def _admit(self, incoming: HttpRequest, audience: Audience) -> Client:
        """Who sends the request, if it is let in.

        Raises:
            ApiError: 401, 403 or 421; counted and logged.
        """
        try:
            is_page = incoming.path == "/" or (audience is Audience.ANYONE and incoming.path.startswith("/paceline"))
            self.access.check_origin(incoming.headers, opens_a_page=is_page)
            client = Client() if audience is Audience.ANYONE else self.access.identify(incoming.headers)
            self.access.admit(client, audience, incoming.path)
        except ApiError as error:
            self._pipeline.metrics.denied(error.code or str(error.status))
            self._denied.note(f"{error.status} {incoming.method} from {incoming.client or 'unknown'}: {error.code}")
            raise
        return client

    # What answers the addresses of routes.py, by name

    async def _generate(self, incoming: HttpRequest, reply: "ApiReply", client: Client) -> None:
        request = await self._request(GENERATION[incoming.path], incoming.target, incoming, client)
        await self._pipeline.serve(request, reply)

    async def _explain(self, incoming: HttpRequest, reply: "ApiReply", client: Client) -> None:
        target = incoming.path.removeprefix("/paceline/explain")
        if target not in GENERATION:
            raise ApiError(404, f"{target[:200]} is no path that is decided on; those are: {', '.join(GENERATION)}")
        request = await self._request(GENERATION[target], target, incoming, client)
        await reply.json(200, admin.explain(self._pipeline, request))

    async def _models(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.json(200, admin.models(self._pipeline.fleet))

    async def _model(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.json(200, admin.model(self._pipeline.fleet, incoming.path.removeprefix("/v1/models/")))

    async def _health(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.json(*admin.health(self._pipeline.fleet))

    async def _live(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.json(200, {"status": "ok"})

    async def _ready(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        if self.is_stopping:
            await reply.json(503, {"status": "stopping"})
        else:
            await reply.json(*admin.health(self._pipeline.fleet))

    async def _metrics(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.whole(200, CONTENT_TYPE, admin.metrics(self._pipeline, self._log))

    async def _to_dashboard(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.empty(308, [(b"location", b"/paceline/")])

    async def _front(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        """The chat page of llama.cpp works where no key is asked for; it must not hide that there is a dashboard."""
        fleet = self._pipeline.fleet
        has_page = not self.access.asks_for_keys and fleet.default.is_up and await fleet.default.engine.has_page()
        if has_page:
            await self._pass_through(incoming, reply)
        else:
            await reply.empty(307, [(b"location", b"/paceline/")])

    async def _dashboard(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        page = dashboard.document(incoming.path)
        assert page is not None
        await reply.whole(200, *page, dashboard.HEADERS)

    async def _lanes(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.json(200, admin.lanes(self._pipeline, self._log))

    async def _requests(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.json(200, self._pipeline.recent.after(_number_after(incoming.query)))

    async def _report(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.json(200, await self._gain.document())

    async def _reload(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await reply.json(200, await self._take_up())

    async def _nothing(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        known = ", ".join(f"{row.methods[0]} {row.path}" for row in ROUTES if row.methods and "/paceline/" in row.path)
        raise ApiError(404, f"{incoming.method} {incoming.path[:200]} does not exist; there are {known}")

    # What is the engines'

    async def _pass_on(self, incoming: HttpRequest, reply: "ApiReply", _: Client) -> None:
        await self._pass_through(incoming, reply)

    async def _pass_through(self, incoming: HttpRequest, reply: "ApiReply") -> None:
        body = await self._body(incoming)
        is_unpacked = True
        try:
            readable = await self._unpacked(incoming, body)
        except ApiError as error:
            if error.status != 415:
                raise
            readable, is_unpacked = body, False  # the engine may be able to
        passed = Passed(incoming.method, incoming.path, incoming.target, incoming.headers, readable, incoming.client)
        await pass_through(self._pipeline, passed, reply, is_unpacked=is_unpacked)

    async def _request(self, api: Api, target: str, incoming: HttpRequest, client: Client) -> Request:
        body = await self._unpacked(incoming, await self._body(incoming))
        return await parse_request(api, target, body, incoming.headers, client.name, incoming.client)

    async def _body(self, incoming: HttpRequest) -> bytes:
        return await incoming.body(self._pipeline.fleet.configuration.server.max_body_bytes)

    async def _unpacked(self, incoming: HttpRequest, body: bytes) -> bytes:
        encodings = b",".join(value for name, value in incoming.headers if name == b"content-encoding")
        if not encodings:
            return body
        readable = await unpacked(body, encodings, self._pipeline.fleet.configuration.server.max_body_bytes)
        incoming.holds(len(readable))
        return readable


class ApiReply:
    """A client's side of an exchange: its answer, and errors in the words of its API."""

    def __init__(self, wire: Reply, cors: Headers, incoming: HttpRequest) -> None:
        self._wire = wire
        self._cors = cors
        self._incoming = incoming
        self._streams = False

    @property
    def has_begun(self) -> bool:
        """Whether the answer has."""
        return self._wire.started

    @property
    def client_left(self) -> bool:
        """Whether the client is gone."""
        return self._incoming.client_left

    async def start(self, status: int, headers: Headers) -> None:
        self._streams = any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers
        )
        await self._wire.start(status, [*headers, *self._cors])

    async def send(self, data: bytes) -> None:
        await self._wire.send(data)

    async def end(self, data: bytes = b"") -> None:
        await self._wire.end(data)

    def abort(self) -> None:
        """Cut the answer off: what has gone out must not be taken for whole."""
        self._wire.abort()

    async def whole(self, status: int, kind: bytes, body: bytes, headers: Headers | None = None) -> None:
        """A whole answer of the gateway's own."""
        await self.start(status, [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *(headers or ())])
        await self.end(body)

    async def empty(self, status: int, headers: Headers) -> None:
        """An answer without a body."""
        length = [] if status == 204 else [(b"content-length", b"0")]
        await self.start(status, [*headers, *length])
        await self.end()

    async def json(self, status: int, document: Any) -> None:
        await self.whole(status, JSON[1], msgspec.json.encode(document))

    async def error(self, error: ApiError, api: Api) -> None:
        """End with an error. An answer that has begun and is no stream of events can only be cut off: its client
        must not take it for whole."""
        if not self._wire.started:
            await self.whole(error.status, JSON[1], error.body(api), error.headers)
        elif self._streams and not self._wire.ended:
            await self.end(error.event(api))
        elif not self._wire.ended:
            self.abort()


class _Denied:
    """A line in the log now and then."""

    def __init__(self) -> None:
        self._said_s = float("-inf")
        self._unsaid = 0

    def note(self, what: str) -> None:
        if monotonic() - self._said_s < DENIED_LINE_INTERVAL_S:
            self._unsaid += 1
            return
        log.warning("denied: %s%s", what, f" (and {self._unsaid} more)" if self._unsaid else "")
        self._said_s, self._unsaid = monotonic(), 0


def _header(incoming: HttpRequest, name: bytes) -> bytes | None:
    return next((value for key, value in incoming.headers if key == name), None)


def _without_origin(headers: Headers) -> Headers:
    """A preflight asks on behalf of a page; whether that may is what the answer tells."""
    return [(name, value) for name, value in headers if name not in (b"origin", b"sec-fetch-site")]


def _number_after(query: bytes) -> int:
    value = parse_qs(query.decode("latin-1")).get("after", ["0"])[0]
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise ApiError(400, f"after: is {value[:40]!r}, not the number of a request", "invalid_query")
    return int(value)
