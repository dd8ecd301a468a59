"""Models' names: which lanes serve what a client asks for, and what their engines call it."""

import re
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from paceline.globs import compiled
from paceline.serving.handles import EngineHandle, LaneHandle
from paceline.settings import Configuration, ModelSettings


class Served(Struct, frozen=True):
    """What a client's name for a model stands for."""

    name: str | None
    """Under which the gateway lists it; ``None`` where nothing was heard of any engine yet."""
    lanes: tuple[LaneHandle, ...]
    """That serve it, the default lane's engine first."""
    engine_names: Mapping[str, str] = {}
    """By engine, what it is to be sent in place of the client's name; none where that may stay."""
    model: ModelSettings | None = None
    """What is configured of it, if anything is."""
    is_forced: bool = False
    """Whether the client named the lanes."""

    def own_name(self, engine: str) -> str | None:
        """What an engine calls the model, as far as is known."""
        return self.engine_names.get(engine, self.name)


class Names:
    """The names of one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._models = configuration.model
        self._exact: dict[str, ModelSettings] = {}
        self._patterns: list[tuple[ModelSettings, re.Pattern[str]]] = []
        for model in configuration.model:
            self._exact.setdefault(model.name.casefold(), model)
            for alias in model.aliases:
                if "*" in alias:
                    self._patterns.append((model, compiled((alias,))[0]))
        for model in configuration.model:  # behind all names
            for alias in model.aliases:
                self._exact.setdefault(alias.casefold(), model)
        self.is_strict = configuration.server.strict_models

    def find(
        self, name: str, ordered: Sequence[LaneHandle], named: Callable[[str], Sequence[LaneHandle]]
    ) -> Served | None:
        """What a name stands for, ``None`` for an unknown one: a configured name or alias goes before a name that
        engines list, and that before a pattern which it happens to fit.

        Args:
            ordered: all lanes, the default one first.
            named: the lanes of a lane's or an engine's name.
        """
        if (exact := self._exact.get(name.casefold())) is not None:
            return _configured(exact, ordered, named)
        engines = dict.fromkeys([lane.engine for lane in ordered])  # each has several lanes
        listed = {engine: own for engine in engines if (own := listed_name(engine, name)) is not None}
        if not listed:
            fitting = next((model for model, pattern in self._patterns if pattern.fullmatch(name)), None)
            return _configured(fitting, ordered, named) if fitting else None
        lanes = tuple(lane for lane in ordered if lane.engine in listed)
        return Served(listed[lanes[0].engine], lanes)

    def default(
        self,
        asked: str | None,
        ordered: Sequence[LaneHandle],
        named: Callable[[str], Sequence[LaneHandle]],
    ) -> Served | None:
        """What serves a request that names no model, or an unknown one; ``None`` before any engine was heard of."""
        if not ordered or not (own := ordered[0].engine.models):
            return None
        name = _id(own, next(iter(own)))
        for model in self._models:
            engine_name = _own_name(model, ordered[0].engine)
            if engine_name is not None and listed_name(ordered[0].engine, engine_name) == name:
                return _configured(model, ordered, named)
        lanes = tuple(lane for lane in ordered if name in lane.engine.models)
        return Served(name, lanes, {lane.engine.name: name for lane in lanes if lane.engine.needs_model(asked)})


def listed_name(engine: EngineHandle, name: str) -> str | None:
    """The id under which an engine lists a model, if it does, by the engine's own rules for names."""
    models = engine.models
    if name in models:
        return _id(models, name)
    full_name = engine.supervisor.engine.full_model_name
    wanted = full_name(name)
    return next((_id(models, listed) for listed in models if full_name(listed) == wanted), None)


def _configured(
    model: ModelSettings, ordered: Sequence[LaneHandle], named: Callable[[str], Sequence[LaneHandle]]
) -> Served:
    wanted = [lane for name in (*model.lanes, *(offer.engine for offer in model.offer)) for lane in named(name)]
    lanes, engine_names = [], {}
    for lane in ordered:
        own = _own_name(model, lane.engine)
        is_meant = lane in wanted if wanted else own is not None and listed_name(lane.engine, own) is not None
        if is_meant:
            lanes.append(lane)
            if own is not None:
                engine_names[lane.engine.name] = own
    return Served(model.name, tuple(lanes), engine_names, model)


def _own_name(model: ModelSettings, engine: EngineHandle) -> str | None:
    """What an engine calls a model: as configured, or as listed; else, where lanes are given, the first that is."""
    configured = model.own_name(engine.name) or listed_name(engine, model.name)
    if configured is None and (model.lanes or model.offer):
        return next(iter(engine.models), None)
    return configured


def _id(models: Mapping[str, Mapping[str, object]], name: str) -> str:
    identifier = models[name].get("id")
    return identifier if isinstance(identifier, str) else name
