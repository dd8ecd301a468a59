"""How much does each constant of the decision matter? Each is halved and doubled, all else equal.

    python -m benchmarks.learning.sensitivity [--seeds N] [--requests N] [--only NAME ...]

On the machines of :mod:`benchmarks.learning`, with the change of a task after the given number of requests. Told are
points of the oracle's time: what the share of the oracle is more or less than with the constants as they are. Seeds are
the same, but another choice changes all that follow, so of two runs some tenths of a point differ by chance.
"""

import argparse
import sys
from functools import partial
from importlib import import_module, reload
from statistics import mean

from benchmarks.learning.__main__ import run, speed_ups
from benchmarks.learning.worlds import signals_by_task, worlds
from paceline.decision import cells, drafting, step_cost, tuning

FACTORS = (0.5, 2.0)
MODULES = (
    *(f"paceline.decision.{name}" for name in ("predict", "decide", "learn")),
    "paceline.decision",
    "paceline.routing.router",
    "benchmarks.learning.policies",
)
"""That take the constants over when they are imported, in their order."""
WORLDS, SIGNALS = worlds(), signals_by_task()


def share_of_oracle(seeds: int, requests: int) -> float:
    """Over all machines and both changes, with the constants as they stand in the module now."""
    for name in MODULES:
        reload(import_module(name))
    paceline = import_module("benchmarks.learning.policies").paceline
    make = partial(paceline, exploration=tuning.EXPLORATION)
    shares = []
    for world in WORLDS:
        gains = speed_ups(world)
        best, worst = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
        for seed in range(seeds):
            for change in ((best, worst), (worst, best)):
                done = run(world, make, SIGNALS, requests, seed, change)
                shares.append(done.share(0, len(done.taken_s)))
    return mean(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="names of constants")
    options = parser.parse_args()
    constants = [
        (module, name, value)
        for module in (tuning, cells, step_cost, drafting)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, float | int if module is tuning else float)
    ]
    usual = share_of_oracle(options.seeds, options.requests)
    print(f"{100 * usual:.2f} % of the oracle with the constants as they are\n")
    print("| constant | value | " + " | ".join(f"times {factor:g}" for factor in FACTORS) + " |")
    print("|---|---|" + "---|" * len(FACTORS))
    for module, name, value in constants:
        if options.only and name not in options.only:
            continue
        differences = []
        for factor in FACTORS:
            setattr(module, name, type(value)(value * factor))
            try:
                differences.append(f"{100 * (share_of_oracle(options.seeds, options.requests) - usual):+.2f}")
            except (ValueError, ZeroDivisionError, OverflowError) as error:
                print(f"{name} times {factor:g}: {error}", file=sys.stderr)
                differences.append("fails")
            finally:
                setattr(module, name, value)
        print(f"| {name} | {value:g} | " + " | ".join(differences) + " |", flush=True)


if __name__ == "__main__":
    main()
