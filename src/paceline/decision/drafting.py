"""What drafting yields: the arithmetic of drafts, accepted and not."""

from bisect import bisect_left
from functools import lru_cache


def accepted_per_draft(acceptance: float, length: float) -> float:
    """Expected accepted tokens of a draft, if each is accepted with the same probability until the first is not:
    ``a + a^2 + ... + a^length`` (Leviathan et al. 2023, arXiv:2211.17192, equation 1)."""
    if acceptance >= 0.9999:
        return length
    return acceptance * (1 - float(acceptance**length)) / (1 - acceptance)


def acceptance_of(accepted: float, length: float) -> float:
    """The acceptance at which drafts of a length have so many tokens accepted; the inverse of
    :func:`accepted_per_draft`, within 0.0001."""
    yields = _yields(length)
    place = bisect_left(yields, accepted)
    if place == 0:
        return 0.0
    if place == len(yields):
        return 1.0
    below, above = yields[place - 1], yields[place]
    return (place - 1 + (accepted - below) / (above - below)) / (len(yields) - 1)


@lru_cache(maxsize=256)
def _yields(length: float) -> tuple[float, ...]:
    """Accepted tokens of drafts of a length, for every thousandth of acceptance."""
    return tuple(accepted_per_draft(number / 1000, length) for number in range(1001))
