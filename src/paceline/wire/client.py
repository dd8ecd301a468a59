"""A small HTTP/1.1 client for engines, on httptools' parser: bytes in, bytes out, nothing decoded.

A general client costs more than the rest of the gateway together (docs/decisions/0002); this one does what a
relay needs: reuse of connections, the answer's head, then its body piece by piece as it arrives, with
backpressure, and a connection that is closed at once when the answer is no longer wanted.
"""

import asyncio
import os
import re
import ssl
from collections import deque
from collections.abc import Iterable
from typing import Self
from urllib.parse import SplitResult, urlsplit, urlunsplit

from paceline.wire.connection import ConnectionLost, EngineConnection
from paceline.wire.headers import Headers
from paceline.wire.proxy import Proxy, proxy_for
from paceline.wire.struck import Striker, forms

IDLE_LIMIT_S = 4.0
"""An idle connection older than this is closed; llama-server closes its own after 5 s."""
MAX_WHOLE_ANSWER_BYTES = 16 * 1024 * 1024
"""Of an answer that is wanted whole: model lists, health, an error. What is relayed is not kept."""

__all__ = [
    "Answer",
    "AnswerTooLarge",
    "Client",
    "ConnectFailed",
    "ConnectionLost",
    "bearer",
    "without_credentials",
]


class ConnectFailed(Exception):
    """No connection could be made: nothing was sent.

    Args:
        in_time: whether that was known before the time to connect was over, as where nobody listens.
    """

    def __init__(self, message: str, *, in_time: bool = True) -> None:
        super().__init__(message)
        self.in_time = in_time


class AnswerTooLarge(ConnectionLost):
    """An answer that was wanted whole was larger than what is kept; its connection was closed."""


