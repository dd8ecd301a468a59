"""Providers behind a company's proxy: a real tunnel, and TLS from end to end within it."""

import asyncio
import shutil
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from tests.conftest import StartEngine, StartGateway, chat

from paceline.wire.client import Client, ConnectFailed
from paceline.wire.proxy import proxy_for

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")
VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy")


class ConnectProxy:
    """Opens tunnels for whoever shows the right name and password."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.carried = b""
        """What clients sent through it."""
        self.refusal = b""
        """Said in place of opening a tunnel."""
        self.url = ""

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://us%40er:pass@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if self.refusal:
            writer.write(self.refusal)
            writer.close()
            return
        host, _, to = head.split()[1].rpartition(":")
        there, back = await asyncio.open_connection(host, int(to))
        writer.write(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n")

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_clients: bool) -> None:
            while data := await source.read(65536):
                self.carried += data if is_clients else b""
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, back, True), copy(there, writer, False), return_exceptions=True)


@pytest.fixture
async def proxy(monkeypatch: pytest.MonkeyPatch, certificates: Path) -> AsyncIterator[ConnectProxy]:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    proxy = ConnectProxy()
    server = await proxy.start()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    yield proxy
    server.close()


async def test_a_tunnel_is_asked_for_and_hides_what_is_said(port: int, proxy: ConnectProxy) -> None:
    client = Client(f"https://localhost:{port}/v1", uses_proxy=True)
    for size in (2, 2_000_000, 2):
        body = b"private" * size
        assert await client.fetch("POST", "/echo", body=body) == (200, body)
    assert client.open_connections == 1, "which is kept"
    client.close()
    credentials = b64encode(b"us@er:pass").decode()
    assert proxy.heads == [
        f"CONNECT localhost:{port} HTTP/1.1\r\nHost: localhost:{port}\r\n"
        f"Proxy-Authorization: Basic {credentials}\r\n\r\n"
    ]
    assert proxy.carried
    assert b"private" not in proxy.carried


async def test_a_tunnel_is_the_same_on_the_event_loop_of_the_gateway(port: int, proxy: ConnectProxy) -> None:
    async def fetch() -> list[tuple[int, bytes]]:
        client = Client(f"https://localhost:{port}", uses_proxy=True)
        got = [await client.fetch("POST", "/echo", body=b"x" * size) for size in (2, 2_000_000, 2)]
        client.close()
        return got

    def on_uvloop() -> list[tuple[int, bytes]]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(fetch())

    assert await asyncio.to_thread(on_uvloop) == [(200, b"x" * size) for size in (2, 2_000_000, 2)]
    assert len(proxy.heads) == 1


@pytest.mark.parametrize("hosts", ["localhost", "example.org, localhost", "*"])
async def test_hosts_that_need_none_are_reached_directly(
    hosts: str, port: int, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", hosts)
    client = Client(f"https://localhost:{port}", uses_proxy=True)
    assert await client.fetch("POST", "/echo", body=b"x") == (200, b"x")
    client.close()
    assert not proxy.heads


async def test_a_tunnel_leads_to_who_has_the_certificate(port: int, proxy: ConnectProxy) -> None:
    with pytest.raises(ConnectFailed, match=r"certificate|mismatch"):
        await Client(f"https://127.0.0.1:{port}", uses_proxy=True).fetch("POST", "/echo", body=b"secret")
    assert proxy.heads
    assert b"secret" not in proxy.carried


@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "answered 407"),
        (b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n", "answered 503"),
        (b"SSH-2.0-x\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200", "closed"),
    ],
)
async def test_a_proxy_that_refuses_is_no_connection(refusal: bytes, why: str, port: int, proxy: ConnectProxy) -> None:
    proxy.refusal = refusal
    with pytest.raises(ConnectFailed, match=why):
        await Client(f"https://localhost:{port}", uses_proxy=True).fetch("POST", "/echo", body=b"secret")


async def test_providers_are_reached_through_it_and_engines_of_ones_own_are_not(
    port: int,
    proxy: ConnectProxy,
    start_engine: StartEngine,
    start_gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLOUD_KEY", "sk-operators-own")
    own = await start_engine()
    running = await start_gateway(
        f'[[engine]]\nname = "own"\nkind = "openai"\nurl = "{own.url}"\n'
        f'[[engine]]\nname = "cloud"\nkind = "openai-api"\nurl = "https://localhost:{port}"\nmodels = ["m"]\n'
        'api_key = "env:CLOUD_KEY"\n'
    )
    body = chat("hello", model="m")
    assert (await running.http.post("/v1/chat/completions", json=body)).headers["x-paceline-lane"] == "own"
    assert not proxy.heads
    echoed = await running.http.post("/v1/chat/completions", json=body, headers={"x-paceline-lane": "cloud"})
    assert echoed.json() == body
    assert len(proxy.heads) == 1
    assert "sk-operators-own" not in proxy.heads[0]


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1080", "https://127.0.0.1:3128"])
def test_a_proxy_of_another_kind_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", url)
    with pytest.raises(ValueError, match="write http://HOST:PORT"):
        proxy_for("api.example.org")
