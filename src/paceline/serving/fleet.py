"""The lanes of one configuration, the engines and devices behind them, and how they are doing right now."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from paceline.configuration import Configuration, DeviceSettings, EngineSettings, resolved
from paceline.engines import ENGINES
from paceline.engines.interface import Facts
from paceline.processes import Health, Supervisor
from paceline.processes.supervisor import Timing
from paceline.serving.errors import ApiError, bounded
from paceline.serving.illness import Illness
from paceline.serving.model_identity import lasting_description
from paceline.serving.names import Names, Served
from paceline.serving.turns import Device
from paceline.types import Lane, LaneState
from paceline.wire.client import Client, ConnectFailed, ConnectionLost, bearer
from paceline.wire.headers import Headers

LOOK_INTERVAL_S = 0.05
"""Engines are not asked more often than this for names that nobody knows."""
PAGE_TIMEOUT_S = 2.0
MAX_LISTED = 50
"""Models that an error names."""
UNKNOWN_SLOTS = 1
"""On a device that takes turns, for an engine that reports no slots and has none configured."""


@dataclass(eq=False)
class EngineHandle:
    """An engine with all that its lanes share."""

    settings: EngineSettings
    supervisor: Supervisor
    device: Device
    illness: Illness = field(default_factory=Illness)
    passing: int = 0
    """Requests that are passed through to it undecided."""
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
        return self.settings.name

    @property
    def is_up(self) -> bool:
        return self.supervisor.health is Health.UP

    @property
    def is_well(self) -> bool:
        """Whether it is up and does its work, as far as was seen."""
        return self.is_up and not self.illness.is_ejected

    @property
    def api_key(self) -> str | None:
        """The key to send to the engine."""
        return self.supervisor.api_key

    @property
    def slots(self) -> int:
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
        if self.settings.kind != "llama.cpp":
            return False
        try:
            async with asyncio.timeout(PAGE_TIMEOUT_S), await self.client.send("GET", "/", self.key_headers) as answer:
                return answer.status == 200 and (answer.header(b"content-type") or b"").startswith(b"text/html")
        except (ConnectFailed, ConnectionLost, TimeoutError):
            return False

    @property
    def key_headers(self) -> Headers:
        """What a request of the gateway's own shows it."""
        return bearer(self.api_key)

    def needs_model(self, asked: str | None) -> bool:
        """Whether a request that names no model that it knows has to be given one: a llama-server with a single model
        takes any name, most others take none but their own; where there is one model, none has to be named."""
        has_one = len({str(entry.get("id")) for entry in self.models.values()}) <= 1
        return not has_one or (asked is not None and self.settings.kind != "llama.cpp")

    @property
    def in_flight(self) -> int:
        """Requests that it answers, or that wait for it."""
        handles = (*self._lanes.values(), *self._former)
        return self.passing + sum(handle.running + handle.waiting for handle in handles)

    def lanes(self) -> "list[LaneHandle]":
        """One lane as the engine was started; or where it was seen to take its strategy from each request, one for
        each that is worth choosing, plain first."""
        lanes = self.settings.lanes(self.supervisor.abilities)
        known = {handle.lane: handle for handle in (*self._former, *self._lanes.values())}
        self._lanes = {lane: known.get(lane) or LaneHandle(lane, self) for lane in lanes}
        gone = [handle for lane, handle in known.items() if lane not in self._lanes]
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
            self._described = {name: one for name, one in self._described.items() if name in self.models}
        entry = self.models.get(model or "") or next(iter(self.models.values()), {})
        name = str(entry.get("id", ""))
        if name not in self._identities:
            settings = self.settings
            if entry:
                self._described[name] = lasting_description(entry, self._described.get(name))
            about = ([self._described[name]] if entry else [], settings.device or settings.name)
            engine = (
                settings.name,
                settings.kind,
                settings.strategy,
                settings.n_max,
                settings.draft_model,
                settings.launch,
                facts and facts.build,
            )
            self._identities[name] = (_hash((*about, *engine)), _hash(about))
        return self._identities[name]


@dataclass(eq=False)
class LaneHandle:
    """A lane with all it takes to send a request down it."""

    lane: Lane
    engine: EngineHandle
    running: int = 0
    waiting: int = 0

    @property
    def is_up(self) -> bool:
        return self.engine.is_up

    def state(self, model: str | None) -> LaneState:
        """As it is now for a request that is for ``model``, as :meth:`EngineHandle.identity` takes it."""
        engine = self.engine
        fingerprint, model_hash = engine.identity(model)
        return LaneState(
            self.lane,
            fingerprint=fingerprint,
            model=model_hash,
            healthy=engine.is_well,
            is_up=engine.is_up,
            running=self.running,
            waiting=self.waiting,
            cannot_keep=engine.supervisor.abilities.not_when_drafting if self.lane.strategy.drafts else frozenset(),
            can_join=engine.device.can_start(engine.name, engine.slots),
            has_turn=not engine.device.takes_turns or engine.device.holder in (engine.name, None),
        )


