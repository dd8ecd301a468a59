"""An engine's answer on its way to the client: unchanged, as it arrives, and never more in memory than is moving."""

import asyncio
import re
from enum import Enum, auto
from math import inf
from time import perf_counter

import msgspec

from paceline.engines import Observer
from paceline.serving.errors import EngineGivenUp, EngineLost, ServingError
from paceline.serving.headers import from_cloud, to_client
from paceline.serving.reply import Reply
from paceline.translation import Garbled, Translated
from paceline.wire.client import Answer, ConnectionLost

MAX_WHOLE_BYTES = 1024 * 1024
"""An answer that is no stream is held back until it is whole, so that an engine that dies can still be answered
for with a proper error; up to this size."""
MAX_TRANSLATED_BYTES = 16 * 1024 * 1024
"""The same of one that is translated, which it can only be as a whole."""
MAX_SLICE_BYTES = 8 * 1024
"""Of a larger piece of a stream, this much is looked at before others have their turn: it may hold thousands of events,
which take up to 10 ms."""
MAX_PINGS_BYTES = 64 * 1024
"""Of comments and pings before the first event, that are held."""
MAX_PING_HELD_S = 1.0
"""For so long comments and pings are held, in case the first event is an error. They are for the client's patience."""
STALLED_S = 0.1
"""A client that takes longer to take a piece has slowed the relay down: what the clock says is not the engine's."""

NO_LAST_EVENT = "its stream ended without its last event"
_LAST_EVENT = re.compile(
    rb"\[DONE\]|message_stop|response\.(?:completed|incomplete|failed|cancelled)|event: ?error"
    rb'|"(?:finish_reason|stop_reason)"\s*:\s*"|"(?:stop|done)"\s*:\s*true|"error"\s*:'
)
"""What the last events of the APIs' streams hold."""


class EngineSilent(ConnectionLost):
    """The engine sent nothing for longer than it may; its connection was closed."""


class _Kind(Enum):
    EVENTS = auto()
    JSON = auto()
    OTHER = auto()


