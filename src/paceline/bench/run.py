"""Sends a workload down every lane and through the routing, in turn, and notes what the gateway measured."""

import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from paceline.bench.asking import Asker, Group, Settings
from paceline.bench.results import ROUTED, Sample
from paceline.bench.workload import Item, Workload
from paceline.wire.client import Client


class Progress(Struct, frozen=True, kw_only=True):
    """How far a bench is, in groups of requests."""

    done: int
    of: int
    left_s: float | None
    """``None`` before it can be told."""


def _groups(items: Sequence[Item], settings: Settings) -> Iterator[Group]:
    """Every way for one group of items before the next, beginning with another way each time: a machine that drifts
    is fair to all. A last group that is too small is filled up from the beginning."""
    for temperature in settings.temperatures:
        for concurrency in settings.concurrencies:
            for number in range(settings.rounds):
                order = list(items)
                Random(f"{settings.seed} {number}").shuffle(order)
                for place in range(0, len(order), concurrency):
                    group = tuple((order * concurrency)[place : place + concurrency])
                    ways = settings.ways
                    shift = (number + place // concurrency) % len(ways)
                    for way in ways[shift:] + ways[:shift]:
                        yield Group(
                            items=group, way=way, temperature=temperature, concurrency=concurrency, round=number
                        )


async def run_bench(
    client: Client,
    lanes: Sequence[dict[str, Any]],
    workload: Workload,
    settings: Settings,
    measured: Sequence[Sample],
    note: Callable[[Sample], None],
    report: Callable[[Progress], None],
) -> None:
    """Measure what was not measured yet.

    Args:
        lanes: as ``/paceline/lanes`` tells them.
        measured: samples of a bench that was broken off.
        note: told of each new sample.

    Raises:
        ConnectFailed: there is no gateway any more.
    """
    asker = Asker(client, lanes, settings)
    # 1. What is left to do.
    items, teaching = workload.part(settings.prompts), workload.part(settings.teach, skip=settings.prompts)
    done_keys = {sample.key for sample in measured}
    groups = [
        group for group in _groups(items, settings) if not all(group.key(item) in done_keys for item in group.items)
    ]
    learning = teaching if any(group.way == ROUTED for group in groups) else ()
    total, done, began_s = len(learning) + len(groups), 0, time.monotonic()

    def progress() -> None:
        took_s = time.monotonic() - began_s
        report(Progress(done=done, of=total, left_s=took_s / done * (total - done) if done else None))

    # 2. The gateway learns.
    progress()
    for item in learning:
        await asker.teach(item)
        done += 1
        progress()
    # 3. What is slow the first time is not measured.
    if groups:
        await asker.measure(msgspec.structs.replace(groups[0], way=settings.lanes[0]))
    # 4. Measure.
    for group in groups:
        for sample in await asker.measure(group):
            if sample.key not in done_keys:
                done_keys.add(sample.key)
                note(sample)
        done += 1
        progress()
