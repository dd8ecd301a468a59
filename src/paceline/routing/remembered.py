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


class PaceSeen(Struct, frozen=True, tag=True):
    """How fast one answer of a provider's came."""

    engine: str
    model: str
    first_s: float | None
    """To the first token; ``None`` where that was not seen."""
    rest_s: float | None
    """Of each token; ``None`` where it was not seen."""


class QualityTold(Struct, frozen=True, tag=True):
    """Whether one answer was good enough."""

    engine: str
    model: str
    groups: tuple[str, ...]
    """From the widest to the narrowest, as :class:`Judged` has them."""
    is_good: bool


class CacheSeen(Struct, frozen=True, tag=True):
    """What a provider's cache held of one conversation's earlier prompt."""

    engine: str
    share: float


Lesson = PaceSeen | QualityTold | CacheSeen
"""One thing that placement learned: the processes of one gateway tell each other."""


class Remembered(Struct, frozen=True):
    """All of it."""

    paces: tuple[Paced, ...] = ()
    qualities: tuple[Judged, ...] = ()
    cache_shares: dict[str, float] = {}
    """By engine, of a conversation's earlier prompt."""
