"""What became of requests over time: sums by slices of time, fine for the last hour and coarse for the last month."""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from time import monotonic, time
from typing import Any

from msgspec import Struct, field

from paceline.records.decision_log import INTERVAL_S
from paceline.records.read import LogReader, NoLog
from paceline.records.record import Record
from paceline.records.state_file import identity
from paceline.types import CLIENT_LEFT

WIDTHS_S = (15, 300, 3600)
"""Of slices, in seconds."""
KEPT = (240, 288, 720)
"""Slices of each width: an hour, a day, 30 days."""
MAX_RANGE_S = WIDTHS_S[-1] * KEPT[-1]
MAX_ENTRIES = 20_000
"""Of the decision log, the last ones, that are counted; reading one takes 30 microseconds."""
BOUNDS_S = tuple(0.005 * 2 ** (number / 4) for number in range(64))
"""Upper ones of the classes in which times to the first token are counted: 5 ms to 275 s, each a fifth longer than the
one before."""


class Sums(Struct):
    """Of the requests that ended within a span of time."""

    requests: int = 0
    failed: int = 0
    """That the gateway or an engine failed, the client's own mistakes left out."""
    refused: int = 0
    """That were the client's own mistakes."""
    left: int = 0
    """Whose client left before the answer was whole."""
    tokens: int = 0
    """Of answers."""
    prompt_tokens: int = 0
    """That were read."""
    cached_tokens: int = 0
    """Of prompts, that an engine's cache held."""
    decode_tokens: int = 0
    decode_s: float = 0.0
    drafted: int = 0
    accepted: int = 0
    queue_s: float = 0.0
    explored: int = 0
    cost: float = 0.0
    lanes: Counter[str] = field(default_factory=Counter)
    """Requests by the lane that served them."""
    first_tokens: Counter[int] = field(default_factory=Counter)
    """Streamed answers by the class of :data:`BOUNDS_S` that their time to the first token is in."""

    def add(self, record: Record) -> None:
        """Count one request."""
        outcome, seen = record.outcome, record.outcome.observed
        self.requests += 1
        self.left += outcome.status == CLIENT_LEFT
        self.failed += outcome.is_failure
        self.refused += 400 <= outcome.status < 500 and outcome.status != CLIENT_LEFT and not outcome.is_failure
        self.tokens += int(seen.completion_tokens or 0)
        self.prompt_tokens += int(seen.prompt_tokens or 0)
        self.cached_tokens += int(seen.cached_tokens or 0)
        if seen.decode_tokens and seen.decode_s:
            self.decode_tokens += int(seen.decode_tokens)
            self.decode_s += seen.decode_s
        if seen.drafted and seen.accepted is not None:
            self.drafted += int(seen.drafted)
            self.accepted += int(seen.accepted)
        self.queue_s += outcome.queue_s
        self.explored += record.decision.exploring_s > 0
        self.cost += outcome.cost or 0.0
        self.lanes[outcome.lane] += 1
        if record.stream and outcome.first_byte_s is not None and outcome.is_whole:
            waited_s = outcome.queue_s + outcome.decision_s + outcome.first_byte_s
            self.first_tokens[min(bisect_left(BOUNDS_S, waited_s), len(BOUNDS_S) - 1)] += 1

    def join(self, other: "Sums") -> None:
        """Count those of another one, too."""
        for name in Sums.__struct_fields__:
            value = getattr(other, name)
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    @property
    def tokens_per_s(self) -> float | None:
        """At which answers were decoded, weighted by tokens."""
        return self.decode_tokens / self.decode_s if self.decode_s > 0 else None

    @property
    def acceptance(self) -> float | None:
        """Accepted per drafted token."""
        return self.accepted / self.drafted if self.drafted else None

    def first_token_s(self, quantile: float) -> float | None:
        """Of streamed answers, the time to the first token that so large a share stayed below, within a tenth."""
        rank = ceil(quantile * self.first_tokens.total())
        for place in sorted(self.first_tokens):
            rank -= self.first_tokens[place]
            if rank <= 0:
                return BOUNDS_S[place] / 2 ** (1 / 8)
        return None

    def document(self) -> dict[str, Any]:
        """The sums and what follows from them; ``null`` where nothing was measured."""
        return {
            **{name: getattr(self, name) for name in _COLUMNS},
            "tokens_per_s": self.tokens_per_s,
            "acceptance": self.acceptance,
            "first_token_p50_s": self.first_token_s(0.5),
            "first_token_p95_s": self.first_token_s(0.95),
        }


