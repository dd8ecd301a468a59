"""Which requests of a log may be put together: those that chose among the same lanes, of one model under one setting.

A lane's name says neither which model stands behind it nor with which settings; its fingerprint does. Logs of a time
when the models of one engine had a fingerprint in common tell them by the names that requests gave.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from paceline.evidence.estimate import Logged
from paceline.evidence.usable import Entry
from paceline.types import engine_of

Choice = frozenset[tuple[str, str]]
"""Lanes that a request had to choose from, each with its fingerprint."""
Pair = tuple[Entry, Logged]


class Group(Struct, frozen=True):
    model: str | None
    """``None`` where no request named one."""
    pairs: Sequence[Pair]
    is_current: bool
    """Whether none of its lanes was seen with other settings later."""


def groups(pairs: Iterable[Pair], everything: Iterable[Entry]) -> list[Group]:
    """Usable requests by what they chose among: those of current settings first, by their time; the others then, the
    latest first.

    Args:
        pairs: in the log's order.
        everything: the whole log, which shows what the settings are now.
    """
    by_choice: dict[Choice, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_choice[choice(pair[0])].append(pair)
    newest: dict[tuple[str | None, str], str] = {}
    for entry in everything:
        for lane, fingerprint in choice(entry):
            newest[entry["model"], lane] = fingerprint
    found = []
    for lanes, some in by_choice.items():
        for model, part in _by_model(some).items():
            names = {entry["model"] for entry, _ in part}
            is_current = all(newest[name, lane] == fingerprint for name in names for lane, fingerprint in lanes)
            found.append(Group(model, part, is_current))
    return sorted(found, key=_order)


def choice(entry: Entry) -> Choice:
    return frozenset((lane, fingerprint_of(lane, one)) for lane, one in entry["predictions"].items())


def fingerprint_of(lane: str, prediction: Mapping[str, object]) -> str:
    """Under which a logged outcome was learned; the engine's name where the log has none."""
    return str(prediction.get("fingerprint") or engine_of(lane))


def _by_model(pairs: Sequence[Pair]) -> Mapping[str | None, Sequence[Pair]]:
    """One part for each model that requests named, where one lane served several under one fingerprint; else all."""
    by_name: dict[str | None, list[Pair]] = defaultdict(list)
    by_lane: dict[str, set[str]] = defaultdict(set)
    for entry, one in pairs:
        by_name[entry["model"]].append((entry, one))
        if entry["model"] is not None:
            by_lane[one.lane].add(entry["model"])
    if any(len(names) > 1 for names in by_lane.values()):
        return by_name
    named = [name for name in by_name if name is not None]
    return {max(named, key=lambda name: len(by_name[name]), default=None): pairs}


def _order(group: Group) -> tuple[bool, float]:
    if group.is_current:
        return False, -sum(one.seconds for _, one in group.pairs)
    return True, -group.pairs[-1][0]["at_s"]
