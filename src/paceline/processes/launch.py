"""What a launched engine is started with: its command and port, its variables and its key."""

import asyncio
import os
import secrets
import socket
from collections.abc import Collection, Mapping

from msgspec import Struct

from paceline.engines.interface import AnyEngine
from paceline.engines.launch_environment import engine_environment, key_in
from paceline.settings import LocalEngineSettings


class Launch(Struct, frozen=True, kw_only=True):
    """One start of an engine."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    url: str
    """Where the engine will listen."""
    api_key: str | None
    """The key that it will ask for; ``None`` for none."""


async def prepare_launch(
    settings: LocalEngineSettings, engine: AnyEngine, configured_key: str | None, secret_variables: Collection[str]
) -> Launch:
    """Choose a port, and the key: the configured one, that of the command, that of the environment, or a new one where
    the engine can be told one. Nothing is started.

    Raises:
        LaunchError: the command can't be run as it is.
    """
    port = free_port()
    command = await asyncio.to_thread(engine.launch, settings.launch, port)
    environment = engine_environment(os.environ, settings.environment, secret_variables)
    variable = engine.key_variable(settings.launch)
    key_of_command = key_in(settings.launch)
    inherited = environment.get(variable) if variable else None
    api_key = configured_key or key_of_command or inherited
    if variable and not key_of_command:
        api_key = environment[variable] = api_key or secrets.token_urlsafe(32)
    return Launch(command=command, environment=environment, url=f"http://127.0.0.1:{port}", api_key=api_key)


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
