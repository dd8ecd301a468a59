"""Everything that was learned, by what it holds for."""

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from threading import RLock
from typing import Any, NamedTuple

from msgspec import Struct, structs

from paceline.decision.answers import Mean, Means
from paceline.decision.feeling import LaneId
from paceline.decision.load import Forecast
from paceline.decision.saved import SavedModel, restored, saved
from paceline.decision.time_model import TimeModel
from paceline.decision.tuning import DRAFTED_FADING, MAX_MODELS, MAX_SERVED
from paceline.types import LaneState, Measured

Key = tuple[str, ...]
"""What an entry is about."""


class Served(Struct, frozen=True):
    """The last turn of a conversation on one engine."""

    at_s: float
    chars: int
    """Length of the prompt, which the engine's cache is taken to hold still."""


class Drafted(Struct, frozen=True):
    """What one drafter of an engine did lately: sums that fade with each answer."""

    drafted: float = 0.0
    accepted: float = 0.0
    at_s: float = 0.0
    """When the last answer ended, in seconds since 1970."""

    def later(self, drafted: int, accepted: int, at_s: float) -> "Drafted":
        """After one more answer."""
        faded = DRAFTED_FADING * self.drafted, DRAFTED_FADING * self.accepted
        return Drafted(faded[0] + drafted, faded[1] + accepted, max(self.at_s, at_s))


class Totals(Struct, frozen=True):
    """Numbers about everything."""

    at_s: float = 0.0
    """When the latest outcome was learned, in seconds since 1970."""
    decode_s: float = 0.0
    """Time spent decoding, of all answers that reported it and whose lane was chosen among several."""
    exploring_s: float = 0.0
    """Part of it that exploration was expected to cost."""


Entry = Measured | Served | Mean | SavedModel | Totals | Drafted
ENTRY_TYPES: dict[str, type[Any]] = {
    "measured": Measured,
    "served": Served,
    "means": Mean,
    "models": SavedModel,
    "totals": Totals,
    "drafters": Drafted,
}
"""By part of what is known."""


class Row(NamedTuple):
    """One entry, as it can be stored."""

    part: str
    """Of :data:`ENTRY_TYPES`."""
    key: Key
    entry: Entry


