"""What answers the addresses of `routes.py`: for each row's name one method."""

import re
from collections.abc import Awaitable, Callable, Sequence
from time import time
from typing import Any
from urllib.parse import parse_qs

import msgspec

from paceline.configuration import ConfigurationError
from paceline.http import dashboard, documents
from paceline.http.access import Caller
from paceline.http.attention import LOOKED_BACK_S, needs
from paceline.http.drafting import drafting
from paceline.http.drafts import Drafts
from paceline.http.errors import ApiError
from paceline.http.gain import Gain
from paceline.http.parse import parse_request
from paceline.http.reply import ApiReply
from paceline.http.routes import GENERATION, ROUTES
from paceline.http.running import oldest, running
from paceline.http.spent import Spent
from paceline.http.sums import GatewaySums, sums_of
from paceline.http.unpack import unpacked
from paceline.records.decision_log import DecisionLog
from paceline.records.history import History
from paceline.records.metrics import CONTENT_TYPE
from paceline.records.recent import MAX_REQUESTS
from paceline.serving.passing import Passed, pass_through
from paceline.serving.pipeline import Pipeline
from paceline.sharing import Sharer
from paceline.types import Api, Request
from paceline.wire.server import HttpRequest

Handler = Callable[[HttpRequest, ApiReply, Caller], Awaitable[None]]
Reload = Callable[[], Awaitable[dict[str, Any]]]
CurrentSharer = Callable[[], Sharer | None]


class _Feedback(msgspec.Struct):
    id: str
    """The client's name for the request."""
    good: bool


