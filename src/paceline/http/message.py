"""HTTP/1.1 messages as a server sees them: the head of a request, the framing of its body, the head of an answer.

Only bytes, no sockets. llhttp (by way of httptools) judges the head, which it is given whole: it then has nothing to
keep, and an offer to upgrade, at which it stops, costs nothing. Bodies are framed here, because the byte at which one
ends has to be known, and httptools does not tell it.
"""

import re
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec

Headers = list[tuple[bytes, bytes]]

MAX_HEADERS = 256
"""Headers of one request; browsers and SDKs send 10 to 40, nginx and haproxy stop at about 100."""
MAX_CHUNK_LINE_BYTES = 4096
"""A chunk's size with its extensions, or one trailer. Nobody sends more than a few dozen."""
MAX_CHUNK_EXTRAS_BYTES = 16 * 1024
"""All extensions and trailers of one body; Node.js has the same bound since CVE-2024-22019."""
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)([^#]*)")
_VERSION = re.compile(rb" HTTP/(\d+(?:\.\d+)?)$")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:;[\t -~\x80-\xff]*)?)\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n")
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Refused(Exception):
    """A request that HTTP itself turns down.

    Args:
        message: for people: what is wrong and what to do.
        code: for programs, in OpenAI's manner.
        retry_after_s: when trying again may help, in whole seconds.
    """

    def __init__(self, status: int, message: str, code: str = "invalid_http", retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.retry_after_s = status, message, code, retry_after_s

    def answer(self) -> tuple[Headers, bytes]:
        """Headers and JSON body of the error, in OpenAI's shape."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": None, "code": self.code}
        body = msgspec.json.encode({"error": error})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after_s))
        return headers, body


class RequestHead:
    """A request's line and headers.

    Args:
        head: all of it, with the empty line at its end.

    Raises:
        Refused: it is no HTTP/1.0 or 1.1, or its framing is open to doubt.
    """

    def __init__(self, head: bytes) -> None:
        self.headers: Headers = []
        self.content_length = 0
        self.is_chunked = False
        self.expects_continue = False
        self.keep_alive = False
        self._url = b""
        self._is_complete = False
        version = _VERSION.search(head, 0, head.index(b"\r\n"))
        if version and version[1] not in (b"1.0", b"1.1"):
            raise Refused(505, f"HTTP/{version[1].decode()} is not spoken here; use HTTP/1.1")
        parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # an offer that a server may pass over (RFC 9110, section 7.8)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise Refused(400, f"the request is not HTTP/1.1: {error}") from None
        if not version or not self._is_complete:
            raise Refused(400, "the request is not HTTP/1.1")
        self.version = version[1].decode()
        self.method: str = parser.get_method().decode()
        self._check_framing()
        self._check_target()

    def _check_framing(self) -> None:
        hosts = 0
        encodings = []
        for name, value in self.headers:
            if name == b"content-length":
                self.content_length = int(value)
            elif name == b"transfer-encoding":
                encodings.append(value.lower())
            elif name == b"host":
                hosts += 1
                if not _HOST.fullmatch(value):
                    raise Refused(400, "the Host header holds what no host's name can")
            elif name == b"expect":
                self.expects_continue = value.lower() == b"100-continue" and self.version == "1.1"
        if hosts > 1 or (hosts == 0 and self.version == "1.1"):
            raise Refused(400, f"a request must have one Host header, this one has {hosts or 'none'}")
        if encodings:
            if self.version == "1.0":
                raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
            if encodings != [b"chunked"]:
                raise Refused(501, "of transfer encodings only 'chunked' is understood")
            self.is_chunked = True

    def _check_target(self) -> None:
        if self.method == "CONNECT":
            raise Refused(405, "this is no proxy: CONNECT is not offered", "method_not_allowed")
        target = self._url.partition(b"#")[0]
        if not target.startswith(b"/") and not (target == b"*" and self.method == "OPTIONS"):
            absolute = _ABSOLUTE.fullmatch(target)
            if not absolute:
                raise Refused(400, "the request's target must be a path or an http URL")
            authority = absolute[1].rpartition(b"@")[2]  # takes the place of Host (RFC 9112, section 3.2.2)
            if not _HOST.fullmatch(authority):
                raise Refused(400, "the URL of the request holds what no host's name can")
            self.headers = [header for header in self.headers if header[0] != b"host"]
            self.headers.insert(0, (b"host", authority))
            target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        path, _, self.query = target.partition(b"?")
        self.target = target.decode("latin-1")
        plain = path.decode("latin-1")
        self.path = unquote(plain) if "%" in plain else plain

    # httptools' callbacks

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) == MAX_HEADERS:
            raise Refused(431, f"the request has more than {MAX_HEADERS} headers", "headers_too_large")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_complete = True
        self.keep_alive = self._parser.should_keep_alive()


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
            if self._left > 2:
                piece = data[position : position + self._left - 2]
                content.append(piece)
                position += len(piece)
                self._left -= len(piece)
            elif self._left:
                if data[position] != (13 if self._left == 2 else 10):
                    raise Refused(400, "a chunk of the body does not end where its size says")
                position += 1
                self._left -= 1
            else:
                end = data.find(b"\n", position) + 1
                if (end or len(data)) - position > MAX_CHUNK_LINE_BYTES:
                    raise Refused(400, f"a line between the body's chunks is longer than {MAX_CHUNK_LINE_BYTES} bytes")
                if not end:
                    self._line = data[position:]
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


def answer_head(status: int, headers: Headers) -> bytes:
    """Status line and headers as they are sent.

    Raises:
        ValueError: a header would end before its end, or the status is none.
    """
    line = _STATUS_LINES.get(status) or (b"HTTP/1.1 %d \r\n" % status if 200 <= status <= 999 else b"")
    parts: list[Any] = [line]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
    parts.append(b"\r\n")
    head = b"".join(parts)
    lines = len(headers) + 2
    if not line or head.count(b"\n") != lines or head.count(b"\r") != lines or b"\0" in head:
        raise ValueError(f"no head of an answer: status {status}, headers {headers!r}")
    return head
