"""A summary as text for a terminal, and in one sentence."""

from collections.abc import Callable, Sequence

from paceline.bench.results import ROUTED, Results
from paceline.bench.summary import ORACLE, Cell, Slice, ratios_of
from paceline.text_table import NEVER_PAYS, UNKNOWN, columns, shown_number

MIN_GAIN = 1.02
"""A smaller gain is not worth a word of advice."""


def table(part: Slice) -> str:
    """Speeds, what they stand on, and the comparison of the routing with the best fixed lane and the oracle."""
    company = "one request at a time" if part.concurrency == 1 else f"{part.concurrency} requests at once"
    first = part.ways[0]
    parts = [
        f"temperature {part.temperature:g}, {company}",
        f"tokens/s of decoding, and the speed-up over {first} with its 95 % interval:",
        _grid(part, _speed, [*part.tasks, None]),
    ]
    drafting = [way for way in part.ways if any(cells[way].acceptance is not None for cells in part.tasks.values())]
    if drafting:
        parts += [
            "accepted of the drafted tokens, and tokens per step:",
            _grid(part, _accepted, [*part.tasks, None], drafting),
        ]
    if any(cell.first_token_s is not None for cell in part.overall.values()):
        parts += ["time to the first token in ms, median:", _grid(part, _wait, [None], part.ways[:-1])]
    if part.break_even:
        parts.append("what a drafting step costs here, and what it has to bring:")
        rows = [("", "tokens drafted", "cost in plain steps", "break-even acceptance")]
        for lane, even in part.break_even.items():
            needed = shown_number(even.acceptance, ".2f", NEVER_PAYS)
            rows.append((lane, f"{even.draft:.1f}", f"{even.step_cost:.2f}", needed))
        parts.append(_indented(columns(rows)))
    parts.append(f"best fixed lane: {part.best_lane}, {part.overall[part.best_lane].speed_up} of {first}")
    if part.routed_of_best and part.routed_of_oracle:
        parts.append(
            f"routed: {part.overall[ROUTED].speed_up} of {first}, {part.routed_of_best} of the best fixed lane, "
            f"{part.routed_of_oracle} of the oracle"
        )
    if part.left_out:
        parts.append(f"{part.left_out} items are left out: some lane did not answer them with a decoding time")
    return "\n".join(parts) + "\n"


def advice(part: Slice) -> str:
    """In one sentence, what to run and what it brings."""
    first = part.ways[0]
    best, routed = part.overall[part.best_lane].speed_up, part.routed_of_best
    mixed = len(set(part.best_by_task.values())) > 1
    if routed and routed.is_above_one and routed.value >= MIN_GAIN:
        return (
            f"Let Paceline route: on this workload it decodes {part.overall[ROUTED].speed_up} times as fast as {first} "
            f"and {routed} times as fast as the best fixed setting, {part.best_lane}."
        )
    others = [part.overall[way].speed_up for way in part.ways if way not in (first, ROUTED, ORACLE)]
    if not best.is_above_one and any(other.high >= 1 for other in others):
        return (
            f"It can't be told yet whether any setting is faster than {first} on this workload: the intervals hold 1. "
            "More prompts of each task (--prompts) or repetitions (--rounds) narrow them."
        )
    if part.best_lane == first:
        lost = f"; routing makes {routed} of it" if routed else ""
        return f"Run {first}: no drafting setting is faster on this workload as a whole{lost}."
    if routed and routed.high >= 1:
        gain = part.overall[ROUTED].speed_up
        return (
            f"{part.best_lane} decodes {best} times as fast as {first} on this workload; routing makes {gain}, no "
            f"plain difference on this mix{', and follows when the mix changes' if mixed else ''}."
        )
    return f"Run {part.best_lane}: it decodes {best} times as fast as {first} on this workload" + (
        f", routing only {routed} of that." if routed else "."
    )


def comparison(before: Results, after: Results) -> str:
    """Speeds of the second results over the first's, by task, of what both have measured."""
    parts = []
    for temperature, concurrency, ratios in ratios_of(before, after):
        ways = list(ratios["all"])
        rows = [("", *ways), *((task, *(str(by_way[way]) for way in ways)) for task, by_way in ratios.items())]
        parts += [
            f"temperature {temperature:g}, {concurrency} at once: speed of the second over the first, 95 % interval",
            _indented(columns(rows)),
        ]
    for name in ("workload", "machine", "settings"):
        if before.about[name] != after.about[name]:
            parts.append(f"they differ in {name}: {before.about[name]} and {after.about[name]}")
    return "\n".join(parts or ["they have nothing in common"]) + "\n"


def _grid(
    part: Slice, shown: Callable[[Cell], str], tasks: Sequence[str | None], ways: Sequence[str] | None = None
) -> str:
    """By task (``None``: all) and way."""
    ways = ways or part.ways
    rows = [("", *ways)]
    for task in tasks:
        cells = part.overall if task is None else part.tasks[task]
        rows.append((task or "all", *(shown(cells[way]) for way in ways)))
    return _indented(columns(rows))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _speed(cell: Cell) -> str:
    ratio = cell.speed_up
    text = f"{cell.tokens_per_s:6.1f}"
    return text if ratio.low == ratio.high == 1 else f"{text}  {ratio}"


def _accepted(cell: Cell) -> str:
    if cell.acceptance is None or cell.tokens_per_step is None:
        return UNKNOWN
    return f"{cell.acceptance:.2f} {cell.tokens_per_step:.2f}"


def _wait(cell: Cell) -> str:
    return shown_number(None if cell.first_token_s is None else 1000 * cell.first_token_s, ".0f")
