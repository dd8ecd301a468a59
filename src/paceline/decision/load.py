"""What goes on on the devices at the moment of a decision."""

from collections.abc import Sequence

from paceline.types import LaneState


class Load:
    """The requests in flight, by device and by engine."""

    def __init__(self, lanes: Sequence[LaneState]) -> None:
        self._running: dict[str, int] = {}
        self._in_flight: dict[str, int] = {}
        self._held: set[str] = set()
        for one in lanes:
            device = one.lane.device or one.lane.engine
            self._running[device] = self._running.get(device, 0) + one.running
            self._in_flight[device] = self._in_flight.get(device, 0) + one.running + one.waiting
            if not one.has_turn:
                self._held.add(device)

    def takes_turns(self, one: LaneState) -> bool:
        """Whether some engine holds the lane's device, so that others wait."""
        return (one.lane.device or one.lane.engine) in self._held

    def beside(self, one: LaneState) -> int:
        """Requests that would be decoded beside one sent down this lane; where engines take turns, those of its own."""
        device = one.lane.device or one.lane.engine
        return one.running if device in self._held else self._running[device]

    def in_flight(self, one: LaneState) -> int:
        """Requests that run or wait on the lane's device."""
        return self._in_flight[one.lane.device or one.lane.engine]
