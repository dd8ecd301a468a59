"""Everything that was learned. Immutable; two states add up to the one that saw both their outcomes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct, structs

from paceline.decision import cells, fixed, step_cost
from paceline.decision.cells import Cell
from paceline.decision.fixed import Always, LaneKey
from paceline.decision.step_cost import StepCost
from paceline.types import Measured

K = TypeVar("K")
V = TypeVar("V")
Key = tuple[str | int | None, ...]
"""What a number is about: its kind, then the fingerprint or model, then the rest."""


class Served(Struct, frozen=True):
    """The last turn of a conversation on one engine."""

    at_s: float
    chars: int
    """Length of the prompt, which the engine's cache is taken to hold still."""


Entry = Measured | Cell | StepCost | Served | Always | float
"""What a state keeps under one key."""
ENTRY_TYPES: Mapping[str, type[Entry]] = {
    "measured": Measured,
    "cells": Cell,
    "steps": StepCost,
    "served": Served,
    "always": Always,
    "at_s": float,
    "decode_s": float,
    "exploring_s": float,
}
"""By part of a state."""


class Row(NamedTuple):
    """One entry of a state, as it can be stored."""

    part: str
    """Of :data:`ENTRY_TYPES`."""
    key: Key
    """What it is about; empty for numbers about everything."""
    entry: Entry


class State(Struct, frozen=True):
    """What is known of lanes, drafters and machines."""

    measured: Mapping[LaneKey, Measured] = {}
    """Sums by fingerprint and lane: another model, build or setting under a lane's name begins anew."""
    cells: Mapping[Key, Cell] = {}
    steps: Mapping[Key, StepCost] = {}
    """Step costs by model and kind of drafter."""
    served: Mapping[Key, Served] = {}
    """By conversation and fingerprint."""
    always: Mapping[LaneKey, Always] = {}
    """By fingerprint and lane."""
    at_s: float = 0.0
    """When the latest outcome was learned, in seconds since 1970."""
    decode_s: float = 0.0
    """Time spent decoding, of all answers that reported it and whose lane was chosen among several."""
    exploring_s: float = 0.0
    """Part of it that exploration was expected to cost."""

    def rows(self) -> Iterator[Row]:
        """All entries. An entry that has not changed since an earlier state is the same object."""
        for part in ENTRY_TYPES:
            content = getattr(self, part)
            if isinstance(content, Mapping):
                for key, entry in content.items():
                    yield Row(part, key, entry)
            else:
                yield Row(part, (), content)

    @classmethod
    def from_rows(cls, rows: Iterable[Row]) -> "State":
        """The state of these entries, without those that can't have been in one (:func:`is_sound`)."""
        parts: dict[str, Any] = {}
        for part, key, entry in rows:
            if not is_sound(entry):
                continue
            if isinstance(entry, float):
                parts[part] = entry
            else:
                parts.setdefault(part, {})[key] = entry
        return cls(**parts)


def later(first: Served, second: Served) -> Served:
    """The later turn of the two."""
    return max(first, second, key=lambda turn: (turn.at_s, turn.chars))


def merge(first: State, second: State) -> State:
    """The state that saw the outcomes of both. Commutative and associative, up to rounding and to what was dropped
    where conversations are bounded in number."""
    return State(
        measured=_merged(first.measured, second.measured, _added),
        cells=_merged(first.cells, second.cells, cells.merged),
        steps=_merged(first.steps, second.steps, step_cost.merged),
        served=_merged(first.served, second.served, later),
        always=_merged(first.always, second.always, fixed.merged),
        at_s=max(first.at_s, second.at_s),
        decode_s=first.decode_s + second.decode_s,
        exploring_s=first.exploring_s + second.exploring_s,
    )


def is_sound(entry: Entry) -> bool:
    """Whether an entry is one that could have been learned: a damaged byte may leave it readable and change its
    sense."""
    if isinstance(entry, float):
        return isfinite(entry)
    if isinstance(entry, Cell | StepCost) and not entry.is_sound:
        return False
    return all(isfinite(number) for number in _numbers(structs.astuple(entry)))


def _numbers(values: tuple[Any, ...]) -> Iterator[float]:
    for value in values:
        if isinstance(value, tuple):
            yield from _numbers(value)
        elif isinstance(value, (int, float)):
            yield value


def _merged(first: Mapping[K, V], second: Mapping[K, V], both: Callable[[V, V], V]) -> dict[K, V]:
    merged = dict(first)
    for key, value in second.items():
        merged[key] = both(merged[key], value) if key in merged else value
    return merged


def _added(first: Measured, second: Measured) -> Measured:
    sums = {name: getattr(first, name) + getattr(second, name) for name in Measured.__struct_fields__}
    return Measured(**sums | {"at_s": max(first.at_s, second.at_s)})
