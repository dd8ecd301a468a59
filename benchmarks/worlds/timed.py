"""Worlds of which only speeds are published: by kind of request, by lane, and by load. Their engines tell no counts."""

from collections.abc import Mapping
from math import log, sqrt

import numpy as np
from msgspec import Struct

from benchmarks.worlds.published import Floats, numbers, time_noise
from benchmarks.worlds.requests import Mix, draw
from benchmarks.worlds.traffic import Ints, Traffic
from paceline.types import Lane, Strategy

STAYS = 0.9
"""Probability that the load of one request is that of the next one, too; else it is any of the published ones."""
SHARED = 0.8
"""Part of a request's deviation, as correlation, that all drafters share: what is predictable is so for each. Not
published; it only decides how much better than knowing all tasks the oracle is."""


class TimedWorld(Struct, frozen=True):
    """Lanes with a published speed for every kind of request and load."""

    name: str
    about: str
    mix: Mix
    lanes: tuple[Lane, ...]
    at_a_time: tuple[int, ...]
    tokens_per_s: Mapping[str, Floats]
    """By kind of request: of each of them, by load and lane."""
    changes: tuple[str, int] | None = None

    def traffic(self, requests: int, seed: int) -> Traffic:
        rng = np.random.default_rng(seed)
        arrivals = draw(self.mix, requests, rng)
        load = _sticky(len(self.at_a_time), requests, rng)
        speeds = np.stack([self.tokens_per_s[kind.name] for kind in self.mix.kinds])[arrivals.kinds, load]
        drafts = np.array([lane.strategy.drafts for lane in self.lanes])
        spread = time_spread()
        common, own = rng.standard_normal((requests, 1)), rng.standard_normal(speeds.shape)
        deviation = spread * drafts * (sqrt(SHARED) * common + sqrt(1 - SHARED) * own)
        expected_s = arrivals.tokens[:, None] / speeds * np.exp(deviation)
        tokens: Ints = np.repeat(arrivals.tokens.astype(np.int64)[:, None], len(self.lanes), axis=1)
        return Traffic(
            lanes=self.lanes,
            signals=arrivals.signals,
            kinds=[self.mix.kinds[kind].name for kind in arrivals.kinds],
            expected_s=expected_s,
            observed_s=expected_s * np.exp(rng.normal(0, time_noise(), expected_s.shape)),
            tokens=tokens,
            drafted=None,
            accepted=None,
            steps=None,
            by_position=[None] * len(self.lanes),
            by_drafter=[None] * len(self.lanes),
            beside=np.array(self.at_a_time)[load] - 1,
            epochs=np.zeros(requests, np.int64),
        )


def time_spread() -> float:
    """By which requests of one task differ in what drafting does to their time, as standard deviation of the
    logarithm: from the two prompts for code of the runs that print speeds (ggml-org/llama.cpp #22673 on an RTX 3060 and
    on a GPU, #23398, #23274, #24340)."""
    pairs = ((31.3, 22.7), (139, 134), (94, 96), (52.3, 50.3), (135.4, 123.1))
    return sqrt(sum(log(python / cpp) ** 2 for python, cpp in pairs) / len(pairs) / 2)


def published_speeds(section: str, name: str) -> tuple[tuple[int, ...], dict[str, Floats]]:
    """Loads, and by kind of request the tokens per second by load and lane, of a table of ``published.toml``."""
    table = numbers()[section][name]
    loads = tuple(table.get("at_a_time", (1,)))
    rows = {kind: row for kind, row in table.items() if kind not in ("source", "lanes", "at_a_time")}
    return loads, {kind: np.atleast_2d(np.array(row, float)) for kind, row in rows.items()}


def published_lanes(section: str, name: str) -> tuple[Lane, ...]:
    """The lanes of such a table, all of one engine."""
    return tuple(
        Lane(lane, "engine", Strategy(*strategy)) for lane, strategy in numbers()[section][name]["lanes"].items()
    )


def _sticky(states: int, requests: int, rng: np.random.Generator) -> Ints:
    """A random walk that mostly stays where it is."""
    drawn, moves = rng.integers(states, size=requests), rng.random(requests) > STAYS
    moves[0] = True
    since = np.maximum.accumulate(np.where(moves, np.arange(requests), 0))
    result: Ints = drawn[since]
    return result
