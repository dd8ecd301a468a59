"""Where requests went since the gateway started, why, what they cost, and what that saves, for who watches."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct, field

from paceline.money.bill import billed
from paceline.money.power import marginal_cost
from paceline.money.prices import Prices
from paceline.records.record import Record
from paceline.serving.pipeline import Pipeline
from paceline.text_table import amount, shown_name
from paceline.types import Outcome, engine_of


class EngineSums(Struct):
    """Of one engine; money is in the currency of the configuration."""

    answers: int = 0
    """That came whole."""
    paid: float = 0.0
    """To a provider, for answers that broke off, too."""
    estimates: int = 0
    """Of what was paid for, answers whose cost is a guess."""
    unpriced: int = 0
    """Answers of a provider whose price is not known."""
    why: dict[str, int] = field(default_factory=dict)
    """What decided, and how often."""


class BaselineSums(Struct):
    """One model for everything: what it would have cost, and what the same answers did cost."""

    name: str
    url: str | None
    answers: int = 0
    """That told their tokens, and whose cost is known."""
    total: float = 0.0
    """What it would have cost."""
    paid: float = 0.0
    power: float = 0.0
    """For the work of this machine, beyond what it draws anyway."""


class SpentSums(Struct):
    """All of it, of one process or of several."""

    since_s: float
    """In seconds since 1970."""
    engines: dict[str, EngineSums]
    baseline: BaselineSums | None

    def plus(self, other: "SpentSums") -> "SpentSums":
        """Both together. Another baseline than this one is left out."""
        nothing, engines = EngineSums(), {}
        for name in dict.fromkeys((*self.engines, *other.engines)):
            one, two = self.engines.get(name, nothing), other.engines.get(name, nothing)
            engines[name] = EngineSums(
                one.answers + two.answers,
                one.paid + two.paid,
                one.estimates + two.estimates,
                one.unpriced + two.unpriced,
                dict(Counter(one.why) + Counter(two.why)),
            )
        mine, theirs = self.baseline, other.baseline
        if mine is not None and theirs is not None and mine.name == theirs.name:
            mine = BaselineSums(
                mine.name,
                mine.url,
                mine.answers + theirs.answers,
                mine.total + theirs.total,
                mine.paid + theirs.paid,
                mine.power + theirs.power,
            )
        return SpentSums(min(self.since_s, other.since_s), engines, mine)


class Spent:
    """A sink that adds up. What is counted is whole answers of requests that were decided on; the sums are in memory
    alone, while budgets and the decision log outlast a restart.

    Args:
        pipeline: whose fleet says what is a provider's and which prices hold.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._since_s = time.time()
        self._engines: dict[str, EngineSums] = {}
        self._configuration = pipeline.fleet.configuration
        self._prices = Prices()
        self._baseline: BaselineSums | None = None
        self._may_be_priced = False
        """Whether models may become known that have a price."""
        self._take_up()

    def record(self, record: Record, /) -> None:
        outcome = record.outcome
        name = engine_of(outcome.lane)
        handle = self._pipeline.fleet.engines.get(name)
        if handle is None:  # it went nowhere, or the engine is gone
            return
        engine = self._engines.setdefault(name, EngineSums())
        if outcome.cost is not None:
            engine.paid += outcome.cost
            engine.estimates += outcome.cost_is_estimate
        if not outcome.is_whole:
            return
        engine.answers += 1
        is_unpriced = handle.settings.is_cloud and outcome.cost is None
        engine.unpriced += is_unpriced
        placed = record.decision.placed
        if placed is not None and placed.why:
            why = "the first choice did not answer" if placed.engine != name else placed.why
            engine.why[why] = engine.why.get(why, 0) + 1
        if not is_unpriced:
            self._compare(outcome, handle.settings.is_cloud)

    def sums(self) -> SpentSums:
        """All that was added up, for another process to tell of."""
        return SpentSums(self._since_s, self._engines, self._present_baseline())

    def document(self, others: Iterable[SpentSums] = ()) -> dict[str, Any] | None:
        """What ``/paceline/lanes`` has of money; ``None`` where there is neither a cloud engine nor a price to compare
        with nor a budget, so that there is nothing to tell.

        Args:
            others: sums of other processes, which are counted, too.
        """
        sums, fleet = self.sums(), self._pipeline.fleet
        for other in others:
            sums = sums.plus(other)
        baseline = sums.baseline
        has_clouds = any(engine.settings.is_cloud for engine in fleet.engines.values())
        if not has_clouds and baseline is None and not fleet.configuration.budget:
            return None
        currency, has_power = self._configuration.cost.currency, self._pipeline.router.placer.power is not None
        return {
            "currency": currency,
            "since_s": sums.since_s,
            "engines": [
                _engine_document(name, engine.settings.is_cloud, sums.engines.get(name, EngineSums()))
                for name, engine in fleet.engines.items()
            ],
            "baseline": None if baseline is None else _baseline_document(baseline, has_power),
            "verdict": verdict(baseline, currency, has_power),
        }

    def _compare(self, outcome: Outcome, is_cloud: bool) -> None:
        """Add an answer to both sides, if it tells what it would have cost."""
        baseline, tokens = self._present_baseline(), billed(outcome.observed)
        price = self._prices.of(baseline.name, baseline.url) if baseline else None
        if baseline is None or price is None or tokens is None:
            return
        baseline.answers += 1
        baseline.total += price.of(tokens)
        baseline.paid += outcome.cost or 0.0
        if not is_cloud:
            per_kwh = self._configuration.cost.price_per_kwh
            worked_s = outcome.total_s - outcome.queue_s
            baseline.power += marginal_cost(self._pipeline.router.placer.power, per_kwh, worked_s, outcome.concurrent)

    def _present_baseline(self) -> BaselineSums | None:
        """As the configuration that is in force has it; another model begins at nothing."""
        is_another = self._configuration is not self._pipeline.fleet.configuration
        if is_another or (self._baseline is None and self._may_be_priced):
            self._take_up()
        return self._baseline

    def _take_up(self) -> None:
        self._configuration = self._pipeline.fleet.configuration
        self._prices = Prices(self._configuration.cloud, self._configuration.cost.usd)
        self._may_be_priced = any(engine.settings.is_cloud for engine in self._pipeline.fleet.engines.values())
        known = (model for model in self._priceable() if self._prices.of(*model) is not None)
        name, url = next(known, (None, None))
        if name is None:
            self._baseline = None
        elif self._baseline is None or self._baseline.name != name:
            self._baseline = BaselineSums(name, url)

    def _priceable(self) -> Iterator[tuple[str, str | None]]:
        """Models to compare with and their providers' addresses: those of ``[[cloud]]``, as ``paceline cost`` takes
        them, and then those of cloud engines."""
        for cloud in self._configuration.cloud:
            yield cloud.name, None
        for engine in self._pipeline.fleet.engines.values():
            if engine.settings.is_cloud:
                for entry in engine.models.values():
                    yield str(entry.get("id")), engine.settings.url


