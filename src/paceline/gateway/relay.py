"""An engine's answer on its way to the client: unchanged, as it arrives, and never more in memory than is moving."""

from time import perf_counter
from typing import Protocol

from paceline.engines import Observer
from paceline.gateway.errors import ApiError
from paceline.gateway.headers import to_client
from paceline.http.client import Answer, ConnectionLost
from paceline.types import Api

WHOLE_BYTES = 1024 * 1024
"""An answer that is no stream is held back until it is whole, so that an engine that dies can still be answered
for with a proper error; up to this size."""
EVENT_BYTES = 64 * 1024
"""Of an event that arrives in pieces, at most this much is held back until its end."""
STALLED_S = 0.1
"""A client that takes longer to take a piece has slowed the relay down: what the clock says is not the engine's."""


class Reply(Protocol):
    """The client's side of an exchange. Each call waits until the client has taken enough of what was sent."""

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None: ...
    async def send(self, data: bytes) -> None: ...
    async def end(self, data: bytes = b"") -> None: ...


class Relay:
    """One answer being relayed.

    Args:
        sent_s: when the request went to the engine, by :func:`time.perf_counter`.
        extra_headers: put before the engine's own.
    """

    def __init__(
        self,
        answer: Answer,
        observer: Observer,
        reply: Reply,
        sent_s: float,
        extra_headers: list[tuple[bytes, bytes]],
    ) -> None:
        self._answer = answer
        self._observer = observer
        self._reply = reply
        self._sent_s = sent_s
        self._extra_headers = extra_headers
        self.first_byte_s: float | None = None
        self.sending_since_s: float | None = None
        """Since when a piece waits for the client to take it; ``None`` while waiting for the engine."""

    async def run(self, api: Api) -> ApiError | None:
        """Relay to the end. Returns the error that a broken stream of events was ended with, if it broke.

        Raises:
            ApiError: the engine was lost before anything went to the client.
        """
        kind = self._answer.header(b"content-type") or b""
        if kind.startswith(b"text/event-stream"):
            return await self._events(api)
        await self._bytes(hold_bytes=WHOLE_BYTES if kind.startswith(b"application/json") else 0)
        return None

    async def _bytes(self, hold_bytes: int) -> None:
        """Relay anything, held back until it is whole or larger than ``hold_bytes``."""
        pieces: list[bytes] = []
        held_bytes = 0
        while held_bytes <= hold_bytes and (piece := await self._read()):
            pieces.append(piece)
            held_bytes += len(piece)
        await self._start()
        if held_bytes > hold_bytes:
            await self._send(b"".join(pieces))
            pieces.clear()
            while piece := await self._read():
                await self._send(piece)
        await self._reply.end(b"".join(pieces))

    async def _events(self, api: Api) -> ApiError | None:
        await self._start()
        held = b""
        inside_event = False  # the client has the beginning of an event whose end it does not have yet
        try:
            while piece := await self._read():
                data = held + piece if held else piece
                end = _end_of_last_event(data)
                if end == 0 and len(data) > EVENT_BYTES:
                    inside_event, end = True, len(data)
                elif end:
                    inside_event = False
                held = data[end:]
                if shown := self._observer.shown(data[:end] if held else data):
                    await self._send(shown)
        except ApiError as error:
            await self._reply.end((b"\n\n" if inside_event else b"") + error.event(api))
            return error
        await self._reply.end(held)
        return None

    async def _start(self) -> None:
        await self._reply.start(self._answer.status, [*self._extra_headers, *to_client(self._answer.headers)])

    async def _read(self) -> bytes:
        try:
            piece = await self._answer.read()
        except ConnectionLost as error:
            raise ApiError(502, f"the engine was lost in the middle of its answer: {error}", "engine_lost") from error
        if piece:
            at_s = perf_counter() - self._sent_s
            if self.first_byte_s is None:
                self.first_byte_s = at_s
            self._observer.feed(piece, at_s)
        return piece

    async def _send(self, data: bytes) -> None:
        self.sending_since_s = begun_s = perf_counter()
        await self._reply.send(data)
        self.sending_since_s = None
        if perf_counter() - begun_s > STALLED_S:
            self._observer.clock_is_valid = False


def _end_of_last_event(data: bytes) -> int:
    """Where the last whole server-sent event ends; 0 if none does. Events end with an empty line."""
    if data.endswith((b"\n\n", b"\r\n\r\n")):
        return len(data)
    plain = data.rfind(b"\n\n")
    carriage = data.rfind(b"\r\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, carriage + 4 if carriage >= 0 else 0)
