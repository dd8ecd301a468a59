"""Draft control: decides before each step of one request whether to draft, with which drafter and how far. The rule
that engines follow which take it from a request, written so that other languages can be checked against it.

*Words.* A step costs 1 where it verifies nothing, and ``costs[k - 1]`` where it verifies ``k`` drafted tokens, drafting
included: all in plain steps under the present load. It yields the accepted tokens and one more. ``a_i`` is the prior
probability that the token at position ``i`` (from 1) of a draft is accepted, given that those before it were: clipped
to 0.001 ... 0.999, and beyond the list's end its last value. For a lookup the list is that of the largest key of
``by_match`` that is not above the match's length, and ``acceptance`` where there is none.

*Belief.* A request accepts ``a_i ** rho`` instead. ``rho`` is believed to be Gamma distributed, with mean 1 and
``W = max(weight * mean hazard, MIN_SHAPE)`` for its shape and rate at first, where a position's hazard is
``h_i = -log(a_i)``, and the mean is over the first ``min(FIRST_POSITIONS, len(costs))`` positions of ``acceptance`` (of
the list of the smallest key of ``by_match`` where that is empty). With the counts of the request it is taken for::

    rho = (W + rejections) / (W + exposure)

Each draft that was compared with what then was generated first multiplies both counts with ``KEPT_PER_DRAFT``; then
each accepted position adds ``h_i`` to the exposure, and the first rejected one adds 1 to the rejections and to the
exposure the part of its hazard that had passed, as can be expected of an exponential distribution cut at ``h_i``::

    h_i * (1 / x - 1 / (exp(x) - 1)), x = rho * h_i, and h_i / 2 where x < 0.001

so that what confirms a belief does not move it; ``rho`` is the one before the draft. Then every generated token
multiplies both counts with ``KEPT_PER_TOKEN``: a drafter that is not heard of drifts back to its prior.

*Rate.* What a plain step's worth of time yields: ``rate = max(1, tokens / cost)``, of sums that each step multiplies
with ``KEPT_RATE`` and adds its own to. They start at ``rate_0 * FIRST_STEPS`` and ``FIRST_STEPS``, where ``rate_0`` is
the best that a drafter promises that drafts at any time: the largest ``E(k) / c(k)`` at ``rho`` = 1, and 1 for lookups,
which depend on finding a match.

*Choice.* ``E(k) = 1 + sum_{j <= k} prod_{i <= j} a_i ** rho`` tokens are expected of a step with a draft of ``k``. Of
all drafters on offer and lengths that are allowed, the largest ``E(k) - rate * c(k)`` is taken; ``1 - rate`` is that of
a plain step, which is taken unless another is more. Among equals the first drafter and the shorter draft win.

*Price.* Each drafter has an account in plain steps. A step with its draft adds ``tokens - c(k)``; it never holds more
than ``MAX_CREDIT``. A draft of ``k`` is allowed while all that 1 ... ``k`` can lose, ``c(j) - 1`` each, is at most ::

    account + FIRST_LOSSES * first + LOSS_SHARE / (number of drafters) * (cost of all steps so far)

where ``first`` is ``max(0, c(k) - 1)`` of the length that the prior would choose at a rate of 1 and ``rho`` = 1 from
its longest match, and of ``TRIED_TOKENS`` where it would choose none. Of a drafter that is not watched it is 0 where no
length would be chosen for one request in ten either, as the prior knows them: at the tenth percentile of ``rho``, which
is ``max(0, 1 - s * s - ONE_IN_TEN * s) ** 3`` with ``s = 1 / (3 * sqrt(W))`` (Wilson and Hilferty's approximation).
There a first draft would be lost nine times out of ten. So a drafter of which nothing is ever accepted loses so many
first drafts and this share at most, whatever is believed.

*Tries.* Where nothing would be drafted, a draft of ``TRIED_TOKENS`` is tried with the first drafter on offer that has
not drafted for ``wait`` generated tokens, if it is allowed. ``wait`` is ``FIRST_WAIT`` at first and after a try that
accepted something, and doubles up to ``MAX_WAIT`` with each that did not. A drafter that is watched, so that its
drafts are compared whether they are verified or not, needs no tries: a lookup, and any whose engine drafts anyway.

*Confidence.* A drafter that tells its probability ``p`` of each token goes on, up to :attr:`Choice.longest`, as long as
the next token is worth its price::

    reach * sqrt(p * a_i ** rho) >= rate * (c(i) - c(i - 1)), c(0) = 1

where ``reach`` is the product of the same square roots over the positions before. The first token is drafted anyway.

*Constants.* Tuned on lookups over 427 recorded answers at five costs of a step, and on heads drawn with published
acceptance by position, requests and passages that differ, right and wrong priors, at three costs. Most hardly matter:
``KEPT_PER_DRAFT`` from 0.93 to 0.98, ``KEPT_PER_TOKEN`` from 0.995 to 1, ``KEPT_RATE`` from 0.9 to 0.98, ``MAX_CREDIT``
from 4 to 100 and ``FIRST_STEPS`` from 4 to 50 change the mean by less than 0.5 %. ``FIRST_LOSSES`` of 1 loses 1.5 %
where drafting is dear and pays, of 5 gains 0.2 %, and text that never accepts pays for it. First drafts that are only
lost where the prior allows for a gain make answers that drafts don't pay for 3 % faster where they are dear, and 1 %
all answers; a prior that wrongly allows for none loses up to 3 % by it (``benchmarks.control.heads``). Of lookups they
would cost as much as they save. A ``FIRST_WAIT`` of 32
loses 15 % where the prior wrongly says that drafting does not pay. A weight of 3 to 12 is as good as any where priors
are right to about half a logit, and where they are not, a small one is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import expm1, isfinite, log, sqrt
from operator import le
from typing import Any

KEPT_PER_DRAFT = 0.95
KEPT_PER_TOKEN = 0.998
KEPT_RATE = 0.95
FIRST_STEPS = 8.0
MIN_SHAPE = 0.05
FIRST_POSITIONS = 4
DEFAULT_WEIGHT = 6.0
"""Drafted tokens that a prior counts for where its weight is not given."""
MAX_CREDIT = 8.0
FIRST_LOSSES = 3.0
ONE_IN_TEN = 1.28
"""Standard deviations of a normal distribution that one value in ten lies below."""
LOSS_SHARE = 0.01
TRIED_TOKENS = 2
FIRST_WAIT = 8
MAX_WAIT = 256
MIN_ACCEPTANCE, MAX_ACCEPTANCE = 0.001, 0.999
LOOKUP: Mapping[int, Sequence[float]] = {
    2: (0.3, 0.45),
    3: (0.45, 0.6),
    4: (0.55, 0.7),
    6: (0.65, 0.75),
    8: (0.75, 0.85),
    12: (0.85, 0.9),
    16: (0.9, 0.93),
}
"""Acceptance of a lookup by length of the match, where nothing is known of the request: round numbers near those of
427 recorded answers, and a little below for short matches, since those of one answer are alike."""


@dataclass(frozen=True)
class Drafter:
    """What the control of one drafter starts from.

    Raises:
        ValueError: there is no cost or no acceptance, a cost is not above 0, a probability is none, or the weight is
            below 0.
    """

    costs: Sequence[float]
    """Of a step that verifies 1, 2 ... drafted tokens, in plain steps; as many as the longest draft has tokens."""
    acceptance: Sequence[float] = ()
    """Prior probability that the token at position 1, 2 ... is accepted, given that those before it were."""
    by_match: Mapping[int, Sequence[float]] = field(default_factory=dict)
    """The same of a lookup, from a match of so many tokens on."""
    weight: float = DEFAULT_WEIGHT
    """Drafted tokens that the prior counts for."""
    is_watched: bool = False
    """Whether its drafts are compared with what is generated also where they are not verified."""

    def __post_init__(self) -> None:
        lists = [list(one) for one in (self.acceptance, *self.by_match.values()) if one]
        if not self.costs or not all(isfinite(cost) and cost > 0 for cost in self.costs):
            raise ValueError("costs have to be numbers above 0, one for each length of a draft")
        if not lists or not all(self.by_match.values()):
            raise ValueError("acceptance or by_match has to be given")
        if not all(0 <= probability <= 1 for one in lists for probability in one):
            raise ValueError("acceptance has to be probabilities")
        if not (isfinite(self.weight) and self.weight >= 0):
            raise ValueError("weight has to be a number of tokens")


@dataclass(frozen=True)
class Offer:
    """What a drafter could draft in the next step."""

    tokens: int
    """At most."""
    match: int = 0
    """Length of a lookup's match, in tokens."""


