"""Where a request may be served, and where it is worth it: filters, then a utility. Nothing here keeps anything, or
looks at a clock.

What an answer is taken to cost is::

    time x value of time + price + probability of a poor answer x its cost

The modes are weights of these. With a deadline, engines that would probably be late come last.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import erf, log, sqrt

from msgspec import Struct
from msgspec.structs import replace

from paceline.settings import Mode, PlacementSettings
from paceline.types import Offer, Price, Task, Terms, Tokens

MAX_LATE = 0.2
"""Probability of being late with which an engine still counts as in time. Lower spills over sooner."""
LENGTH_DEVIATION = 0.5
"""Of the logarithm of an answer's length beside the expected one, which makes most of what is not known of its time."""
UNKNOWN_PRICE = Price(input=5.0, output=25.0, cached_input=5.0, cache_write=5.0)
"""Taken for a cloud engine whose price nobody said: that of a frontier model in 2026."""
HOUR_S = 3600.0
LITTLE = 1e-6
"""Weight of what a mode looks at only where all else is the same."""
MUCH = 1e6
"""What leaving the machine costs where engines of one's own come first."""


class Weights(Struct, frozen=True):
    """How much each part of the cost counts."""

    time: float = 1.0
    price: float = 1.0
    poor: float = 1.0
    leaving: float = 0.0


MODES: Mapping[Mode, Weights] = {
    "balanced": Weights(),
    "local-first": Weights(leaving=MUCH),
    "fastest": Weights(price=LITTLE, poor=LITTLE),
    "cheapest": Weights(time=LITTLE, poor=LITTLE),
    "best": Weights(time=LITTLE, price=LITTLE),
}


class Wanted(Struct, frozen=True, kw_only=True):
    """What a request asks of the engine that serves it."""

    task: Task = Task.UNKNOWN
    private: str = ""
    """Why it may not leave this machine; empty where it may."""
    is_forced: bool = False
    """Whether the client named the lane, and so declares itself what may serve."""
    engines: Collection[str] = ()
    """To which its key may send; all where it is empty."""
    needs: frozenset[str] = frozenset()
    """As ``inspection/needs.py`` names it."""
    prompt_tokens: float = 0.0
    """Estimated by the text's length."""
    answer_tokens: float = 0.0
    """Expected."""
    deadline_s: float | None = None
    """From now."""
    signer: str = ""
    """The engine whose provider signed thinking that it holds, which no other takes; empty where that is not known."""


class Timed(Struct, frozen=True):
    """When an engine would have answered."""

    total_s: float
    queue_s: float = 0.0
    """Of it, waiting for the requests that are there."""
    deviation: float = 0.0
    """Of the time's logarithm, beside what the answer's length does."""
    others_s: float = 0.0
    """By how much others would wait longer for it, in all."""


class NoPlace(Exception):
    """No engine may serve a request; ``str()`` says why.

    Args:
        struck: by engine, why not.
        filter_name: what struck the last that was left: ``private``, ``engines``, ``declared``, ``needs``, ``cost``.
    """

    def __init__(self, struck: Mapping[str, str], filter_name: str) -> None:
        super().__init__(
            "no engine may serve this request: " + "; ".join(f"{name}: {why}" for name, why in struck.items())
        )
        self.struck, self.filter_name = struck, filter_name


# What may serve


Filter = Callable[[Offer, Wanted], str]
"""Why an engine is struck; empty where it is not."""


def _leaves(offer: Offer, wanted: Wanted) -> str:
    return (
        f"the request is private ({wanted.private}) and stays on this machine"
        if (wanted.private and offer.leaves_machine)
        else ""
    )


def _is_not_for_key(offer: Offer, wanted: Wanted) -> str:
    return "not among the engines of its key" if wanted.engines and offer.engine not in wanted.engines else ""


def _is_undeclared(offer: Offer, wanted: Wanted) -> str:
    declared = not offer.is_cloud or offer.is_declared or wanted.is_forced
    return "" if declared else "no [[model]] says that it may stand in for engines of one's own"


def _lacks(offer: Offer, wanted: Wanted) -> str:
    lacking = sorted(wanted.needs - offer.can) if offer.can is not None else []
    return f"can't do {', '.join(lacking)}" if lacking else ""


def _is_too_short(offer: Offer, wanted: Wanted) -> str:
    tokens = wanted.prompt_tokens + wanted.answer_tokens
    if offer.context_tokens is None or tokens <= offer.context_tokens:
        return ""
    return f"its context of {offer.context_tokens} tokens is short for about {tokens:.0f}"


def _did_not_sign(offer: Offer, wanted: Wanted) -> str:
    return f"thinking was signed by {wanted.signer}" if offer.engine != wanted.signer else ""


