"""The lanes of one configuration, the engines and devices behind them, and how they are doing right now."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from paceline.engines import ENGINES
from paceline.money.prices import Prices
from paceline.processes import Supervisor
from paceline.processes.supervisor import Timing
from paceline.serving.errors import UnknownLane, UnknownModel
from paceline.serving.handles import EngineHandle, LaneHandle
from paceline.serving.names import Names, Served
from paceline.serving.turns import Device
from paceline.settings import Configuration, DeviceSettings, EngineSettings, ServerSettings
from paceline.types import Lane, LaneState, Offer, engine_of

LOOK_INTERVAL_S = 0.05
"""Engines are not asked more often than this for names that nobody knows."""


class Makers:
    """Makes what stands behind a fleet's lanes. A process that shares engines with others makes something else."""

    def supervisor(
        self, settings: EngineSettings, configuration: Configuration, log_directory: Path, device: Device
    ) -> Supervisor:
        """For an engine that the previous fleet did not have."""
        return Supervisor(
            settings,
            ENGINES[settings.kind],
            log_directory=log_directory,
            secret_variables=configuration.secret_variables,
            start_turn=device.start_turn if device.takes_turns else None,
        )

    def device(self, settings: DeviceSettings) -> Device:
        """For a device that the previous fleet did not have."""
        return Device(
            takes_turns=settings.takes_turns, patience_s=settings.patience_s, queue_limit=settings.queue_limit
        )


