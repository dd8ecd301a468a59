"""The way to a provider through a company's proxy: a tunnel by ``CONNECT`` (RFC 9110, section 9.3.6), so that the proxy
sees the provider's name and nothing of what is said."""

import asyncio
from base64 import b64encode
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

MAX_HEAD_BYTES = 64 * 1024
"""Of the proxy's answer."""
DEFAULT_PORT = 80


class ProxyRefused(OSError):
    """A proxy did not open the tunnel; ``str()`` says why."""


class Proxy:
    """A proxy that is spoken to over HTTP.

    Args:
        url: ``http://proxy.example:3128``, with a user's name and password where it wants them.

    Raises:
        ValueError: it is no such address.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"HTTPS_PROXY: {parts.scheme}:// is not spoken to proxies; write http://HOST:PORT")
        self.host = parts.hostname
        self.port = parts.port or DEFAULT_PORT
        user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        self._credentials = b64encode(user.encode()) if parts.username else b""

    async def tunnel(self, host: str, port: int) -> asyncio.Transport:
        """A transport that leads to a port of a host.

        Raises:
            OSError: there is none.
        """
        asking = _Asking()
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: asking, self.host, self.port)
        try:
            authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
            if self._credentials:
                lines.append(f"Proxy-Authorization: Basic {self._credentials.decode()}")
            transport.write("\r\n".join([*lines, "", ""]).encode())
            status = _status(await asking.head)
            if not 200 <= status < 300:
                raise ProxyRefused(f"the proxy {self.host}:{self.port} answered {status or 'with no HTTP'}")
        except BaseException:
            transport.abort()
            raise
        return transport


def proxy_for(host: str) -> Proxy | None:
    """The proxy through which a host is reached over TLS, by the environment's variables as other programs read them:
    ``HTTPS_PROXY`` or ``ALL_PROXY``, but for the hosts of ``NO_PROXY``.

    Raises:
        ValueError: the variable holds no address that can be used.
    """
    proxies = getproxies_environment()
    url = proxies.get("https") or proxies.get("all")
    return None if not url or proxy_bypass_environment(host, proxies) else Proxy(url)


class _Asking(asyncio.Protocol):
    """Waits for the head of a proxy's answer; what follows is another protocol's."""

    def __init__(self) -> None:
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._came = b""

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self.head.done() and (b"\r\n\r\n" in self._came or len(self._came) > MAX_HEAD_BYTES):
            self.head.set_result(self._came)

    def connection_lost(self, _: Any) -> None:
        if not self.head.done():
            self.head.set_exception(ProxyRefused("the proxy closed the connection"))
            self.head.exception()  # where nobody waits for it any more


def _status(head: bytes) -> int:
    """Of an answer; 0 where it is none."""
    version, _, rest = head.partition(b" ")
    return int(rest[:3]) if version.startswith(b"HTTP/1.") and rest[:3].isdigit() else 0
