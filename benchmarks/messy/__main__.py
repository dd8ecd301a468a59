"""Routing by what is recognised of recorded requests, beside routing by what they truly ask for.

    python -m benchmarks.messy FILE [--policy NAME ...] [--seeds N] [--requests N] [--apart X] [--half first|second]

FILE has one request in each line, as ``training/task_model/traffic.py`` says: ``source``, ``id``, ``ok`` (the tasks
that are acceptable, the first one true), ``path``, ``body``. Prints, as Markdown, shares of the oracle's speed in the
second half of the requests, for the requests of agents, of people who ask by themselves, and for all.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from benchmarks.messy.arriving import Recorded, groups_of, halves, in_order, recorded
from benchmarks.messy.world import traffic, world
from benchmarks.worlds.policies import policy
from benchmarks.worlds.published import Floats
from benchmarks.worlds.run import hindsight, run
from benchmarks.worlds.tables import cell
from benchmarks.worlds.traffic import Traffic
from paceline.types import Signals, Task

Told = Callable[[Traffic], Sequence[Signals]]
"""What a policy is told of the requests."""


def _true_tasks(played: Traffic) -> list[Signals]:
    return [Signals(tasks={Task(kind): 1.0}) for kind in played.kinds]


def _true_tasks_too(played: Traffic) -> list[Signals]:
    return [
        replace(signals, tasks={Task(kind): 1.0}) for signals, kind in zip(played.signals, played.kinds, strict=True)
    ]


def _nothing(played: Traffic) -> list[Signals]:
    return [Signals(tasks={Task.UNKNOWN: 1.0})] * len(played)


TOLD: Mapping[str, Told] = {
    "what was recognised": lambda played: played.signals,
    "the true task alone": _true_tasks,
    "the true task beside the rest": _true_tasks_too,
    "nothing": _nothing,
}


def shares(
    requests: Sequence[Recorded], policies: Sequence[str], count: int, seed: int, apart: float
) -> dict[str, float]:
    """Of the oracle's speed, in the second half, by what was done."""
    rng = np.random.default_rng(seed)
    played = traffic(in_order(requests, count, rng), rng, apart)
    seconds: dict[str, Floats] = dict(hindsight(played))
    for name in policies:
        for about, told in TOLD.items():
            seconds[f"{name}, told {about}"] = run(replace(played, signals=told(played)), policy(name), seed)
    oracle_s, half = played.expected_s.min(axis=1), count // 2
    return {name: float(oracle_s[half:].sum() / took[half:].sum()) for name, took in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--policy", nargs="*", default=["paceline"], help="as of benchmarks.worlds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1200)
    parser.add_argument(
        "--apart", type=float, default=1.0, help="how many times further apart than published tasks are"
    )
    parser.add_argument("--half", choices=("first", "second"), help="every second source alone, or the others")
    options = parser.parse_args()
    requests = recorded(options.file)
    if options.half:
        requests = halves(requests)[options.half == "second"]
    groups = groups_of(requests)
    results = {
        group: [shares(rows, options.policy, options.requests, seed, options.apart) for seed in range(options.seeds)]
        for group, rows in groups.items()
    }
    sizes = [f"{group} ({len(rows)})" for group, rows in groups.items()]
    print(f"{' '.join((world.__doc__ or '').split())} Tasks {options.apart:g} times as far apart.\n")
    print(f"| of the oracle, requests {options.requests // 2} to {options.requests} | {' | '.join(sizes)} |")
    print("|---" * (1 + len(sizes)) + "|")
    for name in results["all"][0]:
        cells = [cell([of_seed[name] for of_seed in of_group]) for of_group in results.values()]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