class Fleet:
    """All lanes of a configuration, in its order.

    Args:
        previous: a fleet whose engines and devices are taken over where their settings did not change.
    """

    def __init__(self, configuration: Configuration, log_directory: Path, previous: "Fleet | None" = None) -> None:
        self.configuration = configuration
        self.names = Names(configuration)
        self.changed: asyncio.Condition = previous.changed if previous else asyncio.Condition()
        self.engines: dict[str, EngineHandle] = {}
        self.added: list[Supervisor] = []
        """Engines that :meth:`start` has to start."""
        self._notices: set[asyncio.Task[None]] = set()
        self._devices: dict[DeviceSettings, Device] = {}
        self._previous_devices = previous._devices if previous else {}
        old_engines = previous.engines if previous else {}
        for settings in configuration.engine:
            old = old_engines.get(settings.name)
            device = self._device(configuration, settings, old)
            if old and old.settings == settings:
                supervisor = old.supervisor
            else:
                supervisor = _supervisor(settings, configuration, log_directory, device)
                self.added.append(supervisor)
            supervisor.timing = _timing(settings, configuration)
            supervisor.on_change = self._update
            same = old is not None and old.supervisor is supervisor and old.device is device
            handle = old if old and same else EngineHandle(settings, supervisor, device)
            if old and old.supervisor is supervisor:
                handle.illness = old.illness
            self.engines[settings.name] = handle
        in_use = {handle.supervisor for handle in self.engines.values()}
        self.retired = [handle for handle in old_engines.values() if handle.supervisor not in in_use]
        """Engines of the previous fleet that are gone or were changed."""
        self._default_first: list[LaneHandle] = []
        self.offered: Sequence[Lane] = ()
        """All lanes as they are now, the default one first."""
        self.lanes: dict[str, LaneHandle] = {}
        """All lanes in the configuration's order, as their engines were last seen."""
        self._find_lanes()

    @property
    def default(self) -> LaneHandle:
        """The lane for everything that is not decided on: the configured one, or the first of the configured engine;
        else the first of all."""
        name = self.configuration.server.default_lane
        return self.named(name)[0] if name else next(iter(self.lanes.values()))

    def named(self, name: str) -> list[LaneHandle]:
        """The lane of this name, or else all lanes of the engine of this name."""
        if name in self.lanes:
            return [self.lanes[name]]
        return [handle for handle in self.lanes.values() if handle.engine.name == name.split("/")[0]]

    def start(self) -> None:
        """Start what is new in this fleet; returns at once."""
        for supervisor in self.added:
            supervisor.start()

    async def stop(self) -> None:
        """Stop all engines of this fleet."""
        await asyncio.gather(*(handle.supervisor.stop() for handle in self.engines.values()))

    def forced(self, name: str, model: str | None) -> Served:
        """The lane that a client asked for by name, or the lanes of the engine.

        Raises:
            ApiError: 400, there is no such lane; 404, it does not serve the model, but another one does.
        """
        engine = self.engines.get(name.split("/")[0])
        if engine is None or (engine.is_up and name != engine.name and name not in self.lanes):
            raise ApiError(
                400,
                f"x-paceline-lane: there is no lane {bounded(name)!r}; there are: {', '.join(self.lanes)}",
                "unknown_lane",
            )
        lanes = self.named(name)
        if model and (served := self.names.find(model, self._default_first, self.named)):
            meant = tuple(lane for lane in lanes if lane in served.lanes)
            if not meant and engine.models:
                raise ApiError(
                    404,
                    f"lane {bounded(name)!r} does not serve the model {bounded(model)!r}, "
                    f"but: {_listed(engine.models)}",
                    "model_not_found",
                )
            return Served(served.name, meant or tuple(lanes), served.engine_names)
        own = self.names.default(model, lanes, self.named)
        return Served(own.name if own else None, tuple(lanes), own.engine_names if own else {})

    def find(self, model: str | None) -> Served | None:
        """What a model's name stands for, or what serves where none is named; ``None`` for an unknown name.
        The default lane's engine comes first, and who was never up is left out unless there are no others."""
        ordered = self._default_first
        if model:
            return self.names.find(model, ordered, self.named)
        return self.names.default(None, self._known_first(ordered), self.named) or Served(None, tuple(ordered))

    def for_unknown(self, model: str, has_waited: bool = False) -> Served:
        """What serves a name that nobody knows.

        Args:
            has_waited: whether engines that are starting were waited for long enough; the name may be theirs.

        Raises:
            ApiError: 404, where names are taken strictly.
        """
        ordered = self._default_first
        awaited = tuple(
            lane for lane in ordered if lane.engine.supervisor.facts is None and lane.engine.supervisor.is_coming
        )
        if awaited and (self.names.is_strict or not has_waited):
            return Served(None, awaited)
        if self.names.is_strict:
            raise self.unknown_model(model)
        return self.names.default(model, self._known_first(ordered), self.named) or Served(None, tuple(ordered))

    def states(self, served: Served) -> list[LaneState]:
        """The lanes that serve a request, as they are now."""
        return [lane.state(served.own_name(lane.engine.name)) for lane in served.lanes]

    async def look_again(self) -> None:
        """Ask the engines what they serve: a model may be new."""
        await asyncio.gather(
            *(handle.supervisor.look_again(LOOK_INTERVAL_S) for handle in self.engines.values() if handle.is_up)
        )

    def is_coming(self, handles: Sequence[LaneHandle]) -> bool:
        """Whether none of these lanes is up, but one may be soon."""
        return not any(handle.is_up for handle in handles) and any(
            handle.engine.supervisor.is_coming for handle in handles
        )

    def models(self) -> dict[str, Mapping[str, Any]]:
        """The entries of ``/v1/models`` by name: the configured names, and those of all lanes; where lanes serve the
        same model, the first one's."""
        merged: dict[str, Mapping[str, Any]] = {
            model.name: {"id": model.name, "object": "model", "owned_by": "paceline"}
            for model in self.configuration.model
        }
        for handle in self._default_first:
            for name, entry in handle.engine.models.items():
                merged.setdefault(name, entry)
        return merged

    def unknown_model(self, name: str | None) -> ApiError:
        """The answer to a request for a model that no lane serves."""
        return ApiError(
            404,
            f"no lane serves the model {bounded(name or '')!r}; there are: {_listed(self.models())}",
            "model_not_found",
        )

    @staticmethod
    def _known_first(ordered: Sequence[LaneHandle]) -> Sequence[LaneHandle]:
        return sorted(ordered, key=lambda lane: not lane.engine.models)

    def _device(self, configuration: Configuration, engine: EngineSettings, old: EngineHandle | None) -> Device:
        if engine.device is None:
            return old.device if old and old.settings == engine else Device(takes_turns=False)
        settings = configuration.device_settings(engine.device)
        if settings not in self._devices:
            self._devices[settings] = self._previous_devices.get(settings) or Device(
                settings.takes_turns, settings.patience_s, settings.queue_limit
            )
        return self._devices[settings]

    def _find_lanes(self) -> None:
        self.lanes = {handle.lane.name: handle for engine in self.engines.values() for handle in engine.lanes()}
        default = self.default
        self._default_first = sorted(self.lanes.values(), key=lambda handle: handle is not default)
        self.offered = tuple(handle.lane for handle in self._default_first)

    def _update(self) -> None:
        """An engine is no longer as it was: it may have other lanes, and who waits for one may go on."""
        self._find_lanes()

        async def notify() -> None:
            async with self.changed:
                self.changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)


def _supervisor(
    settings: EngineSettings, configuration: Configuration, log_directory: Path, device: Device
) -> Supervisor:
    return Supervisor(
        settings.name,
        ENGINES[settings.kind],
        strategy=settings.as_started,
        draft_model=settings.draft_model,
        log_directory=log_directory,
        url=settings.url,
        launch=settings.launch,
        api_key=resolved(settings.api_key) if settings.api_key else None,
        environment=settings.environment,
        secret_variables=configuration.secret_variables,
        start_turn=device.start_turn if device.takes_turns else None,
    )


def _timing(settings: EngineSettings, configuration: Configuration) -> Timing:
    server = configuration.server
    return Timing(server.connect_timeout_s, server.health_interval_s, settings.start_timeout_s)


def _hash(document: Any) -> str:
    return blake2b(msgspec.json.encode(document), digest_size=8).hexdigest()


def _listed(models: Mapping[str, Any]) -> str:
    names = [bounded(name) for name in models]
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "") or "none yet"
