"""What each static policy, one lane for all requests, would take; by the predictions."""

from collections.abc import Mapping
from math import exp2

from msgspec import Struct

from paceline.types import Prediction

LaneKey = tuple[str, str]
"""A fingerprint and the lane's name: of one engine with several lanes, each is known apart."""
HALF_LIFE_S = 7 * 86_400.0
"""After which a request counts half; set by hand."""


class Always(Struct, frozen=True):
    """Sums over the requests that the lane might have served; they fade, and add."""

    at_s: float
    """The moment to which they have faded, in seconds since 1970."""
    lane_s: float
    """Decode time, had the lane served them all."""
    taken_s: float
    """Decode time of the lanes that did serve them."""

    @property
    def ratio(self) -> float:
        return self.lane_s / self.taken_s if self.taken_s > 0 else float("inf")


def merged(first: Always, second: Always) -> Always:
    """Both sums. Commutative and associative, up to rounding."""
    early, late = (first, second) if first.at_s <= second.at_s else (second, first)
    fade = exp2(-(late.at_s - early.at_s) / HALF_LIFE_S)
    return Always(late.at_s, early.lane_s * fade + late.lane_s, early.taken_s * fade + late.taken_s)


def with_request(
    past: Mapping[LaneKey, Always], predictions: Mapping[str, Prediction], served: Prediction, tokens: int, at_s: float
) -> Mapping[LaneKey, Always]:
    """The sums with one more request; the same ones where there was no choice, or no second was known.

    Args:
        predictions: of all lanes that were to choose from, by name.
        served: of the lane that served it.
        tokens: of its answer.
    """
    taken = served.s_per_token
    if taken is None or len(predictions) < 2:
        return past
    sums = dict(past)
    for lane, prediction in predictions.items():
        if (s_per_token := prediction.s_per_token) is None:
            return past
        new = Always(at_s, tokens * s_per_token, tokens * taken)
        key = (prediction.fingerprint, lane)
        sums[key] = merged(sums[key], new) if key in sums else new
    return sums
