"""What routing brought so far, for who watches: a short report from the decision log, made beside the requests."""

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

from paceline.evidence.comparison import Comparison
from paceline.evidence.report import Report, TooLittle, report
from paceline.evidence.show import heading, too_few, verdict
from paceline.records.read import LogReader, NoLog

MAX_ENTRIES = 2000
"""The last ones of the log that count, so that looking costs little."""
MAX_AGE_S = 10.0
"""So long a report is given out again."""


class Gain:
    """
    Args:
        log: the decision log; ``None`` where none is kept.
    """

    def __init__(self, log: Path | None) -> None:
        self._log = log
        self._made: dict[str, Any] = {}
        self._made_s = float("-inf")
        self._making = asyncio.Lock()

    async def document(self) -> dict[str, Any]:
        """Of ``/paceline/report``: a verdict in a sentence, and what each policy would have made of the time taken, as
        ratios with 95 % intervals; for each model, its settings and the lanes that requests chose from, none where that
        is too few."""
        async with self._making:
            if monotonic() - self._made_s > MAX_AGE_S:
                self._made = await asyncio.to_thread(self._make)
                self._made_s = monotonic()
            return self._made

    def _make(self) -> dict[str, Any]:
        if self._log is None:
            return _nothing("No decision log is kept (evidence.log), so it is not known what routing brings.")
        try:
            return _document(report(LogReader(self._log, most=MAX_ENTRIES)))
        except (NoLog, TooLittle) as error:
            return _nothing(str(error))


def _document(made: Report) -> dict[str, Any]:
    lines = [verdict(comparison) for comparison in made.comparisons]
    if len(lines) > 1 or made.too_few:
        headings = map(heading, made.comparisons)
        lines = [f"{about}: {line}" for about, line in zip(headings, lines, strict=True)]
    lines += [too_few(group) for group in made.too_few]
    return {"verdict": "\n".join(lines), "comparisons": [_comparison(comparison) for comparison in made.comparisons]}


def _finding(comparison: Comparison) -> str:
    """What can be said of it, as a word for who shows it: never an order where the interval holds 1."""
    if comparison.pays:
        return "pays"
    if comparison.is_alike:
        return "alike"
    return "unknown" if comparison.pays is None else "does not pay"


def _comparison(comparison: Comparison) -> dict[str, Any]:
    lane, best = comparison.best
    policies = {f"always {lane}": estimate for lane, estimate in comparison.fixed.items()}
    policies["best of each task, in hindsight"] = comparison.hindsight
    return {
        "about": heading(comparison),
        "model": comparison.model,
        "is_current": comparison.is_current,
        "pays": comparison.pays,
        "finding": _finding(comparison),
        "best": {"lane": lane, "ratio": best.ratio, "low": best.low, "high": best.high},
        "more_needed": comparison.more_needed,
        "until_s": comparison.until_s,
        "requests": comparison.requests,
        "exploring_s": comparison.exploring_s,
        "policies": [
            {"name": name, "ratio": estimate.ratio, "low": estimate.low, "high": estimate.high}
            for name, estimate in policies.items()
        ],
    }


def _nothing(why: str) -> dict[str, Any]:
    return {"verdict": why, "comparisons": []}
