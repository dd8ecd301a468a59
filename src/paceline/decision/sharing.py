"""What one router has learned since it last told, for others to learn.

Observations of a linear, Gaussian model add up: what they tell of the unknowns is an information matrix, and sums of
those may be added in any order. So a delta may come late or out of order; one that comes twice is known by its origin
and its number, and changes nothing. What was forgotten is not shared: each router forgets by what it sees itself.
"""

from msgspec import Struct

from paceline.decision.arrays import packed, packed_triangle, unpacked, unpacked_triangle
from paceline.decision.belief import Name
from paceline.decision.feeling import LaneId
from paceline.decision.knowledge import Knowledge
from paceline.decision.time_model import TimeModel

REMEMBERED = 256
"""Numbers of an origin's deltas that are known apart; older ones count as known."""


class ModelDelta(Struct, frozen=True):
    """Of one set of lanes that are compared with each other."""

    models: tuple[str, ...]
    """Under which it is kept (:attr:`LaneState.model`)."""
    names: list[Name]
    """Of its unknowns."""
    prior: bytes
    """Their variances before anything was observed; arrays are of 8-byte little-endian floats."""
    information: bytes
    """The lower triangle, row by row."""
    values: bytes
    seen: int
    """Outcomes."""
    tries: list[tuple[LaneId, int]]
    """By lane."""


class Delta(Struct, frozen=True):
    """What was learned between two moments."""

    origin: str
    """Whose it is; no two routers have the same."""
    sequence: int
    """Counts the origin's deltas, from 1 on."""
    at_s: float
    """When the latest outcome in it was learned, in seconds since 1970."""
    models: tuple[ModelDelta, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it tells nothing."""
        return not any(model.names or model.seen or model.tries for model in self.models)


class Sharing:
    """Tells what a router learns, and learns what others tell.

    Args:
        origin: of this router's deltas; unique among all that share, also over restarts.
    """

    def __init__(self, knowledge: Knowledge, origin: str) -> None:
        self.origin = origin
        self._knowledge = knowledge
        self._sequence = 0
        self._known: dict[str, list[int]] = {}
        """Numbers of deltas that were learned, by origin; the first stands for all up to it."""
        knowledge.share()

    def delta(self) -> Delta:
        """What was learned since the last one."""
        with self._knowledge.lock:
            models = tuple(_told(names, self._knowledge.models[names[0]]) for names in self._knowledge.names())
            self._sequence += 1
            return Delta(self.origin, self._sequence, self._knowledge.totals.at_s, models)

    @property
    def known(self) -> dict[str, int]:
        """By origin, the number up to which all its deltas are known."""
        return {origin: numbers[0] for origin, numbers in self._known.items()} | {self.origin: self._sequence}

    def apply(self, delta: Delta) -> bool:
        """Learn what another router tells; whether it was new. One's own is known."""
        known = self._known.setdefault(delta.origin, [0])
        if delta.origin == self.origin or delta.sequence <= known[0] or delta.sequence in known:
            return False
        with self._knowledge.lock:
            for told in delta.models:
                _learn(self._knowledge.joined(told.models), told)
            self._knowledge.learned += 1
        known.append(delta.sequence)
        known.sort()
        while len(known) > 1 and (known[1] == known[0] + 1 or len(known) > REMEMBERED):
            known.pop(0)
        return True


def _told(names: list[str], model: TimeModel) -> ModelDelta:
    unknowns, prior, information, values = model.belief.take_told()
    told = ModelDelta(
        models=tuple(names),
        names=unknowns,
        prior=packed(prior),
        information=packed_triangle(information),
        values=packed(values),
        seen=model.seen - model.seen_told,
        tries=[
            (lane, more) for lane, tries in model.lanes.items() if (more := tries - model.tries_told.get(lane, 0)) > 0
        ],
    )
    model.seen_told, model.tries_told = model.seen, dict(model.lanes)
    return told


def _learn(model: TimeModel, told: ModelDelta) -> None:
    information = unpacked_triangle(told.information, len(told.names))
    prior, values = unpacked(told.prior), unpacked(told.values)
    model.learn_told(told.names, prior, information, values, dict(told.tries), told.seen)
