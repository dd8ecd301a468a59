"""Ways to choose a lane, each a :class:`paceline.Policy`: Paceline's own, and the rivals it has to beat.

They are told what a gateway is told: signals of the request, the lanes with their load, and afterwards the outcome.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from math import log, sqrt
from random import Random

from paceline import Decision, LaneState, Outcome, Policy, Request, Router, RoutingSettings, Signals
from paceline.decision.shapes import looks_up

MakePolicy = Callable[[int], Policy]
"""A new policy that knows nothing; the argument seeds its random numbers."""


class _DecisionAbout(Decision, frozen=True):
    """A decision that remembers what it was made for."""

    about: tuple[str, ...] = ()


def paceline(seed: int, exploration: float | None = None) -> Router:
    """Paceline as it ships, or with another share of the time for exploring."""
    settings = RoutingSettings() if exploration is None else RoutingSettings(exploration=exploration)
    return Router((), settings, seed=seed)


class _ByTask:
    """Mean seconds per token of each lane, for each told task and load."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._sums: dict[tuple[str, ...], tuple[float, float, int]] = {}
        """By task, load and lane: sum of seconds per token, its least, and how many."""

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        about = self._about(signals, lanes)
        names = [lane.lane.name for lane in lanes]
        untried = [name for name in names if (*about, name) not in self._sums]
        lane = untried[0] if untried else self._best(about, names)
        return _DecisionAbout(lane, "", about=about)

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        observation = outcome.observed
        if isinstance(decision, _DecisionAbout) and observation.decode_s and observation.decode_tokens:
            took = observation.decode_s / observation.decode_tokens
            key = (*decision.about, outcome.lane)
            total, least, count = self._sums.get(key, (0.0, took, 0))
            self._sums[key] = (total + took, min(least, took), count + 1)

    def _about(self, signals: Signals, lanes: Sequence[LaneState]) -> tuple[str, ...]:
        return signals.task, str(sum(lane.running for lane in lanes))

    def _best(self, about: tuple[str, ...], names: Sequence[str]) -> str:
        raise NotImplementedError

    def _mean(self, about: tuple[str, ...], name: str) -> float:
        total, _, count = self._sums[*about, name]
        return total / count


class Ucb(_ByTask):
    """An upper confidence bound on speed, relative to the best mean (Auer, Cesa-Bianchi and Fischer 2002, Machine
    Learning 47, with a smaller bonus: speeds vary by a tenth, not between 0 and 1)."""

    BONUS = 0.1

    def _best(self, about: tuple[str, ...], names: Sequence[str]) -> str:
        counts = [self._sums[*about, name][2] for name in names]
        least = min(self._mean(about, name) for name in names)
        logarithm = log(sum(counts))
        bounds = [
            least / self._mean(about, name) + self.BONUS * sqrt(logarithm / count)
            for name, count in zip(names, counts, strict=True)
        ]
        return names[bounds.index(max(bounds))]


class EpsilonGreedy(_ByTask):
    """The lane with the best mean, one time in twenty any (Sutton and Barto 2018, section 2.2)."""

    SHARE = 0.05

    def _best(self, about: tuple[str, ...], names: Sequence[str]) -> str:
        if self._random.random() < self.SHARE:
            return self._random.choice(names)
        return min(names, key=lambda name: self._mean(about, name))


class Thompson(_ByTask):
    """A normal posterior of each lane's seconds per token (Thompson 1933; Russo et al. 2018, section 3)."""

    SPREAD = 0.2

    def _best(self, about: tuple[str, ...], names: Sequence[str]) -> str:
        def drawn(name: str) -> float:
            mean = self._mean(about, name)
            return self._random.gauss(mean, self.SPREAD * mean / sqrt(self._sums[*about, name][2]))

        return min(names, key=drawn)


