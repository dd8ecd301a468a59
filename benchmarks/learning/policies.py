"""Ways to choose a lane: ours, and what it has to beat."""

from collections.abc import Sequence
from math import log, sqrt
from random import Random
from typing import Protocol

from benchmarks.learning.worlds import Draw, World
from paceline.decision import EXPLORATION, State, decide, learn
from paceline.types import Decision, LaneState, Outcome


class Policy(Protocol):
    def choose(self, draw: Draw, lanes: Sequence[LaneState], rng: Random) -> str: ...

    def tell(self, draw: Draw, lane: str, now_s: float) -> None: ...


class Paceline:
    def __init__(self, exploration: float = EXPLORATION) -> None:
        self.state = State()
        self._exploration = exploration
        self.decision = Decision("", "")

    def choose(self, draw: Draw, lanes: Sequence[LaneState], rng: Random) -> str:
        self.decision = decide(draw.signals, lanes, self.state, rng, self._exploration)
        return self.decision.lane

    def tell(self, draw: Draw, lane: str, now_s: float) -> None:
        observed = draw.observed[lane]
        outcome = Outcome(lane, 200, (observed.decode_s or 0) + 0.1, observed=observed, at_s=now_s)
        self.state = learn(self.state, draw.signals, self.decision, outcome)


class Fixed:
    def __init__(self, lane: str) -> None:
        self._lane = lane

    def choose(self, draw: Draw, lanes: Sequence[LaneState], rng: Random) -> str:
        return self._lane

    def tell(self, draw: Draw, lane: str, now_s: float) -> None:
        pass


class KnowsTasks(Fixed):
    """Knows every lane's mean time for each task, before and after a change, but like the others only the told task:
    what no policy that looks at the task alone can beat."""

    def __init__(self, world: World) -> None:
        super().__init__(world.lanes[0].lane.name)
        self._world = world

    def choose(self, draw: Draw, lanes: Sequence[LaneState], rng: Random) -> str:
        task = draw.signals.task
        rows = self._world.rows.get(self._world.behaves_as.get(task, task), [])
        if not rows:
            return super().choose(draw, lanes, rng)
        return min((one.lane.name for one in lanes), key=lambda name: sum(row[name][0] for row in rows))


class _Means:
    """Mean seconds per token by lane, or by lane and task."""

    def __init__(self, by_task: bool = False) -> None:
        self._by_task = by_task
        self.values: dict[tuple[str, str], list[float]] = {}

    def key(self, draw: Draw, lane: str) -> tuple[str, str]:
        return (draw.signals.task if self._by_task else "", lane)

    def tell(self, draw: Draw, lane: str, now_s: float) -> None:
        observed = draw.observed[lane]
        assert observed.decode_s and observed.decode_tokens
        self.values.setdefault(self.key(draw, lane), []).append(observed.decode_s / observed.decode_tokens)

    def seen(self, draw: Draw, lane: str) -> list[float]:
        return self.values.get(self.key(draw, lane), [])


class EpsilonGreedy(_Means):
    """The lane with the best mean, a tenth of the time any (Sutton and Barto 2018, section 2.2)."""

    def choose(self, draw: Draw, lanes: Sequence[LaneState], rng: Random) -> str:
        names = [one.lane.name for one in lanes]
        untried = [name for name in names if not self.seen(draw, name)]
        if untried:
            return untried[0]
        if rng.random() < 0.1:
            return rng.choice(names)
        return min(names, key=lambda name: sum(self.seen(draw, name)) / len(self.seen(draw, name)))


class Ucb(_Means):
    """UCB1 on speed relative to the best one seen (Auer et al. 2002, Machine Learning 47)."""

    def choose(self, draw: Draw, lanes: Sequence[LaneState], rng: Random) -> str:
        names = [one.lane.name for one in lanes]
        untried = [name for name in names if not self.seen(draw, name)]
        if untried:
            return untried[0]
        total = sum(len(self.seen(draw, name)) for name in names)
        best = min(min(self.seen(draw, name)) for name in names)

        def bound(name: str) -> float:
            values = self.seen(draw, name)
            return best * len(values) / sum(values) + 0.3 * sqrt(2 * log(total) / len(values))

        return max(names, key=bound)


class Thompson(_Means):
    """A normal posterior of each lane's seconds per token; without features, or one for each task."""

    def choose(self, draw: Draw, lanes: Sequence[LaneState], rng: Random) -> str:
        def sample(name: str) -> float:
            values = self.seen(draw, name)
            if not values:
                return -rng.random()
            mean = sum(values) / len(values)
            return rng.gauss(mean, 0.2 * mean / sqrt(len(values)))

        return min((one.lane.name for one in lanes), key=sample)
