"""Server-sent events, split where the standard says that they end, with their bytes kept as they came.

After https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end with LF, CR or CRLF, in any mixture; an
empty line ends an event; one blank after a field's colon does not belong to its value; a line that begins with a colon
is a comment; a stream may begin with a byte order mark.
"""

import re
from collections.abc import Sequence

MAX_EVENT_BYTES = 64 * 1024
"""Of an event that arrives in pieces, at most this much is held until its end; the rest is given out as it arrives. The
longest events of an ordinary answer are the last ones of OpenAI's responses, which hold the whole text once more."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_END = re.compile(rb"(?>\r\n?|\n)(?>\r\n?|\n)")


class Part(bytes):
    """A part of an event that was given out before its end: because it is too long to be held, or because its last CR
    turned out to be the first half of a CRLF."""


class Beginning(Part):
    """The first part of an event that is too long to be held."""


class EventReader:
    """Splits one stream. What it gives out is, joined, what it was fed."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._ended_with_cr = False
        self.is_inside = False
        """Whether the beginning of an event was given out whose end has not come yet."""

    @property
    def is_between_events(self) -> bool:
        """Whether all that it was fed was given out, up to the end of an event."""
        return not (self._rest or self._ended_with_cr or self.is_inside)

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The events that end within ``data``, each with all its bytes from the end of the event before it; those of
        class :class:`Part` are no whole ones."""
        size = len(data)
        if self.is_between_events:
            # One event, ended by LF LF, or one line of an event, ended by CRLF CRLF: nearly all pieces.
            if data.endswith(b"\n\n"):
                if data.find(b"\n\n") == size - 2 and b"\r" not in data:
                    return (data,)
            elif data.endswith(b"\r\n\r\n") and data.find(b"\n") == size - 3 and data.find(b"\r") == size - 4:
                return (data,)
        if not (self.is_inside or self._ended_with_cr) and b"\r" not in data and b"\r" not in self._rest:
            *events, rest = (bytes(self._rest) + data).split(b"\n\n")
            if len(rest) <= MAX_EVENT_BYTES:
                self._rest[:] = rest
                return [event + b"\n\n" for event in events]
        return self._split(data)

    def end(self) -> bytes:
        """What is left at the stream's end: an event without an end, mostly nothing."""
        left = Part(self._rest) if self.is_inside else bytes(self._rest)
        self._rest.clear()
        return left

    def _split(self, data: bytes) -> list[bytes]:
        events: list[bytes] = []
        if self._ended_with_cr and data:
            self._ended_with_cr = False
            if data.startswith(b"\n"):
                events.append(Part(b"\n"))
                data = data[1:]
        rest, begin = self._rest, 0
        search_from = max(0, len(rest) - 2)  # an end may have begun within what was searched before
        rest += data
        while match := _END.search(rest, search_from):
            end = match.end()
            events.append(Part(rest[begin:end]) if self.is_inside else bytes(rest[begin:end]))
            self.is_inside = False
            begin = search_from = end
        if begin:
            self._ended_with_cr = begin == len(rest) and rest.endswith(b"\r")
            del rest[:begin]
        if len(rest) > (2 if self.is_inside else MAX_EVENT_BYTES):
            kind = Part if self.is_inside else Beginning
            events.append(kind(rest[:-2]))  # the last bytes may be half of the end
            del rest[:-2]
            self.is_inside = True
        return events


def name_and_data(event: bytes) -> tuple[bytes, bytes]:
    """An event's name and its data, both empty where it has none. The field ``error`` of llama.cpp's older streams
    counts as an event of that name."""
    if event.startswith(b"data:"):
        line = event.rstrip(b"\r\n")
        if b"\n" not in line and b"\r" not in line:
            return b"", line[6:] if line.startswith(b"data: ") else line[5:]
    name, data = b"", []
    for line in event.removeprefix(BYTE_ORDER_MARK).splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"error":
            name = field
            data.append(value)
    return name, b"\n".join(data)
