"""What became of the last requests, for who watches. In numbers only: no text is kept."""

from collections import deque
from itertools import dropwhile
from typing import Any

from msgspec import structs

from paceline.types import Decision, Outcome, Request, Signals

MOST = 1000
"""Requests that are remembered."""


class Recent:
    """The last requests that were served or failed, numbered from 1."""

    def __init__(self) -> None:
        self._last = 0
        self._entries: deque[dict[str, Any]] = deque(maxlen=MOST)

    def add(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> None:
        self._last += 1
        prediction = decision.predictions.get(outcome.lane)
        s_per_token = prediction.s_per_token if prediction else None
        self._entries.append(
            {
                "number": self._last,
                "id": request.id,
                "path": request.path,
                "model": request.model,
                "task": signals.task,
                "reason": decision.reason,
                "propensity": decision.propensity,
                "predicted_ms_per_token": None if s_per_token is None else 1000 * s_per_token,
                **structs.asdict(outcome),
                "observed": structs.asdict(outcome.observed),
            }
        )

    def after(self, number: int) -> dict[str, Any]:
        """The document of ``/paceline/requests``: all that are still remembered beyond a number, the oldest first."""
        entries = dropwhile(lambda entry: entry["number"] <= number, self._entries)
        return {"last": self._last, "requests": list(entries)}