_HARD: Sequence[tuple[str, Filter]] = (
    ("private", _leaves),
    ("engines", _is_not_for_key),
    ("declared", _is_undeclared),
    ("needs", _lacks),
)
"""Strike whatever is left, in this order."""


def strike(
    offers: Sequence[Offer], wanted: Wanted, refuses: Callable[[Offer], str] = lambda _: ""
) -> tuple[list[Offer], dict[str, str]]:
    """The engines that may serve a request, and by name why the others may not.

    Args:
        refuses: why the price of an engine can't be paid; empty where it can.

    Raises:
        NoPlace: none may.
    """
    left, struck = list(offers), dict[str, str]()

    def apply(reason_of: Callable[[Offer], str]) -> list[Offer]:
        reasons = {offer.engine: reason_of(offer) for offer in left}
        struck.update({name: why for name, why in reasons.items() if why})
        return [offer for offer in left if not reasons[offer.engine]]

    # 1. What is certain.
    for name, reason in _HARD:
        left = apply(lambda offer, reason=reason: reason(offer, wanted))  # type: ignore[misc]
        if not left:
            raise NoPlace(struck, name)
    # 2. What it would cost.
    left = apply(refuses)
    if not left:
        raise NoPlace(struck, "cost")
    # 3. What holds as long as something is left by it: an estimate may be wrong, and an engine may be gone.
    for soft in _soft(wanted):
        if any(not soft(offer, wanted) for offer in left):
            left = apply(lambda offer, soft=soft: soft(offer, wanted))  # type: ignore[misc]
    return left, struck


def _soft(wanted: Wanted) -> Iterator[Filter]:
    if wanted.signer:
        yield _did_not_sign
    yield _is_too_short


# What is worth it


def expected_tokens(wanted: Wanted, cached: float = 0.0) -> Tokens:
    """What is likely to be billed.

    Args:
        cached: tokens of the prompt that the engine's cache is taken to hold.
    """
    cached = min(cached, wanted.prompt_tokens)
    return Tokens(fresh=wanted.prompt_tokens - cached, generated=wanted.answer_tokens, cached=cached)


def scored(
    offers: Sequence[Offer],
    times: Mapping[str, Timed],
    costs: Mapping[str, float | None],
    wanted: Wanted,
    settings: PlacementSettings,
    qualities: Mapping[str, float | None] | None = None,
) -> dict[str, Terms]:
    """What each engine's answer is taken to cost, by its name.

    Args:
        qualities: by engine, share of answers that are good enough; by default, as the offers have it.
        times: by engine.
        costs: by engine, what is to be paid; ``None`` where no price is known.
    """
    needed = settings.quality_needed_by_task.get(wanted.task, settings.quality_needed)
    if qualities is None:
        qualities = {offer.engine: offer.quality_for(wanted.task) for offer in offers}
    best = max((quality for quality in qualities.values() if quality is not None), default=needed)
    terms = {}
    for offer in offers:
        timed, cost = times[offer.engine], costs[offer.engine]
        quality = qualities[offer.engine]
        poor = max(0.0, needed - (best if quality is None else quality))
        late = None if wanted.deadline_s is None else _late(timed, wanted.deadline_s)
        paid = UNKNOWN_PRICE.of(expected_tokens(wanted)) if cost is None else cost
        parts = Terms(timed.total_s, timed.queue_s, cost, poor, late, others_s=timed.others_s)
        terms[offer.engine] = replace(parts, total=total(parts, paid, offer.is_cloud, settings))
    return terms


def total(terms: Terms, paid: float, is_cloud: bool, settings: PlacementSettings) -> float:
    """What an answer is taken to cost, by the mode.

    Args:
        paid: its price, where the terms may not know it.
    """
    weights = MODES[settings.mode]
    return (
        weights.time * (terms.time_s + terms.others_s) * settings.value_of_time_per_hour / HOUR_S
        + weights.price * paid
        + weights.poor * max(terms.poor, terms.late or 0.0) * settings.cost_of_poor_answer
        + weights.leaving * is_cloud
    )


def rank(terms: Terms) -> tuple[bool, float]:
    """By what engines are ordered: those in time by their cost, the others by how probably they are late."""
    is_late = terms.late is not None and terms.late > MAX_LATE
    return is_late, terms.late if is_late and terms.late is not None else terms.total


def _late(timed: Timed, deadline_s: float) -> float:
    """Probability that a time whose logarithm is normally distributed is beyond a deadline."""
    if deadline_s <= 0:
        return 1.0
    serving_s = max(1e-3, timed.total_s - timed.queue_s)
    left_s = deadline_s - timed.queue_s
    if left_s <= 0:
        return 1.0
    deviation = sqrt(LENGTH_DEVIATION**2 + timed.deviation**2)
    return 0.5 * (1 - erf(log(left_s / serving_s) / deviation / sqrt(2)))