def _engine_document(name: str, is_cloud: bool, engine: EngineSums) -> dict[str, Any]:
    return {
        "engine": name,
        "is_cloud": is_cloud,
        "answers": engine.answers,
        "paid": engine.paid if is_cloud else None,
        "estimates": engine.estimates,
        "unpriced": engine.unpriced,
        "why": dict(Counter(engine.why).most_common()),
    }


def _baseline_document(baseline: BaselineSums, has_power: bool) -> dict[str, Any]:
    return {
        "model": baseline.name,
        "answers": baseline.answers,
        "total": baseline.total,
        "paid": baseline.paid,
        "power": baseline.power if has_power else None,
        "saved": _saved(baseline),
    }


def _saved(baseline: BaselineSums) -> float:
    return baseline.total - baseline.paid - baseline.power


def verdict(baseline: BaselineSums | None, currency: str, has_power: bool) -> str:
    """What the way that requests went saves: a sentence a line."""
    if baseline is None:
        return "No price of a cloud model is known ([[cloud]]), so it is not known what is saved."
    name = shown_name(baseline.name)
    if not baseline.answers:
        return f"Compared with {name} for everything: no answer yet that tells its tokens."
    saved = _saved(baseline)
    power = f"{amount(baseline.power)} for power" if has_power else "power is not known"
    share = f" ({abs(saved) / baseline.total:.0%})" if baseline.total else ""
    return (
        f"{name} for everything would have cost {amount(baseline.total)} {currency} for {baseline.answers} answers.\n"
        f"They cost {amount(baseline.paid + baseline.power)} {currency} ({amount(baseline.paid)} paid to providers, "
        f"{power}): {amount(abs(saved))} {currency}{share} {'less' if saved >= 0 else 'more'}.\n"
        "What the machine itself costs is not in it; `paceline cost` tells that."
    )