class Relay:
    """One answer being relayed: :meth:`begin`, then :meth:`run`.

    Args:
        sent_s: when the request went to the engine, by :func:`time.perf_counter`.
        extra_headers: put before the engine's own.
        first_byte_timeout_s: time from ``sent_s`` to the first byte of the answer's body.
        engine_url: the engine's base URL, for redirects to itself.
        idle_timeout_s: longest silence of the engine after that. Time in which the client takes nothing does not count.
        translated: the request as the engine got it, where it speaks another API than the client.
        is_cloud: whether it is a provider's answer, of whose headers few are passed on.
        max_ping_held_s: how long comments and pings before the first event are kept back.
    """

    def __init__(
        self,
        *,
        answer: Answer,
        observer: Observer,
        reply: Reply,
        sent_s: float,
        extra_headers: list[tuple[bytes, bytes]],
        first_byte_timeout_s: float = inf,
        idle_timeout_s: float = inf,
        engine_url: str | None = None,
        translated: Translated | None = None,
        is_cloud: bool = False,
        max_ping_held_s: float = MAX_PING_HELD_S,
    ) -> None:
        self._answer = answer
        self._observer = observer
        self._reply = reply
        self._sent_s = sent_s
        self._extra_headers = extra_headers
        self._engine_url = engine_url
        self._first_byte_timeout_s = first_byte_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._kind = _kind(answer, observer.is_stream)
        observer.is_stream = self._kind is _Kind.EVENTS
        self._is_cloud = is_cloud
        self._max_ping_held_s = max_ping_held_s
        self._translated = translated
        self._translator = translated.stream() if translated and self._kind is _Kind.EVENTS else None
        if translated and self._kind is _Kind.OTHER:
            self._kind = _Kind.JSON  # which it should have been
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._must_say_its_end = self._kind is _Kind.EVENTS and answer.ends_with_connection and answer.status < 300
        self._max_whole_bytes = MAX_TRANSLATED_BYTES if translated else MAX_WHOLE_BYTES
        self._was_begun = self._is_whole = False
        self._at_s = 0.0
        self._sent_on_s = 0.0
        self._given_up: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.began = False
        """Whether the client has the answer's head: from then on no other engine can answer."""
        self.first_byte_s: float | None = None
        """From sending the request to the first byte of the body."""
        self.last_byte_s: float | None = None
        """When the engine was last heard of, by :func:`time.perf_counter`."""
        self.longest_pause_s = 0.0
        """Between two pieces of a stream, while the client took them."""
        self.sending_since_s: float | None = None
        """Since when a piece waits for the client to take it; ``None`` while waiting for the engine."""

    async def begin(self) -> str | None:
        """Read until it can be told whether the answer is one, and hold that: of a stream the first event, of JSON the
        whole, up to :data:`MAX_WHOLE_BYTES`, else the first piece. Nothing goes to the client, but comments and pings
        that were held for a second. Returns the error that it is, whatever its status; the caller may then drop this
        relay.

        Raises:
            EngineSilent: it took too long.
            ConnectionLost: the engine was lost. Unless ``began``, nothing went to the client.
        """
        self._was_begun = True
        if not self._answer.has_all_come:
            self._watch()
        try:
            if self._kind is _Kind.EVENTS:
                await self._first_event()
            elif self._kind is _Kind.JSON:
                while self._held_bytes <= self._max_whole_bytes and await self._read_and_hold():
                    pass
                if self._is_whole:
                    self._read_whole(b"".join(self._held))
                elif self._translated:
                    raise ConnectionLost(f"its answer is larger than {MAX_TRANSLATED_BYTES:,} bytes")
            else:
                await self._read_and_hold()
        except ConnectionLost:
            self._raise_if_given_up()
            raise
        finally:
            self._stop_watching()
        return self._observer.error

    async def run(self) -> ServingError | None:
        """Relay what is held, and the rest. Returns the error that a broken stream of events was ended with, if any.

        Raises:
            ServingError: the engine was lost before anything went to the client, or in the middle of an answer that
                can't carry an error; the client's connection is cut then.
        """
        try:
            if not self._was_begun:
                await self.begin()
            await self._rest()
        except ConnectionLost as lost:
            error = _broken(lost)
            if self.began and self._kind is _Kind.EVENTS:
                self.sending_since_s = perf_counter()
                is_inside_event = self._translator is None and self._observer.is_inside_event
                await self._reply.end_with(error, is_inside_event)
                self.sending_since_s = None
                return error
            if self.began:
                self._reply.abort()
            raise error from lost
        return None

    def _read_whole(self, body: bytes) -> None:
        """An answer may be an error, or none at all: cut off by a connection that ended well, or a page of a proxy."""
        self._observer.read_whole(body)
        if self._answer.status == 200 and self._observer.error is None and not _is_json(body):
            self._observer.error = "the answer is no JSON"
        if self._translated is not None:
            try:
                self._held = [self._translated.whole(self._answer.status, body)]
            except Garbled as error:
                raise ConnectionLost(f"its answer can't be translated: {error}") from error

    async def _rest(self) -> None:
        if not self.began:
            await self._start()
        held = b"".join(self._held)
        self._held.clear()
        if self._is_whole:
            await self._end(held)
            return
        self._watch()
        try:
            if held:
                self._note_last_event(held)
                await self._send(held)
            await (self._events() if self._kind is _Kind.EVENTS else self._pieces())
        except ConnectionLost:
            self._raise_if_given_up()
            raise
        finally:
            self._stop_watching()

    async def _first_event(self) -> None:
        """Hold what comes up to the first event. Pings are passed on after a while; with that the answer has begun."""
        held_until_s: float | None = None
        try:
            while not self._observer.has_begun:
                if self._held_bytes > MAX_PINGS_BYTES:
                    if self._max_ping_held_s == inf:
                        raise ConnectionLost("it sent nothing but pings")
                    raise TimeoutError
                if self._held and held_until_s is None:
                    held_until_s = asyncio.get_running_loop().time() + self._max_ping_held_s
                if held_until_s in (None, inf):
                    piece = self._arrived(await self._answer.read())
                else:
                    async with asyncio.timeout_at(held_until_s):  # a read that is broken off loses nothing
                        piece = self._arrived(await self._answer.read())
                if not piece:
                    self._end_without_event()
                    return
                self._hold(await self._shown(piece))
        except TimeoutError:
            await self._start()
            held = b"".join(self._held)
            self._held.clear()
            await self._send(held)

    def _end_without_event(self) -> None:
        self._hold(self._rest_of_stream())
        self._is_whole = True
        if not self._observer.has_begun and self._observer.error is None and 200 <= self._answer.status < 300:
            self._observer.error = "the stream ended before its first event"

    async def _read_and_hold(self) -> bool:
        """Whether there was something; at the end the answer is whole."""
        if piece := self._arrived(await self._answer.read()):
            self._observer.feed(piece, self._at_s)
            self._hold(piece)
            return True
        self._is_whole = True
        return False

    def _hold(self, data: bytes) -> None:
        if data:
            self._held.append(data)
            self._held_bytes += len(data)

    async def _events(self) -> None:
        """What :meth:`_arrived` and :meth:`_send` do, without calling them: this runs once per token."""
        feed = self._observer.feed if self._translator is None else self._feed
        read, send = self._answer.read, self._reply.send
        sent_s = self._sent_s
        while piece := await read():
            now_s = perf_counter()
            if self.last_byte_s is not None and now_s - self.last_byte_s > self.longest_pause_s:
                pause_s = now_s - max(self.last_byte_s, self._sent_on_s)
                self.longest_pause_s = max(self.longest_pause_s, pause_s)
            self.last_byte_s = now_s
            self._at_s = at_s = now_s - sent_s
            shown = feed(piece, at_s) if len(piece) <= MAX_SLICE_BYTES else await self._shown(piece)
            if shown:
                if self._must_say_its_end:
                    self._note_last_event(shown)
                self.sending_since_s = now_s
                await send(shown)
                self.sending_since_s = None
                self._sent_on_s = sent_on_s = perf_counter()
                if sent_on_s - now_s > STALLED_S:
                    self._observer.clock_is_valid = False
        self._raise_if_given_up()
        rest = self._rest_of_stream()
        self._note_last_event(rest)
        if self._must_say_its_end:
            await self._send(rest)
            raise ConnectionLost(NO_LAST_EVENT)
        await self._end(rest)

    def _feed(self, piece: bytes, at_s: float) -> bytes:
        """What the client gets of a piece of a stream."""
        shown = self._observer.feed(piece, at_s)
        if self._translator is None or not shown:
            return shown
        try:
            return self._translator.feed(shown)
        except Garbled as error:
            raise ConnectionLost(f"its answer can't be translated: {error}") from error

    def _rest_of_stream(self) -> bytes:
        """What the client gets at a stream's end."""
        rest = self._observer.end(self._at_s)
        if self._translator is None or self._observer.error is not None:
            return rest
        try:
            return (self._translator.feed(rest) if rest else b"") + self._translator.end()
        except Garbled as error:
            raise ConnectionLost(f"its answer can't be translated: {error}") from error

    def _note_last_event(self, shown: bytes) -> None:
        """An answer that ends with its connection is whole if it has said so itself."""
        if self._must_say_its_end and _LAST_EVENT.search(shown):
            self._must_say_its_end = False

    async def _shown(self, piece: bytes) -> bytes:
        """Of a large piece, with pauses for others."""
        if len(piece) <= MAX_SLICE_BYTES:
            return self._feed(piece, self._at_s)
        shown = []
        for at in range(0, len(piece), MAX_SLICE_BYTES):
            shown.append(self._feed(piece[at : at + MAX_SLICE_BYTES], self._at_s))
            await asyncio.sleep(0)
        return b"".join(shown)

    async def _pieces(self) -> None:
        while piece := self._arrived(await self._answer.read()):
            self._observer.feed(piece, self._at_s)
            await self._send(piece)
        await self._end()

    async def _start(self) -> None:
        self.began = True
        headers = (
            from_cloud(self._answer.headers) if self._is_cloud else to_client(self._answer.headers, self._engine_url)
        )
        if self._kind is _Kind.EVENTS or self._translated:  # events may be taken out, and an error put in
            headers = [header for header in headers if header[0].lower() != b"content-length"]
        await self._reply.start(self._answer.status, [*self._extra_headers, *headers])

    def _arrived(self, piece: bytes) -> bytes:
        if piece:
            self.last_byte_s = now_s = perf_counter()
            self._at_s = now_s - self._sent_s
            if self.first_byte_s is None:
                self.first_byte_s = self._at_s
        else:
            self._raise_if_given_up()  # a body without a length ends as if it were whole when its connection is closed
        return piece

    async def _send(self, data: bytes) -> None:
        self.sending_since_s = begun_s = perf_counter()
        await self._reply.send(data)
        self.sending_since_s = None
        self._sent_on_s = now_s = perf_counter()
        if now_s - begun_s > STALLED_S:
            self._observer.clock_is_valid = False

    async def _end(self, data: bytes = b"") -> None:
        """Send the last piece. The engine has done its part: it is the client that is waited for."""
        self.sending_since_s = perf_counter()
        await self._reply.end(data)
        self.sending_since_s = None

    def give_up(self, why: str) -> None:
        """Take the engine for lost."""
        self._given_up = self._given_up or why
        self._answer.close()

    @property
    def held(self) -> bytes:
        """What :meth:`begin` has read and nobody was sent yet."""
        return b"".join(self._held)

    def _watch(self) -> None:
        """End the answer if the engine was silent for too long; look again when it could have been. So a piece that
        arrives costs no timer."""
        left_s = self._idle_timeout_s
        if self.sending_since_s is None:
            if self.last_byte_s is None:
                left_s = min(left_s, self._sent_s + self._first_byte_timeout_s - perf_counter())
            else:
                left_s += max(self.last_byte_s, self._sent_on_s) - perf_counter()
        if left_s <= 0:
            self.give_up(self._too_long())
        elif left_s < inf:
            self._timer = asyncio.get_running_loop().call_later(left_s, self._watch)

    def _stop_watching(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _too_long(self) -> str:
        if self.last_byte_s is None:
            return f"no first byte within {self._first_byte_timeout_s:g} s (server.first_byte_timeout_s)"
        return f"no byte for {self._idle_timeout_s:g} s (server.idle_timeout_s)"

    def _raise_if_given_up(self) -> None:
        """In place of the end or the loss that follows when the connection is closed."""
        if self._given_up:
            raise EngineSilent(self._given_up)


def _broken(lost: ConnectionLost) -> ServingError:
    if isinstance(lost, EngineSilent):
        return EngineGivenUp(f"the engine was given up in the middle of its answer: {lost}")
    return EngineLost(f"the engine was lost in the middle of its answer: {lost}")


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.MsgspecError, ValueError):
        return False
    except RecursionError:
        pass  # which is no fault of the answer's
    return True


def _kind(answer: Answer, wants_stream: bool) -> _Kind:
    """By its media type; where that is another one, an answer that was not asked for as a stream should be JSON."""
    media_type = b""
    for name, value in answer.headers:
        lower = name.lower()
        if lower == b"content-type":
            media_type = value.partition(b";")[0].strip().lower()
        elif lower == b"content-encoding" and value.strip().lower() != b"identity":
            return _Kind.OTHER
    if media_type == b"text/event-stream":
        return _Kind.EVENTS
    is_json = media_type == b"application/json" or media_type.endswith(b"+json") or not wants_stream
    return _Kind.JSON if is_json else _Kind.OTHER
