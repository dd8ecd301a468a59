"""Gateways before scripted providers, and the real SDKs as their clients."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from tests.conftest import RunningGateway, StartEngine, StartGateway
from tests.fake_engine import FakeEngine, Received, Wire

KEY = "sk-operators-own-key"


@dataclass
class Provider:
    """A provider that answers with what it is given, behind a gateway; and both SDKs as clients of that."""

    engine: FakeEngine
    gateway: RunningGateway
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic

    @property
    def asked(self) -> Any:
        """The body of the last request that came to it."""
        return self.engine.requests[-1].json


StartProvider = Callable[..., Awaitable[Provider]]


def cloud(kind: str, url: str, more: str = "", name: str = "cloud") -> str:
    """An ``[[engine]]`` table of a provider."""
    address = f'url = "{url}"\nmodels = ["m"]\napi_key = "env:CLOUD_KEY"'
    return f'[[engine]]\nname = "{name}"\nkind = "{kind}"\n{address}\n{more}\n'


def says(whole: dict[str, Any], stream: bytes = b"") -> Any:
    """A script that answers with one document, or where a stream is wanted with that."""

    async def script(received: Received, wire: Wire) -> None:
        if received.json.get("stream"):
            await wire.stream_head()
            await wire.chunk(stream)
            await wire.end()
        else:
            await wire.json(whole)

    return script


@pytest.fixture
async def start_provider(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StartProvider]:
    """Start a provider of a kind before which a gateway stands."""
    monkeypatch.setenv("CLOUD_KEY", KEY)
    clients: list[Any] = []

    async def start(kind: str, whole: Any, stream: bytes = b"", more: str = "") -> Provider:
        engine = await start_engine(whole if callable(whole) else says(whole, stream))
        gateway = await start_gateway(cloud(kind, engine.url, more))
        speaks_openai = openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="clients-key", max_retries=0)
        speaks_anthropic = anthropic.AsyncAnthropic(base_url=gateway.url, api_key="clients-key", max_retries=0)
        clients.extend((speaks_openai, speaks_anthropic))
        return Provider(engine, gateway, speaks_openai, speaks_anthropic)

    yield start
    for client in clients:
        await client.close()
