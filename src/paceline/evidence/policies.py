"""Other ways to choose, for :mod:`paceline.evidence.estimate`."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from paceline.evidence.estimate import LoggedPolicy, Sample, Shares, always, estimate
from paceline.records.record import Record
from paceline.routing.rules import fitting
from paceline.settings import Configuration, Rule
from paceline.types import Api, Request, engine_of

MIN_REQUESTS_OF_A_TASK = 10
"""Requests of a task below which its best lane in hindsight is that of all requests."""


def best_of_each_task(samples: Sequence[Sample], best: str) -> LoggedPolicy:
    """In hindsight: the lane with the least estimated time for each task, the first of those that are equal; ``best``
    is that of all requests. As the least of several estimates it is a little too good."""
    by_task: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_task[sample.task].append(sample)
    lanes = {
        task: min(_lanes_of_all(alike), key=_time_over(alike))
        for task, alike in by_task.items()
        if len(alike) >= MIN_REQUESTS_OF_A_TASK
    }
    return lambda sample: {lanes.get(sample.task, best): 1.0}


def _lanes_of_all(samples: Sequence[Sample]) -> list[str]:
    """The lanes that each of them might have gone down, in the order of the last one."""
    return [lane for lane in samples[-1].predicted if all(lane in sample.predicted for sample in samples)]


def _time_over(samples: Sequence[Sample]) -> Callable[[str], float]:
    return lambda lane: estimate(samples, always(lane)).ratio


def by_rules(configuration: Configuration) -> Callable[[Record], Shares]:
    """The ``[[rule]]`` tables alone, no predictions: the lane of the first rule that fits, else the default lane. Of an
    engine that a rule names, the lane that it starts with. Rules that look at what no log keeps are passed over
    (:func:`unknowable`); where a lane is not in the log, the first one is taken."""
    default = configuration.server.default_lane or configuration.engine[0].name
    rules = knowable(configuration)

    def shares(record: Record) -> Shares:
        rule = fitting(rules, request_of(record), record.signals)
        wanted = rule.lane if rule else default
        lanes = list(record.decision.predictions)
        return {next((lane for lane in lanes if wanted in (lane, engine_of(lane))), lanes[0]): 1.0}

    return shares


def request_of(record: Record) -> Request:
    """The request of a record as far as it was kept: its model is the one that served it, headers and key are gone."""
    return Request(
        api=record.parameters.api if record.parameters else Api.OPENAI_CHAT,
        path=record.path,
        body=b"",
        fields={},
        model=record.model,
        served_model=record.model,
        stream=record.stream,
    )


def knowable(configuration: Configuration) -> list[Rule]:
    return [rule for rule in configuration.rule if not _is_unknowable(rule)]


def unknowable(configuration: Configuration) -> list[Rule]:
    """The rules that look at a header or a key: no log keeps them."""
    return [rule for rule in configuration.rule if _is_unknowable(rule)]


def _is_unknowable(rule: Rule) -> bool:
    return rule.header is not None or rule.api_key is not None
