"""A client's side of an exchange over HTTP: its answer, and errors in the words of its API."""

from collections.abc import Sequence
from typing import Any

import msgspec

from paceline.http.errors import ApiError, api_error
from paceline.serving.errors import ServingError
from paceline.types import Api
from paceline.wire.headers import Headers
from paceline.wire.server import HttpRequest, Reply

JSON = b"application/json"


class ApiReply:
    """The answer to one request.

    Args:
        api: whose words errors are said in.
        cors: headers that let the page that asks read the answer.
    """

    def __init__(self, wire: Reply, api: Api, cors: Headers, incoming: HttpRequest) -> None:
        self._wire = wire
        self._api = api
        self._cors = cors
        self._incoming = incoming
        self._headers: Headers = ()

    @property
    def has_begun(self) -> bool:
        """Whether the answer has."""
        return self._wire.started

    @property
    def client_left(self) -> bool:
        """Whether the client is gone."""
        return self._incoming.client_left

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        self._headers = headers
        await self._wire.start(status, [*headers, *self._cors])

    async def send(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._wire.send(data)

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        await self._wire.end(data)

    async def end_with(self, error: ServingError, is_inside_event: bool) -> None:
        """End a stream of events with one that says why."""
        await self.end((b"\n\n" if is_inside_event else b"") + api_error(error).event(self._api))

    def abort(self) -> None:
        """Cut the answer off: what has gone out must not be taken for whole."""
        self._wire.abort()

    async def whole(
        self, status: int, kind: bytes, body: bytes, headers: Headers = (), first: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        """A whole answer of the gateway's own.

        Args:
            kind: its media type.
            first: headers put before all others.
        """
        framing = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        await self.start(status, [*first, *framing, *headers])
        await self.end(body)

    async def empty(self, status: int, headers: Headers) -> None:
        """An answer without a body."""
        length = [] if status == 204 else [(b"content-length", b"0")]
        await self.start(status, [*headers, *length])
        await self.end()

    async def json(self, status: int, document: Any) -> None:
        """An answer that is a JSON document."""
        await self.whole(status, JSON, msgspec.json.encode(document))

    async def refuse(self, error: ServingError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Answer with an error of the gateway's own."""
        refusal = api_error(error)
        await self.whole(refusal.status, JSON, refusal.body(self._api), refusal.headers, first=headers)

    async def error(self, error: ApiError) -> None:
        """End with an error, however far the answer is. One that has begun and is no stream of events can only be cut
        off: its client must not take it for whole."""
        if not self._wire.started:
            await self.whole(error.status, JSON, error.body(self._api), error.headers)
        elif not self._wire.ended and self._is_stream:
            await self.end(error.event(self._api))
        elif not self._wire.ended:
            self.abort()

    @property
    def _is_stream(self) -> bool:
        """Whether the answer that has begun is a stream of events."""
        return any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in self._headers
        )