class EmaByBatchSize:
    """What SGLang's adaptive speculation does (sgl-project/sglang #21599, #24055): a moving average of the accepted
    tokens per step, one for each range of batch sizes; the next draft is the shortest that is longer than that. It
    looks at no costs, never decodes plain, and needs an engine that counts."""

    WEIGHT = 0.2
    RANGES = (1, 64, 128)

    def __init__(self, seed: int) -> None:
        self._averages: dict[str, float] = {}

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        batch = 1 + sum(lane.running for lane in lanes)
        about = str(max(start for start in self.RANGES if start <= batch))
        lengths = default_drafter(lanes)
        if not lengths:
            return _DecisionAbout(lanes[0].lane.name, "", about=(about,))
        wanted = round(self._averages.get(about, DEFAULT_LENGTH - 1.0)) + 1
        enough = [length for length in lengths if length >= wanted]
        return _DecisionAbout(lengths[min(enough, default=max(lengths))], "", about=(about,))

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        observation = outcome.observed
        if isinstance(decision, _DecisionAbout) and observation.accepted is not None and observation.drafting_steps:
            about, accepted = decision.about[0], observation.accepted / observation.drafting_steps
            before = self._averages.get(about, accepted)
            self._averages[about] = before + self.WEIGHT * (accepted - before)


class RepetitionGate:
    """What mlx-serve does before a request (ddalcu/mlx-serve since 26.5.4): lookup only where the prompt repeats
    itself. The share that is likely to be copied stands for its share of repeated trigrams, which signals don't hold;
    else the model's own head at its default length, or plain."""

    MIN_COPY = 0.3

    def __init__(self, seed: int) -> None:
        pass

    def choose(self, request: Request, signals: Signals, lanes: Sequence[LaneState]) -> Decision:
        lookups = [lane.lane.name for lane in lanes if looks_up(lane.lane.strategy.kind)]
        if lookups and signals.copy >= self.MIN_COPY:
            return Decision(lookups[len(lookups) // 2], "")
        heads = default_drafter(lanes, is_lookup=False)
        if heads:
            return Decision(heads[min(heads, key=lambda length: abs(length - DEFAULT_LENGTH))], "")
        plain = [lane.lane.name for lane in lanes if not lane.lane.strategy.drafts]
        return Decision((plain or [lanes[0].lane.name])[0], "")

    def observe(self, decision: Decision, outcome: Outcome) -> None:
        pass


DEFAULT_LENGTH = 3
"""Tokens that engines draft where nobody says otherwise (SGLang's speculative_num_steps; vLLM's recipes for MTP)."""


def default_drafter(lanes: Sequence[LaneState], is_lookup: bool | None = None) -> dict[int, str]:
    """Of the first drafter among the lanes: their names by draft length."""
    lengths_by_kind: dict[str, dict[int, str]] = {}
    for lane in lanes:
        strategy = lane.lane.strategy
        if strategy.drafts and is_lookup in (None, looks_up(strategy.kind)):
            lengths_by_kind.setdefault(strategy.kind, {})[strategy.n_max or DEFAULT_LENGTH] = lane.lane.name
    return next(iter(lengths_by_kind.values()), {})


POLICIES: Mapping[str, MakePolicy] = {
    "paceline": paceline,
    "paceline, not exploring": partial(paceline, exploration=0.0),
    "UCB by task": Ucb,
    "epsilon-greedy by task": EpsilonGreedy,
    "Thompson by task": Thompson,
    "EMA by batch size (SGLang)": EmaByBatchSize,
    "repetition gate (mlx-serve)": RepetitionGate,
}


def policy(name: str) -> MakePolicy:
    """A policy by its name here, or as ``package.module:name`` of anything that makes one from a seed.

    Raises:
        ValueError: there is none.
    """
    if name in POLICIES:
        return POLICIES[name]
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"no policy {name!r}; there are {', '.join(POLICIES)}, or package.module:name")
    made: MakePolicy = getattr(import_module(module), attribute)
    return made
