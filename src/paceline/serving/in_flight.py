"""What is in flight at the moment, all of it together."""

from collections.abc import Iterator

from paceline.serving.attempt import Attempt
from paceline.serving.exchange import Exchange
from paceline.serving.handles import EngineHandle
from paceline.serving.turns import HeldTurn

SLOW_READER_S = 2.0
"""A client that keeps a piece waiting this long no longer keeps others from the device: the rest of its answer
waits in the engine for the client, not for the device."""


class InFlight:
    """Requests that are decided on, and turns of requests that are passed through."""

    def __init__(self) -> None:
        self.exchanges: set[Exchange] = set()
        self.held_turns: set[HeldTurn] = set()
        """Of requests that are passed through."""

    @property
    def requests(self) -> int:
        """How many requests are decided on or answered now."""
        return len(self.exchanges)

    def release_idle_turns(self, now_s: float) -> None:
        """Let others have a device whose turn is not used, since a client does not take its answer, or an engine is
        silent."""
        for exchange in self.exchanges:
            if exchange.last_attempt is not None:
                exchange.last_attempt.release_turn_if_idle(SLOW_READER_S, now_s)
        for turn in self.held_turns:
            turn.release_if_idle(SLOW_READER_S, now_s)

    def attempts_on(self, engine: EngineHandle) -> Iterator[Attempt]:
        """Those of requests that were sent to an engine last."""
        for exchange in self.exchanges:
            attempt = exchange.last_attempt
            if attempt is not None and attempt.lane.engine is engine:
                yield attempt

    def expected_silence_s(self, engine: EngineHandle) -> float:
        """How long an engine may have to be silent for what runs on it, as it reads long prompts."""
        return max((attempt.expected_silence_s for attempt in self.attempts_on(engine)), default=0.0)
