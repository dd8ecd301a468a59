"""The lanes of one configuration, the engines and devices behind them, and how they are doing right now."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from paceline.configuration import Configuration, DeviceSettings, EngineSettings
from paceline.engines import ENGINES, Health, Supervisor
from paceline.engines.interface import Facts
from paceline.engines.supervisor import Timing
from paceline.gateway.errors import ApiError
from paceline.gateway.model_identity import described
from paceline.gateway.turns import Device
from paceline.http.client import Client, ConnectFailed
from paceline.types import Lane, LaneState

UNKNOWN_SLOTS = 1
"""On a device that takes turns, for an engine that reports no slots and has none configured."""


@dataclass(eq=False)
class EngineHandle:
    """An engine with all that its lanes share."""

    settings: EngineSettings
    supervisor: Supervisor
    device: Device
    api_key: str | None
    """The key to send to the engine."""
    _lanes: "dict[Lane, LaneHandle]" = field(default_factory=dict)
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

    @property
    def in_flight(self) -> int:
        """Requests that it decodes, or that wait for it."""
        return sum(lane.running + lane.waiting for lane in self._lanes.values())

    def lanes(self) -> "list[LaneHandle]":
        """One lane as the engine was started; or where it was seen to take its strategy from each request, one for
        each that is worth choosing, plain first."""
        lanes = self.settings.lanes(self.supervisor.abilities)
        self._lanes = {lane: self._lanes.get(lane) or LaneHandle(lane, self) for lane in lanes}
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
                self._described[name] = described(entry, self._described.get(name))
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
            healthy=self.is_up,
            running=self.running,
            waiting=self.waiting,
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
        self.changed: asyncio.Condition = previous.changed if previous else asyncio.Condition()
        self.engines: dict[str, EngineHandle] = {}
        self.added: list[Supervisor] = []
        """Engines that :meth:`start` has to start."""
        self._notices: set[asyncio.Task[None]] = set()
        self._devices: dict[DeviceSettings, Device] = dict(previous._devices) if previous else {}
        old_engines = previous.engines if previous else {}
        for settings in configuration.engine:
            old = old_engines.get(settings.name)
            device = self._device(configuration, settings)
            if old and old.settings == settings:
                supervisor = old.supervisor
            else:
                supervisor = _supervisor(settings, log_directory, device)
                self.added.append(supervisor)
            supervisor.timing = _timing(settings, configuration)
            supervisor.on_change = self._update
            same = old is not None and old.supervisor is supervisor and old.device is device
            self.engines[settings.name] = (
                old if old and same else EngineHandle(settings, supervisor, device, _api_key(settings))
            )
        in_use = {handle.supervisor for handle in self.engines.values()}
        self.retired = [handle for handle in old_engines.values() if handle.supervisor not in in_use]
        """Engines of the previous fleet that are gone or were changed."""
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

    def forced(self, name: str, model: str | None) -> list[LaneHandle]:
        """The lane that a client asked for by name, or the lanes of the engine.

        Raises:
            ApiError: 400, there is no such lane; 404, it does not serve the model.
        """
        engine = self.engines.get(name.split("/")[0])
        if engine is None or (engine.is_up and name != engine.name and name not in self.lanes):
            raise ApiError(
                400,
                f"x-paceline-lane: there is no lane {name!r}; there are: {', '.join(self.lanes)}",
                "unknown_lane",
            )
        if model and engine.models and model not in engine.models:
            raise ApiError(
                404,
                f"lane {name!r} does not serve the model {model!r}, but: {_listed(engine.models)}",
                "model_not_found",
            )
        return self.named(name)

    def serving(self, model: str | None) -> list[LaneHandle]:
        """The lanes that serve a model, the default lane's own if none is named, in the configuration's order
        but the default lane first. Lanes whose engine was never up are left out, unless there are no others.

        Raises:
            ApiError: 404, no lane serves the model.
        """
        ordered = self._default_first()
        if model:
            found = [handle for handle in ordered if model in handle.engine.models]
        else:
            own = self.default.engine.models.keys()
            found = [handle for handle in ordered if own & handle.engine.models.keys()] if own else ordered
        if found:
            return found
        unknown = [handle for handle in ordered if handle.engine.supervisor.facts is None]
        if unknown:
            return unknown
        raise self.unknown_model(model)

    async def wait_for_start(self, handles: Sequence[LaneHandle], timeout_s: float) -> None:
        """If none of these lanes is up but one is coming up, wait until one is up, at most ``timeout_s`` seconds."""

        def settled() -> bool:
            return any(handle.is_up for handle in handles) or not any(
                handle.engine.supervisor.is_coming for handle in handles
            )

        if settled():
            return
        try:
            async with asyncio.timeout(timeout_s), self.changed:
                await self.changed.wait_for(settled)
        except TimeoutError:
            return

    def models(self) -> dict[str, Mapping[str, Any]]:
        """The entries of ``/v1/models`` of all lanes by name; where lanes serve the same model, the first one's."""
        merged: dict[str, Mapping[str, Any]] = {}
        for handle in self._default_first():
            for name, entry in handle.engine.models.items():
                merged.setdefault(name, entry)
        return merged

    def unknown_model(self, name: str | None) -> ApiError:
        """The answer to a request for a model that no lane serves."""
        return ApiError(
            404, f"no lane serves the model {name!r}; there are: {_listed(self.models())}", "model_not_found"
        )

    def _default_first(self) -> list[LaneHandle]:
        return sorted(self.lanes.values(), key=lambda handle: handle is not self.default)

    def _device(self, configuration: Configuration, engine: EngineSettings) -> Device:
        if engine.device is None:
            return Device(takes_turns=False)
        settings = configuration.device_settings(engine.device)
        if settings not in self._devices:
            self._devices[settings] = Device(settings.takes_turns, settings.patience_s, settings.queue_limit)
        return self._devices[settings]

    def _find_lanes(self) -> None:
        self.lanes = {handle.lane.name: handle for engine in self.engines.values() for handle in engine.lanes()}

    def _update(self) -> None:
        """An engine is no longer as it was: it may have other lanes, and who waits for one may go on."""
        self._find_lanes()

        async def notify() -> None:
            async with self.changed:
                self.changed.notify_all()

        task = asyncio.get_running_loop().create_task(notify())
        self._notices.add(task)
        task.add_done_callback(self._notices.discard)


def _supervisor(settings: EngineSettings, log_directory: Path, device: Device) -> Supervisor:
    return Supervisor(
        settings.name,
        ENGINES[settings.kind],
        strategy=settings.as_started,
        draft_model=settings.draft_model,
        log_directory=log_directory,
        url=settings.url,
        launch=settings.launch,
        api_key=_api_key(settings),
        start_turn=device.start_turn if device.takes_turns else None,
    )


def _timing(settings: EngineSettings, configuration: Configuration) -> Timing:
    server = configuration.server
    return Timing(server.connect_timeout_s, server.health_interval_s, settings.start_timeout_s)


def _api_key(settings: EngineSettings) -> str | None:
    """The key to send to an engine, read from the environment where the configuration says so."""
    key = settings.api_key
    return os.environ.get(key.removeprefix("env:"), "") if key and key.startswith("env:") else key


def _hash(document: Any) -> str:
    return blake2b(msgspec.json.encode(document), digest_size=8).hexdigest()


def _listed(models: Mapping[str, Any]) -> str:
    return ", ".join(models) or "none yet"