_COLUMNS = tuple(name for name in Sums.__struct_fields__ if name not in ("lanes", "first_tokens"))


class History:
    """The decision log over time: what is new in it is read when somebody asks, so that it tells of all processes of a
    gateway, and of those before. Without a log it is a sink, and tells of this process alone.

    Args:
        log: the decision log; ``None`` where none is kept.
        now_s: the time in seconds since 1970.
    """

    def __init__(self, log: Path | None, now_s: Callable[[], float] = time) -> None:
        self._log = log
        self._now_s = now_s
        self._since_s = now_s()
        """From when on every request is counted."""
        self._slices: Sequence[dict[int, Sums]] = tuple({} for _ in WIDTHS_S)
        """For each width, by the slice's number since 1970."""
        self._reading = asyncio.Lock()
        self._read_at_s = float("-inf")
        self._last = 0
        """Number of the last entry that was read."""
        self._file: tuple[int, int] | None = None

    def record(self, record: Record, /) -> None:
        if self._log is None:
            self._count(record)

    async def document(self, range_s: float) -> dict[str, Any]:
        """Of ``/paceline/history``: columns with a number for each slice, the oldest first, and the same of the whole.

        Args:
            range_s: how far back, at most :data:`MAX_RANGE_S`.
        """
        async with self._reading:
            await self._catch_up()
            return self._document(min(range_s, MAX_RANGE_S))

    async def total(self, range_s: float) -> Sums:
        """Of the requests within so many last seconds."""
        async with self._reading:
            await self._catch_up()
            level, whole = _level(range_s), Sums()
            first = (self._now_s() - range_s) // WIDTHS_S[level]
            for number, sums in self._slices[level].items():
                if number > first:
                    whole.join(sums)
            return whole

    def _document(self, range_s: float) -> dict[str, Any]:
        now_s, level = self._now_s(), _level(range_s)
        width_s, slices = WIDTHS_S[level], self._slices[level]
        last = int(now_s // width_s)
        numbers = range(last - ceil(range_s / width_s) + 1, last + 1)
        each, whole = [slices.get(number, Sums()) for number in numbers], Sums()
        for sums in each:
            whole.join(sums)
        rows = [sums.document() for sums in each]
        return {
            "now_s": now_s,
            "since_s": self._since_s,
            "range_s": range_s,
            "width_s": width_s,
            "times_s": [number * width_s for number in numbers],
            "slices": {name: [row[name] for row in rows] for name in rows[0]},
            "lanes": {lane: [sums.lanes.get(lane, 0) for sums in each] for lane, _ in whole.lanes.most_common()},
            "total": whole.document(),
        }

    async def _catch_up(self) -> None:
        if self._log is not None and monotonic() - self._read_at_s > INTERVAL_S:
            await asyncio.to_thread(self._read, self._log)
            self._read_at_s = monotonic()

    def _read(self, log: Path) -> None:
        if (file := identity(log)) != self._file:  # another one than before: it was set aside, or removed
            self._file, self._last = file, 0
            for slices in self._slices:
                slices.clear()
        with suppress(NoLog):  # then nothing new is known
            for number, record in LogReader(log, self._now_s() - MAX_RANGE_S, MAX_ENTRIES).numbered(self._last):
                self._last = number
                self._since_s = min(self._since_s, record.outcome.at_s)
                self._count(record)

    def _count(self, record: Record) -> None:
        for slices, width_s, kept in zip(self._slices, WIDTHS_S, KEPT, strict=True):
            number = int(record.outcome.at_s // width_s)
            sums = slices.get(number)
            if sums is None:
                sums = slices[number] = Sums()
            sums.add(record)
            if len(slices) > 2 * kept:
                first = self._now_s() // width_s - kept
                for old in [number for number in slices if number < first]:
                    del slices[old]


def _level(range_s: float) -> int:
    """Of the finest slices that reach so far back."""
    return next((level for level, width_s in enumerate(WIDTHS_S) if width_s * KEPT[level] >= range_s), -1)
