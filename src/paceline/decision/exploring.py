"""When a lane is tried that does not look best: where what it may teach is worth more than it costs.

The worth is the knowledge gradient (Frazier, Powell and Dayanik 2008, SIAM J. Control Optim. 47): by how much one more
observation can be expected to make the best choice better, times the requests that will profit from it.
"""

from collections.abc import Iterable
from math import erf, exp, pi, sqrt

from msgspec import Struct

from paceline.decision.tuning import MAX_EXPLORED


class Other(Struct, frozen=True):
    """A lane that does not look best."""

    name: str
    behind: float
    """Logarithm of its time over the best lane's."""
    variance: float
    """Of that; more than 0."""
    noise: float
    """Variance of one observation of the lane."""
    horizon: float
    """Requests that profit from one."""
    more: float = 0.0
    """What else a try is worth, in requests."""


def explored(others: Iterable[Other]) -> dict[str, float]:
    """Probabilities of the lanes that are worth a try, at most :data:`MAX_EXPLORED` together."""
    net: dict[str, float] = {}
    largest = 0.0
    for other in others:
        cost = exp(other.behind) - 1
        deviation = other.variance / sqrt(other.variance + other.noise)
        gain = other.more + other.horizon * expected_gain(other.behind, deviation)
        if gain > cost:
            net[other.name] = gain - cost
            largest = max(largest, (gain - cost) / (gain + cost))
    total, most = sum(net.values()), min(MAX_EXPLORED, largest)
    # Divided first: what is hardly worth a try may be so small that its inverse is no number.
    return {name: share for name, value in net.items() if (share := value / total * most) > 0}


def expected_gain(behind: float, deviation: float) -> float:
    """Of a difference that is believed to be ``behind`` and will be believed to be something else, with this standard
    deviation, after an observation: the mean of what it is then below zero."""
    score = behind / deviation
    return deviation * (exp(-score * score / 2) / _ROOT_OF_2_PI - score * 0.5 * (1 - erf(score / _ROOT_OF_2)))


_ROOT_OF_2, _ROOT_OF_2_PI = sqrt(2), sqrt(2 * pi)
