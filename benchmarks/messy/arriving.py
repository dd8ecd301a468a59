"""Recorded requests in an order in which they could have come, each inspected as the gateway does."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from training.task_model.traffic import inspected

from paceline.types import Signals, Task


class Recorded(Struct, frozen=True):
    """One request of the file."""

    source: str
    true: Task
    """The first of its acceptable tasks."""
    signals: Signals


def recorded(path: Path) -> list[Recorded]:
    return [Recorded(row.source, Task(row.ok[0]), row.signals) for row in inspected(path)]


def groups_of(requests: Sequence[Recorded]) -> dict[str, list[Recorded]]:
    """The requests of agents, those of people who ask by themselves, and all. A source is one of agents where most of
    its requests are known to be an agent's or offer tools; people's have no system prompt, tools or other mark of a
    program, and stand in a conversation."""
    by_source: dict[str, list[Recorded]] = defaultdict(list)
    for request in requests:
        by_source[request.source].append(request)
    groups: dict[str, list[Recorded]] = {"agents": [], "chat": [], "all": list(requests)}
    for of_source in by_source.values():
        seen = [request.signals for request in of_source]
        if 2 * sum(bool(signals.agent) or signals.evidence == "tools" for signals in seen) > len(seen):
            groups["agents"] += of_source
        elif 2 * sum(not signals.application and signals.turn != "prompt" for signals in seen) > len(seen):
            groups["chat"] += of_source
    return {name: group for name, group in groups.items() if group}


def halves(requests: Sequence[Recorded]) -> tuple[list[Recorded], list[Recorded]]:
    """The requests of every second source, and of the others: to tune on, and to report."""
    sources = list(dict.fromkeys(request.source for request in requests))
    first = set(sources[::2])
    return (
        [request for request in requests if request.source in first],
        [request for request in requests if request.source not in first],
    )


def in_order(requests: Sequence[Recorded], count: int, rng: np.random.Generator) -> list[Recorded]:
    """``count`` of them, over and over: every source has its conversations one after another, in another order each
    time, and the sources come in between each other. A conversation that comes again is another one."""
    arriving: list[Recorded] = []
    passes = 0
    while len(arriving) < count:
        passes += 1
        waiting: dict[str, list[Recorded]] = {}
        for source in dict.fromkeys(request.source for request in requests):
            conversations: dict[str, list[Recorded]] = defaultdict(list)
            for request in requests:
                if request.source == source:
                    conversations[request.signals.conversation].append(request)
            shuffled = list(conversations.values())
            rng.shuffle(shuffled)
            waiting[source] = [request for turns in shuffled for request in turns][::-1]
        order = [source for source, left in waiting.items() for _ in left]
        rng.shuffle(order)
        arriving += [_again(waiting[source].pop(), passes) for source in order]
    return arriving[:count]


def _again(request: Recorded, number: int) -> Recorded:
    signals = request.signals
    return replace(request, signals=replace(signals, conversation=f"{signals.conversation} {number}"))