@dataclass(frozen=True)
class Choice:
    """What to draft in the next step."""

    drafter: str | None = None
    """``None`` for a plain step."""
    length: int = 0
    """Tokens to draft, where the drafter doesn't tell its confidence."""
    longest: int = 0
    """Tokens beyond which it may not go, however confident it is."""


PLAIN = Choice()


def drafters_of(given: Any) -> dict[str, Drafter]:
    """The drafters that a request names, from its field as decoded from JSON: by name, an object with ``costs`` and
    ``acceptance``, ``by_match`` and ``weight`` as in :class:`Drafter`, the keys of ``by_match`` being texts.

    Raises:
        ValueError: it makes no sense; says what.
    """
    found = {}
    for name, values in _object(given).items():
        if not isinstance(values, dict) or values.keys() - {"costs", "acceptance", "by_match", "weight"}:
            raise ValueError(f"{name}: has to be an object of costs, acceptance, by_match and weight")
        by_match, weight = values.get("by_match", {}), values.get("weight", DEFAULT_WEIGHT)
        if not isinstance(by_match, dict) or not all(match.isdecimal() for match in by_match):
            raise ValueError(f"{name}: by_match has to be an object, by lengths of the match")
        lists = {int(match): _numbers(name, "by_match", one) for match, one in by_match.items()}
        costs, acceptance = (_numbers(name, key, values.get(key, [])) for key in ("costs", "acceptance"))
        (weight,) = _numbers(name, "weight", [weight])
        try:
            found[name] = Drafter(costs, acceptance, lists, weight)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _object(given: Any) -> Mapping[str, Any]:
    if isinstance(given, dict):
        return given
    raise ValueError("the control of drafts has to be an object, by drafter")


