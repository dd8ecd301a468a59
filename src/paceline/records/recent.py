"""What became of the last requests, for who watches."""

from collections import deque
from itertools import dropwhile
from typing import Any

from msgspec import to_builtins

from paceline.records.in_words import in_words
from paceline.records.record import Record

MAX_REQUESTS = 1000
"""Requests that are remembered."""


class Recent:
    """The last requests that were served or failed, numbered from 1."""

    def __init__(self) -> None:
        self._last = 0
        self._numbered: deque[tuple[int, Record]] = deque(maxlen=MAX_REQUESTS)

    def record(self, record: Record, /) -> None:
        self._last += 1
        self._numbered.append((self._last, record))

    def after(self, number: int) -> dict[str, Any]:
        """The document of ``/paceline/requests``: all that are still remembered beyond a number, the oldest first."""
        newer = dropwhile(lambda numbered: numbered[0] <= number, self._numbered)
        return {"last": self._last, "requests": [_document(its_number, record) for its_number, record in newer]}

    def find(self, number: int) -> tuple[Record, dict[str, Any]] | None:
        """The request with a number and its document; ``None`` where it is not remembered any more, or not yet."""
        for its_number, record in self._numbered:
            if its_number == number:
                return record, _document(number, record)
        return None

    @property
    def records(self) -> list[Record]:
        """Those that are remembered, the oldest first."""
        return [record for _, record in self._numbered]


def _document(number: int, record: Record) -> dict[str, Any]:
    decision, outcome, observed = record.decision, record.outcome, record.outcome.observed
    prediction = decision.predictions.get(outcome.lane)
    s_per_token = prediction.s_per_token if prediction else None
    break_even_share = None
    if prediction and prediction.break_even is not None and observed.drafted and observed.drafting_steps:
        break_even_share = (prediction.break_even - 1) * observed.drafting_steps / observed.drafted
    return {
        "number": number,
        "id": record.id,
        "path": record.path,
        "model": record.model,
        "task": record.task,
        "client": record.client,
        "reason": decision.reason,
        "why": in_words(record),
        "stream": record.stream,
        "explored": decision.exploring_s > 0,
        "propensity": decision.propensity,
        "predicted_ms_per_token": None if s_per_token is None else 1000 * s_per_token,
        "drafts": bool(prediction and prediction.strategy.drafts),
        "break_even_share": break_even_share,
        "placed": _placed(record),
        **to_builtins(outcome),
    }


def _placed(record: Record) -> dict[str, Any] | None:
    """Why it went to its engine, and why not to others; ``None`` where there was nothing to place."""
    placed = record.decision.placed
    if placed is None:
        return None
    return {
        "engine": placed.engine,
        "why": placed.why,
        "reason": placed.reason,
        "struck": dict(placed.struck),
        "private": bool(placed.private),
    }
