"""What drafting yields: the arithmetic of drafts, accepted and not."""

from math import exp, log

MAX_LOGIT = 4.5
"""Probabilities are kept within 0.011 and 0.989: beyond, counts say nothing that would change a choice. Sensitivity, as
in ``tuning.py``: halved -0.25, doubled +0.08."""


def accepted_per_draft(acceptance: float, length: float) -> float:
    """Expected accepted tokens of a draft, if each is accepted with the same probability until the first is not:
    ``a + a^2 + ... + a^length`` (Leviathan et al. 2023, arXiv:2211.17192, equation 1)."""
    if acceptance >= 0.9999:
        return length
    return acceptance * (1 - float(acceptance**length)) / (1 - acceptance)


def acceptance_of(accepted: float, length: float) -> float:
    """The acceptance at which drafts of a length have so many tokens accepted; the inverse of
    :func:`accepted_per_draft`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        if accepted_per_draft(middle, length) < accepted:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def logit(probability: float) -> float:
    return max(-MAX_LOGIT, min(MAX_LOGIT, log(max(probability, 1e-9) / max(1 - probability, 1e-9))))


def probability(logit_value: float) -> float:
    return 1 / (1 + exp(-max(-MAX_LOGIT, min(MAX_LOGIT, logit_value))))
