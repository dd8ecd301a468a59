"""Who may: the Host that a request names, the page that it comes from, the key that it shows.

A web page that a person opens can send requests to any address that the person's machine reaches. Three things tell
it apart: browsers name the page's origin (``Origin``, ``Sec-Fetch-Site``), a form or a script can't set
``Authorization``, and a page whose own name was made to resolve here (DNS rebinding) sends that name as ``Host``.
"""

import hmac
import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

from msgspec import Struct

from paceline.api_keys import given_key, resolved
from paceline.configuration import is_address, is_loopback
from paceline.globs import any_matches, compiled
from paceline.http.errors import ApiError
from paceline.http.routes import CLIENT_PATHS, Audience
from paceline.serving.errors import bounded
from paceline.settings import Configuration
from paceline.wire.headers import Headers

EXPOSED = b"x-paceline-lane, x-paceline-reason, x-request-id, retry-after"
"""Headers of an answer that a page of a listed origin may read beside the usual ones."""
PREFLIGHT_METHODS = ("GET", "POST", "DELETE", "OPTIONS")
"""What llama-server names to every page, whichever the address. The answer to another method than the address takes,
405 with ``Allow``, can then be read by the page, which it can't read of a preflight."""
PREFLIGHT_KEPT_S = 600
"""How long a browser may keep the answer to a preflight."""
CHALLENGE = (b"www-authenticate", b'Bearer realm="paceline"')
_IPV4_IN_SHORT = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}")
"""``127.1``, which is an address to every resolver, and never a name."""
_DEFAULT_PORT = re.compile(r"(?<=.):(?:80|443)\Z")


class Caller(Struct, frozen=True):
    """Who sent a request, as far as its key tells."""

    name: str | None = None
    """The name of its key; ``None`` where no key is asked for."""
    is_admin: bool = False
    paths: tuple[re.Pattern[str], ...] = ()
    """What its key opens; an administrator's opens everything."""
    named_paths: tuple[str, ...] = ()
    """As configured: an administrators' address is opened by its own name alone, such as ``/metrics``."""


ANYONE = Caller()
OWNER = Caller(is_admin=True)
"""Where no key is asked for, who reaches the gateway is who runs it."""