class Knowledge:
    """What is known of lanes, drafters and machines. It changes with every outcome; :attr:`lock` is to be held by who
    reads or changes it from several threads."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.models: dict[str, TimeModel] = {}
        """By model and device (:attr:`LaneState.model`). Lanes that were compared with each other share one."""
        self.measured: dict[tuple[str, str], Measured] = {}
        """Sums by fingerprint and lane: another model, build or setting under a lane's name begins anew."""
        self.drafters: dict[tuple[str, str], Drafted] = {}
        """By fingerprint and kind of drafter."""
        self.served: dict[tuple[str, str], Served] = {}
        """By conversation and fingerprint."""
        self.means = Means()
        """Of answers' lengths, and of what a prompt token takes."""
        self.forecasts: dict[str, Forecast] = {}
        """Of concurrency, by model and device."""
        self.totals = Totals()
        self.learned = 0
        """Outcomes that were learned since this was made."""
        self._shares = False

    def model_of(self, lanes: Sequence[LaneId]) -> TimeModel:
        """What is known of the times of lanes that are compared with each other. Changes nothing."""
        names = {lane.model: None for lane in lanes}
        known = [self.models[name] for name in names if name in self.models]
        return max(known, key=_seen, default=None) or TimeModel()

    def joined(self, names: Iterable[str]) -> TimeModel:
        """The model to learn with of lanes that were compared with each other, by the names it is kept under: what was
        known of some of them apart is put together. Of too many, what was not learned of for longest is forgotten."""
        names = dict.fromkeys(names)
        known = list({id(self.models[name]): self.models[name] for name in names if name in self.models}.values())
        model = max(known, key=_seen, default=None) or TimeModel()
        if self._shares:
            model.belief.share()
        for other in known:
            if other is not model:
                model.merge(other)
        for name in [*(name for name, each in self.models.items() if each in known), *names]:
            self.models.pop(name, None)
            self.models[name] = model
        while len(self.models) > MAX_MODELS:
            self.forecasts.pop(forgotten := next(iter(self.models)), None)
            del self.models[forgotten]
        return model

    def share(self) -> None:
        """From now on, note what is observed for others to learn (``sharing.py``)."""
        self._shares = True
        for model in self.models.values():
            model.belief.share()

    def names(self) -> list[list[str]]:
        """Those that each model is kept under."""
        names: dict[int, list[str]] = {}
        for name, model in self.models.items():
            names.setdefault(id(model), []).append(name)
        return [sorted(each) for each in names.values()]

    def serve(self, conversation: tuple[str, str], turn: Served) -> None:
        """Note a turn, unless a later one is known; of too many conversations, the oldest are forgotten."""
        known = self.served.pop(conversation, turn)
        self.served[conversation] = max(known, turn, key=lambda each: (each.at_s, each.chars))
        while len(self.served) > MAX_SERVED:
            del self.served[next(iter(self.served))]

    # Keeping it

    def rows(self) -> Iterator[Row]:
        """All entries. One that has not changed since the last time is the same object, or equal."""
        yield Row("totals", (), self.totals)
        for lane, sums in self.measured.items():
            yield Row("measured", lane, sums)
        for drafter, drafts in self.drafters.items():
            yield Row("drafters", drafter, drafts)
        for conversation, turn in self.served.items():
            yield Row("served", conversation, turn)
        for key, mean in self.means.sums.items():
            yield Row("means", key, mean)
        for shared in self.names():
            yield Row("models", tuple(shared), saved(self.models[shared[0]]))

    @classmethod
    def from_rows(cls, rows: Iterable[Row]) -> "Knowledge":
        """What these entries tell, without those that can't have been learned: a damaged byte may leave one readable
        and change its sense."""
        knowledge = cls()
        for part, key, entry in rows:
            if isinstance(entry, SavedModel):
                if (model := restored(entry)) is not None:
                    knowledge.models |= dict.fromkeys(key, model)
            elif not all(isfinite(number) for number in structs.astuple(entry)):
                continue
            elif isinstance(entry, Totals):
                knowledge.totals = entry
            elif isinstance(entry, Mean):
                if entry.can_be:
                    knowledge.means.sums[key] = entry
            elif len(key) == 2 and isinstance(entry, Served):
                knowledge.served[key[0], key[1]] = entry
            elif len(key) == 2 and isinstance(entry, Measured):
                knowledge.measured[key[0], key[1]] = entry
            elif len(key) == 2 and isinstance(entry, Drafted) and 0 <= entry.accepted <= entry.drafted:
                knowledge.drafters[key[0], key[1]] = entry
            assert part in ENTRY_TYPES
        return knowledge

    def merge(self, other: "Knowledge") -> None:
        """Also know what another has learned. What is merged twice counts twice."""
        for lane, sums in other.measured.items():
            self.measured[lane] = added(self.measured[lane], sums) if lane in self.measured else sums
        for drafter, drafts in other.drafters.items():
            own = self.drafters.get(drafter, Drafted())
            self.drafters[drafter] = Drafted(
                own.drafted + drafts.drafted, own.accepted + drafts.accepted, max(own.at_s, drafts.at_s)
            )
        for conversation, turn in other.served.items():
            self.serve(conversation, turn)
        self.means.merge(other.means)
        for names in other.names():
            self.joined(names).merge(other.models[names[0]])
        self.totals = Totals(
            at_s=max(self.totals.at_s, other.totals.at_s),
            decode_s=self.totals.decode_s + other.totals.decode_s,
            exploring_s=self.totals.exploring_s + other.totals.exploring_s,
        )
        self.learned += 1


def id_of(state: LaneState) -> LaneId:
    """What the lane's evidence is kept under."""
    fingerprint = state.fingerprint or state.lane.engine
    return LaneId(fingerprint, state.model or fingerprint, state.lane.strategy, state.drafted_token_cost)


def _seen(model: TimeModel) -> int:
    return model.seen


def added(first: Measured, second: Measured) -> Measured:
    """The sums of both."""
    sums = {name: getattr(first, name) + getattr(second, name) for name in Measured.__struct_fields__}
    return Measured(**sums | {"at_s": max(first.at_s, second.at_s)})
