"""Sends requests to a gateway, and puts together what came back with what the gateway measured."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from msgspec import Struct, field

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
"""Of one answer: a large model on a processor, behind others."""
TEACHING_ROUND = -1
"""Of requests that are not measured."""
OUTCOME_TIMEOUT_S = 30.0
"""Of the gateway's own document of what it measured."""
MAX_OUTCOME_LOOKS, OUTCOME_INTERVAL_S = 100, 0.01
"""How often the gateway is asked for what it measured, which it notes within milliseconds, and how long between."""


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
    concurrencies: tuple[int, ...] = field(default=(1,), name="at_once")
    """Requests in flight, in turn. Results files have it under an older name."""
    seed: int = 0
    keep_text: bool = False

    @property
    def ways(self) -> tuple[str, ...]:
        """The lanes, and the routing if it is measured."""
        return (*self.lanes, ROUTED) if self.routed else self.lanes


class Group(Struct, frozen=True):
    """Requests in flight together, all the same way."""

    items: tuple[Item, ...]
    way: str
    temperature: float
    concurrency: int
    round: int

    def key(self, item: Item) -> Key:
        """Of the sample that this item brings here."""
        return Key(
            item=item.id, way=self.way, temperature=self.temperature, concurrency=self.concurrency, round=self.round
        )


class _Received(Struct, frozen=True, kw_only=True):
    """What the client got of an answer."""

    text: str = ""
    first_token_s: float | None = None
    total_s: float
    error: str | None = None


class Asker:
    """A client of one gateway.

    Args:
        lanes: as ``/paceline/lanes`` tells them.
    """

    def __init__(self, client: Client, lanes: Sequence[dict[str, Any]], settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._kinds = {lane["lane"]: lane["engine"]["kind"] for lane in lanes}
        self._all_kinds = set(self._kinds.values())
        models = lanes[0]["engine"]["models"]
        self._model = models[0] if models else None
        self._last = 0

    async def teach(self, item: Item) -> None:
        """Have an item routed, for the gateway to learn from."""
        group = Group(
            items=(item,), way=ROUTED, temperature=self._settings.temperatures[0], concurrency=1, round=TEACHING_ROUND
        )
        await self._ask(item, group, str(uuid4()), learn=True)

    async def measure(self, group: Group) -> list[Sample]:
        """Send a group, from which nothing is learned, and say what was measured of each of its items."""
        names = [str(uuid4()) for _ in group.items]
        answers = await asyncio.gather(
            *(self._ask(item, group, name, learn=False) for item, name in zip(group.items, names, strict=True))
        )
        outcomes = await self._outcomes(names)
        return [
            self._sample(item, group, received, outcomes.get(name))
            for item, received, name in zip(group.items, answers, names, strict=True)
        ]

    async def likeliest_tokens(self, item: Item, lane: str, how_many: int) -> list[Any]:
        """Of a lane's answer at temperature 0, each token with its likeliest alternatives, as OpenAI's ``logprobs``
        have them; empty where it does not tell."""
        group = Group(items=(item,), way=lane, temperature=0.0, concurrency=1, round=0)
        name = str(uuid4())
        fields = self._body(item, group, name) | {"logprobs": True, "top_logprobs": how_many, "stream": False}
        del fields["stream_options"]
        headers = self._headers(group, name, learn=False)
        status, answer = await self._client.fetch(
            "POST", "/v1/chat/completions", headers, json.dumps(fields).encode(), TIMEOUT_S
        )
        logprobs = (json.loads(answer)["choices"][0].get("logprobs") or {}) if status == 200 else {}
        return logprobs.get("content") or []

    def _headers(self, group: Group, name: str, learn: bool) -> Headers:
        lane = [] if group.way == ROUTED else [(b"x-paceline-lane", group.way.encode())]
        return [
            (b"content-type", b"application/json"),
            (b"x-request-id", name.encode()),
            (b"x-paceline-learn", b"yes" if learn else b"no"),
            *lane,
        ]

    async def _ask(self, item: Item, group: Group, name: str, learn: bool) -> _Received:
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
            return _Received(total_s=time.perf_counter() - sent_s, error=str(error) or "no answer in time")
        total_s, whole = time.perf_counter() - sent_s, b"".join(pieces)
        refusal = None if status == 200 else whole[:300].decode("utf-8", "replace")
        return _Received(text=_text(whole), first_token_s=first_s, total_s=total_s, error=refusal)

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
        outcomes: dict[str, dict[str, Any]] = {}
        for _ in range(MAX_OUTCOME_LOOKS):
            path = f"/paceline/requests?after={self._last}"
            _, answer = await self._client.fetch("GET", path, [], b"", OUTCOME_TIMEOUT_S)
            document = json.loads(answer)
            self._last = document["last"]
            outcomes |= {entry["id"]: entry for entry in document["requests"] if entry["id"] in names}
            if len(outcomes) == len(names):
                break
            await asyncio.sleep(OUTCOME_INTERVAL_S)
        return outcomes

    def _sample(self, item: Item, group: Group, received: _Received, outcome: dict[str, Any] | None) -> Sample:
        observed = outcome["observed"] if outcome else {}
        error = received.error or (outcome["error"] if outcome else "the gateway told no outcome")
        return Sample(
            item=item.id,
            task=item.task,
            way=group.way,
            temperature=group.temperature,
            concurrency=group.concurrency,
            round=group.round,
            lane=outcome["lane"] if outcome else "",
            tokens=observed.get("completion_tokens"),
            decode_tokens=observed.get("decode_tokens"),
            decode_s=observed.get("decode_s"),
            drafted=observed.get("drafted"),
            accepted=observed.get("accepted"),
            drafting_steps=observed.get("drafting_steps"),
            first_token_s=received.first_token_s,
            total_s=received.total_s,
            text=received.text if self._settings.keep_text else "",
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
