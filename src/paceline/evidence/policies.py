"""Other ways to choose, for :func:`paceline.evidence.estimate.estimate`."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from paceline.configuration import Configuration, Rule
from paceline.evidence.estimate import Logged, Policy, always, estimate
from paceline.types import engine_of

MIN_REQUESTS_OF_A_TASK = 10
"""Requests of a task below which its best lane in hindsight is that of all requests."""


def best_of_each_task(entries: Sequence[Logged], best: str) -> Policy:
    """In hindsight: the lane with the least estimated time for each task; ``best`` is that of all requests. As the
    least of several estimates it is a little too good."""
    by_task: dict[str, list[Logged]] = defaultdict(list)
    for one in entries:
        by_task[one.task].append(one)
    lanes = {
        task: min(set.intersection(*(set(one.predicted) for one in some)), key=_time_over(some))
        for task, some in by_task.items()
        if len(some) >= MIN_REQUESTS_OF_A_TASK
    }
    return lambda one: {lanes.get(one.task, best): 1.0}


def _time_over(entries: Sequence[Logged]) -> Callable[[str], float]:
    return lambda lane: estimate(entries, always(lane)).ratio


def by_rules(configuration: Configuration) -> Policy:
    """The ``[[rule]]`` tables alone, no predictions: the lane of the first rule that fits, else the default lane. Of an
    engine that a rule names, the lane that it starts with. Rules that look at what no log keeps are passed over
    (:func:`unknowable`); where a lane is not in the log, the first one is taken."""
    usual = configuration.server.default_lane or configuration.engine[0].name

    def policy(one: Logged) -> dict[str, float]:
        lanes = list(one.predicted)
        wanted = ruled(configuration, one.task, one.model) or usual
        return {next((lane for lane in lanes if wanted in (lane, engine_of(lane))), lanes[0]): 1.0}

    return policy


def ruled(configuration: Configuration, task: str, model: str | None) -> str | None:
    """The lane or engine of the first rule that fits a request of a log."""
    passed_over = unknowable(configuration)
    fitting = (
        rule.lane
        for rule in configuration.rule
        if rule not in passed_over and rule.task in (None, task) and rule.model in (None, model)
    )
    return next(fitting, None)


def unknowable(configuration: Configuration) -> list[Rule]:
    """The rules that look at a header or a key: no log keeps them."""
    return [rule for rule in configuration.rule if rule.header is not None or rule.api_key is not None]
