"""What placement has learned, as it is kept over restarts: how fast providers are, how good models are found, and what
providers' caches held."""

from math import isfinite

from msgspec import Struct, structs


class Faded(Struct, frozen=True):
    """Of a time's logarithm: mean and sum of squared deviations, the older ones faded."""

    weight: float
    mean: float
    square: float

    @property
    def can_be(self) -> bool:
        """Whether that may have been learned: a damaged byte may leave it readable."""
        return all(map(isfinite, structs.astuple(self))) and self.weight > 0 and self.square >= 0


class Paced(Struct, frozen=True):
    """How fast a provider answers with a model."""

    engine: str
    model: str
    first: Faded
    """To the first token."""
    rest: Faded
    """Of each token."""


class Judged(Struct, frozen=True):
    """How many answers of a model were good, of all that were judged; the older ones faded."""

    engine: str
    model: str
    group: str
    """A task or an application; empty for all answers."""
    good: float
    count: float

    @property
    def can_be(self) -> bool:
        """Whether that may have been learned."""
        return isfinite(self.count) and 0 <= self.good <= self.count


class Remembered(Struct, frozen=True):
    """All of it."""

    paces: tuple[Paced, ...] = ()
    qualities: tuple[Judged, ...] = ()
    cache_shares: dict[str, float] = {}
    """By engine, of a conversation's earlier prompt."""
