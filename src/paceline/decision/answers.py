"""How long answers are, in tokens, how long prompts take, and how much engines draft that decide at each step: means
that are learned by name."""

from collections.abc import Iterable, Iterator
from math import exp, log

from msgspec import Struct

from paceline.decision.changes import Recent
from paceline.decision.load import load_of
from paceline.decision.tuning import ANSWER_TOKENS, LENGTH_FADING, LENGTH_WEIGHT, PREFILL_S_PER_TOKEN
from paceline.types import Signals, Strategy

Key = tuple[str, ...]
"""What a mean is of."""
MAX_LOGARITHM = 20.0
"""Beyond that of the longest answer, and of the slowest and the fastest prompt."""


class Mean(Struct, frozen=True):
    """Of logarithms."""

    at_s: float
    """When the latest was learned, in seconds since 1970."""
    total: float
    """Their sum; the older ones faded."""
    count: float
    """How many they are."""

    @property
    def can_be(self) -> bool:
        """Whether it can have been learned, of answers and prompts."""
        return self.count > 0 and abs(self.total) <= MAX_LOGARITHM * self.count


NOTHING = Mean(0.0, 0.0, 0.0)


class Means:
    """Means of logarithms, each from that of a wider group."""

    def __init__(self) -> None:
        self.sums: Recent[Mean] = Recent()
        self.untold: Recent[tuple[float, float]] | None = None
        """What was added to them since others were told: sums of logarithms, and how many they are; ``None`` where
        nobody shares."""

    def share(self) -> None:
        """From now on, note what is learned for others."""
        if self.untold is None:
            self.untold = Recent()

    def tell_all(self) -> None:
        """Have others told all of them."""
        self.untold = Recent()
        for key, mean in self.sums.items():
            self.untold[key] = mean.total, mean.count

    def of(self, keys: Iterable[Key], believed: float) -> float:
        """
        Args:
            keys: from the widest group to the narrowest.
            believed: before anything was seen.
        """
        mean = log(believed)
        for key in keys:
            known = self.sums.get(key, NOTHING)
            mean = (LENGTH_WEIGHT * mean + known.total) / (LENGTH_WEIGHT + known.count)
        return exp(mean)

    def learn(self, keys: Iterable[Key], value: float, at_s: float) -> None:
        for key in keys:
            old = self.sums.get(key, NOTHING)
            total, count = LENGTH_FADING * old.total + log(value), LENGTH_FADING * old.count + 1
            self.sums[key] = Mean(max(old.at_s, at_s), total, count)
            if self.untold is not None:
                untold = self.untold.get(key, (0.0, 0.0))
                self.untold[key] = untold[0] + log(value), untold[1] + 1

    def merge(self, other: "Means") -> None:
        """Also know another's."""
        for key, theirs in other.sums.items():
            own = self.sums.get(key, NOTHING)
            self.sums[key] = Mean(max(own.at_s, theirs.at_s), own.total + theirs.total, own.count + theirs.count)


def answer_keys(model: str, signals: Signals) -> Iterator[Key]:
    """Groups by which the answer's length is known: task, application, and in it what the answer follows, since a
    command, a file and a summary differ more than tasks do."""
    task, application = str(signals.task), signals.application
    yield ("tokens", model, task)
    if application:
        yield ("tokens", model, application, signals.turn)
        yield ("tokens", model, application, signals.turn, task)


def answer_tokens(means: Means, model: str, signals: Signals) -> float:
    """Expected length of the answer."""
    tokens = means.of(answer_keys(model, signals), ANSWER_TOKENS[signals.task])
    return tokens if signals.max_tokens is None else min(tokens, max(1.0, float(signals.max_tokens)))


def prefill_s_per_token(means: Means, model: str) -> float:
    """Seconds that a prompt token takes, as they were measured; a guess before that."""
    known = means.sums.get(prefill_key(model), NOTHING)
    return exp(known.total / known.count) if known.count else PREFILL_S_PER_TOKEN


def prefill_key(model: str) -> Key:
    return ("prefill", model)


def drafted_key(fingerprint: str, strategy: Strategy, beside: float) -> Key:
    """What drafts of an engine that decides at each step are known by: that, its drafters, and how many others are
    decoded, doubled each time."""
    return ("drafted", fingerprint, strategy.kind, str(load_of(beside)))


def drafted_per_step(means: Means, fingerprint: str, strategy: Strategy, beside: float) -> float | None:
    """Tokens that it drafted at each step lately, plain ones included; ``None`` before anything was seen."""
    key = drafted_key(fingerprint, strategy, beside)
    return round(means.of([key], 1.0) - 1, 2) if key in means.sums else None