class Access:
    """The rules of one configuration.

    Raises:
        ConfigurationError: a key's ``env:`` names a variable that is not set.
    """

    def __init__(self, configuration: Configuration) -> None:
        server = configuration.server
        self._keys = _keys(configuration)
        self._origins = compiled(server.cors)
        self._hosts = compiled(server.hosts)
        self._checks_host = is_loopback(server.host)

    @property
    def asks_for_keys(self) -> bool:
        """Whether clients have to show a key."""
        return bool(self._keys)

    def check_origin(self, headers: Headers, opens_a_page: bool) -> None:
        """Refuse requests of foreign pages and to foreign names.

        Args:
            opens_a_page: whether the path is a page that holds no data, which a link elsewhere may lead to.

        Raises:
            ApiError: 421 or 403.
        """
        fields = dict(headers)
        host = fields.get(b"host", b"").decode("latin-1")
        if self._checks_host and not self._is_own_host(host):
            raise ApiError(
                421,
                f"this gateway does not go by the name {bounded(host)!r}; if it should, list it in server.hosts",
                "unknown_host",
            )
        origin = fields.get(b"origin")
        if origin is not None:
            if not self._is_allowed(origin.decode("latin-1"), host):
                raise ApiError(
                    403,
                    f"pages of {bounded(origin.decode('latin-1'))!r} may not use this gateway; if they should, list "
                    "the origin in server.cors",
                    "foreign_origin",
                )
        elif fields.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin") and not (
            opens_a_page and fields.get(b"sec-fetch-mode") == b"navigate"
        ):
            raise ApiError(403, "pages of other origins may not use this gateway (server.cors)", "foreign_origin")

    def identify(self, headers: Headers) -> Caller:
        """Who sends a request.

        Raises:
            ApiError: 401, no valid key is shown where one is asked for.
        """
        if not self._keys:
            return OWNER
        given = given_key(headers)
        sender: Caller | None = None
        for key, caller in self._keys:  # all are compared, so that the time tells nothing
            if hmac.compare_digest(given, key):
                sender = caller
        if sender is None:
            raise ApiError(
                401,
                "a valid API key is needed: Authorization: Bearer KEY, or x-api-key: KEY",
                "invalid_api_key",
                headers=[CHALLENGE],
            )
        return sender

    def admit(self, caller: Caller, audience: Audience, path: str) -> None:
        """Whether a client may use a path.

        Raises:
            ApiError: 403, the key does not open it.
        """
        if caller.is_admin or audience is Audience.ANYONE or path in caller.named_paths:
            return
        segments = re.split(r"[/\\]", unquote(path))  # as the oddest of engines may read it
        is_plain = not any(segment.partition(";")[0] == ".." for segment in segments)
        if audience is Audience.CLIENTS and is_plain and any_matches(caller.paths, path):
            return
        wanted = "an administrator's key (server.admin_key, or a [[key]] with admin = true)"
        raise ApiError(403, f"the key {caller.name!r} does not open {bounded(path)}; {wanted} does", "forbidden")

    def cors_headers(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """What an answer needs so that a page of a listed origin may read it; nothing for all others."""
        if not self._origins:
            return []
        origin = dict(headers).get(b"origin")
        if origin is None or not any_matches(self._origins, origin.decode("latin-1")):
            return []
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED),
            (b"vary", b"origin"),
        ]

    def preflight_headers(self, headers: Headers, methods: Sequence[str]) -> list[tuple[bytes, bytes]]:
        """The answer to OPTIONS, a browser's preflight or not, beside what :meth:`cors_headers` gives every answer."""
        answer = [(b"allow", ", ".join(methods).encode())]
        if not self.cors_headers(headers):
            return answer
        asked = dict(headers)
        answer += [
            (b"access-control-allow-methods", ", ".join(dict.fromkeys((*PREFLIGHT_METHODS, *methods))).encode()),
            (
                b"access-control-allow-headers",
                asked.get(b"access-control-request-headers", b"authorization, content-type"),
            ),
            (b"access-control-max-age", b"%d" % PREFLIGHT_KEPT_S),
        ]
        if asked.get(b"access-control-request-private-network") == b"true":
            answer.append((b"access-control-allow-private-network", b"true"))
        return answer

    def _is_allowed(self, origin: str, host: str) -> bool:
        is_own = "://" in origin and _authority(origin) == _authority(host)
        return is_own or any_matches(self._origins, origin)

    def _is_own_host(self, host: str) -> bool:
        return _is_local(host) or any_matches(self._hosts, _name_of(host))


def _keys(configuration: Configuration) -> list[tuple[bytes, Caller]]:
    server = configuration.server
    everything = compiled(CLIENT_PATHS)
    keys = [
        (
            key.key,
            Caller(name=key.name, is_admin=key.admin, paths=compiled(key.paths) or everything, named_paths=key.paths),
        )
        for key in configuration.key
    ]
    keys += [(key, Caller(name=f"key {number}", paths=everything)) for number, key in enumerate(server.api_keys, 1)]
    if server.admin_key is not None:
        keys.append((server.admin_key, Caller(name="admin", is_admin=True)))
    if len(keys) == 1 and server.api_keys:
        keys = [(keys[0][0], Caller(name="key 1", is_admin=True))]  # one person's own
    return [(resolved(key).encode(), caller) for key, caller in keys]


@lru_cache(maxsize=256)
def _is_local(host: str) -> bool:
    """Whether a ``Host`` is a name that nobody else can make to point here, or an address."""
    name = _name_of(host)
    # No name in the public DNS is without a dot.
    return (
        "." not in name
        or name.endswith((".localhost", ".internal"))
        or is_address(name)
        or bool(_IPV4_IN_SHORT.fullmatch(name))
    )


def _name_of(host: str) -> str:
    return _without_port(host).lower().rstrip(".")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host


def _authority(origin_or_host: str) -> str:
    """Host and port in one spelling."""
    return _DEFAULT_PORT.sub("", origin_or_host.lower().rpartition("://")[2])
