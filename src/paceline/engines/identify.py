"""Which kind of engine answers at an address, told by what it says of itself."""

from typing import Any

import msgspec
from msgspec import Struct

from paceline.wire.client import Client, ConnectFailed, ConnectionLost
from paceline.wire.headers import Headers

OWNERS = {
    "llamacpp": "llama.cpp",
    "vllm": "vllm",
    "sglang": "sglang",
    "tabbyapi": "tabbyapi",
    "organization_owner": "lmstudio",
}
"""What kinds of engines write as ``owned_by`` into their lists of models, in small letters."""
OLLAMA = b"Ollama is running"
"""The whole of Ollama's first page."""
PYTHONS_SERVER = b"BaseHTTP"
"""Begins the header ``server`` of mlx-lm, which is made with Python's own server and names no owner."""
UNKNOWN = "openai"
"""The kind of engines of which nothing is known but that they list models."""
LOOK_TIMEOUT_S = 2.0
MAX_LOOK_BYTES = 1 << 20


class Seen(Struct, frozen=True, kw_only=True):
    """What answers at an address.

    Args:
        kind: of engine; ``None`` where it is none.
        models: by name.
        status: of its list of models.
    """

    kind: str | None
    models: tuple[str, ...] = ()
    status: int = 0
    is_paceline: bool = False
    """It is a gateway like this one."""


async def identify(url: str, headers: Headers = ()) -> Seen | None:
    """What answers at a URL; ``None`` where nothing does. It is asked for three small documents at most.

    Args:
        headers: shown to it, such as a key.
    """
    client = Client(url, connect_timeout_s=LOOK_TIMEOUT_S, fetch_headers=headers)
    try:
        _, health, _ = await _get(client, "/health", headers)
        if isinstance(lanes := _decoded(health), dict) and isinstance(lanes.get("lanes"), dict):
            return Seen(kind=None, is_paceline=True)
        status, listed, server = await _get(client, "/v1/models", headers)
        document = _decoded(listed)
        entries = document.get("data") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            return Seen(kind=None, status=status)
        models = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
        kind = await _kind(client, models, server, headers)
        return Seen(kind=kind, models=tuple(entry["id"] for entry in models), status=status)
    except ConnectFailed:
        return None
    except (ConnectionLost, TimeoutError):
        return Seen(kind=None)
    finally:
        client.close()


async def _kind(client: Client, models: list[dict[str, Any]], server: bytes, headers: Headers) -> str:
    for entry in models:
        if (owner := str(entry.get("owned_by", "")).lower()) in OWNERS:
            return OWNERS[owner]
    if (await _get(client, "/", headers))[1].strip() == OLLAMA:
        return "ollama"
    if server.startswith(PYTHONS_SERVER) and not any("owned_by" in entry for entry in models):
        return "mlx-lm"
    return UNKNOWN


async def _get(client: Client, path: str, headers: Headers) -> tuple[int, bytes, bytes]:
    """Status, body and the header ``server`` of a document."""
    async with await client.send("GET", path, headers, within_s=LOOK_TIMEOUT_S) as answer:
        body = await answer.read_all(MAX_LOOK_BYTES)
        return answer.status, body, answer.header(b"server") or b""


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
