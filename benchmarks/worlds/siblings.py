"""What a new replica's first decisions gain by what is known of its siblings.

    python -m benchmarks.worlds.siblings [--world NAME ...] [--seeds N] [--first N]

One machine serves 300 requests; then another one of its kind begins, which is slower or faster. Prints, as Markdown,
the share of the oracle that its first decisions reach, and how far predictions of their times are off.
"""

import argparse
from collections.abc import Sequence
from math import log
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from benchmarks.worlds import REPORTING_SEEDS, TUNING_SEEDS
from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.run import REQUEST
from benchmarks.worlds.traffic import Traffic
from paceline import LaneState, Outcome, Router, RoutingSettings

BEFORE = 300
"""Requests that the first machine has served."""
PACES = (0.7, 0.9, 1.0, 1.1, 1.4)
"""Times as long as the first machine takes, the second one does."""


class Way(NamedTuple):
    """How the second machine's lanes are known."""

    name: str
    fingerprint: str
    model: str
    machine: str


WAYS = (
    Way("as another engine", "new", "new", ""),
    Way("as the same machine", "", "", ""),
    Way("as a sibling", "", "", "new"),
)


class Found(NamedTuple):
    share: float
    """Of the oracle."""
    miss: float
    """Mean distance of the logarithms of predicted and measured times."""


def found(traffic: Traffic, way: Way, pace: float, first: int, seed: int) -> Found:
    router = Router((), RoutingSettings(), seed=seed)
    old = [replace(lane, machine="old" if way.machine else "") for lane in traffic.lane_states(0)]
    new = [
        replace(
            lane,
            fingerprint=way.fingerprint or lane.fingerprint,
            model=way.model or lane.model,
            machine=way.machine,
        )
        for lane in traffic.lane_states(0)
    ]
    _serve(router, traffic, old, range(BEFORE), 1.0)
    seconds, misses = _serve(router, traffic, new, range(BEFORE, BEFORE + first), pace)
    best = traffic.expected_s[BEFORE : BEFORE + first].min(axis=1).sum()
    return Found(float(best / seconds), misses)


def _serve(
    router: Router, traffic: Traffic, lanes: Sequence[LaneState], requests: range, pace: float
) -> tuple[float, float]:
    """Expected seconds at the first machine's pace, and how far predictions were off."""
    numbers = {lane.lane.name: number for number, lane in enumerate(lanes)}
    at_s, seconds = traffic.at_s.tolist(), 0.0
    misses = []
    for request in requests:
        decision = router.choose(REQUEST, traffic.signals[request], lanes)
        lane = numbers[decision.lane]
        seconds += float(traffic.expected_s[request, lane])
        outcome = _at_pace(traffic.outcome(request, lane, at_s[request]), pace, lanes[lane])
        predicted_s = decision.predictions[decision.lane].s_per_token
        observed = outcome.observed
        if predicted_s and observed.decode_s and observed.decode_tokens:
            misses.append(abs(log(predicted_s * observed.decode_tokens / observed.decode_s)))
        router.observe(decision, outcome)
    return seconds, float(np.mean(misses)) if misses else float("nan")


def _at_pace(outcome: Outcome, pace: float, lane: LaneState) -> Outcome:
    decode_s = pace * (outcome.observed.decode_s or 0.0)
    observed = replace(outcome.observed, decode_s=decode_s)
    return replace(outcome, observed=observed, total_s=decode_s + 1.0, fingerprint=lane.fingerprint)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", nargs="*", default=list(worlds()), help="by default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=50, help="decisions of the new machine that are looked at")
    parser.add_argument("--tuning", action="store_true", help="seeds for tuning instead of those for reporting")
    options = parser.parse_args()
    start = (TUNING_SEEDS if options.tuning else REPORTING_SEEDS).start
    seeds = range(start, start + options.seeds)
    traffics = [worlds()[name].traffic(BEFORE + options.first, seed) for name in options.world for seed in seeds]
    print(f"{len(options.world)} worlds, {options.seeds} seeds from {start} on, the first {options.first} decisions\n")
    print("| the new machine takes | its lanes are known | share of the oracle | predictions are off by |")
    print("|---|---|---|---|")
    for pace in PACES:
        for way in WAYS:
            each = [found(traffic, way, pace, options.first, number) for number, traffic in enumerate(traffics)]
            share, miss = np.mean([one.share for one in each]), np.nanmean([one.miss for one in each])
            print(f"| {pace} x | {way.name} | {share:.3f} | {100 * (np.exp(miss) - 1):.0f} % |", flush=True)


if __name__ == "__main__":
    main()