class Fleet:
    """All lanes of a configuration, in its order.

    Args:
        previous: a fleet whose engines and devices are taken over where their settings did not change.
        makers: of what is new.
    """

    def __init__(
        self,
        configuration: Configuration,
        log_directory: Path,
        previous: "Fleet | None" = None,
        makers: Makers = Makers(),  # noqa: B008 - it holds nothing
    ) -> None:
        self.configuration = configuration
        self._makers = makers
        self.names = Names(configuration)
        self.may_leave = any(engine.leaves_machine for engine in configuration.engine)
        """Whether there is an engine that a private request may not go to."""
        self._places = (
            self.may_leave
            or any(model.offer for model in configuration.model)
            or any(key.engines for key in configuration.key)
        )
        self._prices = Prices(configuration.cloud, configuration.cost.usd)
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
            if old and old.settings == settings and old.has_its_secrets():
                supervisor = old.supervisor
            else:
                supervisor = makers.supervisor(settings, configuration, log_directory, device)
                self.added.append(supervisor)
            supervisor.timing = _timing(configuration.server)
            supervisor.on_change = self._update
            same = old is not None and old.supervisor is supervisor and old.device is device
            handle = old if old and same else EngineHandle(settings, supervisor, device)
            if old and old.supervisor is supervisor:
                handle.illness, handle.limits, handle.pace = old.illness, old.limits, old.pace
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

    @property
    def devices(self) -> Mapping[DeviceSettings, Device]:
        """Those that engines name, by their settings."""
        return self._devices

    def named(self, name: str) -> list[LaneHandle]:
        """The lane of this name, or else all lanes of the engine of this name."""
        if name in self.lanes:
            return [self.lanes[name]]
        return [handle for handle in self.lanes.values() if handle.engine.name == engine_of(name)]

    def start(self) -> None:
        """Start what is new in this fleet; returns at once."""
        for supervisor in self.added:
            supervisor.start()

    async def stop(self) -> None:
        """Stop all engines of this fleet."""
        await asyncio.gather(*(handle.supervisor.stop() for handle in self.engines.values()))
        await asyncio.gather(*self._notices)

    def forced(self, name: str, model: str | None) -> Served:
        """The lane that a client asked for by name, or the lanes of the engine.

        Raises:
            UnknownLane: there is no such lane.
            UnknownModel: it does not serve the model, but another one does.
        """
        engine = self.engines.get(engine_of(name))
        if engine is None or (engine.is_up and name != engine.name and name not in self.lanes):
            raise UnknownLane(name=name, lanes=self.lanes)
        lanes = self.named(name)
        if model and (served := self.names.find(model, self._default_first, self.named)):
            meant = tuple(lane for lane in lanes if lane in served.lanes)
            if not meant and engine.models:
                raise UnknownModel(name=model, models=engine.models, lane=name)
            return Served(served.name, meant or tuple(lanes), served.engine_names, served.model, is_forced=True)
        own = self.names.default(model, lanes, self.named)
        if own is None:
            return Served(None, tuple(lanes), is_forced=True)
        return Served(own.name, tuple(lanes), own.engine_names, own.model, is_forced=True)

    def find(self, model: str | None) -> Served | None:
        """What a model's name stands for, or what serves where none is named; ``None`` for an unknown name. The default
        lane's engine comes first."""
        return self.names.find(model, self._default_first, self.named) if model else self.usual()

    def usual(self, asked: str | None = None) -> Served:
        """What serves where no model is named, or one that nobody knows. Who was never up is left out unless there are
        no others.

        Args:
            asked: the unknown name.
        """
        ordered = self._default_first
        return self.names.default(asked, self._known_first(ordered), self.named) or Served(None, tuple(ordered))

    def for_unknown(self, model: str, has_waited: bool = False) -> Served:
        """What serves a name that nobody knows.

        Args:
            has_waited: whether engines that are starting were waited for long enough; the name may be theirs.

        Raises:
            UnknownModel: names are taken strictly.
        """
        ordered = self._default_first
        awaited = tuple(
            lane for lane in ordered if lane.engine.supervisor.facts is None and lane.engine.supervisor.is_coming
        )
        if awaited and (self.names.is_strict or not has_waited):
            return Served(None, awaited)
        if self.names.is_strict:
            raise self.unknown_model(model)
        return self.usual(model)

    def states(self, served: Served) -> list[LaneState]:
        """The lanes that serve a request, as they are now."""
        states = [lane.state(served.own_name(lane.engine.name)) for lane in served.lanes]
        if not self._places:
            return states
        offers = {lane.engine.name: self._offer(lane.engine, served) for lane in served.lanes}
        return [replace(state, offer=offers[state.lane.engine]) for state in states]

    def _offer(self, engine: EngineHandle, served: Served) -> Offer:
        """What an engine offers for a model."""
        settings, said = engine.settings, served.model.offer_of(engine.name) if served.model else None
        facts = engine.supervisor.facts
        model = served.own_name(engine.name) or ""
        price = self._prices.of(model, settings.url) if settings.is_cloud and model else None
        return Offer(
            engine=engine.name,
            is_cloud=settings.is_cloud,
            leaves_machine=settings.leaves_machine,
            is_declared=_is_declared(engine.name, served),
            model=model,
            quality=said.quality if said else None,
            quality_by_task=said.quality_by_task if said else {},
            can=frozenset(said.can) if said and said.can is not None else None,
            context_tokens=(said and said.context_tokens) or (facts and facts.context_tokens) or None,
            slots=settings.slots or (facts and facts.slots) or None,
            price=price,
        )

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

    def unknown_model(self, name: str | None) -> UnknownModel:
        """What is raised of a model that no lane serves."""
        return UnknownModel(name=name, models=self.models())

    @staticmethod
    def _known_first(ordered: Sequence[LaneHandle]) -> Sequence[LaneHandle]:
        """Providers last: what nobody asked for is not sent away, nor paid for, while there is an engine of one's
        own."""
        return sorted(ordered, key=lambda lane: (lane.engine.settings.is_cloud, not lane.engine.models))

    def _device(self, configuration: Configuration, engine: EngineSettings, old: EngineHandle | None) -> Device:
        if engine.device is None:
            return old.device if old and old.settings == engine else Device(takes_turns=False)
        settings = configuration.device_settings(engine.device)
        if settings not in self._devices:
            self._devices[settings] = self._previous_devices.get(settings) or self._makers.device(settings)
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


def _is_declared(engine: str, served: Served) -> bool:
    """Whether an engine may stand in for others: a model's table names it, or the client did, or there are no others
    but a provider's."""
    model = served.model
    if served.is_forced or all(lane.engine.settings.is_cloud for lane in served.lanes):
        return True
    if model is None:
        return False
    named = {engine_of(lane) for lane in model.lanes} | model.engine_models.keys()
    return engine in named or model.offer_of(engine) is not None


def _timing(server: ServerSettings) -> Timing:
    return Timing(connect_timeout_s=server.connect_timeout_s, health_interval_s=server.health_interval_s)
