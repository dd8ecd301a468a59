"""Sends requests to a gateway, and puts together what came back with what the gateway measured."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from msgspec import Struct

from paceline.bench.results import ROUTED, Key, Sample
from paceline.bench.workload import Item
from paceline.wire.client import Client, ConnectionLost
from paceline.wire.headers import Headers

EVEN_LENGTH = {"llama.cpp", "vllm", "sglang"}
"""Engines that decode on past the end of a text when told to, so that all lanes decode as many tokens."""
UNCACHED: dict[str, dict[str, Any]] = {"llama.cpp": {"cache_prompt": False}}
"""What keeps an engine from taking a prompt out of its cache that another lane has sent: fields by kind. vLLM takes a
salt (``cache_salt``), which is new for each request."""
POOLED = {"ngram-mod", "ngram-cache"}
"""Strategies that remember what other requests have said: a prompt that was sent before is nearly free."""
ENDS_BY_ITSELF = ("response_format", "tools")
"""Fields of requests whose answer has a form, and ends where the form ends."""
TIMEOUT_S = 600.0


class Settings(Struct, frozen=True):
    """What is sent. All of it stands in the results file."""

    lanes: tuple[str, ...]
    routed: bool = True
    prompts: int = 4
    """Of each task."""
    teach: int = 3
    """Prompts of each task that are routed first for the gateway to learn from, none of those measured."""
    rounds: int = 2
    max_tokens: int = 64
    temperatures: tuple[float, ...] = (0.0,)
    at_once: tuple[int, ...] = (1,)
    seed: int = 0
    keep_text: bool = False

    @property
    def ways(self) -> tuple[str, ...]:
        return (*self.lanes, ROUTED) if self.routed else self.lanes


class Group(Struct, frozen=True):
    """Requests in flight together, all the same way."""

    items: tuple[Item, ...]
    way: str
    temperature: float
    at_once: int
    round: int

    def key(self, item: Item) -> Key:
        return Key(item.id, self.way, self.temperature, self.at_once, self.round)


class _Told(Struct):
    """What the client saw of an answer."""

    text: str
    first_token_s: float | None
    total_s: float
    error: str | None = None


class Asker:
    def __init__(self, client: Client, lanes: Sequence[dict[str, Any]], settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._kinds = {lane["lane"]: lane["engine"]["kind"] for lane in lanes}
        self._all_kinds = set(self._kinds.values())
        models = lanes[0]["engine"]["models"]
        self._model = models[0] if models else None
        self._last = 0

    async def teach(self, item: Item) -> None:
        group = Group((item,), ROUTED, self._settings.temperatures[0], 1, -1)
        await self._ask(item, group, str(uuid4()), learn=True)

    async def measure(self, group: Group) -> list[Sample]:
        names = [str(uuid4()) for _ in group.items]
        told = await asyncio.gather(
            *(self._ask(item, group, name, learn=False) for item, name in zip(group.items, names, strict=True))
        )
        outcomes = await self._outcomes(names)
        return [
            self._sample(item, group, one, outcomes.get(name))
            for item, one, name in zip(group.items, told, names, strict=True)
        ]

    async def likeliest_tokens(self, item: Item, lane: str, how_many: int) -> list[Any]:
        """Of a lane's answer at temperature 0, each token with its likeliest alternatives, as OpenAI's ``logprobs``
        have them; empty where it does not tell."""
        group = Group((item,), lane, 0.0, 1, 0)
        name = str(uuid4())
        asked = self._body(item, group, name) | {"logprobs": True, "top_logprobs": how_many, "stream": False}
        del asked["stream_options"]
        headers = self._headers(group, name, learn=False)
        status, answer = await self._client.fetch(
            "POST", "/v1/chat/completions", headers, json.dumps(asked).encode(), TIMEOUT_S
        )
        told = (json.loads(answer)["choices"][0].get("logprobs") or {}) if status == 200 else {}
        return told.get("content") or []

    def _headers(self, group: Group, name: str, learn: bool) -> Headers:
        lane = [] if group.way == ROUTED else [(b"x-paceline-lane", group.way.encode())]
        return [
            (b"content-type", b"application/json"),
            (b"x-request-id", name.encode()),
            (b"x-paceline-learn", b"yes" if learn else b"no"),
            *lane,
        ]

    async def _ask(self, item: Item, group: Group, name: str, learn: bool) -> _Told:
        headers = self._headers(group, name, learn)
        body = json.dumps(self._body(item, group, name)).encode()
        sent_s = time.perf_counter()
        first_s: float | None = None
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async with await self._client.send("POST", "/v1/chat/completions", headers, body) as answer:
                    while piece := await answer.read():
                        if first_s is None and _text(piece):
                            first_s = time.perf_counter() - sent_s
                        pieces.append(piece)
                    status = answer.status
        except (ConnectionLost, TimeoutError) as error:
            return _Told("", None, time.perf_counter() - sent_s, str(error) or "no answer in time")
        total_s, whole = time.perf_counter() - sent_s, b"".join(pieces)
        refusal = None if status == 200 else whole[:300].decode("utf-8", "replace")
        return _Told(_text(whole), first_s, total_s, refusal)

    def _body(self, item: Item, group: Group, name: str) -> dict[str, Any]:
        kinds = self._all_kinds if group.way == ROUTED else {self._kinds[group.way]}
        fields: dict[str, Any] = {
            "max_tokens": self._settings.max_tokens,
            "temperature": group.temperature,
            "seed": self._settings.seed + max(0, group.round),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._model:
            fields["model"] = self._model
        if kinds <= EVEN_LENGTH and not any(key in item.fields for key in ENDS_BY_ITSELF):
            fields["ignore_eos"] = True
        if len(kinds) == 1:
            kind = next(iter(kinds))
            fields |= {"cache_salt": name} if kind == "vllm" else UNCACHED.get(kind, {})
        # A prompt that was sent before is no conversation that goes on.
        return fields | {"prompt_cache_key": name} | item.fields

    async def _outcomes(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What the gateway measured; it notes that after the answer has gone out."""
        found: dict[str, dict[str, Any]] = {}
        for _ in range(100):
            _, answer = await self._client.fetch("GET", f"/paceline/requests?after={self._last}", [], b"", 30.0)
            document = json.loads(answer)
            self._last = document["last"]
            found |= {entry["id"]: entry for entry in document["requests"] if entry["id"] in names}
            if len(found) == len(names):
                break
            await asyncio.sleep(0.01)
        return found

    def _sample(self, item: Item, group: Group, told: _Told, outcome: dict[str, Any] | None) -> Sample:
        observed = outcome["observed"] if outcome else {}
        error = told.error or (outcome["error"] if outcome else "the gateway told no outcome")
        return Sample(
            *(item.id, item.task, group.way, group.temperature, group.at_once, group.round),
            lane=outcome["lane"] if outcome else "",
            tokens=observed.get("completion_tokens"),
            decode_tokens=observed.get("decode_tokens"),
            decode_s=observed.get("decode_s"),
            drafted=observed.get("drafted"),
            accepted=observed.get("accepted"),
            drafting_steps=observed.get("drafting_steps"),
            first_token_s=told.first_token_s,
            total_s=told.total_s,
            text=told.text if self._settings.keep_text else "",
            error=error,
        )


def _text(events: bytes) -> str:
    """What a stream's events bring of the answer, thoughts and tool calls included."""
    parts = []
    for line in events.split(b"\n"):
        if not line.startswith(b"data: {"):
            continue
        try:
            event = json.loads(line[6:])
        except ValueError:
            continue
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            parts += [delta.get("reasoning_content") or "", delta.get("content") or ""]
            for tool_call in delta.get("tool_calls") or ():
                function = tool_call.get("function") or {}
                parts += [function.get("name") or "", function.get("arguments") or ""]
    return "".join(parts)
