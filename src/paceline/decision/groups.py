"""What a request has in common with others. It belongs to several groups at once, whose unknowns add up, so that a new
group starts from what the others know."""

from collections.abc import Iterator, Sequence
from math import log2
from typing import NamedTuple

from paceline.decision.belief import Name
from paceline.decision.shapes import looks_up
from paceline.decision.tuning import LOGIT, MIN_TASK, PRIOR, PUBLISHED_SHARE, TASK_LOGITS
from paceline.types import Signals, Task


class Group(NamedTuple):
    """One of them, and how much of its unknowns a request feels."""

    key: Name
    share: float
    """Probability that the request belongs to it."""
    strength: float
    """Deviation of how predictable its answers are."""
    content: float
    """Deviation of how much dearer its verification is."""
    tilt: float
    """Deviation of whether its long lookups gain more, as where the answer copies whole passages."""
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
    tilt = PRIOR.tilt if any(looks_up(kind) for kind in kinds) else 0.0
    for task, share in signals.tasks.items():
        if share < MIN_TASK:
            continue
        yield _group(("task", task), share, PRIOR.task, tilt)
        if len(kinds) > 1:
            for kind in kinds:
                strength = PRIOR.lookup if looks_up(kind) else PRIOR.drafter
                yield Group(("drafter", task, kind), share, strength, 0.0, 0.0, kind)
        if application:
            yield _group(("leaf", application, task), share, PRIOR.leaf, tilt)
    if application:
        yield _group(("application", application), 1.0, PRIOR.application, tilt)
    if signals.reasoning is not None:
        yield _group(("reasoning", "on" if signals.reasoning else "off"), 1.0, PRIOR.reasoning, tilt)


def _group(key: Name, share: float, strength: float, tilt: float) -> Group:
    return Group(key, share, strength, PRIOR.content * strength, tilt * strength)


def believed_strength(signals: Signals) -> float:
    """Mean of the strength of a request's answer, before anything was measured."""
    return sum([share * _STRENGTHS[task] for task, share in signals.tasks.items() if share >= MIN_TASK])


def changing_group(leaf: Leaf) -> Name:
    """The group that is taken to change when requests like these do."""
    return ("leaf", leaf.application, leaf.task) if leaf.application else ("task", leaf.task)


def strength_of(task: Task) -> float:
    """Mean of a task's strength, before anything was measured."""
    return _STRENGTHS[task]


def leaf_of(signals: Signals, beside: float) -> Leaf:
    return Leaf(signals.application, signals.task, signals.reasoning, (round(log2(1 + beside)) + 1) // 2)


_STRENGTHS = {task: PUBLISHED_SHARE * LOGIT * logit for task, logit in TASK_LOGITS.items()}
