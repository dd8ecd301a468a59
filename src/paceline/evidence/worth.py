"""Whether the machine pays: what it cost, idle hours and its own price included, what cloud models would have cost for
the same answers, and from how much work on it would be the cheaper one.

For what is decided now only the power counts that a request adds (:mod:`paceline.money.power`); here, everything does.
"""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from paceline.evidence.cost import MILLION, busy_s
from paceline.money.bill import billed
from paceline.money.power import JOULES_PER_KWH
from paceline.money.prices import Prices
from paceline.records.record import Record
from paceline.settings import Configuration, CostSettings
from paceline.text_table import columns, shown_name, shown_number
from paceline.types import Outcome, engine_of

DAY_S = 86_400.0
MONTH_S = 365.25 / 12 * DAY_S


class NothingToPrice(Exception):
    """There is nothing to say; ``str()`` says why."""


class Instead(Struct, frozen=True, kw_only=True):
    """A cloud model in the machine's place."""

    name: str
    total: float
    """For the same answers."""
    break_even_share: float | None
    """Of the time that the machine would have to be busy to cost as much; ``None`` where it never would."""
    break_even_factor: float | None
    """By which its prices would have to be multiplied for both to cost the same."""


class Worth(Struct, frozen=True, kw_only=True):
    """In the currency of the configuration."""

    currency: str
    span_s: float
    """From the first request to the last, or as long as it is said that the machine ran."""
    busy_s: float
    """Of it, in which the machine worked on at least one request."""
    requests: int
    """That the machine answered, of those that told their tokens."""
    untold: int
    """That it answered without telling them; they are in no price."""
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    hardware: float
    """The machine's price over the months in which it is to be paid off, for this span."""
    idle: float
    """Power that it draws whether it works or not."""
    work: float
    """Power beyond that, while it worked."""
    operations: float
    paid: float
    """To cloud engines, in the same span."""
    paid_requests: int
    unpriced: int
    """Answers of cloud engines whose price is not known."""
    instead: Sequence[Instead]
    """The first is the one that the machine is measured by."""

    @property
    def total(self) -> float:
        """What the machine cost."""
        return self.hardware + self.idle + self.work + self.operations

    @property
    def busy_share(self) -> float:
        return self.busy_s / self.span_s


def worth(
    records: Iterable[Record], configuration: Configuration, against: Sequence[str] = (), span_s: float | None = None
) -> Worth:
    """
    Args:
        against: names of cloud models, beside those of the configuration; the first is the one to measure by.
        span_s: how long the machine ran for it; by default, from the first request to the last.

    Raises:
        NothingToPrice: no answer of an engine of one's own told its tokens.
    """
    clouds = {engine.name for engine in configuration.engine if engine.is_cloud}
    outcomes = [record.outcome for record in records]
    own = [one for one in outcomes if engine_of(one.lane) not in clouds and one.cost is None]
    priced = [one for one in own if one.error is None and billed(one.observed)]
    if not priced:
        raise NothingToPrice("the log has no answer of an engine of one's own that tells its tokens")
    others = [one for one in outcomes if engine_of(one.lane) in clouds or one.cost is not None]
    worked_s = busy_s(own)
    span_s = max(_span_s(outcomes) if span_s is None else span_s, worked_s, 1.0)
    settings = configuration.cost
    watts = settings.watts or 0.0
    costs = Worth(
        currency=settings.currency,
        span_s=span_s,
        busy_s=worked_s,
        requests=len(priced),
        untold=sum(one.is_whole for one in own) - sum(one.is_whole for one in priced),
        prompt_tokens=sum(one.observed.prompt_tokens or 0 for one in priced),
        cached_tokens=sum(one.observed.cached_tokens or 0 for one in priced),
        generated_tokens=sum(one.observed.completion_tokens or 0 for one in priced),
        hardware=settings.hardware_price * span_s / (settings.hardware_months * MONTH_S),
        idle=_energy_price(settings.idle_watts, span_s, settings),
        work=_energy_price(max(0.0, watts - settings.idle_watts), worked_s, settings),
        operations=settings.operations_per_month * span_s / MONTH_S,
        paid=sum(one.cost or 0.0 for one in others),
        paid_requests=sum(one.is_whole for one in others),
        unpriced=sum(one.cost is None for one in others if one.is_whole),
        instead=(),
    )
    prices = Prices(configuration.cloud, settings.usd)
    names = dict.fromkeys([*against, *(cloud.name for cloud in configuration.cloud)])
    instead = [_instead(name, priced, prices, costs) for name in names]
    return replace(costs, instead=[one for one in instead if one is not None])


