"""Which engine keeps what: a stored response, file or batch lives in the engine that made it."""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from urllib.parse import quote

from msgspec import Struct

from paceline.serving.handles import EngineHandle
from paceline.types import Request
from paceline.wire.client import ConnectFailed, ConnectionLost

MAX_IDS = 20_000
"""That are remembered; the oldest are forgotten, and found again by asking."""
MAX_ID_CHARS = 512
"""LiteLLM's are some 250 characters of base64."""
_ID = re.compile(rb'"id"\s*:\s*"([^"\\\x00-\x1f]{1,%d})"' % MAX_ID_CHARS)
_PATH = re.compile(
    r"^/(?:v1/)?(responses|files|batches|conversations|chat/completions|containers|vector_stores)/([^/?]+)"
)


NOBODY = ""
"""Remembered of an id that no engine had."""
LOOK_TIMEOUT_S = 5.0
"""How long an engine may take to say whether it keeps an id; the request waits meanwhile."""


class Stored(Struct, frozen=True):
    """Something that one engine keeps."""

    kind: str
    """As in the path: ``responses``."""
    name: str


class StoredIds:
    """Names of engines by the ids that they gave for what they store."""

    def __init__(self) -> None:
        self._engines: OrderedDict[str, str] = OrderedDict()

    def note(self, head: bytes, engine: str) -> None:
        """Remember the id in the beginning of an answer."""
        if identifier := _ID.search(head):
            self._remember(identifier[1].decode("utf-8", "replace"), engine)

    def engine_of(self, name: str) -> str | None:
        """The engine that gave an id, if it is remembered."""
        return self._engines.get(name) or None

    async def find(self, stored: "Stored", engines: Sequence[EngineHandle]) -> str | None:
        """The engine that keeps something; where its id is not remembered, the engines are asked, once."""
        if stored.name in self._engines or len(engines) < 2 or stored.name in (".", ".."):
            return self.engine_of(stored.name)
        up = [engine for engine in engines if engine.is_up and not engine.settings.is_cloud]
        answers = await asyncio.gather(*(_has(engine, stored) for engine in up))
        keeper = next((engine.name for engine, has in zip(up, answers, strict=True) if has), NOBODY)
        self._remember(stored.name, keeper)
        return keeper or None

    def _remember(self, name: str, engine: str) -> None:
        self._engines[name] = engine
        self._engines.move_to_end(name)
        if len(self._engines) > MAX_IDS:
            self._engines.popitem(last=False)


def id_in_path(path: str) -> str | None:
    """The id that a path names; ``None`` where it names none that one engine keeps."""
    named = _PATH.match(path)
    return named[2][:MAX_ID_CHARS] if named else None


def stored_before(request: Request) -> Stored | None:
    """The stored response or conversation that a request goes on with."""
    for kind, field in (("responses", "previous_response_id"), ("conversations", "conversation")):
        value = request.fields.get(field)
        name = value.get("id") if isinstance(value, dict) else value
        if isinstance(name, str) and 0 < len(name) <= MAX_ID_CHARS:
            return Stored(kind, name)
    return None


async def _has(engine: EngineHandle, stored: Stored) -> bool:
    """Whether an engine keeps it. Only the status is wanted, however long the answer is."""
    path = f"/v1/{stored.kind}/{quote(stored.name, safe='')}"
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            async with await engine.client.send("GET", path, engine.key_headers) as answer:
                return answer.status == 200
    except (ConnectFailed, ConnectionLost, TimeoutError):
        return False