def _numbers(name: str, key: str, values: Any) -> tuple[float, ...]:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"{name}: {key} has to hold numbers")
    return tuple(float(value) for value in values)


class _State:
    """Of one drafter in one request."""

    def __init__(self, drafter: Drafter, longest: int) -> None:
        self.drafter = drafter
        self.costs = tuple(drafter.costs[:longest])
        self._lists = {match: _clipped(one) for match, one in sorted(drafter.by_match.items())}
        first = _clipped(drafter.acceptance) if drafter.acceptance else next(iter(self._lists.values()))
        self._acceptance = _clipped(drafter.acceptance) if drafter.acceptance else ()
        hazards = [-log(_at(first, position)) for position in range(min(FIRST_POSITIONS, len(drafter.costs)))]
        self.shape = max(drafter.weight * sum(hazards) / len(hazards), MIN_SHAPE)
        self.rejections = self.exposure = 0.0
        self.account = 0.0
        self.since_draft = 0
        self.wait = FIRST_WAIT
        promising = self._lists[max(self._lists)] if self._lists else first
        expected = self.expected(promising, len(self.costs))
        self.first = self._first_loss(promising, expected)
        self.promise = max((tokens / cost for tokens, cost in zip(expected, self.costs, strict=True)), default=1.0)

    @property
    def rho(self) -> float:
        return (self.shape + self.rejections) / (self.shape + self.exposure)

    def _first_loss(self, promising: Sequence[float], expected: Sequence[float]) -> float:
        """Plain steps that a first draft may lose."""
        if not self.costs:
            return 0.0
        values = [tokens - cost for tokens, cost in zip(expected, self.costs, strict=True)]
        best = max(range(len(values)), key=values.__getitem__)
        if values[best] <= 0:
            spread = 1 / (3 * sqrt(self.shape))
            luckiest = max(0.0, 1 - spread * spread - ONE_IN_TEN * spread) ** 3
            at_best = self.expected(promising, len(self.costs), luckiest)
            if not self.drafter.is_watched and all(map(le, at_best, self.costs)):
                return 0.0
            best = min(TRIED_TOKENS, len(values)) - 1
        return max(0.0, self.costs[best] - 1)

    def prior(self, match: int) -> Sequence[float]:
        """Acceptance by position, of a lookup's match of so many tokens; empty where nothing is known of it."""
        found = self._acceptance
        for shortest, one in self._lists.items():
            if shortest <= match:
                found = one
        return found

    def expected(self, prior: Sequence[float], longest: int, rho: float | None = None) -> list[float]:
        """Tokens of a step with a draft of 1, 2 ... tokens."""
        rho, reach, tokens, expected = self.rho if rho is None else rho, 1.0, 1.0, []
        for position in range(longest):
            reach *= _at(prior, position) ** rho
            tokens += reach
            expected.append(tokens)
        return expected

    def compared(self, tokens: int, accepted: int, match: int) -> None:
        prior, rho = self.prior(match), self.rho
        if not prior or tokens < 1:
            return
        self.rejections *= KEPT_PER_DRAFT
        self.exposure *= KEPT_PER_DRAFT
        self.exposure += sum(-log(_at(prior, position)) for position in range(accepted))
        if accepted < tokens:
            self.rejections += 1
            self.exposure += _passed(-log(_at(prior, accepted)), rho)


