"""What sharing brings: the same requests, spread over several routers that learn as one, or each alone.

    python -m benchmarks.worlds.shared [--world NAME ...] [--routers N ...] [--seeds N] [--requests N] [--interval N]

Prints, as Markdown, for each number of routers the mean share of the oracle over all worlds, and how much time was
spent on exploring.
"""

import argparse
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from random import Random
from typing import NamedTuple

import numpy as np

from benchmarks.worlds import REPORTING_SEEDS, TUNING_SEEDS
from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.published import Floats
from benchmarks.worlds.run import REQUEST, taken
from benchmarks.worlds.traffic import Ints
from paceline import Router, RoutingSettings
from paceline.decision.sharing import Sharing
from paceline.routing.peers import Peers

PARTS = ((0, 50), (50, 200), (200, 600))
"""Requests, of all routers together, over which shares are told."""


class Way(NamedTuple):
    """How routers share."""

    name: str
    routers: int
    shares: bool
    counts_others: bool


class Told(NamedTuple):
    """Of one world and seed."""

    shares: Sequence[float]
    """Of the oracle, by part of the requests."""
    exploring: float
    """Time that exploring was expected to cost, by all time taken."""


def told(world: str, way: Way, requests: int, interval: int, seed: int) -> Told:
    """
    Args:
        interval: requests of all routers between two looks into the store.
    """
    traffic = worlds()[world].traffic(requests, seed)
    routers = [Router((), RoutingSettings(), seed=seed + 7919 * number) for number in range(way.routers)]
    sharing = [Sharing(router.knowledge, str(number)) for number, router in enumerate(routers)]
    for router in routers:
        router.peers = Peers(way.routers - 1 if way.counts_others else 0)
    numbers = {lane.name: number for number, lane in enumerate(traffic.lanes)}
    states = {beside: traffic.lane_states(beside) for beside in set(traffic.beside.tolist())}
    at_s, spread = traffic.at_s.tolist(), Random(seed)
    chosen: Ints = np.empty(len(traffic), np.int64)
    exploring_s = 0.0
    for request, signals in enumerate(traffic.signals):
        router = routers[spread.randrange(way.routers)]
        decision = router.choose(REQUEST, signals, states[int(traffic.beside[request])])
        lane = numbers[decision.lane]
        chosen[request] = lane
        exploring_s += decision.exploring_s
        router.observe(decision, traffic.outcome(request, lane, at_s[request]))
        if way.shares and request % interval == interval - 1:
            deltas = [one.delta() for one in sharing]
            for one, delta in product(sharing, deltas):
                if not delta.is_empty:
                    one.apply(delta)
    seconds, best = taken(traffic, chosen), _oracle(traffic.expected_s)
    shares = [float(best[first:last].sum() / seconds[first:last].sum()) for first, last in PARTS]
    return Told(shares, exploring_s / float(seconds.sum()))


def _oracle(expected_s: Floats) -> Floats:
    least: Floats = expected_s.min(axis=1)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", nargs="*", default=list(worlds()), help="by default all")
    parser.add_argument("--routers", nargs="*", type=int, default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--interval", type=int, default=32, help="requests between two looks into the store")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tuning", action="store_true", help="seeds for tuning instead of those for reporting")
    options = parser.parse_args()
    first = (TUNING_SEEDS if options.tuning else REPORTING_SEEDS).start
    ways = []
    for routers in options.routers:
        ways.append(Way("each alone", routers, shares=False, counts_others=False))
        if routers > 1:
            ways.append(Way("shared, each explores as if alone", routers, shares=True, counts_others=False))
            ways.append(Way("shared", routers, shares=True, counts_others=True))
    print(f"{len(options.world)} worlds, {options.seeds} seeds from {first} on, {options.requests} requests in all, ")
    print(f"a look into the store every {options.interval} of them\n")
    heads = " | ".join(f"{start}-{end}" for start, end in PARTS)
    print(f"| routers | | {heads} | explored |\n|---|---|{'---|' * (len(PARTS) + 1)}")
    with ProcessPoolExecutor(options.jobs) as pool:
        calls = {
            way: [
                pool.submit(told, world, way, options.requests, options.interval, first + seed)
                for world in options.world
                for seed in range(options.seeds)
            ]
            for way in ways
        }
        for way, futures in calls.items():
            results = [future.result() for future in futures]
            shares = " | ".join(f"{each:.3f}" for each in np.mean([each.shares for each in results], axis=0))
            exploring = np.mean([each.exploring for each in results])
            print(f"| {way.routers} | {way.name} | {shares} | {100 * exploring:.2f} % |", flush=True)


if __name__ == "__main__":
    main()
