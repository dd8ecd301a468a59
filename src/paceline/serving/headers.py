"""Which headers pass from the client to an engine, and back."""

from collections.abc import Collection, Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from paceline import __version__
from paceline.settings import CREDENTIALS
from paceline.wire.client import bearer
from paceline.wire.headers import Headers

USER_AGENT = b"paceline/" + __version__.encode()
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding "
    b"upgrade http2-settings".split()
)
"""RFC 9110, section 7.6.1, and RFC 2616, section 13.5.1."""
_FOR_US = frozenset(
    b"host content-length expect x-paceline-lane x-paceline-learn x-paceline-private x-paceline-deadline-ms "
    b"x-paceline-max-cost origin sec-fetch-site sec-fetch-mode sec-fetch-dest "
    b"sec-fetch-user x-forwarded-for x-forwarded-host x-forwarded-proto".split()
)
"""Who may use the gateway is decided here, so an engine is not asked again whether it likes the page's origin; where a
request came from is written anew."""
_KEYS = frozenset((b"authorization", b"x-api-key"))
"""Headers in which a client shows its key."""
_FROM_CLOUD = frozenset((b"content-type", b"content-length", b"content-encoding", b"retry-after", b"transfer-encoding"))
"""Headers of a provider's answer that go to the client, beside the request's identifier: the others tell of the
operator's account, and of the provider's own machines."""
_CLOUD_IDS = frozenset((b"request-id", b"x-request-id"))


def to_engine(
    headers: Iterable[tuple[bytes, bytes]],
    *,
    api_key: str | None,
    keep_key: bool,
    plain: bool,
    client: str = "",
    is_unpacked: bool = False,
) -> Headers:
    """The headers of a client's request as an engine gets them. Names are lower-case.

    Args:
        api_key: the engine's key; takes the place of the client's.
        keep_key: whether the client's key is meant for the engine; else it is the gateway's and stays here.
        plain: ask for an uncompressed answer, so that it can be observed.
        client: the client's address.
        is_unpacked: whether the body was compressed and no longer is.
    """
    sent = list(headers)
    fields = dict(sent)
    keeps_key = keep_key and api_key is None
    connection = _joined(sent, b"connection") if b"connection" in fields else b""
    dropped = _not_to_engine(connection, keeps_key, plain, is_unpacked)
    kept = [header for header in sent if header[0] not in dropped]
    if forwarded_for := _forwarded_for(sent if b"x-forwarded-for" in fields else (), client):
        kept.append((b"x-forwarded-for", forwarded_for))
    if host := fields.get(b"x-forwarded-host") or fields.get(b"host"):
        kept.append((b"x-forwarded-host", host))
    kept.append((b"x-forwarded-proto", fields.get(b"x-forwarded-proto", b"http")))
    return [*kept, *bearer(api_key)] if api_key else kept


def to_cloud(
    headers: Iterable[tuple[bytes, bytes]], *, passed: Collection[bytes], own: Headers, configured: Headers
) -> Headers:
    """The headers of a client's request as a provider gets them: its own, and of the client's those that are listed.

    Args:
        headers: the client's, names in small letters.
        passed: names of the client's headers that go there.
        own: what each request to the provider must have, its key among it; a client's takes its place where it is
            passed on.
        configured: by the operator; they take the place of both.
    """
    sent = list(headers)
    listed = {name for name, _ in sent if name in passed and name.decode("latin-1") not in CREDENTIALS}
    kept = {name: _joined(sent, name) for name in listed}
    fixed = {b"content-type": b"application/json", b"user-agent": USER_AGENT}
    return list((fixed | dict(own) | kept | dict(configured)).items())


def from_cloud(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of a provider's answer as the client gets them."""
    return [(name, value) for name, value in to_client(headers) if name.lower() in _FROM_CLOUD | _CLOUD_IDS]


def _forwarded_for(headers: Iterable[tuple[bytes, bytes]], client: str) -> bytes:
    """Through whom the request came, the client last."""
    own = client.encode("latin-1", "replace")
    before = _joined(headers, b"x-forwarded-for") if headers else b""
    return b", ".join([part for part in (before, own) if part])


def to_client(headers: Headers, engine_url: str | None = None) -> list[tuple[bytes, bytes]]:
    """The headers of an engine's answer as the client gets them. Which pages may read an answer is said by the gateway,
    and a redirect to the engine's own address leads to the same path of the gateway.

    Args:
        engine_url: the engine's base URL.
    """
    dropped = _not_to_client(_joined(headers, b"connection"))
    kept = []
    for name, value in headers:
        lower = name.lower()
        if lower in dropped or lower.startswith(b"access-control-"):
            continue
        if lower == b"location" and engine_url is not None:
            value = _through_gateway(value, engine_url)
        kept.append((name, value))
    return kept


def header_value(text: str, most: int = 500) -> bytes:
    """Text as a header value: printable ASCII, bounded."""
    text = text[:most]
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if " " <= char <= "~" else "?" for char in text)
    return text.encode()


def _joined(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """All values of a header as one list (RFC 9110, section 5.3)."""
    return b", ".join([value for key, value in headers if key.lower() == name])


@lru_cache(maxsize=256)
def _not_to_engine(connection: bytes, keeps_key: bool, plain: bool, is_unpacked: bool) -> frozenset[bytes]:
    """Names of headers that stay here."""
    more = [b"accept-encoding"] * plain + [b"content-encoding"] * is_unpacked
    return _HOP_BY_HOP | _FOR_US | _named_by_connection(connection) | (frozenset() if keeps_key else _KEYS) | {*more}


@lru_cache(maxsize=256)
def _not_to_client(connection: bytes) -> frozenset[bytes]:
    return _HOP_BY_HOP | _named_by_connection(connection)


def _named_by_connection(value: bytes) -> frozenset[bytes]:
    return frozenset(name.strip().lower() for name in value.split(b",")) if value else frozenset()


def _through_gateway(location: bytes, engine_url: str) -> bytes:
    """Without the engine's address, if it is the engine's."""
    engine, target = urlsplit(engine_url), location.decode("latin-1")
    try:
        there = urlsplit(target)
    except ValueError:
        return location
    if there.netloc.lower() != engine.netloc.rpartition("@")[2].lower():
        return location
    base = engine.path.rstrip("/").removesuffix("/v1")  # which is left off when it is asked, too
    path = there.path.removeprefix(base) if there.path.startswith(f"{base}/") else there.path or "/"
    return (path + (f"?{there.query}" if there.query else "")).encode("latin-1")
