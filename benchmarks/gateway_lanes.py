"""What a running gateway says of its lanes."""

import json
from typing import Any

from paceline.wire.client import Client


async def lanes(gateway: Client) -> dict[str, Any]:
    """The document of ``GET /paceline/lanes``."""
    status, answer = await gateway.fetch("GET", "/paceline/lanes")
    assert status == 200
    document: dict[str, Any] = json.loads(answer)
    return document


def in_flight(document: dict[str, Any]) -> int:
    """Requests that the gateway, or a turn on a device, still holds: 0 where nothing was left behind."""
    held: int = document["in_flight"] + sum(lane["running"] + lane["waiting"] for lane in document["lanes"])
    return held
