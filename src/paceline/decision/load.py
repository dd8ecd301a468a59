"""What goes on on the devices at the moment of a decision."""

from collections.abc import Sequence

from paceline.types import LaneState


class Load:
    """The requests in flight, by device and by engine."""

    def __init__(self, lanes: Sequence[LaneState]) -> None:
        self._running: dict[str, int] = {}
        self._in_flight: dict[str, int] = {}
        self._held: set[str] = set()
        """Devices whose turn some engine has."""
        for state in lanes:
            device = state.lane.device or state.lane.engine
            self._running[device] = self._running.get(device, 0) + state.running
            self._in_flight[device] = self._in_flight.get(device, 0) + state.running + state.waiting
            if not state.has_turn:
                self._held.add(device)
        self._is_busy = any(self._running.values())

    def takes_turns(self, state: LaneState) -> bool:
        """Whether some engine holds the lane's device, so that others wait."""
        return bool(self._held) and (state.lane.device or state.lane.engine) in self._held

    def concurrent(self, state: LaneState) -> int:
        """Other requests that would be decoded in the same batch as one sent down this lane: those on its device, or
        where engines take turns, its own."""
        if not self._is_busy:
            return 0
        device = state.lane.device or state.lane.engine
        return state.running if device in self._held else self._running[device]

    def in_flight(self, state: LaneState) -> int:
        """Requests that run or wait on the lane's device."""
        return self._in_flight[state.lane.device or state.lane.engine]
