"""What other ways to place the requests of a log would have taken and cost: each engine for all, and each mode.

Of the engine that served a request it is known what it took. For the others it was predicted when the request was
placed, and what came of the requests that they did serve corrects that, as a factor. Queues are taken to be as they
were: whoever would have sent far more to one engine would have had longer ones there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from paceline.records.record import Record
from paceline.routing.placement import MODES, rank, total
from paceline.settings import Configuration
from paceline.text_table import columns, shown_name
from paceline.types import Placed, Terms, engine_of

MIN_REQUESTS = 30
"""That chose between engines, below which nothing is concluded."""
MIN_SERVED = 10
"""Requests that an engine has served, below which its predictions are not corrected."""
RESAMPLES = 400
INTERVAL = (2.5, 97.5)
"""Percentiles: 95 %."""
AS_IT_WAS = "as it was"


class Estimate(Struct, frozen=True):
    """Of a mean over the requests, with its interval."""

    mean: float
    low: float
    high: float


class Way(Struct, frozen=True, kw_only=True):
    """One way to place the requests."""

    name: str
    own_share: float
    """Share of the requests that one's own engines would have served."""
    time_s: Estimate
    """From a request's arrival to its answer's end."""
    cost: Estimate
    """Of a request, power beyond the idle machine's included."""
    is_corrected: bool
    """Whether all engines that it uses have served enough for their predictions to be corrected."""


class _Choice(Struct, frozen=True):
    """A request that could have gone to several engines."""

    engine: str
    """That served it."""
    time_s: float
    cost: float
    placed: Placed


def ways(records: Iterable[Record], configuration: Configuration, seed: int = 0) -> list[Way]:
    """As it was, and each other way; empty where too few requests had a choice.

    Args:
        configuration: whose engines and ``[placement]`` count.
        seed: of the resampling.
    """
    choices = [choice for record in records if (choice := _choice(record)) is not None]
    if len(choices) < MIN_REQUESTS:
        return []
    clouds = {engine.name for engine in configuration.engine if engine.is_cloud}
    names = list(dict.fromkeys(name for choice in choices for name in choice.placed.terms))
    policies: dict[str, Callable[[_Choice], str]] = {AS_IT_WAS: lambda choice: choice.engine}
    for name in names:
        policies[f"always {shown_name(name)}"] = lambda choice, name=name: (  # type: ignore[misc]
            name if name in choice.placed.terms else choice.engine
        )
    for mode in MODES:
        settings = replace(configuration.placement, mode=mode)

        def by_mode(choice: _Choice, settings: Any = settings) -> str:
            terms = {
                name: replace(one, total=total(one, one.cost or 0.0, name in clouds, settings))
                for name, one in choice.placed.terms.items()
            }
            return min(terms, key=lambda name: rank(terms[name]))

        policies[mode] = by_mode
    table = _Table(choices, names, seed)
    return [table.way(name, [policy(choice) for choice in choices], clouds) for name, policy in policies.items()]


def _choice(record: Record) -> _Choice | None:
    placed, outcome = record.decision.placed, record.outcome
    engine = engine_of(outcome.lane)
    if placed is None or len(placed.terms) < 2 or engine not in placed.terms or not outcome.is_whole:
        return None
    cost = placed.terms[engine].cost if outcome.cost is None else outcome.cost
    return _Choice(engine, outcome.total_s, cost or 0.0, placed)


class _Table:
    """What was predicted for each request at each engine, and what came of it."""

    def __init__(self, choices: Sequence[_Choice], names: Sequence[str], seed: int) -> None:
        self._names = {name: number for number, name in enumerate(names)}
        self._served = np.array([self._names[choice.engine] for choice in choices])
        self._actual = np.array([(choice.time_s, choice.cost) for choice in choices])
        self._predicted = np.array([[_of(choice.placed.terms, name) for name in names] for choice in choices])
        counts = np.bincount(self._served, minlength=len(names))
        self._is_enough = counts >= MIN_SERVED
        weights = np.random.default_rng(seed).multinomial(
            len(choices), np.full(len(choices), 1 / len(choices)), RESAMPLES
        )
        self._weights = np.vstack([np.ones(len(choices)), weights])

    def way(self, name: str, chosen: Sequence[str], clouds: Iterable[str]) -> Way:
        numbers = np.array([self._names[engine] for engine in chosen])
        is_actual = numbers == self._served
        means = np.zeros((len(self._weights), 2))
        for number in np.unique(numbers):
            here = numbers == number
            means += self._weights[:, here & is_actual] @ self._actual[here & is_actual]
            moved = here & ~is_actual
            means += self._factors(number) * (self._weights[:, moved] @ self._predicted[moved, number])
        means /= len(numbers)
        outside = {self._names[cloud] for cloud in clouds if cloud in self._names}
        moved_to = set(np.unique(numbers[~is_actual]))
        return Way(
            name=name,
            own_share=float(np.mean([number not in outside for number in numbers])),
            time_s=_estimate(means[:, 0]),
            cost=_estimate(means[:, 1]),
            is_corrected=all(self._is_enough[number] for number in moved_to),
        )

    def _factors(self, number: int) -> Any:
        """For each resample, how much longer and dearer an engine's answers were than predicted."""
        own = self._served == number
        if not self._is_enough[number]:
            return np.ones((len(self._weights), 2))
        actual = self._weights[:, own] @ self._actual[own]
        predicted = self._weights[:, own] @ self._predicted[own, number]
        return np.where(predicted > 0, actual / np.where(predicted > 0, predicted, 1.0), 1.0)


def _of(terms: Mapping[str, Terms], name: str) -> tuple[float, float]:
    return (terms[name].time_s, terms[name].cost or 0.0) if name in terms else (0.0, 0.0)


def _estimate(means: Any) -> Estimate:
    low, high = np.percentile(means[1:], INTERVAL)
    return Estimate(float(means[0]), float(low), float(high))


def text(found: Sequence[Way], currency: str) -> str:
    """For a terminal."""
    rows = [("placed", "own engines", "seconds a request", f"1,000 requests, {currency}")]
    for way in found:
        time_s, cost = way.time_s, way.cost
        mark = "" if way.is_corrected else " *"
        rows.append(
            (
                way.name + mark,
                f"{way.own_share:.0%}",
                f"{time_s.mean:.2f} ({time_s.low:.2f} to {time_s.high:.2f})",
                f"{1000 * cost.mean:.2f} ({1000 * cost.low:.2f} to {1000 * cost.high:.2f})",
            )
        )
    lines = ["Requests that could go to several engines, and what other ways to place them would have taken and cost:"]
    lines.append(columns(rows))
    if not all(way.is_corrected for way in found):
        lines.append("* by predictions alone: an engine that it uses has served too few.")
    return "\n".join(lines)
