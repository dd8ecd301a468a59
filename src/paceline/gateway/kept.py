"""Which engine keeps what: a stored response, file or batch lives in the engine that made it."""

import re
from collections import OrderedDict
from collections.abc import Sequence
from urllib.parse import quote

from paceline.engines.interface import NotReady
from paceline.engines.openai import fetch_json
from paceline.gateway.fleet import EngineHandle
from paceline.http.client import ConnectFailed, ConnectionLost
from paceline.types import Request

MAX_IDS = 20_000
"""That are remembered; the oldest are forgotten, and found again by asking."""
MAX_ID_CHARS = 512
"""LiteLLM's are some 250 characters of base64."""
_ID = re.compile(rb'"id"\s*:\s*"([^"\\\x00-\x1f]{1,%d})"' % MAX_ID_CHARS)
_PATH = re.compile(
    r"^/(?:v1/)?(responses|files|batches|conversations|chat/completions|containers|vector_stores)/([^/?]+)"
)


class Kept:
    """Names of engines by the ids that they gave."""

    def __init__(self) -> None:
        self._engines: OrderedDict[str, str] = OrderedDict()

    def note(self, head: bytes, engine: str) -> None:
        """Remember the id in the beginning of an answer."""
        if found := _ID.search(head):
            self._remember(found[1].decode("utf-8", "replace"), engine)

    def engine_of(self, name: str) -> str | None:
        """The engine that gave an id, if it is remembered."""
        return self._engines.get(name)

    async def find(self, name: str, engines: Sequence[EngineHandle]) -> str | None:
        """The same; of an id that is not remembered, the engines are asked."""
        if (known := self.engine_of(name)) is not None or len(engines) < 2 or name in (".", ".."):
            return known
        path = f"/v1/responses/{quote(name, safe='')}"
        for engine in engines:
            if not engine.is_up:
                continue
            try:
                await fetch_json(engine.client, path)
            except (NotReady, ConnectFailed, ConnectionLost, TimeoutError):
                continue
            self._remember(name, engine.name)
            return engine.name
        return None

    def _remember(self, name: str, engine: str) -> None:
        self._engines[name] = engine
        self._engines.move_to_end(name)
        if len(self._engines) > MAX_IDS:
            self._engines.popitem(last=False)


def id_in_path(path: str) -> str | None:
    """The id that a path names; ``None`` where it names none that one engine keeps."""
    found = _PATH.match(path)
    return found[2][:MAX_ID_CHARS] if found else None


def id_continued(request: Request) -> str | None:
    """The stored response or conversation that a request goes on with."""
    for value in (request.fields.get("previous_response_id"), request.fields.get("conversation")):
        name = value.get("id") if isinstance(value, dict) else value
        if isinstance(name, str) and 0 < len(name) <= MAX_ID_CHARS:
            return name
    return None
