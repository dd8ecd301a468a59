"""Energy and money: what the traffic of a log cost here, and would have cost elsewhere."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from paceline.evidence.usable import Entry
from paceline.settings import CloudModel, CostSettings

JOULES_PER_KWH = 3.6e6
MILLION = 1e6


class Elsewhere(Struct, frozen=True):
    """What a cloud model would have taken for the same tokens."""

    name: str
    total: float
    per_million: float
    """Per million generated tokens, the prompts that came with them included."""


class Cost(Struct, frozen=True):
    """In the currency of the configuration."""

    currency: str
    answers: int
    """That told their tokens; the others are left out."""
    generated_tokens: int
    prompt_tokens: int
    """Those that a cache had included."""
    busy_s: float
    """In which at least one request was worked on."""
    kwh: float
    total: float
    per_million: float
    """Per million generated tokens."""
    elsewhere: Sequence[Elsewhere]


def cost(entries: Iterable[Entry], settings: CostSettings, clouds: Sequence[CloudModel]) -> Cost | None:
    """``None`` where no answer told its tokens, or no power is configured."""
    if settings.watts is None:
        return None
    told = [entry for entry in entries if entry["completion_tokens"] and not entry["error"]]
    generated = sum(entry["completion_tokens"] for entry in told)
    if not generated:
        return None
    fresh = sum(entry["prompt_tokens"] or 0 for entry in told)
    cached = sum(entry["cached_tokens"] or 0 for entry in told)
    busy_s = _busy_s(told)
    kwh = busy_s * settings.watts / JOULES_PER_KWH
    total = kwh * settings.price_per_kwh
    per_million = MILLION / generated
    elsewhere = []
    for one in clouds:
        price = one.input_price if one.cached_input_price is None else one.cached_input_price
        bill = (fresh * one.input_price + cached * price + generated * one.output_price) / MILLION
        elsewhere.append(Elsewhere(one.name, bill, bill * per_million))
    return Cost(
        settings.currency,
        len(told),
        generated,
        fresh + cached,
        busy_s,
        kwh,
        total,
        total * per_million,
        sorted(elsewhere, key=lambda one: one.total),
    )


def _busy_s(entries: Iterable[Entry]) -> float:
    """The union of the times in which they were worked on."""
    spans = sorted((entry["at_s"] - (entry["total_s"] - (entry["queue_s"] or 0.0)), entry["at_s"]) for entry in entries)
    busy_s, until_s = 0.0, float("-inf")
    for began_s, ended_s in spans:
        busy_s += max(0.0, ended_s - max(began_s, until_s))
        until_s = max(until_s, ended_s)
    return busy_s
