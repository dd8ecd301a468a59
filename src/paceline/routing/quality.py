"""How often the answers of each engine's model are good enough: what was declared, corrected by feedback, by who asks
and what for."""

from collections import OrderedDict
from collections.abc import Iterable
from math import sqrt

from paceline.routing.remembered import Judged, QualityTold
from paceline.types import Offer, Signals, Task

DECLARED_WEIGHT = 20.0
"""Answers that a declared quality counts for."""
GROUP_WEIGHT = 15.0
"""Answers that what is known of a wider group counts for in a narrower one."""
UNKNOWN = 0.7
"""Before anything was declared or told: a guess. It is the same for all, so that it prefers none."""
FADING = 0.999
"""Of what an answer counts at the next one: the last thousand or so decide, since models behind a name change."""
CURIOSITY = 0.5
"""Standard deviations that are added to what is expected, so that what is hardly known is tried."""
MAX_GROUPS = 20_000

_Group = tuple[str, str, str]
"""Engine and model, and a task or an application; all answers where that is empty."""


class Quality:
    """Of all engines' models, by group: all answers, those of a task, those of an application."""

    def __init__(self) -> None:
        self._sums: OrderedDict[_Group, tuple[float, float]] = OrderedDict()
        """By group, the good answers and all of them; the older ones faded."""

    def of(self, offer: Offer, signals: Signals) -> float | None:
        """Share of answers to requests like this one that are good enough; once anything was told, with some credit for
        what is hardly known. ``None`` where nothing was declared or told of this model."""
        declared = offer.quality_for(signals.task)
        if not self._sums or (declared is None and (offer.engine, offer.model, "") not in self._sums):
            return declared
        expected, weight = UNKNOWN if declared is None else declared, DECLARED_WEIGHT
        for group in _groups(offer, signals.task, signals.application):
            good, count = self._sums.get(group, (0.0, 0.0))
            expected = (weight * expected + good) / (weight + count)
            weight = GROUP_WEIGHT
        _, count = self._sums.get(_groups(offer, signals.task, signals.application)[-1], (0.0, 0.0))
        deviation = sqrt(max(0.0, expected * (1 - expected)) / (count + GROUP_WEIGHT))
        return min(1.0, expected + CURIOSITY * deviation)

    def learn(self, offer: Offer, signals: Signals, is_good: bool) -> None:
        """Somebody told whether an answer was good enough."""
        self.take_in(told_of(offer, signals, is_good))

    def take_in(self, told: QualityTold) -> None:
        """Learn what somebody told, here or in another process."""
        for name in told.groups:
            group = told.engine, told.model, name
            good, count = self._sums.pop(group, (0.0, 0.0))
            self._sums[group] = FADING * good + told.is_good, FADING * count + 1
        while len(self._sums) > MAX_GROUPS:
            self._sums.popitem(last=False)

    def remembered(self) -> tuple[Judged, ...]:
        """All that was told."""
        return tuple(Judged(*group, *sums) for group, sums in self._sums.items())

    def recall(self, qualities: Iterable[Judged]) -> None:
        """Know what was remembered, but for what can't be."""
        for judged in qualities:
            if judged.can_be:
                self._sums[judged.engine, judged.model, judged.group] = judged.good, judged.count


def told_of(offer: Offer, signals: Signals, is_good: bool) -> QualityTold:
    """What it means that an answer to such a request was good enough, or was not."""
    groups = _groups(offer, signals.task, signals.application)
    return QualityTold(offer.engine, offer.model, tuple(group for _, _, group in groups), is_good)


def _groups(offer: Offer, task: Task, application: str) -> list[_Group]:
    """From the widest to the narrowest."""
    model = offer.engine, offer.model
    groups = [(*model, ""), (*model, f"task {task}")]
    return [*groups, (*model, application)] if application else groups