class Answer:
    """An engine's answer: the head is there, the body arrives with :meth:`read`."""

    ends_with_connection = False
    """Whether its end is that of the connection, so that an engine that dies seems to have answered in full."""

    def __init__(self, connection: EngineConnection, secrets: tuple[bytes, ...] = ()) -> None:
        self._connection = connection
        self._striker = Striker(secrets) if secrets else None
        self.ends_with_connection = connection.until_close
        self.status: int = connection.status
        self.headers: Headers = self._striker.headers(connection.headers) if self._striker else connection.headers

    @property
    def has_all_come(self) -> bool:
        """Whether :meth:`read` will not wait for the engine any more."""
        return self._connection.is_complete

    def header(self, name: bytes) -> bytes | None:
        """The value of a header by its lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    async def read(self) -> bytes:
        """What has arrived since the last call, waiting for at least one byte; ``b""`` at the end.

        Raises:
            ConnectionLost: the connection ended before the answer did.
        """
        if self._striker is None:
            return await self._connection.read()
        while piece := await self._connection.read():
            if shown := self._striker.feed(piece):
                return shown
        return self._striker.end()

    async def read_all(self, max_bytes: int = MAX_WHOLE_ANSWER_BYTES) -> bytes:
        """The whole rest of the body.

        Raises:
            AnswerTooLarge: it is larger than ``max_bytes``.
            ConnectionLost: the connection ended before the answer did.
        """
        pieces, size = [], 0
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                self._connection.abort()
                raise AnswerTooLarge(f"the answer is larger than {max_bytes:,} bytes", heard=True)
        return b"".join(pieces)

    def close(self) -> None:
        """Give the connection back if the answer was read to its end; else close it, which tells the engine."""
        self._connection.finish()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


class Client:
    """Connections to one engine.

    Args:
        url: the engine's base URL; a path in it is put before every request's path.
        connect_timeout_s: how long a new connection may take.
        fetch_headers: sent with every :meth:`fetch`.
        idle_limit_s: how long a connection is kept that is not used.
        authority: file with the certificates that an https server's is verified against, in place of this system's.
        secrets: that are struck out of all answers.
        uses_proxy: whether an address with TLS is reached through the proxy of the environment, if it names one.

    Raises:
        ValueError: the engine's URL, or the proxy's, is none that can be connected to.
    """

    def __init__(
        self,
        url: str,
        connect_timeout_s: float = 3.0,
        fetch_headers: Headers = (),
        idle_limit_s: float = IDLE_LIMIT_S,
        secrets: Iterable[str] = (),
        *,
        authority: str | None = None,
        uses_proxy: bool = False,
    ) -> None:
        parts = _split(url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._tls = _tls(authority) if parts.scheme == "https" else None
        self._proxy = proxy_for(self._host) if self._tls and uses_proxy else None
        self._port = parts.port or (443 if self._tls else 80)
        self._base = parts.path.rstrip("/")
        self._authority = parts.netloc.rpartition("@")[2].encode()
        self._connect_timeout_s = connect_timeout_s
        self._fetch_headers = fetch_headers
        self._idle_limit_s = idle_limit_s
        self._secrets = forms(secrets)
        self._idle: deque[EngineConnection] = deque()
        """The longest idle one first."""
        self._open: set[EngineConnection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self.last_heard_s = 0.0
        """The event loop's time when the last byte came, on whichever connection; 0 before the first."""

    @property
    def open_connections(self) -> int:
        """Connections that are open now, idle ones included."""
        return len(self._open)

    @property
    def busy_connections(self) -> int:
        """Connections on which an answer is awaited or read."""
        return sum(connection.is_busy for connection in self._open)

    async def send(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        *,
        fresh: bool = False,
        within_s: float | None = None,
    ) -> Answer:
        """Send a request once and wait for the head of its answer. Whatever happens, it is not sent again here.

        Cancelling the call closes the connection. Of the headers, ``host`` and ``content-length`` are written here. A
        kept connection that is found closed before anything was written is passed over for the next.

        Args:
            fresh: take a new connection even where one is kept.
            within_s: how long all of this may take; as long as it likes without.

        Raises:
            ConnectFailed: nothing was sent.
            ConnectionLost: the engine closed the connection before the head of its answer, or answered with something
                that is not HTTP. It may have read the request.
            TimeoutError: the head did not come within that time.
        """
        until_s = None if within_s is None else asyncio.get_running_loop().time() + within_s
        lines = [f"{method} {self._base}{path} HTTP/1.1\r\nhost: ".encode("latin-1"), self._authority]
        for name, value in headers:
            lines += (b"\r\n", name, b": ", value)
        if body or method not in ("GET", "HEAD"):
            lines.append(b"\r\ncontent-length: %d" % len(body))
        lines.append(b"\r\n\r\n")
        kept = None if fresh else self._reusable()
        connection = kept or await self._connect(until_s)
        try:
            await connection.send(b"".join(lines), body, method == "HEAD", until_s)
        except ConnectionLost as lost:
            connection.abort()
            lost.reused = kept is not None
            raise
        except BaseException:
            connection.abort()
            raise
        return Answer(connection, self._secrets)

    async def fetch(
        self,
        method: str,
        path: str,
        headers: Headers = (),
        body: bytes = b"",
        timeout_s: float = 5.0,
        max_bytes: int = MAX_WHOLE_ANSWER_BYTES,
        *,
        fresh: bool = False,
    ) -> tuple[int, bytes]:
        """Status and whole body of a small request that does no harm when it is made twice: where a kept connection
        turns out to be dead, it is sent once more. With ``fresh`` it is made once.

        Raises:
            ConnectFailed, ConnectionLost: as :meth:`send`.
            AnswerTooLarge: the body is larger than ``max_bytes``.
            TimeoutError: no whole answer within ``timeout_s`` seconds.
        """
        sent = [*self._fetch_headers, *headers]
        async with asyncio.timeout(timeout_s):
            try:
                answer = await self.send(method, path, sent, body, fresh=fresh)
            except ConnectionLost as lost:
                if not lost.reused or lost.heard:
                    raise
                answer = await self.send(method, path, sent, body, fresh=True)
            async with answer:
                return answer.status, await answer.read_all(max_bytes)

    def close(self, why: str = "the connection was closed here") -> None:
        """Close all connections. Who waits for an answer on one gets ConnectionLost with these words."""
        if self._sweep:
            self._sweep.cancel()
            self._sweep = None
        for connection in list(self._open):
            connection.abort(why)

    def opened(self, connection: EngineConnection) -> None:
        """A connection's word that it is made."""
        self._open.add(connection)

    def heard(self, at_s: float) -> None:
        """A connection's word that bytes came."""
        self.last_heard_s = at_s

    def lost(self, connection: EngineConnection) -> None:
        """A connection's word that it is closed."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def free(self, connection: EngineConnection) -> None:
        """A connection's word that it may be used again."""
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._idle_limit_s, self._close_idle)

    def _close_idle(self) -> None:
        """Close those that have been idle for too long; come back when the next one will have been."""
        self._sweep = None
        loop = asyncio.get_running_loop()
        while self._idle:
            left_s = self._idle[0].idle_since + self._idle_limit_s - loop.time()
            if left_s > 0:
                self._sweep = loop.call_later(left_s, self._close_idle)
                return
            self._idle.popleft().abort()

    def _reusable(self) -> EngineConnection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.idle_since < self._idle_limit_s and connection.is_reusable():
                return connection
            connection.abort()
        return None

    async def _connect(self, until_s: float | None) -> EngineConnection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(until_s):
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    if self._proxy is not None and self._tls is not None:
                        return await self._connect_through(self._proxy, self._tls)
                    _, connection = await loop.create_connection(
                        lambda: EngineConnection(self), self._host, self._port, ssl=self._tls
                    )
            except TimeoutError as error:
                raise ConnectFailed(f"no connection within {self._connect_timeout_s:g} s", in_time=False) from error
            except (OSError, UnicodeError) as error:  # the latter: a name that can't be one
                raise ConnectFailed(_reason(error)) from error
        return connection

    async def _connect_through(self, proxy: Proxy, tls: ssl.SSLContext) -> EngineConnection:
        tunnel, connection = await proxy.tunnel(self._host, self._port), EngineConnection(self)
        try:
            loop = asyncio.get_running_loop()
            transport = await loop.start_tls(tunnel, connection, tls, server_hostname=self._host)
        except BaseException:
            tunnel.abort()
            raise
        if transport is None:
            raise OSError("the connection ended")
        connection.connection_made(transport)
        return connection


def _reason(error: Exception) -> str:
    """What the system says, also where asyncio puts words of its own in its place."""
    return re.sub(
        r"(\[Errno (\d+)\]) Connect call failed \(.*?\)", lambda of: f"{of[1]} {os.strerror(int(of[2]))}", str(error)
    )


def _tls(authority: str | None) -> ssl.SSLContext:
    """Certificates and names are verified, against those in a file, or this system's authorities, or those of
    ``SSL_CERT_FILE``."""
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["http/1.1"])
    return context


def bearer(key: str | None) -> Headers:
    """The header that shows a key; none where there is no key."""
    return [(b"authorization", b"Bearer " + key.encode())] if key else []


def without_credentials(url: str) -> str:
    """A URL as it may be shown: without the user's name and password in it. Of one whose parts can't be told, nothing
    is."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed url"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _split(url: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        ValueError: it is none that can be connected to.
    """
    try:
        parts = urlsplit(url)
        shown = without_credentials(url)
        well_formed = parts.port is None or parts.port > 0  # reading it checks it
    except ValueError as error:
        raise ValueError(f"not an http(s) URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not well_formed:
        raise ValueError(f"not an http(s) URL: {shown!r}")
    return parts
