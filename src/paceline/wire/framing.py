"""Where the body of a request ends: of announced length, or in chunks.

llhttp could tell, but httptools does not say at which byte, and that is what the next request begins with.
"""

import re

from paceline.wire.message import Refused

MAX_CHUNK_LINE_BYTES = 4096
"""A chunk's size with its extensions, or one trailer. Nobody sends more than a few dozen."""
MAX_CHUNK_EXTRAS_BYTES = 16 * 1024
"""All extensions and trailers of one body; Node.js has the same bound since CVE-2024-22019."""
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:;[\t -~\x80-\xff]*)?)\r\n")
_PLAIN_CHUNK_SIZE = re.compile(rb"(0{0,8}[1-9A-Fa-f][0-9A-Fa-f]{0,7})\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n")


class LengthBody:
    """A body whose length was announced."""

    def __init__(self, length: int) -> None:
        self.is_complete = length == 0
        self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """What of ``data`` is the body's, and what lies behind its end."""
        content = data if len(data) <= self._left else data[: self._left]
        self._left -= len(content)
        self.is_complete = self._left == 0
        return content, data[len(content) :]


class ChunkedBody:
    """A body in chunks (RFC 9112, section 7.1). Extensions and trailers are checked, counted and dropped."""

    def __init__(self) -> None:
        self.is_complete = False
        self._left = 0  # of the chunk, with the CRLF at its end
        self._line = b""  # what has arrived of a line that is not whole yet
        self._in_trailers = False
        self._extras_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The content of ``data``, and what lies behind the body's end.

        Raises:
            Refused: these are no chunks.
        """
        if self._line:
            data, self._line = self._line + data, b""
        content = []
        position = 0
        while position < len(data) and not self.is_complete:
            # 1. A chunk that begins with a size and nothing else.
            if self._left == 0 and not self._in_trailers and (plain := _PLAIN_CHUNK_SIZE.match(data, position)):
                begin, size = plain.end(), int(plain[1], 16)
                position = begin + size
                content.append(data[begin:position])
                self._left = 2 + max(0, position - len(data))
                if data.startswith(b"\r\n", position):  # the usual case, and the one that must be quick
                    position += 2
                    self._left = 0
            # 2. The rest of a chunk that began in an earlier piece.
            elif self._left > 2:
                piece = data[position : position + self._left - 2]
                content.append(piece)
                position += len(piece)
                self._left -= len(piece)
            # 3. The line's end behind a chunk.
            elif self._left:
                if data[position] != (13 if self._left == 2 else 10):
                    raise Refused(400, "a chunk of the body does not end where its size says")
                position += 1
                self._left -= 1
            # 4. Any other line: a size with extensions, or a trailer.
            else:
                end = data.find(b"\n", position) + 1
                if (end or len(data)) - position > MAX_CHUNK_LINE_BYTES:
                    raise Refused(400, f"a line between the body's chunks is longer than {MAX_CHUNK_LINE_BYTES} bytes")
                if not end:
                    self._line = data[position:]
                    if b"\r" in self._line[:-1]:
                        raise Refused(400, "a line between the body's chunks has a CR without LF")
                    return b"".join(content), b""
                self._take_line(data[position:end])
                position = end
        return content[0] if len(content) == 1 else b"".join(content), data[position:]

    def _take_line(self, line: bytes) -> None:
        if not self._in_trailers:
            size = _CHUNK_SIZE.fullmatch(line)
            if not size:
                raise Refused(400, "the size of a chunk of the body is no hexadecimal number")
            self._extras_bytes += len(size[2])
            length = int(size[1], 16)
            self._in_trailers = length == 0
            self._left = length + 2 if length else 0
        elif line == b"\r\n":
            self.is_complete = True
        elif _TRAILER.fullmatch(line):
            self._extras_bytes += len(line)
        else:
            raise Refused(400, "what follows the body's last chunk is neither a trailer nor its end")
        if self._extras_bytes > MAX_CHUNK_EXTRAS_BYTES:
            raise Refused(400, f"the body's chunks carry more than {MAX_CHUNK_EXTRAS_BYTES} bytes of extensions")
