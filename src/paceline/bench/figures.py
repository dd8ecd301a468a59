"""Figures of a bench. Needs matplotlib (``paceline[plots]``)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paceline.bench.results import ROUTED, BadResults, Results
from paceline.bench.summary import ORACLE, Slice, throughput
from paceline.decision.drafting import acceptance_of

COLOURS = ("#8a8f98", "#7fb3d5", "#2e86c1", "#1b4f72", "#76d7c4", "#148f77", "#c39bd3", "#76448a")
ROUTED_COLOUR, ORACLE_COLOUR = "#e67e22", "#f5cba7"


def draw(results: Results, parts: Sequence[Slice], folder: Path) -> list[Path]:
    """Speed-up by task, acceptance against break-even, and where several numbers of requests at once were measured,
    throughput; each as SVG and PNG. Returns the files.

    Raises:
        BadResults: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise BadResults("figures need matplotlib; `pip install 'paceline[plots]'` brings it") from error
    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "paceline", "font.size": 9, "axes.spines.top": False}
    matplotlib.rcParams |= {"axes.spines.right": False, "legend.frameon": False}
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []

    def keep(figure: Any, name: str) -> None:
        for kind in ("svg", "png"):
            files.append(folder / f"{name}.{kind}")
            figure.savefig(files[-1], dpi=150, bbox_inches="tight", metadata={"Date": None} if kind == "svg" else None)
        pyplot.close(figure)

    for part in parts:
        suffix = f"t{part.temperature:g}-c{part.concurrency}"
        keep(_speed_ups(pyplot, part), f"speed-up-{suffix}")
        if part.break_even:
            keep(_break_even(pyplot, part), f"break-even-{suffix}")
    rates = throughput(results)
    if len({concurrency for _, concurrency, _ in rates}) > 1:
        for temperature in sorted({temperature for temperature, _, _ in rates}):
            keep(_throughput(pyplot, rates, temperature, results), f"throughput-t{temperature:g}")
    return files


def _colour(way: str, place: int) -> str:
    return {ROUTED: ROUTED_COLOUR, ORACLE: ORACLE_COLOUR}.get(way, COLOURS[place % len(COLOURS)])


def _speed_ups(pyplot: Any, part: Slice) -> Any:
    """Bars over the first lane, a group for each task, those that drafting helps most at the left."""
    ways = part.ways[1:]
    tasks = sorted(part.tasks, key=lambda task: -part.tasks[task][ORACLE].speed_up.value)
    figure, axes = pyplot.subplots(figsize=(max(7.0, 0.9 * len(tasks)), 3.6))
    width = 0.85 / len(ways)
    for place, way in enumerate(ways):
        cells = [part.tasks[task][way].speed_up for task in tasks] + [part.overall[way].speed_up]
        at = [number + (place - len(ways) / 2 + 0.5) * width for number in range(len(cells))]
        spread = [
            [cell.value - cell.low if cell.is_bounded else 0 for cell in cells],
            [cell.high - cell.value if cell.is_bounded else 0 for cell in cells],
        ]
        axes.bar(at, [cell.value for cell in cells], width, label=way, color=_colour(way, place + 1))
        axes.errorbar(at, [cell.value for cell in cells], spread, fmt="none", ecolor="#444444", elinewidth=0.6)
    axes.axhline(1, color="#222222", linewidth=0.8)
    axes.set_xticks(range(len(tasks) + 1), [*tasks, "all"], rotation=30, ha="right")
    axes.set_ylabel(f"speed over {part.ways[0]}")
    axes.legend(ncols=4, loc="upper right", fontsize=7)
    return figure


def _break_even(pyplot: Any, part: Slice) -> Any:
    """Each task's acceptance on each lane over the draft's length, and the acceptance from which such drafts pay."""
    figure, axes = pyplot.subplots(figsize=(6.0, 3.6))
    lanes = sorted(part.break_even, key=lambda lane: part.break_even[lane].draft)
    lengths = [part.break_even[lane].draft for lane in lanes]
    needed = [part.break_even[lane].acceptance for lane in lanes]
    axes.plot(lengths, [1.0 if value is None else value for value in needed], "o-", color="#c0392b", label="break-even")
    tasks = [task for task in part.tasks if any(part.tasks[task][lane].acceptance is not None for lane in lanes)]
    for place, task in enumerate(tasks):
        points = [
            (part.break_even[lane].draft, _each(part, task, lane))
            for lane in lanes
            if part.tasks[task][lane].acceptance is not None
        ]
        at, values = zip(*points, strict=True)
        axes.plot(at, values, ".", alpha=0.8, label=task, color=f"C{place % 10}")
    axes.set_xlabel("tokens drafted per drafting step, on average")
    axes.set_ylabel("acceptance of each drafted token")
    axes.set_ylim(0, 1.02)
    axes.legend(fontsize=7, ncols=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _each(part: Slice, task: str, lane: str) -> float:
    """The probability for each token at which such a part of drafts is accepted, since the tokens after the first
    refused one count as drafted, too."""
    draft = part.break_even[lane].draft
    return acceptance_of((part.tasks[task][lane].acceptance or 0.0) * draft, draft)


def _throughput(pyplot: Any, rates: dict[tuple[float, int, str], float], temperature: float, results: Results) -> Any:
    figure, axes = pyplot.subplots(figsize=(5.0, 3.4))
    ways = [way for way in (*results.lanes, ROUTED) if any(key[2] == way for key in rates)]
    for place, way in enumerate(ways):
        points = sorted((key[1], rate) for key, rate in rates.items() if key[0] == temperature and key[2] == way)
        axes.plot(*zip(*points, strict=True), "o-", label=way, color=_colour(way, place))
    axes.set_xticks(sorted({concurrency for _, concurrency, _ in rates}))
    axes.set_xlabel("requests at once")
    axes.set_ylabel("tokens/s of all together")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    return figure
