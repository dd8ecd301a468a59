"""The client that talks to engines, over TLS, with certificates made for the test."""

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.patient import until

from paceline.wire.client import Client, ConnectFailed

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes certificates with openssl")


async def test_bodies_pass_and_connections_are_kept(
    port: int, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    client = Client(f"https://localhost:{port}/v1")
    for size in (2, 2_000_000, 2):
        body = b"x" * size
        assert await client.fetch("POST", "/echo", body=body) == (200, body)
    assert client.open_connections == 1
    client.close()
    await until(lambda: client.open_connections == 0)


async def test_an_authority_of_its_own_is_trusted_in_place_of_the_systems(port: int, certificates: Path) -> None:
    client = Client(f"https://localhost:{port}", authority=str(certificates / "ca.pem"))
    assert await client.fetch("POST", "/echo", body=b"x") == (200, b"x")
    client.close()


async def test_a_certificate_of_nobody_known_is_refused(port: int) -> None:
    with pytest.raises(ConnectFailed, match="certificate verify failed"):
        await Client(f"https://localhost:{port}").fetch("POST", "/echo", body=b"secret")


async def test_a_certificate_for_another_name_is_refused(
    port: int, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    with pytest.raises(ConnectFailed, match=r"certificate|mismatch"):
        await Client(f"https://127.0.0.1:{port}").fetch("POST", "/echo", body=b"secret")


async def test_plain_text_where_tls_is_wanted_is_no_connection(port: int) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    with pytest.raises(ConnectFailed):
        await Client(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}").fetch("GET", "/")
    server.close()
