"""Everything that was learned, by what it holds for."""

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from threading import RLock
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, structs

from paceline.decision.answers import Mean, Means
from paceline.decision.changes import Recent
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


class Shared(Struct, frozen=True):
    """Whom all that is known was told to and heard from."""

    at_s: float
    """When that began, in seconds since 1970."""
    group: str
    """Of routers; empty where nothing was shared."""


Entry = Measured | Served | Mean | SavedModel | Totals | Drafted | Shared
ENTRY_TYPES: dict[str, type[Any]] = {
    "measured": Measured,
    "served": Served,
    "means": Mean,
    "models": SavedModel,
    "totals": Totals,
    "drafters": Drafted,
    "shared": Shared,
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
        self.untold: Recent[Any] | None = None
        """What was learned beside the models since others were told, by part and key; ``None`` where nobody shares. Of
        sums it holds what they were before, of sums that fade what was added."""
        self.totals_told = Totals()
        """The totals when others were told last."""
        self.shared = Shared(0.0, "")

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
        if self.untold is not None:
            model.share()
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
        """From now on, note what is learned for others (``sharing.py``)."""
        if self.untold is None:
            self.untold, self.totals_told = Recent(), self.totals
            self.means.share()
        for model in self.models.values():
            model.share()

    def names(self) -> list[list[str]]:
        """Those that each model is kept under."""
        names: dict[int, list[str]] = {}
        for name, model in self.models.items():
            names.setdefault(id(model), []).append(name)
        return [sorted(each) for each in names.values()]

    def count(self, key: tuple[str, str], sums: Measured) -> None:
        """Have sums over what a lane served in place of those before."""
        if self.untold is not None and ("measured", key) not in self.untold:
            self.untold["measured", key] = self.measured.get(key, Measured())
        self.measured[key] = sums

    def draft(self, drafter: tuple[str, str], drafted: int, accepted: int, at_s: float) -> None:
        """Note what a drafter did for one more answer."""
        self.drafters[drafter] = self.drafters.get(drafter, Drafted()).later(drafted, accepted, at_s)
        if self.untold is not None:
            before = self.untold.get(("drafters", drafter), (0.0, 0.0))
            self.untold["drafters", drafter] = before[0] + drafted, before[1] + accepted

    def serve(self, conversation: tuple[str, str], turn: Served) -> None:
        """Note a turn of a conversation, for others, too."""
        self.hear_served(conversation, turn)
        if self.untold is not None:
            self.untold["served", conversation] = None

    def hear_served(self, conversation: tuple[str, str], turn: Served) -> None:
        """Note a turn, unless a later one is known; of too many conversations, the oldest are forgotten."""
        known = self.served.pop(conversation, turn)
        self.served[conversation] = max(known, turn, key=lambda each: (each.at_s, each.chars))
        while len(self.served) > MAX_SERVED:
            del self.served[next(iter(self.served))]

    def tell_all(self) -> None:
        """Have others told all that is known, as if it had been learned now."""
        self.share()
        assert self.untold is not None
        for key in self.measured:
            self.untold["measured", key] = Measured()
        for drafter, drafts in self.drafters.items():
            self.untold["drafters", drafter] = drafts.drafted, drafts.accepted
        for conversation in self.served:
            self.untold["served", conversation] = None
        self.means.tell_all()
        for names in self.names():
            self.models[names[0]].tell_all()
        self.totals_told = Totals()

    def become(self, other: "Knowledge") -> None:
        """Know what another one does, and nothing else; that has nothing more to tell."""
        shares = self.untold is not None
        self.models, self.measured, self.drafters = other.models, other.measured, other.drafters
        self.served, self.means, self.totals, self.untold = other.served, other.means, other.totals, None
        self.learned += 1
        if shares:
            self.share()

    # Keeping it

    def rows(self) -> Iterator[Row]:
        """All entries. One that has not changed since the last time is the same object, or equal."""
        yield Row("totals", (), self.totals)
        if self.shared.group:
            yield Row("shared", (), self.shared)
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
            elif not all(isfinite(number) for number in structs.astuple(entry) if not isinstance(number, str)):
                continue
            elif isinstance(entry, Shared):
                knowledge.shared = entry
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
            self.hear_served(conversation, turn)
        self.means.merge(other.means)
        for names in other.names():
            self.joined(names).merge(other.models[names[0]])
        self.totals = Totals(
            at_s=max(self.totals.at_s, other.totals.at_s),
            decode_s=self.totals.decode_s + other.totals.decode_s,
            exploring_s=self.totals.exploring_s + other.totals.exploring_s,
        )
        self.learned += 1


def encoded_entry(entry: Entry) -> bytes:
    """To be stored or sent."""
    return msgspec.msgpack.encode(entry)


def decoded_row(part: str, key: Key, entry: bytes, latest_s: float) -> Row | None:
    """An entry that was stored or sent; ``None`` where it can't be read. What was learned is of use whatever clock
    dated it.

    Args:
        latest_s: the latest moment at which it can have been learned, in seconds since 1970.
    """
    try:
        decoded = msgspec.msgpack.decode(entry, type=ENTRY_TYPES[part])
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if isinstance(decoded, Totals | Mean | SavedModel):
        decoded = structs.replace(decoded, at_s=min(decoded.at_s, latest_s))
    return Row(part, key, decoded)


def subtracted(sums: Measured, less: Measured) -> Measured:
    """What was added to sums since they were others."""
    added = {name: max(0, getattr(sums, name) - getattr(less, name)) for name in Measured.__struct_fields__}
    return Measured(**added | {"at_s": sums.at_s})


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
