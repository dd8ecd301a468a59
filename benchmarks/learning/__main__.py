"""How fast does the decision learn? On simulated machines that draw outcomes from measured tables.

    python -m benchmarks.learning [--seeds N] [--requests N] [--figures FOLDER]

After so many requests the acceptance of one task changes to that of the task that drafting treats most
differently. Shares are of the oracle's time, which knows what every lane would take for the very request.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from random import Random
from statistics import mean

from benchmarks.learning.policies import MakePolicy, policies
from benchmarks.learning.worlds import REQUEST, World, signals_by_task, worlds
from paceline import Signals, Task

GAP_S = 0.5
"""Between two requests."""
RECOVERY = 30
"""Requests of the changed task."""


class Run:
    """What one policy made of one seed's requests."""

    def __init__(self) -> None:
        self.taken_s: list[float] = []
        self.oracle_s: list[float] = []
        self.tasks: list[Task] = []

    def share(self, first: int, last: int) -> float:
        """Of the oracle, in a range of requests."""
        return sum(self.oracle_s[first:last]) / sum(self.taken_s[first:last])

    def share_of_task(self, task: Task, since: int, first: int, last: int) -> float:
        """The same, of the task's ``first``-th to ``last``-th request after request ``since``."""
        numbers = [number for number in range(since, len(self.tasks)) if self.tasks[number] is task][first:last]
        return sum(self.oracle_s[n] for n in numbers) / sum(self.taken_s[n] for n in numbers)


def run(
    world: World,
    make: MakePolicy,
    signals: dict[Task, list[Signals]],
    requests: int,
    seed: int,
    change: tuple[Task, Task],
) -> Run:
    drawing, policy = Random(seed), make(seed + 1000)
    done, now_s = Run(), 1.7e9
    world.behaves_as = {}
    left = 2 * RECOVERY
    while left:
        if len(done.tasks) == requests:
            world.behaves_as = {change[0]: change[1]}
        draw = world.draw(signals, drawing)
        decision = policy.choose(REQUEST, draw.signals, world.lanes)
        took_s = draw.expected_s[decision.lane]
        now_s += took_s + GAP_S
        policy.observe(decision, draw.outcome(decision.lane, now_s))
        done.taken_s.append(took_s)
        done.oracle_s.append(min(draw.expected_s.values()))
        done.tasks.append(draw.task)
        left -= bool(world.behaves_as) and draw.task is change[0]
    return done


def speed_ups(world: World) -> dict[Task, float]:
    """By task: the plain lane's time over the best drafting lane's."""
    gains = {}
    for task, rows in world.rows.items():
        times = {state.lane.name: mean(row[state.lane.name][0] for row in rows) for state in world.lanes}
        gains[task] = times["plain"] / min(time for name, time in times.items() if name != "plain")
    return gains


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--figures", type=Path, help="write SVG and PNG of the regret there")
    parser.add_argument("--only", nargs="*", help="policies")
    options = parser.parse_args()
    signals = signals_by_task()
    changed_at = options.requests
    regrets: dict[str, dict[str, list[Run]]] = {}
    for world in worlds():
        gains = speed_ups(world)
        best_task, worst_task = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
        runs: dict[str, list[Run]] = defaultdict(list)
        back: dict[str, list[Run]] = defaultdict(list)
        for name, make in policies(world).items():
            if options.only and name not in options.only and not name.startswith("always"):
                continue
            for seed in range(options.seeds):
                runs[name].append(run(world, make, signals, options.requests, seed, (best_task, worst_task)))
                back[name].append(run(world, make, signals, options.requests, seed, (worst_task, best_task)))
            print(f"{world.name}: {name} done", file=sys.stderr)
        fixed = {name: done for name, done in runs.items() if name.startswith("always")}
        first = {name: mean(learned.share(0, 20) for learned in done) for name, done in fixed.items()}
        best_first = max(first.values())
        print(f"\n**{world.name}**: {best_task} falls, {worst_task} rises\n")
        print("| share of the oracle | first 20 | 51-100 | 201-400 | falls: 1-30 | 31-60 | rises: 1-30 | 31-60 |")
        print("|---|---|---|---|---|---|---|---|")
        for name, done in runs.items():
            cells = [mean(learned.share(*span) for learned in done) for span in ((0, 20), (50, 100), (200, 400))]
            for task, its_runs in ((best_task, done), (worst_task, back[name])):
                spans = ((0, RECOVERY), (RECOVERY, 2 * RECOVERY))
                cells += [
                    mean(learned.share_of_task(task, changed_at, *span) for learned in its_runs) for span in spans
                ]
            print(f"| {name} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
        ours = mean(learned.share(0, 20) for learned in runs["Paceline"])
        print(f"\nfirst 20 requests: {ours / best_first:.3f} of the best fixed lane", flush=True)
        regrets[world.name] = runs
    if options.figures:
        from benchmarks.learning.figures import draw_regret

        draw_regret(regrets, changed_at, options.figures)


if __name__ == "__main__":
    main()
