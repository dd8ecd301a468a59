"""``paceline reload``: have a running gateway take up its changed configuration."""

import argparse
import asyncio
from pathlib import Path

import msgspec

from paceline.cli.common import Subparsers, add_command, fail
from paceline.configuration import Configuration, ConfigurationError, load
from paceline.http_client import Client, ConnectFailed, ConnectionLost


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "reload",
        "have a running gateway take up its changed configuration",
        "Have a running gateway read its configuration again. Running answers go on, and engines whose part did not "
        "change are left alone. If the file has errors, they are printed and the old configuration stays in force. "
        "SIGHUP does the same.",
    )
    parser.add_argument("--config", type=Path, help="its configuration, for its address and key (default: port 8080)")
    parser.add_argument("--url", help="its address, if it is not that of the configuration")
    parser.add_argument("--api-key", help="a key of it, if it is not that of the configuration")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    configuration = Configuration()
    if options.config:
        try:
            configuration = load(options.config)
        except ConfigurationError as error:
            return fail(f"{error}\nnothing was changed")
    server = configuration.server
    url = options.url or f"http://{f'[{server.host}]' if ':' in server.host else server.host}:{server.port}"
    key = options.api_key or next(iter(server.api_keys), None)
    try:
        status, body = asyncio.run(_reload(url, key))
    except (ConnectFailed, ConnectionLost, TimeoutError) as error:
        return fail(f"no gateway answers at {url}: {error}")
    answer = msgspec.json.decode(body)
    if status != 200:
        return fail(answer["error"]["message"])
    for change, names in answer.items():
        if names:
            print(f"{change.replace('_', ' ')}: {', '.join(names)}")
    return 0


async def _reload(url: str, key: str | None) -> tuple[int, bytes]:
    headers = [(b"authorization", b"Bearer " + key.encode())] if key else []
    client = Client(url, fetch_headers=headers)
    try:
        return await client.fetch("POST", "/paceline/reload", timeout_s=30.0)
    finally:
        client.close()
