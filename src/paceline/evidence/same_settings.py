"""Which requests of a log may be put together: those that chose among the same lanes, of one model under one setting.

A lane's name says neither which model stands behind it nor with which settings; its fingerprint does. Logs of a time
when the models of one engine had a fingerprint in common tell them by the names that requests gave.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from paceline.evidence.usable import LoggedRequest
from paceline.records.record import Record
from paceline.types import engine_of

AnyLogged = TypeVar("AnyLogged", bound=LoggedRequest)
Choice = frozenset[tuple[str, str]]
"""Lanes that a request had to choose from, each with its fingerprint."""


class Group(Struct, Generic[AnyLogged], frozen=True):
    model: str | None
    """``None`` where no request named one."""
    requests: Sequence[AnyLogged]
    is_current: bool
    """Whether none of its lanes was seen with other settings later."""

    @property
    def lanes(self) -> list[str]:
        """That its requests chose from, in the latest order of the configuration."""
        return list(self.requests[-1].record.decision.predictions)


def groups(requests: Iterable[AnyLogged], records: Iterable[Record]) -> list[Group[AnyLogged]]:
    """Usable requests by what they chose among: those of current settings first, by their time; the others then, the
    latest first.

    Args:
        requests: in the log's order.
        records: the whole log, which shows what the settings are now.
    """
    # 1. Which requests chose among the same?
    by_choice: dict[Choice, list[AnyLogged]] = defaultdict(list)
    for request in requests:
        by_choice[choice(request.record)].append(request)
    # 2. With which settings was each lane seen last, for each model?
    newest: dict[tuple[str | None, str], str] = {}
    for record in records:
        for lane, fingerprint in choice(record):
            newest[record.model, lane] = fingerprint
    # 3. The groups, apart by model where the fingerprints don't tell models apart.
    parts = []
    for lanes, alike in by_choice.items():
        for model, part in _by_model(alike).items():
            names = {request.record.model for request in part}
            is_current = all(newest[name, lane] == fingerprint for name in names for lane, fingerprint in lanes)
            parts.append(Group(model=model, requests=part, is_current=is_current))
    return sorted(parts, key=_order)


def choice(record: Record) -> Choice:
    return frozenset((lane, fingerprint_of(record, lane)) for lane in record.decision.predictions)


def fingerprint_of(record: Record, lane: str) -> str:
    """Under which an outcome on a lane was learned; the engine's name where the log has none."""
    return record.decision.predictions[lane].fingerprint or engine_of(lane)


def _by_model(requests: Sequence[AnyLogged]) -> Mapping[str | None, Sequence[AnyLogged]]:
    """One part for each model that requests named, where one lane served several under one fingerprint; else all."""
    by_name: dict[str | None, list[AnyLogged]] = defaultdict(list)
    names_by_lane: dict[str, set[str]] = defaultdict(set)
    for request in requests:
        name = request.record.model
        by_name[name].append(request)
        if name is not None:
            names_by_lane[request.sample.lane].add(name)
    if any(len(names) > 1 for names in names_by_lane.values()):
        return by_name
    named = [name for name in by_name if name is not None]
    return {max(named, key=lambda name: len(by_name[name]), default=None): requests}


def _order(group: Group[AnyLogged]) -> tuple[bool, float]:
    if group.is_current:
        return False, -sum(request.sample.seconds for request in group.requests)
    return True, -group.requests[-1].record.outcome.at_s
