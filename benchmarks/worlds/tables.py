"""Runs as Markdown."""

from collections.abc import Mapping, Sequence
from math import nan, sqrt

import numpy as np
from msgspec import Struct

from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.policies import policy
from benchmarks.worlds.published import Floats
from benchmarks.worlds.run import hindsight, run

PHASES = ((0, 50), (50, 300), (300, None))
UCB = "UCB by task"
AFTER_50, AFTER_300 = 0.97, 0.985
"""Of the oracle: what is wanted of Paceline in requests 50 to 300 and after."""
HIGH_AFTER_300, KNOWING_MAKES = 0.99, 0.995
"""What is wanted after 300 where who knows the tasks makes so much."""
BESIDE_RIVALS = 0.995
"""Wanted after 300, beside the better of the best static lane and UCB by task."""
BESIDE_STATIC_AT_FIRST = 0.95
"""Wanted in the first 50, beside the best static lane."""
RECOVERY = 30
"""Requests of a task that changed."""


class Result(Struct, frozen=True):
    """One seed of a world: by policy, expected seconds of each request; and whose task changed."""

    world: str
    seed: int
    oracle_s: Floats
    seconds: Mapping[str, Floats]
    changed: Sequence[int] = ()
    """Requests of the changed kind, from its change on."""

    def share(self, name: str, first: int, last: int | None) -> float:
        return float(self.oracle_s[first:last].sum() / self.seconds[name][first:last].sum())

    def beside(self, name: str, other: str, first: int, last: int | None) -> float:
        """How fast it was, over another one."""
        return float(self.seconds[other][first:last].sum() / self.seconds[name][first:last].sum())

    def recovered(self, name: str, first: int, last: int) -> float:
        """Of the oracle, in requests of the changed kind from its change on; not a number where there are none."""
        numbers = list(self.changed[first:last])
        if not numbers:
            return nan
        return float(self.oracle_s[numbers].sum() / self.seconds[name][numbers].sum())


def result(world: str, names: Sequence[str], requests: int, seed: int) -> Result:
    """All that a table says of one seed; to be called in any process."""
    place = worlds()[world]
    traffic = place.traffic(requests, seed)
    seconds = dict(hindsight(traffic))
    for name in dict.fromkeys([*names, UCB]):
        if name not in seconds:
            seconds[name] = run(traffic, policy(name), seed)
    changed: list[int] = []
    if place.changes:
        kind, since = place.changes
        changed = [number for number in range(since, len(traffic)) if traffic.kinds[number] == kind]
    return Result(world, seed, traffic.expected_s.min(axis=1), seconds, changed)


def best_static(results: Sequence[Result]) -> str:
    """The lane that would have taken least over all seeds."""
    static = [name for name in results[0].seconds if name.startswith("always ")]
    return min(static, key=lambda name: sum(float(seed_result.seconds[name].sum()) for seed_result in results))


def cell(values: Sequence[float]) -> str:
    """Mean and standard error over the seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {float(np.std(values, ddof=1)) / sqrt(len(values)):.3f}"


def table(results: Sequence[Result], names: Sequence[str]) -> str:
    """Of one world: the policies, the best static lane, and who knows all from the start."""
    best = best_static(results)
    about = worlds()[results[0].world].about
    head = ["share of the oracle", "0-50", "50-300", "300-", "of the best static, 0-50", "300-", f"of {UCB}, 300-"]
    rows = [*names, best, "knows the tasks", "knows the kinds", "acceptance gate (imp)"]
    has_change = any(seed_result.changed for seed_result in results)
    if has_change:
        head += [f"changed: 1-{RECOVERY}", f"{RECOVERY + 1}-{2 * RECOVERY}"]
    lines = [
        f"**{results[0].world}**. {' '.join(about.split())}",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for name in dict.fromkeys(rows):
        if name not in results[0].seconds:
            continue
        cells = [cell([seed_result.share(name, *phase) for seed_result in results]) for phase in PHASES]
        cells += [
            cell([seed_result.beside(name, best, *phase) for seed_result in results])
            for phase in (PHASES[0], PHASES[2])
        ]
        cells.append(cell([seed_result.beside(name, UCB, *PHASES[2]) for seed_result in results]))
        if has_change:
            spans = ((0, RECOVERY), (RECOVERY, 2 * RECOVERY))
            cells += [cell([seed_result.recovered(name, *span) for seed_result in results]) for span in spans]
        label = f"{name} (best static)" if name == best else name
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def summary(by_world: Mapping[str, Sequence[Result]], name: str) -> str:
    """One policy in all worlds, beside what is wanted of it."""
    head = [
        "world",
        "0-50",
        "50-300",
        "300-",
        "best static, 300-",
        f"{UCB}, 300-",
        "knows the tasks",
        "knows the kinds",
    ]
    head += ["over the best static, 0-50", "over the better of static and UCB, 300-", "missed"]
    lines = [f"**{name}**", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for world, results in by_world.items():
        best = best_static(results)
        means = [float(np.mean([seed_result.share(name, *phase) for seed_result in results])) for phase in PHASES]
        static, ucb, tasks, kinds = (
            float(np.mean([seed_result.share(other, *PHASES[2]) for seed_result in results]))
            for other in (best, UCB, "knows the tasks", "knows the kinds")
        )
        early = float(np.mean([seed_result.beside(name, best, *PHASES[0]) for seed_result in results]))
        late = min(
            float(np.mean([seed_result.beside(name, other, *PHASES[2]) for seed_result in results]))
            for other in (best, UCB)
        )
        wanted = HIGH_AFTER_300 if tasks >= KNOWING_MAKES else AFTER_300
        goals = (
            ("50-300", means[1], AFTER_50),
            (f"300- {wanted}" + (" (out of reach)" if kinds < wanted else ""), means[2], wanted),
            ("rivals", late, BESIDE_RIVALS),
            ("0-50", early, BESIDE_STATIC_AT_FIRST),
        )
        missed = [label for label, value, least in goals if value < least]
        numbers = (*means, static, ucb, tasks, kinds, early, late)
        lines.append(f"| {world} | {' | '.join(f'{number:.3f}' for number in numbers)} | {', '.join(missed)} |")
    return "\n".join(lines) + "\n"