def _instead(name: str, outcomes: Sequence[Outcome], prices: Prices, costs: Worth) -> Instead | None:
    """``None`` where no price is known.

    The machine costs ``fixed`` per second whether it works or not, and ``added`` per second of work; the cloud model
    costs ``bill`` for each. They cost the same where ``fixed + share * added = share * bill``.
    """
    price = prices.of(name)
    if price is None:
        return None
    total = sum(price.of(tokens) for one in outcomes if (tokens := billed(one.observed)))
    fixed = (costs.total - costs.work) / costs.span_s
    saved = (total - costs.work) / costs.busy_s if costs.busy_s else 0.0
    return Instead(
        name=name,
        total=total,
        break_even_share=fixed / saved if saved > 0 else None,
        break_even_factor=costs.total / total if total else None,
    )


def _energy_price(watts: float, seconds: float, settings: CostSettings) -> float:
    return watts * seconds / JOULES_PER_KWH * settings.price_per_kwh


def _span_s(outcomes: Sequence[Outcome]) -> float:
    return max(one.at_s for one in outcomes) - min(one.at_s - one.total_s for one in outcomes)


# In words


def text(found: Worth) -> str:
    """For a terminal; the verdict comes last, in one sentence."""
    per_million = MILLION / found.generated_tokens if found.generated_tokens else 0.0
    parts = [
        f"{found.requests} answers in {found.span_s / DAY_S:.2f} days: {found.generated_tokens} tokens from "
        f"{found.prompt_tokens + found.cached_tokens} of prompts, {found.cached_tokens} of them cached; the machine "
        f"was busy for {found.busy_share:.1%} of the time."
    ]
    if found.untold:
        parts.append(f"{found.untold} more answers did not tell their tokens, and are in no price.")
    rows = [("where", f"in all, {found.currency}", f"per million generated, {found.currency}")]
    machine = (
        ("this machine", found.total),
        ("  its own price", found.hardware),
        ("  power, idle", found.idle),
        ("  power, for the work", found.work),
        ("  operations", found.operations),
    )
    is_told = found.total > 0
    for name, amount in (
        *(machine if is_told else ()),
        *((shown_name(other.name), other.total) for other in found.instead),
    ):
        rows.append((name, f"{amount:.2f}", f"{amount * per_million:.2f}"))
    if len(rows) > 1:
        parts.append(columns(rows))
    if found.instead and is_told:
        even = [("instead of the machine", "pays from, busy", "pays from, price")]
        even += [
            (
                shown_name(other.name),
                "never" if other.break_even_share is None else shown_number(other.break_even_share, ".1%"),
                "-" if other.break_even_factor is None else f"{other.break_even_factor:.2f} times its own",
            )
            for other in found.instead
        ]
        parts.append(columns(even))
    if found.paid_requests:
        unknown = f"; the price of {found.unpriced} of them is not known" if found.unpriced else ""
        parts.append(
            f"Cloud engines gave {found.paid_requests} answers for {found.paid:.2f} {found.currency}{unknown}."
        )
    parts.append(verdict(found))
    return "\n\n".join(parts)


def verdict(found: Worth) -> str:
    """Whether the machine paid, in one sentence."""
    machine = f"{found.total:.2f} {found.currency}"
    if not found.total:
        return "What the machine costs is not configured ([cost]), so it can't be told whether it paid."
    if not found.instead:
        return f"The machine cost {machine}; name a cloud model (--against, or [[cloud]]) to see whether it paid."
    other = found.instead[0]
    cloud = f"{shown_name(other.name)} would have cost {other.total:.2f}"
    if other.break_even_share is None:
        return f"It did not pay: the machine cost {machine} and {cloud}, less than the power of the work alone."
    busy = f"was busy for {found.busy_share:.1%} of the time, where {other.break_even_share:.1%} pays"
    if other.break_even_share > 1:
        busy = "would have to do more than it can for that"
    if found.total < other.total:
        return f"It paid: the machine cost {machine} and {cloud} for the same answers; it {busy}."
    return f"It did not pay: the machine cost {machine} and {cloud} for the same answers; it {busy}."
