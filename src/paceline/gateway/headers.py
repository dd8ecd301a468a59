"""Which headers pass from the client to an engine, and back."""

from collections.abc import Iterable

from paceline.http.client import Headers

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
"""RFC 9110, section 7.6.1, and RFC 2616, section 13.5.1."""
_NOT_TO_ENGINE = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"x-paceline-lane", b"x-paceline-learn"}
_KEYS = frozenset((b"authorization", b"x-api-key"))


def to_engine(headers: Iterable[tuple[bytes, bytes]], *, api_key: str | None, keep_key: bool, plain: bool) -> Headers:
    """The headers of a client's request as an engine gets them. Names are lower-case, as in ASGI.

    Args:
        api_key: the engine's key; takes the place of the client's.
        keep_key: whether the client's key is meant for the engine; else it is the gateway's and stays here.
        plain: ask for an uncompressed answer, so that it can be observed.
    """
    dropped = _NOT_TO_ENGINE
    if api_key is not None or not keep_key:
        dropped |= _KEYS
    if plain:
        dropped |= {b"accept-encoding"}
    kept = [(name, value) for name, value in headers if name not in dropped]
    if api_key is not None:
        kept.append((b"authorization", b"Bearer " + api_key.encode()))
    return kept


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The API key that a client sent, either way; empty where it sent none."""
    found = dict(headers)
    scheme, _, token = found.get(b"authorization", b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else found.get(b"x-api-key", b"")


def to_client(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of an engine's answer as the client gets them."""
    return [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]


def printable(text: str) -> bytes:
    """Text as a header value: printable ASCII, bounded."""
    text = text[:500]
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if " " <= char <= "~" else "?" for char in text)
    return text.encode()
