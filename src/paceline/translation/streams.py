"""What the translators of streams share: whole events in, events of another dialect out."""

import re
from typing import Any, Protocol

import msgspec

from paceline.engines.events import name_and_data
from paceline.translation.parts import Garbled

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""Of one event: the last ones of OpenAI's responses hold the whole text once more."""
DONE = b"[DONE]"
"""The data of the last event of a chat's stream."""
_END = re.compile(rb"(?>\r\n?|\n)(?>\r\n?|\n)")
"""Of an event, as ``engines/events.py`` has it. Where a piece is cut within it, what is left over is an empty line."""


class StreamTranslator(Protocol):
    """Translates one stream of events."""

    def feed(self, piece: bytes) -> bytes:
        """Take in a piece of the engine's stream, wherever it is cut. Returns whole events for the client, or nothing.

        Raises:
            Garbled: an event is none of the engine's dialect.
        """
        ...

    def end(self) -> bytes:
        """The stream is over. Returns what is left for the client.

        Raises:
            Garbled: it ended before its last event.
        """
        ...


class EventTranslator:
    """Splits a stream into events and has each translated; to be derived from, one class for a direction."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """Of an event whose end has not come yet."""
        self.has_ended = False
        """Whether its last event was translated."""

    def feed(self, piece: bytes) -> bytes:
        """As :class:`StreamTranslator` has it."""
        if not self._rest and piece.endswith(b"\n\n") and piece.find(b"\n\n") == len(piece) - 2 and b"\r" not in piece:
            return self._event(piece)  # one event: nearly all pieces
        rest, translated, begin = self._rest, [], 0
        search_from = max(0, len(rest) - 3)  # an end may have begun within what was searched before
        rest += piece
        while match := _END.search(rest, search_from):
            translated.append(self._event(bytes(rest[begin : match.end()])))
            begin = search_from = match.end()
        del rest[:begin]
        if len(rest) > MAX_EVENT_BYTES:
            raise Garbled(f"an event of its stream is larger than {MAX_EVENT_BYTES:,} bytes")
        return b"".join(translated)

    def end(self) -> bytes:
        """As :class:`StreamTranslator` has it."""
        left = self._event(bytes(self._rest)) if self._rest else b""
        self._rest.clear()
        if not self.has_ended:
            raise Garbled("its stream ended without its last event")
        return left

    def _event(self, event: bytes) -> bytes:
        name, data = name_and_data(event)
        if self.has_ended:
            return b""
        if not data:
            return event if event.startswith(b":") else b""  # comments keep connections alive, in any dialect
        try:
            return self.translate(name, data)
        except (AttributeError, KeyError, TypeError) as odd:  # an object where a list should be, and the like
            raise Garbled("an event of its stream is none of its dialect") from odd

    def translate(self, name: bytes, data: bytes) -> bytes:
        """One event's translation: none, one, or several events.

        Raises:
            Garbled: it is none of the engine's dialect.
        """
        raise NotImplementedError


def named(name: str, document: Any) -> bytes:
    """An event as Anthropic and OpenAI's responses have them, with its name."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(document))


def unnamed(document: Any) -> bytes:
    """An event as chat has them."""
    return b"data: %b\n\n" % msgspec.json.encode(document)


def decoded(data: bytes) -> dict[str, Any]:
    """The JSON object in an event.

    Raises:
        Garbled: there is none.
    """
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Garbled("an event of its stream is not JSON") from error
    if not isinstance(document, dict):
        raise Garbled("an event of its stream is no JSON object")
    return document
