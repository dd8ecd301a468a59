"""Are off-policy estimates right? In worlds made from published measurements, where the truth is known.

    python -m benchmarks.evidence [--world NAME ...] [--logs N] [--requests N ...] [--by-lane] [--jobs N]

Each log is what Paceline makes of its own requests, exploring as usual. From it always taking each lane, which never
ran, is estimated, and compared with what it would have taken on the same requests.
"""

import argparse
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import mean

from msgspec import Struct

from benchmarks.evidence.logs import log_of, truth
from benchmarks.worlds.catalogue import worlds
from paceline import RoutingSettings
from paceline.evidence.comparison import ALIKE, Comparison, compare
from paceline.evidence.estimate import Estimate
from paceline.evidence.same_settings import Group

WORLDS = (
    "base",
    "embedded",
    "never-pays",
    "two-applications",
    "agents",
    "load-trtllm",
    "cost-by-content",
    "no-counts",
    "heavy-tails",
    "wrong-labels",
    "rises",
    "twelve-lanes",
)
HEAD = ("world", "requests", "always", "truth", "estimated less truth", "half the interval", "inside", "by prediction")
ALL_LANES = ("inside, all lanes", "told", "wrongly")


class Judged(Struct, frozen=True):
    """What is estimated from one log, and what is true."""

    fixed: dict[str, Estimate]
    """By lane."""
    truth: dict[str, float]
    verdict: str
    """What is said of routing; empty where it can't be told."""
    is_wrong: bool


def judged(world: str, lengths: Sequence[int], seed: int, exploration: float) -> list[Judged]:
    """A log of a world, judged after so many requests each."""
    logged = log_of(world, max(lengths), seed, exploration)
    found = []
    for length in lengths:
        first = logged[:length]
        comparison = compare(Group(model=None, requests=[each.request for each in first], is_current=True))
        true = truth(first)
        verdict, is_wrong = verdict_on(comparison, true)
        found.append(Judged(dict(comparison.fixed), true, verdict, is_wrong))
    return found


def verdict_on(comparison: Comparison, true: dict[str, float]) -> tuple[str, bool]:
    """What a report says, and whether it is wrong."""
    lane = comparison.best[0]
    if comparison.pays:
        return "pays", min(true.values()) < 1
    if comparison.is_alike:
        return "alike", abs(true[lane] - 1) > ALIKE
    if comparison.pays is None:
        return "", False
    return "does not pay", true[lane] > 1


def best_lane(logs: Sequence[Judged]) -> str:
    """The lane that would have taken least over all logs."""
    return min(logs[0].truth, key=lambda lane: sum(log.truth[lane] for log in logs))


def lane_cells(logs: Sequence[Judged], lane: str) -> list[str]:
    estimates = [(log.fixed[lane], log.truth[lane]) for log in logs]
    return [
        lane,
        f"{mean(true for _, true in estimates):.3f}",
        f"{mean(found.ratio - true for found, true in estimates):+.3f}",
        f"{mean((found.high - found.low) / 2 for found, _ in estimates):.3f}",
        f"{mean(is_inside(found, true) for found, true in estimates):.0%}",
        f"{mean(found.on_predictions for found, _ in estimates):.0%}",
    ]


def is_inside(found: Estimate, true: float) -> bool:
    return found.low <= true <= found.high


def verdict_cells(logs: Sequence[Judged]) -> list[str]:
    """Of all lanes of all logs: whether intervals hold the truth; and what reports say."""
    inside = mean(is_inside(log.fixed[lane], true) for log in logs for lane, true in log.truth.items())
    told = [log.verdict for log in logs if log.verdict]
    kinds = ", ".join(f"{kind} {told.count(kind)}" for kind in sorted(set(told)))
    return [f"{inside:.1%}", kinds, str(sum(log.is_wrong for log in logs))]


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", nargs="*", default=WORLDS, help="of those of benchmarks.worlds")
    parser.add_argument("--logs", type=int, default=50)
    parser.add_argument("--requests", type=int, nargs="*", default=[400, 2000])
    parser.add_argument("--exploration", type=float, default=RoutingSettings().exploration)
    parser.add_argument("--by-lane", action="store_true", help="a row for each lane, not only for the best static one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if unknown := [name for name in options.world if name not in worlds()]:
        parser.error(f"no world {unknown[0]!r}; there are {', '.join(worlds())}")
    lengths = sorted(options.requests)
    head = [*HEAD, *(() if options.by_lane else ALL_LANES)]
    print(f"{options.logs} logs of each world\n\n{line(head)}\n{'|---' * len(head)}|", flush=True)
    with ProcessPoolExecutor(options.jobs) as pool:
        calls = {
            world: [pool.submit(judged, world, lengths, seed, options.exploration) for seed in range(options.logs)]
            for world in options.world
        }
        for world, logs_of_world in calls.items():
            for length, logs in zip(lengths, zip(*(call.result() for call in logs_of_world), strict=True), strict=True):
                lanes = list(logs[0].fixed) if options.by_lane else [best_lane(logs)]
                for lane in lanes:
                    more = [] if options.by_lane else verdict_cells(logs)
                    print(line([world, str(length), *lane_cells(logs, lane), *more]), flush=True)


if __name__ == "__main__":
    main()