class Answers:
    """Answers requests that are let in. Each method takes the request, its reply, and who sent it, and may raise
    ``ApiError`` or ``ServingError``.

    Args:
        reload: takes up a changed configuration and tells what changed; raises ``ConfigurationError`` if it can't.
        log: the decision log, if one is kept.
        sharer: tells what shares what is learned, if that is wanted.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        reload: Reload,
        log: DecisionLog | None,
        sharer: CurrentSharer = lambda: None,
    ) -> None:
        self.is_stopping = False
        """Whether ``/readyz`` sends load balancers away."""
        self._pipeline = pipeline
        self._take_up = reload
        self._log = log
        self._sharer = sharer
        self._gain = Gain(log.path if log else None)
        self._spent = Spent(pipeline)
        pipeline.sinks.add("spent", self._spent)
        self._history = History(log.path if log else None)
        pipeline.sinks.add("history", self._history)
        self._drafts = Drafts()
        pipeline.sinks.add("drafts", self._drafts)

    def sums(self, connections: int) -> GatewaySums:
        """What this process has counted.

        Args:
            connections: of clients.
        """
        return sums_of(self._pipeline, self._log, self._sharer(), self._spent, self._drafts, connections)

    def one_request(self, number: int) -> dict[str, Any] | None:
        """A request of this process in full, by its number here; ``None`` where it is not remembered."""
        found = self._pipeline.recent.find(number)
        return None if found is None else documents.request(*found)

    # What other processes of the same gateway have a part in

    async def others(self) -> Sequence[GatewaySums]:
        """What the others have counted."""
        return ()

    async def requests_after(self, number: int) -> dict[str, Any]:
        """The document of the last requests."""
        return self._pipeline.recent.after(number)

    async def one_of_all(self, number: int) -> dict[str, Any] | None:
        """A request in full, by its number in that document; ``None`` where it is not remembered."""
        return self.one_request(number)

    async def learned_feedback(self, identifier: str, is_good: bool, client: str | None) -> bool:
        """Whether the request is known that somebody tells of."""
        return self._pipeline.router.placer.feedback(identifier, is_good, client)

    # What routes name

    async def generate(self, incoming: HttpRequest, reply: ApiReply, caller: Caller) -> None:
        """Decided on, and sent down a lane."""
        request = await self._request(GENERATION[incoming.path], incoming.target, incoming, caller)
        await self._pipeline.serve(request, reply)

    async def explain(self, incoming: HttpRequest, reply: ApiReply, caller: Caller) -> None:
        """How a request to the rest of the path would be decided."""
        target = incoming.path.removeprefix("/paceline/explain")
        if target not in GENERATION:
            raise ApiError(404, f"{target[:200]} is no path that is decided on; those are: {', '.join(GENERATION)}")
        request = await self._request(GENERATION[target], target, incoming, caller)
        await reply.json(200, await documents.explain(self._pipeline, request))

    async def feedback(self, incoming: HttpRequest, reply: ApiReply, caller: Caller) -> None:
        """Whether an answer was good enough."""
        try:
            told = msgspec.json.decode(await self._body(incoming), type=_Feedback)
        except msgspec.DecodeError as error:
            message = f'the body is not {{"id": "...", "good": true}}: {error}'
            raise ApiError(400, message, "invalid_body") from error
        is_known = await self.learned_feedback(told.id, told.good, caller.name)
        await reply.json(200 if is_known else 404, {"known": is_known})

    async def pass_on(self, incoming: HttpRequest, reply: ApiReply, caller: Caller) -> None:
        """Whatever else engines offer."""
        body = await self._body(incoming)
        is_unpacked = True
        try:
            readable = await self._unpacked(incoming, body)
        except ApiError as error:
            if error.status != 415:
                raise
            readable, is_unpacked = body, False  # the engine may be able to
        passed = Passed(
            method=incoming.method,
            path=incoming.path,
            target=incoming.target,
            headers=incoming.headers,
            body=readable,
            is_unpacked=is_unpacked,
            address=incoming.client,
            client=caller.name,
        )
        await pass_through(self._pipeline, passed, reply)

    async def models(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """All models."""
        await reply.json(200, documents.models(self._pipeline.fleet))

    async def model(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """The model that the path names."""
        await reply.json(200, documents.model(self._pipeline.fleet, incoming.path.removeprefix("/v1/models/")))

    async def health(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """Whether requests can be served."""
        await reply.json(*documents.health(self._pipeline.fleet))

    async def live(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """That the gateway runs."""
        await reply.json(200, {"status": "ok"})

    async def ready(self, incoming: HttpRequest, reply: ApiReply, caller: Caller) -> None:
        """Whether requests can be served, and more may be sent."""
        if self.is_stopping:
            await reply.json(503, {"status": "stopping"})
        else:
            await self.health(incoming, reply, caller)

    async def metrics(self, incoming: HttpRequest, reply: ApiReply, caller: Caller) -> None:
        """The gateway's metrics, or those of the engine whose lane a header names."""
        if any(name == b"x-paceline-lane" for name, _ in incoming.headers):
            await self.pass_on(incoming, reply, caller)
        else:
            text = documents.metrics(self._pipeline, self._log, self._sharer(), await self.others())
            await reply.whole(200, CONTENT_TYPE, text)

    async def front(self, incoming: HttpRequest, reply: ApiReply, caller: Caller) -> None:
        """The chat page of llama.cpp, which works where no key is asked for; else the way to the dashboard."""
        default = self._pipeline.fleet.default
        if not self._pipeline.asks_for_keys and default.is_up and await default.engine.has_page():
            await self.pass_on(incoming, reply, caller)
        else:
            await reply.empty(307, [(b"location", b"/paceline/")])

    async def to_dashboard(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """The way to the dashboard."""
        await reply.empty(308, [(b"location", b"/paceline/")])

    async def dashboard(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """The dashboard's page, a style or a script."""
        found = dashboard.DOCUMENTS.get(incoming.path)
        if found is None:
            raise ApiError(404, f"{incoming.path[:200]} is no part of the dashboard")
        await reply.whole(200, found.kind, found.body, dashboard.HEADERS)

    async def lanes(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """Each lane, and what was measured of it."""
        others = await self.others()
        document = documents.lanes(self._pipeline, self._log, self._sharer(), others)
        more = {
            "money": self._spent.document([other.spent for other in others]),
            "started_s": min([self._spent.sums().since_s, *(other.spent.since_s for other in others)]),
            "now_s": time(),
            "running": oldest([running(self._pipeline), *(other.running for other in others)]),
            "needs": needs(self._pipeline, document, await self._history.total(LOOKED_BACK_S)),
        }
        await reply.json(200, document | more)

    async def requests(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """The last requests."""
        await reply.json(200, await self.requests_after(_number(incoming.query, "after", 0)))

    async def request(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """One of them, with all that was expected and measured."""
        number = incoming.path.removeprefix("/paceline/requests/")
        found = await self.one_of_all(int(number)) if re.fullmatch(r"[0-9]{1,18}", number) else None
        if found is None:
            raise ApiError(
                404,
                f"request {number[:40]} is not among the last {MAX_REQUESTS}, which are remembered until the gateway "
                "stops; the decision log may have it (paceline export)",
            )
        await reply.json(200, found)

    async def history(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """Sums over time."""
        range_s = _number(incoming.query, "range_s", 3600)
        if range_s < 1:
            raise ApiError(400, "range_s: is 0, and has to be at least a second", "invalid_query")
        await reply.json(200, await self._history.document(range_s))

    async def drafting(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """What drafts cost and yield."""
        others = await self.others()
        await reply.json(200, drafting(self._pipeline, [self._drafts.sums(), *(other.drafts for other in others)]))

    async def report(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """What routing has brought."""
        await reply.json(200, await self._gain.document())

    async def reload(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """Take up the changed configuration."""
        try:
            changes = await self._take_up()
        except ConfigurationError as error:
            raise ApiError(422, str(error), "invalid_configuration") from error
        await reply.json(200, changes)

    async def nothing(self, incoming: HttpRequest, reply: ApiReply, _: Caller) -> None:
        """An address of the gateway's own that does not exist."""
        own = ", ".join(f"{row.methods[0]} {row.path}" for row in ROUTES if row.methods and "/paceline/" in row.path)
        raise ApiError(404, f"{incoming.method} {incoming.path[:200]} does not exist; there are {own}")

    async def _request(self, api: Api, target: str, incoming: HttpRequest, caller: Caller) -> Request:
        body = await self._unpacked(incoming, await self._body(incoming))
        return await parse_request(api, target, body, incoming.headers, client=caller.name, address=incoming.client)

    async def _body(self, incoming: HttpRequest) -> bytes:
        return await incoming.body(self._pipeline.server.max_body_bytes)

    async def _unpacked(self, incoming: HttpRequest, body: bytes) -> bytes:
        encodings = b",".join(value for name, value in incoming.headers if name == b"content-encoding")
        if not encodings:
            return body
        readable = await unpacked(body, encodings, self._pipeline.server.max_body_bytes)
        incoming.holds(len(readable))
        return readable


def _number(query: bytes, name: str, default: int) -> int:
    """
    Raises:
        ApiError: 400, it is no number.
    """
    value = parse_qs(query.decode("latin-1")).get(name, [str(default)])[0]
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise ApiError(400, f"{name}: is {value[:40]!r}, not a whole number from 0 on", "invalid_query")
    return int(value)
