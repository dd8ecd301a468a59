"""The heads of HTTP/1.1 messages as a server sees them: of a request, and of an answer. Only bytes, no sockets.

llhttp (by way of httptools) judges a request's head, which it is given whole: it then has nothing to keep, and an offer
to upgrade, at which it stops, costs nothing.
"""

import re
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
import msgspec

from paceline.wire.headers import Headers

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MAX_HEADERS = 256
"""Headers of one request; browsers and SDKs send 10 to 40, nginx and haproxy stop at about 100."""
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host", b"connection", b"expect"))
_HOST_CHARACTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~!$&'()*+,;=%:[]-"
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)([^#]*)")
_SPOKEN = {b" HTTP/1.0": "1.0", b" HTTP/1.1": "1.1"}
_VERSION = re.compile(rb" HTTP/(\d+(?:\.\d+)?)$")
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


class _Parsed:
    """httptools' callbacks."""

    __slots__ = ("headers", "is_complete", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.is_complete = True


class RequestHead:
    """A request's line and headers.

    Args:
        head: all of it, with the empty line at its end.

    Raises:
        Refused: it is no HTTP/1.0 or 1.1, or its framing is open to doubt.
    """

    __slots__ = (
        "content_length",
        "expects_continue",
        "headers",
        "is_chunked",
        "keep_alive",
        "method",
        "path",
        "query",
        "target",
        "version",
    )

    def __init__(self, head: bytes) -> None:
        line = head[: head.index(b"\r\n")]
        version = line[-9:]
        if version not in _SPOKEN and (other := _VERSION.search(line)):
            raise Refused(505, f"HTTP/{other[1].decode()} is not spoken here; use HTTP/1.1")
        parsed = _Parsed()
        parser = httptools.HttpRequestParser(parsed)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # an offer that a server may pass over (RFC 9110, section 7.8)
        except httptools.HttpParserError as error:
            raise Refused(400, f"the request is not HTTP/1.1: {error}") from None
        if version not in _SPOKEN or not parsed.is_complete:
            raise Refused(400, "the request is not HTTP/1.1")
        if len(parsed.headers) > MAX_HEADERS:
            raise Refused(431, f"the request has more than {MAX_HEADERS} headers", "headers_too_large")
        self.version = _SPOKEN[version]
        self.method: str = parser.get_method().decode()
        self.headers = parsed.headers
        self._check_framing()
        self._check_target(parsed.url)

    def _check_framing(self) -> None:
        # 1. What its headers say of it.
        self.content_length = 0
        self.is_chunked = self.expects_continue = False
        self.keep_alive = self.version == "1.1"
        hosts = 0
        connection = b""
        encodings = []
        for name, value in self.headers:
            if name not in _FRAMING:
                continue
            if name == b"content-length":
                self.content_length = int(value)
            elif name == b"transfer-encoding":
                encodings.append(value.lower())
            elif name == b"host":
                hosts += 1
                if value.translate(None, _HOST_CHARACTERS):
                    raise Refused(400, "the Host header holds what no host's name can")
            elif name == b"connection":
                connection += b"," + value.lower()
            elif name == b"expect":
                self.expects_continue = value.lower() == b"100-continue" and self.version == "1.1"
        # 2. Whether they agree (RFC 9112, sections 3.2 and 6.1).
        if hosts > 1 or (hosts == 0 and self.version == "1.1"):
            raise Refused(400, f"a request must have one Host header, this one has {hosts or 'none'}")
        if encodings:
            if self.version == "1.0":
                raise Refused(400, "HTTP/1.0 has no Transfer-Encoding")
            if encodings != [b"chunked"]:
                raise Refused(501, "of transfer encodings only 'chunked' is understood")
            self.is_chunked = True
        # 3. Whether the connection is kept (RFC 9112, section 9.3).
        if connection:
            tokens = {token.strip() for token in connection.split(b",")}
            self.keep_alive = b"close" not in tokens and (self.version == "1.1" or b"keep-alive" in tokens)

    def _check_target(self, url: bytes) -> None:
        if self.method == "CONNECT":
            raise Refused(405, "this is no proxy: CONNECT is not offered", "method_not_allowed")
        target = url.partition(b"#")[0] if b"#" in url else url
        if not target.startswith(b"/") and not (target == b"*" and self.method == "OPTIONS"):
            absolute = _ABSOLUTE.fullmatch(target)
            if not absolute:
                raise Refused(400, "the request's target must be a path or an http URL")
            authority = absolute[1].rpartition(b"@")[2]  # takes the place of Host (RFC 9112, section 3.2.2)
            if authority.translate(None, _HOST_CHARACTERS):
                raise Refused(400, "the URL of the request holds what no host's name can")
            self.headers = [header for header in self.headers if header[0] != b"host"]
            self.headers.insert(0, (b"host", authority))
            target = absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
        path, _, self.query = target.partition(b"?")
        self.target = target.decode("latin-1")
        plain = path.decode("latin-1")
        self.path = unquote(plain) if "%" in plain else plain


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
