"""What Paceline has to beat: other ways to choose a lane, each a :class:`paceline.Policy`."""

from collections.abc import Callable, Sequence
from functools import partial
from math import log, sqrt
from random import Random

from benchmarks.learning.worlds import World
from paceline import Decision, LaneState, Outcome, Policy, Request, Router, RoutingSettings, Signals

MakePolicy = Callable[[int], Policy]
"""A policy that has learned nothing yet, from the seed of its random numbers."""


def paceline(seed: int, exploration: float | None = None) -> Router:
    """Paceline, which is told at each choice how the lanes are."""
    settings = RoutingSettings() if exploration is None else RoutingSettings(exploration=exploration)
    return Router((), settings, seed=seed)


def policies(world: World) -> dict[str, MakePolicy]:
    """All that are compared on a world, by name."""
    always: dict[str, MakePolicy] = {
        f"always {state.lane.name}": partial(Fixed, lane=state.lane.name) for state in world.lanes
    }
    baselines: dict[str, MakePolicy] = {
        "epsilon-greedy": EpsilonGreedy,
        "UCB": Ucb,
        "Thompson, no features": Thompson,
        "knows the tasks": partial(KnowsTasks, world=world),
        "Thompson by task": partial(Thompson, by_task=True),
    }
    return {"Paceline": paceline} | always | baselines


class Fixed:
    """A static policy: one lane for everything."""

    def __init__(self, _seed: int, lane: str) -> None:
        self._lane = lane

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        return Decision(self._lane, "always", signals=signals)

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        pass


class KnowsTasks:
    """Knows every lane's mean time for each task, before and after a change, but like the others only the reported
    task: what no policy that looks at the task alone can beat. Of a task that is unknown it knows the mean of all."""

    def __init__(self, _seed: int, world: World) -> None:
        self._world = world

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        task = signals.task
        of_all = [row for rows in self._world.rows.values() for row in rows]
        rows = self._world.rows.get(self._world.behaves_as.get(task, task), of_all)
        names = [state.lane.name for state in lanes]
        lane = min(names, key=lambda name: sum(row[name][0] for row in rows))
        return Decision(lane, "the least mean time of the task", signals=signals)

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        pass


class _Means:
    """Remembers seconds per token by lane, or by lane and task; how it picks one is for its subclasses to say."""

    def __init__(self, seed: int, by_task: bool = False) -> None:
        self._random = Random(seed)
        self._by_task = by_task
        self._s_per_token: dict[tuple[str, str], list[float]] = {}

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        observed = {state.lane.name: self._s_per_token.get(self._key(signals, state.lane.name), []) for state in lanes}
        return Decision(self._pick(observed), type(self).__name__, signals=signals)

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        observed = outcome.observed
        assert decision.signals and observed.decode_s and observed.decode_tokens
        key = self._key(decision.signals, outcome.lane)
        self._s_per_token.setdefault(key, []).append(observed.decode_s / observed.decode_tokens)

    def _key(self, signals: Signals, lane: str) -> tuple[str, str]:
        return (signals.task if self._by_task else "", lane)

    def _pick(self, observed: dict[str, list[float]]) -> str:
        """A lane, by what was observed of each."""
        raise NotImplementedError


class EpsilonGreedy(_Means):
    """The lane with the best mean, a tenth of the time any (Sutton and Barto 2018, section 2.2)."""

    def _pick(self, observed: dict[str, list[float]]) -> str:
        if untried := [name for name, times in observed.items() if not times]:
            return untried[0]
        if self._random.random() < 0.1:
            return self._random.choice(list(observed))
        return min(observed, key=lambda name: sum(observed[name]) / len(observed[name]))


class Ucb(_Means):
    """UCB1 on speed relative to the best one seen (Auer et al. 2002, Machine Learning 47)."""

    def _pick(self, observed: dict[str, list[float]]) -> str:
        if untried := [name for name, times in observed.items() if not times]:
            return untried[0]
        total = sum(map(len, observed.values()))
        best = min(map(min, observed.values()))

        def bound(name: str) -> float:
            times = observed[name]
            return best * len(times) / sum(times) + 0.3 * sqrt(2 * log(total) / len(times))

        return max(observed, key=bound)


class Thompson(_Means):
    """A normal posterior of each lane's seconds per token; without features, or one for each task."""

    def _pick(self, observed: dict[str, list[float]]) -> str:
        def sample(name: str) -> float:
            times = observed[name]
            if not times:
                return -self._random.random()
            mean = sum(times) / len(times)
            return self._random.gauss(mean, 0.2 * mean / sqrt(len(times)))

        return min(observed, key=sample)
