"""The task model at work: a linear model whose weights ship with the package; ``training/task_model`` makes them."""

from collections.abc import Mapping
from functools import cache
from itertools import chain
from math import exp, log, sqrt
from pathlib import Path
from struct import Struct

import msgspec

from paceline.inspection.features import Features, features
from paceline.types import Task

WEIGHTS = Path(__file__).parent / "task_model.json"
MIN_PROBABILITY = 0.02
"""Tasks that are less likely than this share of the likeliest are left out."""
PLACES = ("words", "first", "last")
_MIN_SCORE = log(MIN_PROBABILITY)
_HALF = 1 << 31


class _File(msgspec.Struct):
    scale: int
    tasks: list[str]
    bias: list[int]
    words: dict[str, dict[str, list[int]]]
    """Weights by place and word."""
    others: list[tuple[list[str | int], list[int]]]


class TaskModel:
    """Tells the task of a text.

    The weights of a feature for all tasks are packed into one integer, 32 bits for each, so that adding up what some
    hundred features say is one ``sum``: a fifth of the time of a loop over tasks, and without numpy.
    """

    def __init__(self, path: Path = WEIGHTS) -> None:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        self._tasks = [Task(name) for name in file.tasks]
        self._scale = file.scale
        self._bias = [bias / file.scale for bias in file.bias]
        self._unpack = Struct(f"<{len(self._tasks)}I").unpack
        self._middle = _pack([_HALF] * len(self._tasks))
        self._bytes = 4 * len(self._tasks)
        self._words = {place: {word: _pack(weights) for word, weights in file.words[place].items()} for place in PLACES}
        self._others = {tuple(feature): _pack(weights) for feature, weights in file.others}

    def probabilities(self, text_features: Features) -> dict[Task, float]:
        """Of the tasks that may be meant, given the features of a text, the likeliest first; sums to 1."""
        weights = chain(
            map(self._words["words"].get, text_features.words),
            map(self._words["first"].get, text_features.first),
            map(self._words["last"].get, text_features.last),
            map(self._others.get, text_features.others),
        )
        total = sum(filter(None, weights), self._middle)
        share = 1 / (sqrt(text_features.size) * self._scale)
        sums = self._unpack(total.to_bytes(self._bytes, "little"))
        # All sums are too high by the middle, which shifts all scores alike.
        scores = [bias + value * share for bias, value in zip(self._bias, sums, strict=True)]
        best = max(scores)
        least = best + _MIN_SCORE
        odds = [(exp(score - best), task) for score, task in zip(scores, self._tasks, strict=True) if score >= least]
        return ranked(odds)


@cache
def task_model() -> TaskModel:
    """The shipped model."""
    return TaskModel()


def tasks_of(text: str) -> dict[Task, float]:
    """Probabilities of the tasks that a text may ask for, the likeliest first; they sum to 1."""
    return task_model().probabilities(features(text))


def mixed(tasks: Mapping[Task, float], others: Mapping[Task, float], share: float) -> dict[Task, float]:
    """``1 - share`` of ``tasks`` and ``share`` of ``others``, the likeliest first."""
    return ranked(
        [((1 - share) * tasks.get(task, 0) + share * others.get(task, 0), task) for task in {**tasks, **others}]
    )


def ranked(odds: list[tuple[float, Task]]) -> dict[Task, float]:
    if len(odds) > 1:
        odds.sort(reverse=True)
    total = sum([value for value, _ in odds])
    return {task: value / total for value, task in odds}


def _pack(weights: list[int]) -> int:
    return sum(weight << (32 * index) for index, weight in enumerate(weights))
