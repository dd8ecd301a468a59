"""What kind of engine stands behind an address, found out by asking it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from paceline.wire.client import Client, ConnectFailed, ConnectionLost
from paceline.wire.headers import Headers

TIMEOUT_S = 3.0
"""For each answer; an engine that is busy is asked again later."""

_TELLTALES: tuple[tuple[str, str, Callable[[Mapping[str, Any]], bool]], ...] = (
    ("/props", "llama.cpp", lambda document: "default_generation_settings" in document),
    ("/get_model_info", "sglang", lambda document: "model_path" in document),
    ("/api/version", "ollama", lambda document: "version" in document),
    ("/version", "vllm", lambda document: "version" in document),
    ("/v1/models", "openai", lambda document: "data" in document),
)
"""Path, kind, and whether its answer is that kind's. The first that fits counts; the last one fits them all."""


async def kind_of(address: str, key: Headers = ()) -> str | None:
    """The kind of the engine at an address; ``None`` where nobody answers that could be one.

    Args:
        key: headers that show it its key.
    """
    client = Client(f"http://{address}", TIMEOUT_S, key)
    try:
        for path, kind, fits in _TELLTALES:
            status, body = await client.fetch("GET", path, timeout_s=TIMEOUT_S)
            if status == 200 and fits(_document(body)):
                return kind
    except (ConnectFailed, ConnectionLost, TimeoutError):
        return None
    finally:
        client.close()
    return None


async def kinds_of(addresses: list[str], key: Headers = ()) -> dict[str, str]:
    """Of those that tell, at once."""
    kinds = await asyncio.gather(*(kind_of(address, key) for address in addresses))
    return {address: kind for address, kind in zip(addresses, kinds, strict=True) if kind is not None}


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
