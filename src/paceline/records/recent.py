"""What became of the last requests, for who watches. No text is kept, as :mod:`paceline.records.kept` has it."""

from collections import deque
from itertools import dropwhile
from typing import Any, NamedTuple

from msgspec import structs

from paceline.records.kept import kept_id, kept_name, kept_outcome, kept_path
from paceline.types import Decision, Outcome, Request, Signals

MAX_REQUESTS = 1000
"""Requests that are remembered."""


class _Entry(NamedTuple):
    number: int
    id: str | None
    path: str
    model: str | None
    task: str
    client: str | None
    """The name of its key."""
    decision: Decision
    outcome: Outcome


class Recent:
    """The last requests that were served or failed, numbered from 1."""

    def __init__(self) -> None:
        self._last = 0
        self._entries: deque[_Entry] = deque(maxlen=MAX_REQUESTS)

    def add(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> None:
        self._last += 1
        self._entries.append(
            _Entry(
                self._last,
                kept_id(request.id),
                kept_path(request.path),
                kept_name(request.served_model),
                signals.task,
                request.client,
                decision,
                kept_outcome(outcome, request),
            )
        )

    def after(self, number: int) -> dict[str, Any]:
        """The document of ``/paceline/requests``: all that are still remembered beyond a number, the oldest first."""
        entries = dropwhile(lambda entry: entry.number <= number, self._entries)
        return {"last": self._last, "requests": [_document(entry) for entry in entries]}


def _document(entry: _Entry) -> dict[str, Any]:
    decision, outcome = entry.decision, entry.outcome
    prediction, seen = decision.predictions.get(outcome.lane), outcome.observed
    s_per_token = prediction.s_per_token if prediction else None
    needed = None
    if prediction and prediction.break_even is not None and seen.drafted and seen.drafting_steps:
        needed = (prediction.break_even - 1) * seen.drafting_steps / seen.drafted
    return {
        "number": entry.number,
        "id": entry.id,
        "path": entry.path,
        "model": entry.model,
        "task": entry.task,
        "client": entry.client,
        "reason": decision.reason,
        "propensity": decision.propensity,
        "predicted_ms_per_token": None if s_per_token is None else 1000 * s_per_token,
        "drafts": bool(prediction and prediction.strategy.drafts),
        "break_even_share": needed,
        **structs.asdict(outcome),
        "observed": structs.asdict(seen),
    }
