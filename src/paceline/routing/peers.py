"""Other routers that learn together with this one, as they were a moment ago."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from paceline.types import LaneState


class Place(NamedTuple):
    """Where a request is decoded, whatever a router calls it."""

    machine: str
    """As in :class:`LaneState`."""
    strategy: str


class Load(NamedTuple):
    """Requests in flight."""

    running: int = 0
    waiting: int = 0


class Peers(Struct, frozen=True):
    """How many there are, and what they have in flight."""

    count: int = 0
    loads: Mapping[Place, Load] = {}

    def beside(self, lanes: Sequence[LaneState]) -> Sequence[LaneState]:
        """Lanes with the others' requests beside one's own. Those that go down a lane that is not here count at the
        first lane of the same machine: there they use the same device."""
        if not self.loads:
            return lanes
        places = [place_of(lane) for lane in lanes]
        first: dict[str, Place] = {}
        for place in places:
            first.setdefault(place.machine, place)
        more: dict[Place, Load] = {}
        for place, load in self.loads.items():
            if place.machine in first:
                at = place if place in places else first[place.machine]
                before = more.get(at, Load())
                more[at] = Load(before.running + load.running, before.waiting + load.waiting)
        return [_with(lane, more.get(place, Load())) for lane, place in zip(lanes, places, strict=True)]


def _with(lane: LaneState, load: Load) -> LaneState:
    if not any(load):
        return lane
    return replace(lane, running=lane.running + load.running, waiting=lane.waiting + load.waiting)


def place_of(lane: LaneState) -> Place:
    return Place(lane.machine or lane.lane.engine, lane.lane.strategy.name)
