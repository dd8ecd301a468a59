"""When a lane is tried that does not look best: where what it may teach is worth more than it costs.

The worth is the knowledge gradient (Frazier, Powell and Dayanik 2008, SIAM J. Control Optim. 47): by how much one more
observation can be expected to make the best choice better, times the requests that will profit from it.
"""

from collections.abc import Sequence
from math import erf, exp, pi, sqrt

import numpy as np
from msgspec import Struct

from benchmarks.worlds.published import Floats


class Horizon(Struct, frozen=True):
    """How many requests profit from what is learned now; nothing of it is known, so it grows with what was seen."""

    share: float = 0.3
    """Of the requests of a group, or all, that are counted: later ones would have taught the same. Half or twice as
    much costs 0.001."""
    at_first: float = 8.0
    """Requests of a new group that are expected."""
    all_at_first: float = 20.0
    """Requests of all groups that are expected."""
    of_all: float = 0.5
    """Of all requests seen so far, that so many more may follow."""
    lane_share: float = 0.1
    """The same for a lane whose drafter is known at other lengths."""
    longest: float = 200.0

    def of_group(self, alike: int, requests: int) -> float:
        """For what an observation teaches of requests alike."""
        return self.share * min(self.longest, self.at_first + alike, self.all_at_first + self.of_all * requests)

    def of_drafter(self, tries: int, requests: int) -> float:
        """For what the first tries of a kind of drafter teach of all requests."""
        return min(self.longest, self.all_at_first + self.of_all * requests) / (1 + tries**2)

    def of_lane(self, tries: int, requests: int) -> float:
        """For what the first tries of a lane do, beside that."""
        return min(self.longest, self.lane_share * requests) / (1 + tries**2)


MAX_SHARE = 0.5
"""Of requests alike that may explore."""
MAX_SCORE = 5.0
"""Standard deviations behind the best from which on a lane is not looked at."""


def explored(behind: Floats, variances: Floats, noise: Floats, horizons: Sequence[float]) -> dict[int, float]:
    """Probabilities of the lanes that are worth a try, at most :data:`MAX_SHARE` together.

    Args:
        behind: by lane, the logarithm of its time over the best lane's
        variances: of these
        noise: variance of one observation of a lane
        horizons: by lane, requests that profit
    """
    net: dict[int, float] = {}
    largest = 0.0
    for lane in np.flatnonzero(behind * behind <= MAX_SCORE**2 * variances).tolist():
        distance, variance = float(behind[lane]), float(variances[lane])
        if variance <= 0.0:
            continue
        cost = exp(distance) - 1
        gain = horizons[lane] * expected_gain(distance, variance / sqrt(variance + float(noise[lane])))
        if gain > cost:
            net[lane] = gain - cost
            largest = max(largest, (gain - cost) / (gain + cost))
    scale = min(MAX_SHARE, largest) / sum(net.values()) if net else 0.0
    return {lane: value * scale for lane, value in net.items()}


def expected_gain(behind: float, deviation: float) -> float:
    """Of a difference that is believed to be ``behind`` and will be believed to be something else, with this standard
    deviation, after an observation: the mean of what it is then below zero."""
    score = behind / deviation
    return deviation * (exp(-score * score / 2) / sqrt(2 * pi) - score * 0.5 * (1 - erf(score / sqrt(2))))
