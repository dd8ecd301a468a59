"""One exchange between a client and an endpoint, as the gateway tells of it and is told what to do."""

from collections.abc import Sequence

from paceline.integrations.endpoint_picker.carried import OnItsWay
from paceline.integrations.endpoint_picker.messages import (
    Answer,
    BodyMode,
    Go,
    GoTrailers,
    Piece,
    Refuse,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Said,
)
from paceline.integrations.endpoint_picker.picking import TOO_LARGE, Picked, Picker

MAX_PIECE_BYTES = 62_000
"""Of a body that is given back: gateways take messages up to 64 KiB in this mode."""
CONTENT_LENGTH = b"content-length"


class OutOfTurn(Exception):
    """The gateway says what can't be said now."""


class Stream:
    """What is said and answered of one exchange. :meth:`close` is to be called at its end, whatever happened."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker
        self._head: RequestHeaders | None = None
        self._pieces: list[bytes] = []
        self._buffered_bytes = 0
        self._on_its_way: OnItsWay | None = None
        self._is_refused = False

    async def take(self, said: Said) -> Sequence[Answer]:
        """What to answer; nothing where more has to come first.

        Raises:
            OutOfTurn: the gateway makes no sense.
        """
        match said:
            case RequestHeaders():
                return await self._begins(said)
            case RequestBody():
                return await self._request_body(said)
            case RequestTrailers():
                return await self._request_trailers()
            case ResponseHeaders():
                return self._answer_begins(said)
            case ResponseBody():
                return self._response_body(said)
            case ResponseTrailers():
                return self._response_trailers()

    def close(self) -> None:
        """The gateway has nothing more to say: the answer is whole, or somebody broke off."""
        self._forget_body()
        if self._on_its_way is not None:
            self._on_its_way.end()

    # The request

    async def _begins(self, head: RequestHeaders) -> Sequence[Answer]:
        if self._head is not None:
            raise OutOfTurn("a request's headers for a second time")
        self._head = head
        if head.ends or head.request_mode in (BodyMode.NONE, BodyMode.STREAMED):
            return [self._goes(await self._picker.pick(head, None))]
        # Else the headers wait for the body; a gateway that hands it over at once wants to be told so.
        return [Go(is_request=True)] if head.request_mode is BodyMode.BUFFERED else ()

    async def _request_body(self, said: RequestBody) -> Sequence[Answer]:
        head = self._begun()
        if head.request_mode is BodyMode.BUFFERED:
            if self._on_its_way is not None or self._is_refused:
                raise OutOfTurn("a request's body for a second time")
            is_small = len(said.data) <= self._picker.limits.max_body_bytes
            picked = await (
                self._picker.pick(head, said.data) if is_small else self._picker.pick(head, None, TOO_LARGE)
            )
            return [self._goes(picked, is_body=True)]
        if head.request_mode is not BodyMode.DUPLEX:
            return [Go(is_request=True, is_body=True)]
        if self._is_refused:
            return ()
        if self._on_its_way is not None:  # it is passed on as it comes
            return [Piece(is_request=True, data=said.data, ends=said.ends, is_duplex=True)]
        self._hold(said.data)
        if said.ends:
            return await self._decides(ends=True)
        limits = self._picker.limits
        if self._buffered_bytes > limits.max_body_bytes or self._picker.buffered_bytes > limits.max_buffered_bytes:
            return await self._passes()
        return ()

    async def _request_trailers(self) -> Sequence[Answer]:
        is_waiting = self._begun().request_mode is BodyMode.DUPLEX and self._on_its_way is None
        before = await self._decides(ends=False) if is_waiting and not self._is_refused else ()
        return [*before, GoTrailers(is_request=True)] if not self._is_refused else before

    async def _decides(self, ends: bool) -> Sequence[Answer]:
        """The body is there."""
        body = b"".join(self._pieces)
        picked = await self._picker.pick(self._begun(), body)
        return self._with_body(picked, body, ends)

    async def _passes(self) -> Sequence[Answer]:
        """The body is too large to wait for."""
        body = b"".join(self._pieces)
        picked = await self._picker.pick(self._begun(), None, TOO_LARGE)
        return self._with_body(picked, body, ends=False)

    def _with_body(self, picked: Picked | Refuse, body: bytes, ends: bool) -> Sequence[Answer]:
        self._forget_body()
        goes = self._goes(picked)
        if isinstance(picked, Refuse):
            return [goes]
        body = body if picked.body is None else picked.body
        pieces = [body[at : at + MAX_PIECE_BYTES] for at in range(0, len(body), MAX_PIECE_BYTES)] or [b""]
        last = len(pieces) - 1
        return [
            goes,
            *(
                Piece(is_request=True, data=piece, ends=ends and number == last, is_duplex=True)
                for number, piece in enumerate(pieces)
            ),
        ]

    def _goes(self, picked: Picked | Refuse, is_body: bool = False) -> Answer:
        if isinstance(picked, Refuse):
            self._is_refused = True
            return picked
        self._on_its_way = picked.on_its_way
        length = [(CONTENT_LENGTH, b"%d" % len(picked.body))] if picked.body is not None else []
        return Go(
            is_request=True,
            is_body=is_body,
            body=picked.body if is_body else None,
            endpoints=picked.endpoints,
            set_headers=[*picked.set_headers, *length],
            remove_headers=picked.remove_headers,
        )

    def _hold(self, data: bytes) -> None:
        self._pieces.append(data)
        self._buffered_bytes += len(data)
        self._picker.buffered_bytes += len(data)

    def _forget_body(self) -> None:
        self._pieces.clear()
        self._picker.buffered_bytes -= self._buffered_bytes
        self._buffered_bytes = 0

    # The answer

    def _answer_begins(self, said: ResponseHeaders) -> Sequence[Answer]:
        if (on_its_way := self._on_its_way) is None:  # the gateway's own, as after a refusal
            return [Go(is_request=False)]
        served_by = self._picker.by_address().get(said.served) if said.served else None
        status = _status(said)
        added = on_its_way.answer_begins(status, said.headers, served_by)
        if said.ends:
            on_its_way.feed(b"", ends=True)
            on_its_way.end()
        is_stream = any(
            name == b"content-type" and value.startswith(b"text/event-stream") for name, value in said.headers
        )
        removed = (CONTENT_LENGTH,) if is_stream else ()  # an event may be taken out
        return [Go(is_request=False, set_headers=added, remove_headers=removed)]

    def _response_body(self, said: ResponseBody) -> Sequence[Answer]:
        mode = self._begun().response_mode
        on_its_way = self._on_its_way
        shown = on_its_way.feed(said.data, said.ends) if on_its_way else said.data
        if said.ends and on_its_way:
            on_its_way.end()
        if mode is BodyMode.DUPLEX:
            return [Piece(is_request=False, data=shown, ends=said.ends, is_duplex=True)]
        return [Go(is_request=False, is_body=True, body=None if shown == said.data else shown)]

    def _response_trailers(self) -> Sequence[Answer]:
        rest = b""
        if self._on_its_way is not None:
            rest = self._on_its_way.feed(b"", ends=True)
            self._on_its_way.end()
        if rest and self._begun().response_mode is BodyMode.DUPLEX:
            return [Piece(is_request=False, data=rest, ends=False, is_duplex=True), GoTrailers(is_request=False)]
        return [GoTrailers(is_request=False)]

    def _begun(self) -> RequestHeaders:
        if self._head is None:
            raise OutOfTurn("a body without a request's headers before it")
        return self._head


def _status(said: ResponseHeaders) -> int:
    value = next((value for name, value in said.headers if name == b":status"), b"")
    return int(value) if value.isdigit() and len(value) == 3 else 0