class DraftControl:
    """Of one request.

    Args:
        drafters: by their names, the preferred first.
        n_max: limit of every draft, in tokens; ``None`` for none.
    """

    def __init__(self, drafters: Mapping[str, Drafter], n_max: int | None = None) -> None:
        self._states = {
            name: _State(drafter, len(drafter.costs) if n_max is None else max(0, n_max))
            for name, drafter in drafters.items()
        }
        promises = [state.promise for state in self._states.values() if not state.drafter.by_match]
        self._tokens = FIRST_STEPS * max([1.0, *promises])
        self._cost = FIRST_STEPS
        self._total = 0.0

    @property
    def rate(self) -> float:
        """Tokens per plain step that the request reaches lately, not below 1."""
        return max(1.0, self._tokens / self._cost)

    def acceptance(self, name: str, position: int, match: int = 0) -> float:
        """Believed probability that the token at a position, from 1, is accepted."""
        state = self._states[name]
        prior = state.prior(match)
        return _at(prior, position - 1) ** state.rho if prior else 0.0

    def choose(self, offers: Mapping[str, Offer]) -> Choice:
        """What to draft in the next step.

        Args:
            offers: of the drafters that can draft now. A drafter that is not controlled is not used.
        """
        rate = self.rate
        choice, most = PLAIN, 1 - rate
        for name, state in self._states.items():
            offer = offers.get(name)
            prior = state.prior(offer.match) if offer else ()
            if offer is None or not prior:
                continue
            allowed = self._allowed(state, offer)
            best = 0
            for length, tokens in enumerate(state.expected(prior, allowed), start=1):
                value = tokens - rate * state.costs[length - 1]
                if value > most:
                    most, best = value, length
            if best:
                choice = Choice(name, best, allowed)
        return choice if choice.drafter else self._try(offers)

    def goes_on(self, choice: Choice, confidences: Sequence[float]) -> bool:
        """Whether the last of the tokens that a drafter would draft is worth its price.

        Args:
            choice: that the draft is of.
            confidences: the drafter's probabilities of its tokens so far, the one in question the last.
        """
        if choice.drafter is None or len(confidences) > choice.longest:
            return False
        position = len(confidences)
        if position <= 1:
            return True
        costs = self._states[choice.drafter].costs
        reach = 1.0
        for number, confidence in enumerate(confidences, start=1):
            reach *= sqrt(confidence * self.acceptance(choice.drafter, number))
        return reach >= self.rate * (costs[position - 1] - costs[position - 2])

    def decoded(self, tokens: int = 1) -> None:
        """A plain step has yielded so many tokens."""
        self._stepped(tokens, 1.0)

    def verified(self, name: str, drafted: int, accepted: int, match: int = 0) -> None:
        """A step has verified so many tokens of a drafter's draft, at least 1, and accepted so many from the front."""
        state = self._states[name]
        cost = state.costs[min(drafted, len(state.costs)) - 1]
        state.account = min(MAX_CREDIT, state.account + accepted + 1 - cost)
        state.wait = FIRST_WAIT if accepted else min(2 * state.wait, MAX_WAIT)
        state.compared(drafted, accepted, match)
        self._stepped(accepted + 1, cost)
        state.since_draft = 0

    def watched(self, name: str, drafted: int, accepted: int, match: int = 0) -> None:
        """So many tokens would have been drafted, and so many of them from the front are what then was generated.
        Only drafts that do not overlap count: the next is the one at the token after those accepted and one more."""
        self._states[name].compared(drafted, accepted, match)

    def _allowed(self, state: _State, offer: Offer) -> int:
        """Longest draft that the drafter's account allows."""
        left = state.account + FIRST_LOSSES * state.first + LOSS_SHARE / len(self._states) * self._total
        for length, cost in enumerate(state.costs[: max(0, offer.tokens)]):
            if cost - 1 > left:
                return length
        return min(max(0, offer.tokens), len(state.costs))

    def _try(self, offers: Mapping[str, Offer]) -> Choice:
        for name, state in self._states.items():
            offer = offers.get(name)
            if offer is None or state.drafter.is_watched or state.since_draft < state.wait:
                continue
            length = min(TRIED_TOKENS, self._allowed(state, offer))
            if length:
                return Choice(name, length, length)
        return PLAIN

    def _stepped(self, tokens: int, cost: float) -> None:
        self._tokens = KEPT_RATE * self._tokens + tokens
        self._cost = KEPT_RATE * self._cost + cost
        self._total += cost
        kept = KEPT_PER_TOKEN**tokens
        for state in self._states.values():
            state.rejections *= kept
            state.exposure *= kept
            state.since_draft += tokens


def _clipped(probabilities: Sequence[float]) -> tuple[float, ...]:
    return tuple(min(max(one, MIN_ACCEPTANCE), MAX_ACCEPTANCE) for one in probabilities)


def _at(probabilities: Sequence[float], position: int) -> float:
    """That of a position from 0; beyond the end the last."""
    return probabilities[min(position, len(probabilities) - 1)]


def _passed(hazard: float, rho: float) -> float:
    """Of a hazard, the part that is expected to have passed when a rejection came within it."""
    x = rho * hazard
    if x < 0.001:
        return hazard / 2
    return hazard * (1 / x - 1 / expm1(min(x, 700.0)))  # beyond, the second is 0 and would overflow
