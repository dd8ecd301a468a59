"""An engine and its lanes, with all it takes to send a request to them."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

import msgspec

from paceline.api_keys import resolved
from paceline.engines.interface import Facts
from paceline.processes import Health, Supervisor
from paceline.serving.illness import Illness
from paceline.serving.limits import Limits
from paceline.serving.model_identity import lasting_description
from paceline.serving.pace import StreamPace
from paceline.serving.turns import Device, Turn
from paceline.settings import CloudEngineSettings, EngineSettings
from paceline.types import Lane, LaneState
from paceline.wire.client import Client, ConnectFailed, ConnectionLost
from paceline.wire.headers import Headers

PAGE_TIMEOUT_S = 2.0
"""How long an engine may take to show its page; who opens the gateway's address waits for it."""
UNKNOWN_SLOTS = 1
"""On a device that takes turns, for an engine that reports no slots and has none configured."""


@dataclass(eq=False)
class EngineHandle:
    """An engine with all that its lanes share."""

    settings: EngineSettings
    supervisor: Supervisor
    device: Device
    machine: str = ""
    """Where it runs, where others like it may run elsewhere."""
    illness: Illness = field(default_factory=Illness)
    limits: Limits = field(default_factory=Limits)
    """A provider's."""
    pace: StreamPace = field(default_factory=StreamPace)
    passing: int = 0
    """Requests that are passed through to it undecided; counted by :meth:`passes_one`."""
    _lanes: "dict[Lane, LaneHandle]" = field(default_factory=dict)
    _former: "list[LaneHandle]" = field(default_factory=list)
    """That it no longer offers, while requests run on them."""
    _identities: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By the model's own name, of :attr:`_identified`."""
    _identified: Facts | None = None
    _described: dict[str, Sequence[Any]] = field(default_factory=dict)
    """What the engine said last of each model that it lists and was asked for."""

    @property
    def name(self) -> str:
        """As configured."""
        return self.settings.name

    @property
    def is_up(self) -> bool:
        """Whether it answers looks."""
        return self.supervisor.health is Health.UP

    @property
    def is_well(self) -> bool:
        """Whether it is up and does its work, as far as was seen."""
        return self.is_up and not self.illness.is_ejected

    @property
    def api_key(self) -> str | None:
        """The key to send to the engine."""
        return self.supervisor.api_key

    def stall_limit_s(self, idle_timeout_s: float) -> float:
        """The longest silence within a stream of it: as configured, or as its streams come, but not above the
        gateway's own limit. Engines of one's own have that alone, since what they do meanwhile is known otherwise."""
        if not isinstance(self.settings, CloudEngineSettings):
            return idle_timeout_s
        return min(idle_timeout_s, self.settings.stall_timeout_s or self.pace.stall_limit_s or idle_timeout_s)

    @property
    def slots(self) -> int:
        """How many requests it decodes at once: as configured, or else as it says."""
        facts = self.supervisor.facts
        return self.settings.slots or (facts and facts.slots) or UNKNOWN_SLOTS

    @property
    def client(self) -> Client:
        """Connections to the engine.

        Raises:
            ConnectFailed: it was never started.
        """
        if self.supervisor.client is None:
            raise ConnectFailed(self.supervisor.problem or "not started")
        return self.supervisor.client

    @property
    def models(self) -> Mapping[str, Mapping[str, Any]]:
        """Entries of ``/v1/models`` by name; empty until the engine was up once."""
        return self.supervisor.facts.models if self.supervisor.facts else {}

    async def has_page(self) -> bool:
        """Whether it shows a page at its root, as llama-server does where its chat was built in."""
        if not self.supervisor.engine.may_have_page:
            return False
        try:
            async with asyncio.timeout(PAGE_TIMEOUT_S), await self.client.send("GET", "/", self.key_headers) as answer:
                return answer.status == 200 and (answer.header(b"content-type") or b"").startswith(b"text/html")
        except (ConnectFailed, ConnectionLost, TimeoutError):
            return False

    @property
    def key_headers(self) -> Headers:
        """What a request of the gateway's own shows it."""
        return self.supervisor.engine.key_headers(self.api_key)

    def has_its_secrets(self) -> bool:
        """Whether the key and headers of a provider are still what their variables and files hold."""
        if not isinstance(self.settings, CloudEngineSettings):
            return True
        key = resolved(self.settings.api_key) if self.settings.api_key else None
        headers = [resolved(value, may_have_spaces=True).encode() for value in self.settings.headers.values()]
        return self.api_key == key and [value for _, value in self.configured_headers] == headers

    @cached_property
    def configured_headers(self) -> Headers:
        """What the operator has each request to a provider bring along.

        Raises:
            ConfigurationError: a variable or file that a value names is not there.
        """
        given = self.settings.headers if isinstance(self.settings, CloudEngineSettings) else {}
        return [
            (name.lower().encode(), resolved(value, may_have_spaces=True).encode()) for name, value in given.items()
        ]

    def needs_model(self, asked: str | None) -> bool:
        """Whether a request that names no model that it knows has to be given one: a llama-server with a single model
        takes any name, most others take none but their own; where there is one model, none has to be named, but to a
        provider."""
        if self.settings.is_cloud:
            return True
        has_one = len({str(entry.get("id")) for entry in self.models.values()}) <= 1
        return not has_one or (asked is not None and not self.supervisor.engine.takes_any_model_name)

    @contextmanager
    def passes_one(self) -> Iterator[None]:
        """A request is passed through to it."""
        self.passing += 1
        try:
            yield
        finally:
            self.passing -= 1

    @property
    def in_flight(self) -> int:
        """Requests that it answers, or that wait for it."""
        handles = (*self._lanes.values(), *self._former)
        return self.passing + sum(handle.running + handle.waiting for handle in handles)

    def lanes(self) -> "list[LaneHandle]":
        """One lane as the engine was started; or where it was seen to take its strategy from each request, one for
        each that is worth choosing, plain first."""
        lanes = self.settings.lanes(self.supervisor.abilities)
        handles = {handle.lane: handle for handle in (*self._former, *self._lanes.values())}
        self._lanes = {lane: handles.get(lane) or LaneHandle(lane, self) for lane in lanes}
        gone = [handle for lane, handle in handles.items() if lane not in self._lanes]
        self._former = [handle for handle in gone if handle.running or handle.waiting]
        return list(self._lanes.values())

    def identity(self, model: str | None) -> tuple[str, str]:
        """Hashes of what the engine is and does with one of its models, and of that model and the device alone: what
        was learned holds as long as the first stays the same, the cost of a plain step as long as the second does.

        Args:
            model: as the engine calls it; any other, or none, stands for the first that it lists.
        """
        facts = self.supervisor.facts
        if facts is not self._identified:
            self._identified, self._identities = facts, {}
            self._described = {name: text for name, text in self._described.items() if name in self.models}
        if model and model in self._identities:
            return self._identities[model]
        models = facts.models if facts else {}
        entry = models.get(model or "") or next(iter(models.values()), {})
        name = str(entry.get("id", ""))
        if name not in self._identities:
            settings = self.settings
            if entry:
                self._described[name] = lasting_description(entry, self._described.get(name))
            kind = settings.machine_kind or settings.device or settings.name
            about = ([self._described[name]] if entry else [], kind)
            engine = (*settings.decoding, facts and facts.build)
            self._identities[name] = (_hash((*about, *engine)), _hash(about))
        return self._identities[name]


