"""A lane that may be chosen, and in which order."""

from msgspec import Struct

from paceline.types import LaneState, Prediction


class Rank(Struct, frozen=True, order=True):
    """Lanes are taken in the order of the first level at which they differ; the lower, the better."""

    is_ill: bool
    """Engines that are down, or failed lately, come last."""
    is_crowded: bool
    """Where engines take turns and much goes on, lanes that draft come after plain ones, in which all meet."""
    must_wait: bool
    """Where engines take turns, a lane on which the request starts at once goes before one where it would wait, since
    one step that decodes two requests costs less than two steps."""
    lacks_turn: bool
    """Of those where it would wait, the engine that has the turn now goes first."""
    is_apart: bool
    """Where an engine decodes requests of different lanes one after the other, all that are decoded together go down
    one of its lanes."""
    cost: float
    """As in :class:`Choice`."""
    in_flight: int
    """Of equals, the lane with the fewest requests."""


class Choice(Struct):
    """A lane that may be chosen."""

    state: LaneState
    name: str
    """The lane's."""
    drafts: bool
    prediction: Prediction
    number: int
    """Of the lane, among those to choose from."""
    cost: float
    """What is compared: seconds for the whole answer; of a guessed length of step before one was measured."""
    rank: Rank
