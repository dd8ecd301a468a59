"""What a request has in common with others. It belongs to several groups at once, whose unknowns add up, so that a new
group starts from what the others know."""

from collections.abc import Iterator, Sequence
from math import log1p, log2
from typing import NamedTuple

from paceline.decision.belief import Name
from paceline.decision.shapes import looks_up
from paceline.decision.tuning import (
    CHARS_PER_TOKEN,
    DEPTH_TOKENS,
    LOGIT,
    LOOKUP_TASKS,
    MIN_TASK,
    PRIOR,
    PUBLISHED_SHARE,
    REPEATS_STRENGTH,
    TASK_LOGITS,
    USUAL_REPEATS,
)
from paceline.types import Signals, Task


class Group(NamedTuple):
    """One of them, and how much of its unknowns a request feels."""

    key: Name
    share: float
    """Probability that the request belongs to it; of a number that is known of the request, its deviation."""
    strength: float
    """Deviation of how predictable its answers are."""
    content: float = 0.0
    """Deviation of how much dearer its verification is."""
    tilt: float = 0.0
    """Deviation of whether its long lookups gain more, as where the answer copies whole passages."""
    kind: str = ""
    """Of drafters that it is about; all where empty."""


Alike = tuple[Task, bool | None, int]
"""Task, reasoning and load of a :class:`Leaf`."""


class Leaf(NamedTuple):
    """The finest group."""

    asked_by: Name
    task: Task
    reasoning: bool | None
    load: int
    """Two doublings of concurrency are one."""

    @property
    def alike(self) -> "Alike":
        """Requests that single numbers are learned of: whoever asks, since each has too few."""
        return self[1:]


class Asked(NamedTuple):
    """What of a request its groups follow from; numbers are rounded, so that many requests are the same."""

    tasks: tuple[tuple[Task, float], ...]
    """Those that may be meant, with their probabilities."""
    by: Name
    """The group of who asks; empty where that is not known."""
    language: str
    """Where the task may be none that is known."""
    reasoning: bool | None
    repeats: float
    depth: float
    """How much slower the length of its prompt makes steps: 0 up to some 4,000 tokens, 0.7 at 131,072, 1.6 at four
    times that; in between as the logarithm of 1 + the prompt's tokens over :data:`DEPTH_TOKENS`."""


def asked_of(signals: Signals) -> Asked:
    tasks = tuple([(task, round(20 * share) / 20) for task, share in signals.tasks.items() if share >= MIN_TASK])
    is_told = signals.tasks.get(Task.UNKNOWN, 0.0) < MIN_TASK or signals.application
    return Asked(
        tasks,
        asked_by(signals),
        "" if is_told else signals.language,
        signals.reasoning,
        round(20 * signals.repeats) / 20,
        round(16 * log1p(signals.prompt_chars / (CHARS_PER_TOKEN * DEPTH_TOKENS))) / 16,
    )


def groups_of(asked: Asked, kinds: Sequence[str]) -> Iterator[Group]:
    """Those of a request that may go to drafters of these kinds."""
    lookups = [kind for kind in kinds if looks_up(kind)]
    tilt = PRIOR.tilt if lookups else 0.0
    # 1. What is asked, and by whom.
    for task, share in asked.tasks:
        yield _group(("task", task), share, PRIOR.task, tilt)
        for kind in kinds if len(kinds) > 1 else lookups:
            strength = PRIOR.lookup if looks_up(kind) else PRIOR.drafter
            yield Group(("drafter", task, kind), share, strength, kind=kind)
        if asked.language and task is Task.UNKNOWN:
            yield _group(("language", asked.language), share, PRIOR.language, tilt)
    if asked.by:
        yield _group(asked.by, 1.0, PRIOR.application, tilt)
    if asked.reasoning is not None:
        yield _group(("reasoning", "on" if asked.reasoning else "off"), 1.0, PRIOR.reasoning, tilt)
    # 2. What lookups find differs more between programs, and with how much the conversation repeats itself.
    for kind in lookups:
        if asked.by:
            yield Group(("drafter", *asked.by, kind), 1.0, PRIOR.lookup_of_application, kind=kind)
        if asked.repeats:
            yield Group(("repeats", kind), asked.repeats - USUAL_REPEATS, PRIOR.repeats, kind=kind)


def _group(key: Name, share: float, strength: float, tilt: float) -> Group:
    return Group(key, share, strength, PRIOR.content * strength, tilt * strength)


def asked_by(signals: Signals) -> Name:
    """The group of who asks: the program, and what the answer follows in its loop; empty where that is not known. One
    group for both, since several that add up would take too many requests to learn."""
    return ("application", signals.application, signals.turn) if signals.application else ()


def believed_strength(asked: Asked) -> float:
    """Mean of the strength of a request's answer, before anything was measured."""
    return sum([share * _STRENGTHS[task] for task, share in asked.tasks])


def believed_lookups(asked: Asked) -> float:
    """The same of what lookups find beside it, in logarithms of the acceptance length at 8 tokens."""
    strength = sum([share * LOOKUP_TASKS[task] for task, share in asked.tasks])
    return strength + (REPEATS_STRENGTH * (asked.repeats - USUAL_REPEATS) if asked.repeats else 0.0)


def changing_group(leaf: Leaf) -> Name:
    """The group that is taken to change when requests like these do."""
    return leaf.asked_by or ("task", leaf.task)


def leaf_of(signals: Signals, beside: float) -> Leaf:
    return Leaf(asked_by(signals), signals.task, signals.reasoning, (round(log2(1 + beside)) + 1) // 2)


_STRENGTHS = {task: PUBLISHED_SHARE * LOGIT * logit for task, logit in TASK_LOGITS.items()}
