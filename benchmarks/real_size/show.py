"""What was measured, as tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from msgspec.structs import replace

from benchmarks.real_size.measure import PLAIN, ROUTED, ROUTED_WITH_CONTROL, Sample, is_static

RESAMPLES = 2000
"""Of the requests, for an interval."""


NUMBERS_OF_A_SEED = 10_000
"""Apart from those of the next one: each seed draws requests of its own."""


class _Seeded(Sample, frozen=True, kw_only=True):
    seed: int


def show_files(files: Sequence[Path]) -> None:
    """Tables of what was measured into files, by concurrency."""
    rows = [row for file in files for row in msgspec.json.Decoder(_Seeded).decode_lines(file.read_bytes())]
    for concurrency in sorted({row.concurrency for row in rows}):
        samples = [
            replace(row, number=row.number + NUMBERS_OF_A_SEED * row.seed)
            for row in rows
            if row.concurrency == concurrency
        ]
        show(samples, concurrency, list(dict.fromkeys(sample.way for sample in samples)))


def show(samples: Sequence[Sample], concurrency: int, ways: Sequence[str]) -> None:
    """Tables of one concurrency."""
    times = {way: seconds_per_token(samples, way) for way in ways}
    static = [way for way in ways if is_static(way)]
    tasks = dict(sorted({sample.number: sample.task for sample in samples}.items()))
    times["oracle"] = {number: min(times[way][number] for way in static) for number in tasks}
    columns = [*ways, "oracle"]
    print(f"\n{concurrency} at a time, speed over plain\n\n| | {' | '.join(columns)} | controlled routing took |")
    print("|---" * (len(columns) + 2) + "|")
    for task in dict.fromkeys(tasks.values()):
        numbers = [number for number in tasks if tasks[number] == task]
        lanes = Counter(
            sample.lane.rpartition("/")[2]
            for sample in samples
            if sample.way == ROUTED_WITH_CONTROL and sample.task == task
        )
        cells = [f"{_speed(times[PLAIN], times[way], numbers):.2f}" for way in columns]
        print(f"| {task} | {' | '.join(cells)} | {', '.join(f'{lane} {n}' for lane, n in lanes.most_common())} |")
    everything = list(tasks)
    cells = [f"{_speed(times[PLAIN], times[way], everything):.3f}" for way in columns]
    print(f"| all | {' | '.join(cells)} | |")
    best = min(static, key=lambda way: sum(times[way].values()))
    print(f"\nOver the best static way, {best} (95 % interval over requests):\n")
    for way in ("oracle", *(way for way in ways if way not in static)):
        low, high = _interval(times[best], times[way])
        print(f"- {way}: {_speed(times[best], times[way], everything):.3f} ({low:.3f} to {high:.3f})")
    if {ROUTED, ROUTED_WITH_CONTROL} <= set(ways):
        low, high = _interval(times[ROUTED], times[ROUTED_WITH_CONTROL])
        ratio = _speed(times[ROUTED], times[ROUTED_WITH_CONTROL], everything)
        print(f"- what control adds to routing: {ratio:.3f} ({low:.3f} to {high:.3f})")


def seconds_per_token(samples: Sequence[Sample], way: str) -> dict[int, float]:
    """For each request of the mix, the median over the rounds."""
    times: dict[int, list[float]] = {}
    for sample in samples:
        if sample.way == way:
            times.setdefault(sample.number, []).append(sample.decode_s / sample.tokens)
    return {number: median(values) for number, values in times.items()}


def _speed(of: Mapping[int, float], over: Mapping[int, float], numbers: Sequence[int]) -> float:
    return sum(of[number] for number in numbers) / sum(over[number] for number in numbers)


def _interval(of: Mapping[int, float], over: Mapping[int, float]) -> tuple[float, float]:
    """Of the quotient of two sums over the same requests: percentiles of a bootstrap over requests."""
    numbers = sorted(of)
    above, below = np.array([of[number] for number in numbers]), np.array([over[number] for number in numbers])
    drawn = np.random.default_rng(0).integers(0, len(numbers), (RESAMPLES, len(numbers)))
    low, high = np.percentile(above[drawn].sum(axis=1) / below[drawn].sum(axis=1), [2.5, 97.5])
    return float(low), float(high)
