"""What a request has in common with others. It belongs to several groups at once, whose unknowns add up, so that a new
group starts from what the others know."""

from collections.abc import Iterator, Sequence
from math import log2
from typing import NamedTuple

from paceline.decision.belief import Name
from paceline.decision.tuning import LOGIT, MIN_TASK, PRIOR, PUBLISHED_SHARE, TASK_LOGITS
from paceline.types import Signals, Task


class Group(NamedTuple):
    """One of them, and how much of its unknowns a request feels."""

    key: Name
    share: float
    """Probability that the request belongs to it."""
    strength: float
    """Deviation of how predictable its answers are."""
    tilt: float
    """Of whether its long drafts gain more."""
    content: float
    """Of how much dearer its verification is."""
    kind: str = ""
    """Of drafters that it is about; all where empty."""


class Leaf(NamedTuple):
    """The finest group."""

    application: str
    task: Task
    reasoning: bool | None
    load: int
    """Two doublings of concurrency are one."""


def groups_of(signals: Signals, kinds: Sequence[str]) -> Iterator[Group]:
    """Those of a request that may go to drafters of these kinds."""
    application = signals.application
    for task, share in signals.tasks.items():
        if share < MIN_TASK:
            continue
        yield _group(("task", task), share, PRIOR.task)
        if len(kinds) > 1:
            for kind in kinds:
                strength = PRIOR.lookup if kind.startswith("ngram") else PRIOR.drafter
                key = ("drafter", task, kind)
                yield Group(key, share, strength, PRIOR.drafter_tilt, PRIOR.drafter_content, kind)
        if application:
            yield _group(("leaf", application, task), share, PRIOR.leaf)
    if application:
        yield _group(("application", application), 1.0, PRIOR.application)
    if signals.reasoning is not None:
        yield _group(("reasoning", "on" if signals.reasoning else "off"), 1.0, PRIOR.reasoning)


def _group(key: Name, share: float, strength: float) -> Group:
    return Group(key, share, strength, PRIOR.tilt * strength, PRIOR.content * strength)


def believed_strength(signals: Signals) -> float:
    """Mean of the strength of a request's answer, before anything was measured."""
    return sum([share * _STRENGTHS[task] for task, share in signals.tasks.items() if share >= MIN_TASK])


def leaf_of(signals: Signals, beside: float) -> Leaf:
    return Leaf(signals.application, signals.task, signals.reasoning, (round(log2(1 + beside)) + 1) // 2)


_STRENGTHS = {task: PUBLISHED_SHARE * LOGIT * logit for task, logit in TASK_LOGITS.items()}
