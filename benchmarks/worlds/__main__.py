"""Paceline and its rivals in worlds made from published measurements.

    python -m benchmarks.worlds [--world NAME ...] [--policy NAME ...] [--seeds N] [--requests N] [--jobs N] [--tuning]

Prints, as Markdown, a table for each world and one of all worlds for each policy that was named. Seeds 0 and on are for
reporting; with ``--tuning`` they are 1000 and on, so that what is tuned on is not what is reported.
"""

import argparse
import os
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed

from benchmarks.worlds import REPORTING_SEEDS, TUNING_SEEDS
from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.policies import POLICIES
from benchmarks.worlds.tables import Result, result, summary, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", nargs="*", help=f"by default all: {', '.join(worlds())}")
    parser.add_argument("--policy", nargs="*", help="by default all; or package.module:name of one that takes a seed")
    parser.add_argument("--seeds", type=int, default=len(REPORTING_SEEDS))
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tuning", action="store_true", help="seeds for tuning instead of those for reporting")
    parser.add_argument("--summary", action="store_true", help="only the table of all worlds")
    options = parser.parse_args()
    first = (TUNING_SEEDS if options.tuning else REPORTING_SEEDS).start
    chosen = options.world or list(worlds())
    if unknown := [name for name in chosen if name not in worlds()]:
        parser.error(f"no world {unknown[0]!r}; there are {', '.join(worlds())}")
    names = options.policy or list(POLICIES)
    by_world: dict[str, list[Result]] = defaultdict(list)
    with ProcessPoolExecutor(options.jobs) as pool:
        calls = {
            pool.submit(result, world, names, options.requests, first + seed): world
            for world in chosen
            for seed in range(options.seeds)
        }
        for done in as_completed(calls):
            world = calls[done]
            by_world[world].append(done.result())
            if len(by_world[world]) == options.seeds:
                by_world[world].sort(key=lambda seed_result: seed_result.seed)
                print(f"{world} done", file=sys.stderr)
    ordered = {world: by_world[world] for world in chosen}
    kind = "tuning" if options.tuning else "reporting"
    print(f"{options.seeds} {kind} seeds from {first} on, {options.requests} requests each\n")
    if not options.summary:
        for results in ordered.values():
            print(table(results, names))
    for name in names if options.policy or options.summary else names[:1]:
        print(summary(ordered, name))


if __name__ == "__main__":
    main()
