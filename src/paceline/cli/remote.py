"""Talking to a running gateway."""

import argparse
import asyncio
import os
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from paceline.api_keys import resolved
from paceline.configuration import ConfigurationError, load, url_problem
from paceline.settings import Configuration
from paceline.wire.client import Client, ConnectFailed, ConnectionLost, bearer
from paceline.wire.headers import Headers

KEY_VARIABLE = "PACELINE_API_KEY"
"""A key of the gateway's, for those who don't want it in a list of processes."""
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""By the address that stands for all, the one at which this machine reaches what listens there."""
ANSWER_TIMEOUT_S = 30.0
"""Of a gateway: a report over a large log takes seconds."""


class Unanswered(Exception):
    """No gateway answers, or it answers with an error; ``str()`` says which."""


class Address(NamedTuple):
    """Of a gateway, and the key to show it."""

    url: str
    key: str | None

    @property
    def headers(self) -> Headers:
        return bearer(self.key)


def add_address_options(parser: argparse.ArgumentParser, also_for: str = "") -> None:
    """Options that name a gateway; ``also_for`` tells what else the configuration is read for."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the gateway's configuration, which has its address and key (default: port 8080){also_for}",
    )
    parser.add_argument("--url", metavar="URL", help="the gateway's address, if it is not that of the configuration")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"a key of the gateway, or env:NAME (default: that in the variable {KEY_VARIABLE}, or in the "
        "configuration)",
    )


def address(options: argparse.Namespace) -> Address:
    """Of the gateway that the options mean.

    Raises:
        ConfigurationError: the configuration can't be used.
        Unanswered: what is given is no address.
    """
    configuration = load(options.config, here=False) if options.config else Configuration()
    server = configuration.server
    url = options.url or http_url(server.host, server.port)
    return Address(gateway_url(url), key(options.api_key, configuration))


def http_url(host: str, port: int | None) -> str:
    """Where this machine reaches what listens there."""
    here = ANYWHERE.get(host, host)
    return f"http://{f'[{here}]' if ':' in here else here}:{port}"


def gateway_url(given: str) -> str:
    """A gateway's address as it may be given: without ``http://``, or with ``/v1`` at its end.

    Raises:
        Unanswered: nothing can be there.
    """
    url = given if "://" in given else f"http://{given}"
    if problem := url_problem(url):
        raise Unanswered(f"{given!r} {problem}")
    if not url.startswith(("http://", "https://")):
        raise Unanswered(f"{given!r} is no http address")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def key(given: str | None, configuration: Configuration) -> str | None:
    """The key to show a gateway: what is given, or that of the environment, or the configuration's best.

    Raises:
        ConfigurationError: a variable that it is to be read from is not set, or it can't be sent.
    """
    if chosen := given or os.environ.get(KEY_VARIABLE):
        return resolved(chosen)
    server = configuration.server
    keys = (
        server.admin_key,
        *(client.key for client in configuration.key if client.admin),
        *server.api_keys,
        *(client.key for client in configuration.key),
    )
    best = next((configured for configured in keys if configured is not None), None)
    if best is None:
        return None
    try:
        return resolved(best)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the key in the configuration: {error}; set it here, too, or give --api-key or {KEY_VARIABLE}"
        ) from error


def ask(to: Address, method: str, path: str, body: bytes = b"") -> Any:
    """The decoded answer.

    Raises:
        Unanswered: there is none, or it is an error.
    """

    async def fetch() -> tuple[int, bytes]:
        client = Client(to.url, fetch_headers=to.headers)
        try:
            return await client.fetch(method, path, [], body, ANSWER_TIMEOUT_S)
        finally:
            client.close()

    try:
        status, answer = asyncio.run(fetch())
    except (ConnectFailed, ConnectionLost, TimeoutError) as error:
        raise Unanswered(
            f"no gateway answers at {to.url}: {error}; start one with `paceline serve`, or name another with --url"
        ) from error
    try:
        document = msgspec.json.decode(answer)
        if status == 200:
            return document
        raise Unanswered(str(document["error"]["message"]))
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise Unanswered(f"{to.url} is no Paceline gateway: {path} answers {status}") from error
