"""How fast cloud engines answer, as learned from their answers: time to the first token, and time per token."""

from collections import OrderedDict
from collections.abc import Iterable
from math import exp, log, sqrt

from paceline.routing.remembered import Faded, Paced, PaceSeen
from paceline.types import Outcome

FIRST_S = 1.0
"""To the first token, before anything was measured: a guess."""
S_PER_TOKEN = 1 / 60
"""The same of a token: a guess."""
PRIOR = 2.0
"""Answers that the guesses count for."""
FADING = 0.9
"""Of what an answer counts at the next one: the last 10 or so decide, since providers' load changes within hours."""
PRIOR_DEVIATION = 0.5
"""Of a time's logarithm, from one request to the next, before it was measured."""
MIN_S, MAX_S = 1e-4, 3600.0
"""Times beyond are not believed."""
MIN_TOKENS = 8
"""Of an answer whose time per token is learned."""
MAX_KNOWN = 500
"""Engines with a model."""


class CloudPace:
    """Of all cloud engines, each with one of its models."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], tuple[Faded, Faded]] = OrderedDict()

    def expected_s(self, engine: str, model: str, tokens: float) -> tuple[float, float]:
        """Time to the end of an answer of so many tokens, in seconds, and the deviation of its logarithm."""
        first, rest = self._known.get((engine, model)) or _believed()
        first_s, rest_s = exp(first.mean), tokens * exp(rest.mean)
        total_s = first_s + rest_s
        return total_s, sqrt((first_s * _deviation(first)) ** 2 + (rest_s * _deviation(rest)) ** 2) / total_s

    def learn(self, engine: str, model: str, outcome: Outcome) -> None:
        """Take in an answer that came whole."""
        if seen := self.seen(engine, model, outcome):
            self.take_in(seen)

    def seen(self, engine: str, model: str, outcome: Outcome) -> PaceSeen | None:
        """What an answer that came whole shows; ``None`` where that is nothing."""
        first_s, tokens = outcome.first_byte_s, outcome.observed.completion_tokens
        if not outcome.is_whole or first_s is None or not tokens:
            return None
        seen_first_s = None
        if outcome.observed.decode_s is not None:  # a stream, whose first byte was its first token's
            rest_s = outcome.total_s - outcome.queue_s - outcome.decision_s - first_s
            if MIN_S <= first_s <= MAX_S:
                seen_first_s = first_s
        else:
            first, _ = self._known.get((engine, model)) or _believed()
            rest_s = first_s - exp(first.mean)
        has_rest = tokens >= MIN_TOKENS and MIN_S <= rest_s <= MAX_S
        return PaceSeen(engine, model, seen_first_s, max(MIN_S, rest_s / tokens) if has_rest else None)

    def take_in(self, seen: PaceSeen) -> None:
        """Learn what an answer has shown, here or in another process."""
        key = seen.engine, seen.model
        first, rest = self._known.get(key) or _believed()
        if seen.first_s is not None:
            first = _later(first, seen.first_s)
        if seen.rest_s is not None:
            rest = _later(rest, seen.rest_s)
        self._known[key] = first, rest
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def remembered(self) -> tuple[Paced, ...]:
        """All that is known."""
        return tuple(Paced(*key, *known) for key, known in self._known.items())

    def recall(self, paces: Iterable[Paced]) -> None:
        """Know what was remembered, but for what can't be."""
        for paced in paces:
            if all(map(_can_be, (paced.first, paced.rest))):
                self._known[paced.engine, paced.model] = paced.first, paced.rest


def _believed() -> tuple[Faded, Faded]:
    square = PRIOR * PRIOR_DEVIATION**2
    return Faded(PRIOR, log(FIRST_S), square), Faded(PRIOR, log(S_PER_TOKEN), square)


def _later(faded: Faded, value: float) -> Faded:
    """After one more time."""
    weight, deviation = FADING * faded.weight + 1, log(value) - faded.mean
    mean = faded.mean + deviation / weight
    return Faded(weight, mean, FADING * faded.square + deviation * (log(value) - mean))


def _can_be(faded: Faded) -> bool:
    return faded.can_be and log(MIN_S) <= faded.mean <= log(MAX_S)


def _deviation(faded: Faded) -> float:
    return sqrt(faded.square / faded.weight)
