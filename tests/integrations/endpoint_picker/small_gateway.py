"""What Envoy does with an endpoint picker, in a few lines: it asks, sends the request on, and hands over the answer."""

import json
from dataclasses import dataclass, field
from typing import Any

import httpx2

from paceline.integrations.endpoint_picker.messages import (
    Answer,
    BodyMode,
    Go,
    Piece,
    Refuse,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from paceline.integrations.endpoint_picker.picking import Picker
from paceline.integrations.endpoint_picker.stream import Stream

CHAT = "/v1/chat/completions"


@dataclass
class Reply:
    """What the client gets, and where it came from."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    endpoints: tuple[str, ...] = ()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class SmallGateway:
    def __init__(self, picker: Picker, mode: BodyMode = BodyMode.DUPLEX) -> None:
        self.picker = picker
        self.mode = mode
        self.response_mode: BodyMode | None = None
        """How answers are handed over; piece by piece where nothing is said."""
        self.piece_bytes = 1000
        self.subset: tuple[str, ...] | None = None
        self.unreachable: set[str] = set()
        """Endpoints that it can't connect to, so that it takes the next one."""

    async def post(self, body: Any, path: str = CHAT, headers: dict[str, str] | None = None) -> Reply:
        stream = Stream(self.picker)
        try:
            return await self._exchange(stream, "POST", path, _bytes(body), headers or {})
        finally:
            stream.close()

    async def get(self, path: str) -> Reply:
        stream = Stream(self.picker)
        try:
            return await self._exchange(stream, "GET", path, b"", {})
        finally:
            stream.close()

    async def begin(self, body: Any, path: str = CHAT) -> tuple[Stream, list[Answer]]:
        """A request that was picked for, and is on its way; the stream is to be closed."""
        stream = Stream(self.picker)
        return stream, await self._request(stream, "POST", path, _bytes(body), {})

    async def _exchange(self, stream: Stream, method: str, path: str, body: bytes, headers: dict[str, str]) -> Reply:
        # 1. Ask where to.
        answers = await self._request(stream, method, path, body, headers)
        sent: list[bytes] = []
        endpoints: tuple[str, ...] = ()
        changed = dict(headers)
        whole: bytes | None = None
        for answer in answers:
            if isinstance(answer, Refuse):
                return Reply(answer.status, {}, answer.body)
            if isinstance(answer, Go):
                endpoints = answer.endpoints or endpoints
                changed |= {name.decode(): value.decode() for name, value in answer.set_headers}
                whole = answer.body if answer.body is not None else whole
            elif isinstance(answer, Piece):
                sent.append(answer.data)
        if self.mode is BodyMode.DUPLEX and body:
            assert isinstance(answers[-1], Piece) and answers[-1].ends
            whole = b"".join(sent)
        whole = body if whole is None else whole
        if "content-length" in changed:
            assert int(changed.pop("content-length")) == len(whole)
        # 2. Send it there, or to the next one.
        served = next(one for one in endpoints if one not in self.unreachable)
        url = f"http://{served}{path}"
        reply = Reply(0, endpoints=endpoints)
        async with (
            httpx2.AsyncClient(timeout=30, trust_env=False) as client,
            client.stream(method, url, content=whole, headers={"content-type": "application/json"} | changed) as got,
        ):
            # 3. Hand over the answer.
            reply.status, reply.headers = got.status_code, dict(got.headers)
            head = [(b":status", b"%d" % got.status_code)]
            head += [(name.encode(), value.encode()) for name, value in got.headers.items()]
            for answer in await stream.take(ResponseHeaders(head, served=served)):
                assert isinstance(answer, Go)
                reply.headers |= {name.decode(): value.decode() for name, value in answer.set_headers}
            if self.response_mode is BodyMode.NONE:
                reply.body = await got.aread()
                return reply
            async for piece in got.aiter_raw():
                reply.body += await self._shown(stream, piece, ends=False)
            reply.body += await self._shown(stream, b"", ends=True)
        return reply

    @property
    def _usual_response_mode(self) -> BodyMode:
        return BodyMode.DUPLEX if self.mode is BodyMode.DUPLEX else BodyMode.STREAMED

    async def _shown(self, stream: Stream, piece: bytes, ends: bool) -> bytes:
        (answer,) = await stream.take(ResponseBody(piece, ends))
        if isinstance(answer, Piece):
            assert answer.ends is ends
            return answer.data
        assert isinstance(answer, Go)
        return piece if answer.body is None else answer.body

    async def _request(
        self, stream: Stream, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> list[Answer]:
        head = [(b":method", method.encode()), (b":path", path.encode())]
        head += [(name.encode(), value.encode()) for name, value in headers.items()]
        answers = list(
            await stream.take(
                RequestHeaders(
                    headers=head,
                    ends=not body,
                    request_mode=self.mode,
                    response_mode=self.response_mode or self._usual_response_mode,
                    subset=self.subset,
                )
            )
        )
        size = len(body) if self.mode is BodyMode.BUFFERED else self.piece_bytes
        for at in range(0, len(body), size or 1):
            answers += await stream.take(RequestBody(body[at : at + size], at + size >= len(body)))
        return answers


def _bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()
