"""What the machine's power costs."""

from paceline.settings import CostSettings

JOULES_PER_KWH = 3.6e6


def marginal_cost(settings: CostSettings, busy_s: float, concurrent: float = 0.0) -> float:
    """What so much work adds to the bill of a machine that is on anyway: the power beyond the idle machine's.

    Args:
        busy_s: of work on one request.
        concurrent: other requests that are worked on at the same time, and share the power.
    """
    if settings.watts is None:
        return 0.0
    watts = max(0.0, settings.watts - settings.idle_watts)
    return watts * busy_s / (1 + concurrent) / JOULES_PER_KWH * settings.price_per_kwh