@dataclass(eq=False)
class LaneHandle:
    """A lane with all it takes to send a request down it."""

    lane: Lane
    engine: EngineHandle
    running: int = 0
    """Requests that it serves: those that :meth:`take_turn` has let in and that have not left. One whose turn was
    released early, since its client reads slowly, counts here still, but not in :attr:`Device.running`."""
    waiting: int = 0
    """Requests that wait in :meth:`take_turn`."""

    @property
    def is_up(self) -> bool:
        """Whether its engine is, and takes requests."""
        return self.engine.is_up and not self.engine.limits.is_reached

    @property
    def problem(self) -> str:
        """Why it can't serve now, in words for people."""
        supervisor, limits = self.engine.supervisor, self.engine.limits
        if limits.is_reached:
            return f"{self.lane.name} is left out for {limits.left_s():.0f} s: {limits.problem}"
        return f"{self.lane.name} is {supervisor.health}: {supervisor.problem}"

    async def take_turn(self, timeout_s: float) -> Turn:
        """Wait for a place in its engine's turn on the device; to be given back with :meth:`leave`.

        Raises:
            QueueFull: too many wait already.
            TimeoutError: there was none in time.
        """
        engine = self.engine
        self.waiting += 1
        try:
            turn = engine.device.take(engine.name, engine.slots)
            if turn is None:
                async with asyncio.timeout(timeout_s):
                    turn = await engine.device.acquire(engine.name, engine.slots)
        finally:
            self.waiting -= 1
        self.running += 1
        return turn

    @property
    def load(self) -> LaneState:
        """What it has in flight, for other routers. May be asked for in any thread."""
        return LaneState(self.lane, machine=self.engine.machine, running=self.running, waiting=self.waiting)

    def leave(self, turn: Turn) -> None:
        """A request that had taken a turn here is over."""
        turn.release()
        self.running -= 1

    def state(self, model: str | None) -> LaneState:
        """As it is now for a request that is for ``model``, as :meth:`EngineHandle.identity` takes it."""
        engine, device, is_up = self.engine, self.engine.device, self.is_up
        fingerprint, model_hash = engine.identity(model)
        abilities = engine.supervisor.abilities
        return LaneState(
            self.lane,
            fingerprint=fingerprint,
            model=model_hash,
            machine=engine.machine,
            healthy=is_up and not engine.illness.is_ejected,
            is_up=is_up,
            running=self.running,
            waiting=self.waiting,
            cannot_keep=abilities.not_when_drafting if self.lane.strategy.drafts else frozenset(),
            can_join=not device.takes_turns or device.can_start(engine.name, engine.slots),
            has_turn=not device.takes_turns or device.holder in (engine.name, None),
            drafted_token_cost=engine.settings.drafted_token_cost,
            is_cloud=engine.settings.is_cloud,
            needs_alike=abilities.decodes_apart and not abilities.controls_drafts,
        )


def _hash(document: Any) -> str:
    return blake2b(msgspec.json.encode(document), digest_size=8).hexdigest()
