"""Talking to a running gateway."""

import argparse
import asyncio
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from paceline.configuration import Configuration, load
from paceline.http.client import Client, ConnectFailed, ConnectionLost


class Unanswered(Exception):
    """No gateway answers, or it answers with an error; ``str()`` says which."""


class Address(NamedTuple):
    url: str
    key: str | None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", b"Bearer " + self.key.encode())] if self.key else []


def add_address_options(parser: argparse.ArgumentParser, also_for: str = "") -> None:
    """Options that name a gateway; ``also_for`` tells what else the configuration is read for."""
    parser.add_argument(
        "--config", type=Path, help=f"its configuration, for its address and key (default: port 8080){also_for}"
    )
    parser.add_argument("--url", help="its address, if it is not that of the configuration")
    parser.add_argument("--api-key", help="a key of it, if it is not that of the configuration")


def address(options: argparse.Namespace) -> Address:
    """Of the gateway that the options mean.

    Raises:
        ConfigurationError: the configuration can't be used.
    """
    server = (load(options.config) if options.config else Configuration()).server
    url = options.url or f"http://{f'[{server.host}]' if ':' in server.host else server.host}:{server.port}"
    return Address(url.rstrip("/"), options.api_key or next(iter(server.api_keys), None))


def ask(to: Address, method: str, path: str, body: bytes = b"") -> Any:
    """The decoded answer.

    Raises:
        Unanswered: there is none, or it is an error.
    """

    async def fetch() -> tuple[int, bytes]:
        client = Client(to.url, fetch_headers=to.headers)
        try:
            return await client.fetch(method, path, [], body, 30.0)
        finally:
            client.close()

    try:
        status, answer = asyncio.run(fetch())
    except (ConnectFailed, ConnectionLost, TimeoutError) as error:
        raise Unanswered(f"no gateway answers at {to.url}: {error}") from error
    try:
        document = msgspec.json.decode(answer)
        if status == 200:
            return document
        raise Unanswered(str(document["error"]["message"]))
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise Unanswered(f"{to.url} is no Paceline gateway: {path} answers {status}") from error
