"""Energy and money: what the traffic of a log cost here, and would have cost elsewhere."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from paceline.money.bill import billed
from paceline.money.power import JOULES_PER_KWH
from paceline.money.prices import Prices
from paceline.records.record import Record
from paceline.settings import CloudModel, CostSettings
from paceline.types import Outcome, Tokens

MILLION = 1e6
"""Tokens that prices are per."""


class Elsewhere(Struct, frozen=True, kw_only=True):
    """What a cloud model would have taken for the same tokens."""

    name: str
    total: float
    per_million: float
    """Per million generated tokens, the prompts that came with them included."""


class Cost(Struct, frozen=True, kw_only=True):
    """In the currency of the configuration."""

    currency: str
    generated_tokens: int
    """Of the answers of one's own engines that told them; the others are left out."""
    prompt_tokens: int
    """Those that a cache had included."""
    busy_s: float
    """In which at least one request was worked on."""
    kwh: float
    total: float
    per_million: float
    """Per million generated tokens."""
    elsewhere: Sequence[Elsewhere]
    paid: float
    """To cloud engines, for other requests than those above."""
    paid_requests: int


def cost(records: Iterable[Record], settings: CostSettings, clouds: Sequence[CloudModel]) -> Cost | None:
    """``None`` where no answer told its tokens, or no power is configured."""
    if settings.watts is None:
        return None
    outcomes = [record.outcome for record in records]
    paid = [outcome.cost for outcome in outcomes if outcome.cost is not None]
    outcomes = [
        outcome
        for outcome in outcomes
        if outcome.observed.completion_tokens and not outcome.error and outcome.cost is None
    ]
    generated = sum(outcome.observed.completion_tokens or 0 for outcome in outcomes)
    if not generated:
        return None
    fresh = sum(outcome.observed.prompt_tokens or 0 for outcome in outcomes)
    cached = sum(outcome.observed.cached_tokens or 0 for outcome in outcomes)
    worked_s = busy_s(outcomes)
    kwh = worked_s * settings.watts / JOULES_PER_KWH
    total = kwh * settings.price_per_kwh
    per_million = MILLION / generated
    elsewhere = []
    prices = Prices(clouds, settings.usd)
    for cloud in clouds:
        if (price := prices.of(cloud.name)) is not None:
            bill = sum(
                price.of(billed(observed) or Tokens(0.0, observed.completion_tokens or 0.0))
                for observed in (outcome.observed for outcome in outcomes)
            )
            elsewhere.append(Elsewhere(name=cloud.name, total=bill, per_million=bill * per_million))
    return Cost(
        currency=settings.currency,
        generated_tokens=generated,
        prompt_tokens=fresh + cached,
        busy_s=worked_s,
        kwh=kwh,
        total=total,
        per_million=total * per_million,
        elsewhere=sorted(elsewhere, key=lambda bill: bill.total),
        paid=sum(paid),
        paid_requests=len(paid),
    )


def busy_s(outcomes: Iterable[Outcome]) -> float:
    """The union of the times in which they were worked on."""
    spans = sorted((outcome.at_s - (outcome.total_s - outcome.queue_s), outcome.at_s) for outcome in outcomes)
    busy_s, until_s = 0.0, float("-inf")
    for began_s, ended_s in spans:
        busy_s += max(0.0, ended_s - max(began_s, until_s))
        until_s = max(until_s, ended_s)
    return busy_s
