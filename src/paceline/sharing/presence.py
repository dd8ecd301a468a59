"""Which routers are there, and what they have in flight."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from paceline.routing.peers import Load, Peers, Place, place_of
from paceline.types import LaneState

MAX_LOADS = 4096
"""Lanes of one router whose load counts."""


class Presence(Struct, frozen=True):
    """One router, as it says itself."""

    started_s: float
    """Since when it shares, in seconds since 1970: who does so for longest writes the snapshot."""
    loads: list[tuple[str, str, int, int]] = []
    """Machine and strategy of lanes in use, and how many requests run and wait there."""
    decides: bool = True
    """Whether it decides on requests, and so tries out lanes; one that only keeps what others learn does not."""


def presence(started_s: float, lanes: Sequence[LaneState], decides: bool = True) -> Presence:
    busy = [lane for lane in lanes if lane.running or lane.waiting][:MAX_LOADS]
    return Presence(started_s, [(*place_of(lane), lane.running, lane.waiting) for lane in busy], decides)


def peers(others: Iterable[Presence]) -> Peers:
    """What a router takes into account of the others."""
    loads: dict[Place, Load] = {}
    count = 0
    for other in others:
        count += other.decides
        for machine, strategy, running, waiting in other.loads[:MAX_LOADS]:
            before = loads.get(Place(machine, strategy), Load())
            more = Load(before.running + max(0, running), before.waiting + max(0, waiting))
            loads[Place(machine, strategy)] = more
    return Peers(count, loads)
