"""The tables of what was measured on a GPU, and what its costs make of the mix of tasks:

python -m benchmarks.real_size.gpu.show results.jsonl [--requests 300] [--seeds 5]
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, median, stdev

from benchmarks.real_size.gpu.mixed import CONTROL as CONTROLLED
from benchmarks.real_size.gpu.mixed import LEARNED_AFTER, ORACLE, ROUTED, ROUTED_WITH_CONTROL, results
from benchmarks.real_size.gpu.samples import (
    CONTROL,
    ONE_DEVICE,
    PLAIN,
    STATIC,
    Row,
    plain_step_s,
    s_per_token,
    step_costs,
)
from benchmarks.real_size.tasks import LONGEST

Table = list[tuple[str, ...]]
"""The first row is its head."""


def read(file: Path) -> list[Row]:
    """Its lines; the last one may have been cut off."""
    rows = []
    for line in file.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def measured(rows: Sequence[Row], shape: str) -> list[Row]:
    """The samples of one shape on one device with its drafter."""
    return [row for row in rows if "answers" in row and row["shape"] == shape and row["server"] == ONE_DEVICE]


def speeds(rows: Sequence[Row], concurrency: int) -> Table:
    """Speed over plain decoding, by acceptance and way: medians over the rounds. Plain decoding took turns with each
    acceptance, and stands against that one."""
    here = [row for row in rows if row["concurrency"] == concurrency]
    lengths = sorted({row["n_max"] for row in here if row["way"] == STATIC})
    table: Table = [("acceptance", *map(str, lengths), "control", "control, told wrong")]
    for acceptance in sorted({row["acceptance"] for row in here}):
        of_it = [row for row in here if row["acceptance"] == acceptance]
        plain = [row for row in of_it if row["way"] == PLAIN]
        controlled = [row for row in of_it if row["way"] == CONTROL]
        ways = [[row for row in of_it if row["way"] == STATIC and row["n_max"] == length] for length in lengths]
        ways.append([row for row in controlled if row["prior"] == acceptance])
        ways.append([row for row in controlled if row["prior"] != acceptance])
        table.append((f"{acceptance:.2f}", *(_over(plain, way) for way in ways)))
    return table


def costs(rows: Sequence[Row]) -> Table:
    """Of steps, by concurrency, in plain steps."""
    by_concurrency = {count: step_costs(rows, count) for count in sorted({row["concurrency"] for row in rows})}
    longest = max(map(len, by_concurrency.values()), default=0)
    table: Table = [("at a time", "plain step, ms", *(str(length) for length in range(1, longest + 1)))]
    for concurrency, values in by_concurrency.items():
        if values:
            plain = f"{1000 * plain_step_s(rows, concurrency):.2f}"
            cells = [f"{value:.2f}" for value in values]
            table.append((str(concurrency), plain, *cells, *[""] * (longest - len(cells))))
    return table


def servers(rows: Sequence[Row], shape: str) -> Table:
    """Tokens per second of each request, by server and way."""
    found: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        if "answers" in row and row["shape"] == shape and (row["way"] == PLAIN or row["server"] != ONE_DEVICE):
            way = PLAIN if row["way"] == PLAIN else f"mtp-{row['n_max']} at {row['acceptance']}"
            found.setdefault((row["server"], way, row["concurrency"]), []).append(1 / s_per_token(row))
    table: Table = [("server", "way", "at a time", "tokens/s of each")]
    return table + [(server, way, str(count), f"{median(of):.1f}") for (server, way, count), of in found.items()]


def mix(rows: Sequence[Row], requests: int, seeds: Sequence[int]) -> Table:
    """Speeds over the best static way, by concurrency: mean over the seeds and its standard error."""
    ways = (ORACLE, CONTROLLED, ROUTED, ROUTED_WITH_CONTROL)
    learned = (ROUTED, ROUTED_WITH_CONTROL)
    table: Table = [("at a time", "best static", *ways, *(f"{way}, after {LEARNED_AFTER}" for way in learned))]
    for concurrency in sorted({row["concurrency"] for row in rows}):
        values = step_costs(rows, concurrency)
        if len(values) < LONGEST:
            continue
        of_seeds = results(plain_step_s(rows, concurrency), values, requests, seeds)
        best = Counter(result.best for result in of_seeds).most_common(1)[0][0]
        cells = [_mean([result.over_best(way) for result in of_seeds]) for way in ways]
        for way in learned:
            is_any_left = requests > LEARNED_AFTER
            cells.append(_mean([one.over_best(way, LEARNED_AFTER) for one in of_seeds]) if is_any_left else "–")
        table.append((str(concurrency), best, *cells))
    return table


def missing(rows: Sequence[Row]) -> Iterator[str]:
    """What was left out, or failed: what was said of it first and last."""
    left_out: Counter[str] = Counter()
    for row in rows:
        if "left_out" in row:
            left_out[f"{row['left_out']['shape']}, {row['left_out']['server']}"] += 1
        elif "failed" in row:
            said = row["failed"].strip().splitlines()
            yield f"{row['shape']}, {row.get('server', 'its weights')}: {' '.join(dict.fromkeys((said[0], said[-1])))}"
    for what, count in left_out.items():
        yield f"{what}: {count} left out for want of time"
    if not any("done" in row for row in rows):
        yield "The run did not end by itself."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--requests", type=int, default=300, help="of the mix")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = read(options.results)
    for row in rows:
        if "machine" in row:
            print(f"Machine: {row['machine']}; {row['budget_s']:.0f} s")
    for shape in dict.fromkeys(row["shape"] for row in rows if "answers" in row):
        here = measured(rows, shape)
        for concurrency in sorted({row["concurrency"] for row in here}):
            _print(f"{shape}, {concurrency} at a time: speed over plain by tokens drafted", speeds(here, concurrency))
        _print(f"{shape}: cost of a step that verifies so many drafted tokens, in plain steps", costs(here))
        _print(f"{shape}: servers", servers(rows, shape))
        title = f"{shape}: the mix of tasks, simulated from these costs; speed over the best static way"
        _print(title, mix(here, options.requests, range(options.seeds)))
    print("\nMissing:\n")
    for line in missing(rows):
        print(f"- {line}")


def _over(plain: Sequence[Row], way: Sequence[Row]) -> str:
    if not plain or not way:
        return "–"
    return f"{median(map(s_per_token, plain)) / median(map(s_per_token, way)):.2f}"


def _mean(values: Sequence[float]) -> str:
    error = f" ± {stdev(values) / sqrt(len(values)):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{error}"


def _print(title: str, table: Table) -> None:
    head, *body = table
    print(f"\n{title}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for row in body:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
