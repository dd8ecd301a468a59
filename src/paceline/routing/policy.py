"""What every way to choose lanes answers to: Paceline's router, and each baseline that it is compared with."""

from collections.abc import Sequence
from typing import Protocol

from paceline.types import Decision, LaneState, Outcome, Request, Signals


class Policy(Protocol):
    """Chooses a lane for each request, and may learn from what came of it."""

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        """
        Args:
            signals: of the request.
            lanes: that may serve it, as they are now, the default one first; at least one.
        """
        ...

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        """Take in what became of a request that was decided on; requests may end in any order."""
        ...
