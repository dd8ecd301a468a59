"""What one router holds and what sharing costs it: measured on the real router, deltas and snapshots.

    python -m benchmarks.scale.costs [--json FILE]

Set OPENBLAS_NUM_THREADS=1, as workers have it: threads that wait for each other count as work.

For routers over one engine of six lanes up to ten engines of six, with requests of the world `base`: memory, time to
decide and to learn, and of one interval's delta its bytes and the processor time to make and to learn it.
"""

import argparse
import gc
import json
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, TypeVar

from msgspec.structs import replace

from benchmarks.worlds.base import base
from benchmarks.worlds.run import REQUEST
from benchmarks.worlds.traffic import Traffic
from paceline import Router
from paceline.decision.deltas import Delta
from paceline.decision.sharing import Sharing
from paceline.decision.snapshots import Snapshot
from paceline.sharing.messages import decoded, encoded
from paceline.types import LaneState

ENGINES = (1, 4, 10)
"""Of six lanes each; 64 lanes are compared with each other at most."""
LEARNED = 2_000
"""Requests before anything is measured."""
INTERVALS = 12
REQUESTS = (1, 10, 100)
"""In an interval."""
T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the result is written")
    options = parser.parse_args()
    result = [measured(engines) for engines in ENGINES]
    print("| lanes | memory | choose | observe | snapshot |")
    print("|---|---|---|---|---|")
    for of_engines in result:
        print(
            f"| {of_engines['lanes']} | {of_engines['memory_bytes'] / 1e6:.1f} MB | {of_engines['choose_us']:.0f} µs "
            f"| {of_engines['observe_us']:.0f} µs | {of_engines['snapshot_bytes'] / 1e3:.0f} kB |"
        )
    print("\n| lanes | requests in an interval | delta | to make | to learn |")
    print("|---|---|---|---|---|")
    for of_engines in result:
        for delta in of_engines["deltas"]:
            print(
                f"| {of_engines['lanes']} | {delta['requests']} | {delta['bytes'] / 1e3:.1f} kB "
                f"| {delta['make_ms']:.2f} ms | {delta['learn_ms']:.2f} ms |"
            )
    if options.json:
        options.json.write_text(json.dumps({"routers": result}, indent=1) + "\n")


def measured(engines: int) -> dict[str, Any]:
    """Of a router over so many engines."""
    traffic = base().traffic(LEARNED + INTERVALS * sum(REQUESTS), seed=1)
    states = lanes_of(traffic, engines)
    gc.collect()
    tracemalloc.start()
    router = Router((), seed=1)
    sharing = Sharing(router.knowledge, "one")
    numbers = iter(range(len(traffic)))
    serve(router, traffic, states, [next(numbers) for _ in range(LEARNED)])
    sharing.delta()
    gc.collect()
    memory_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    other = Router((), seed=2)
    listening = Sharing(other.knowledge, "other")
    snapshot, _ = sharing.snapshot()
    written = encoded(snapshot)
    listening.join(decoded(written, Snapshot))
    deltas, times = [], []
    for requests in REQUESTS:
        found: list[tuple[int, float, float]] = []
        for _ in range(INTERVALS):
            times.append(serve(router, traffic, states, [next(numbers) for _ in range(requests)]))
            content, make_s = timed(lambda: encoded(sharing.delta()))
            is_new, learn_s = timed(partial(learned, listening, content))
            assert is_new, "it was learned"
            found.append((len(content), make_s, learn_s))
        deltas.append(
            {
                "requests": requests,
                "bytes": median(one[0] for one in found),
                "make_ms": 1000 * median(one[1] for one in found),
                "learn_ms": 1000 * median(one[2] for one in found),
            }
        )
    return {
        "lanes": len(states),
        "memory_bytes": memory_bytes,
        "choose_us": 1e6 * median(choose_s for choose_s, _ in times),
        "observe_us": 1e6 * median(observe_s for _, observe_s in times),
        "snapshot_bytes": len(written),
        "deltas": deltas,
    }


def lanes_of(traffic: Traffic, engines: int) -> list[LaneState]:
    """The world's lanes, once for each of several engines."""
    return [
        replace(
            state,
            lane=replace(state.lane, name=f"{state.lane.name}@{engine}", engine=f"{state.lane.engine}-{engine}"),
            fingerprint=f"{state.fingerprint}-{engine}",
        )
        for engine in range(engines)
        for state in traffic.lane_states(0)
    ]


def serve(
    router: Router, traffic: Traffic, states: Sequence[LaneState], requests: Sequence[int]
) -> tuple[float, float]:
    """Decide on and learn from requests; returns seconds of each, for a request."""
    number_of = {lane.name: number for number, lane in enumerate(traffic.lanes)}
    choose_s = observe_s = 0.0
    for request in requests:
        began_s = process_time()
        decision = router.choose(REQUEST, traffic.signals[request], states)
        chosen_s = process_time()
        name, _, _ = decision.lane.partition("@")
        state = next(state for state in states if state.lane.name == decision.lane)
        outcome = traffic.outcome(request, number_of[name], float(traffic.at_s[request]))
        outcome = replace(outcome, lane=decision.lane, fingerprint=state.fingerprint, concurrent=0.0)
        made_s = process_time()
        router.observe(decision, outcome)
        observe_s += process_time() - made_s
        choose_s += chosen_s - began_s
    return choose_s / len(requests), observe_s / len(requests)


def learned(sharing: Sharing, content: bytes) -> bool:
    """Learn a message; whether it was new."""
    return sharing.apply(decoded(content, Delta))


def timed(action: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and the processor time that it takes, in seconds."""
    began_s = process_time()
    result = action()
    return result, process_time() - began_s


if __name__ == "__main__":
    main()
