"""The machine's side as a table and as figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.the_finding.machine import ACCEPTANCES, CAPS, Machine
from paceline.bench.results import Results
from paceline.bench.summary import slices
from paceline.decision.drafting import acceptance_of
from paceline.text_table import columns

PUBLISHED = {
    "code": (153 + 176, 139 + 132),
    "explain": (191, 126),
    "summarise": (51, 37),
    "factual": (174, 118),
    "translate": (24, 13),
    "creative": (200, 123),
    "math": (171, 133),
    "review": (179, 131),
}
"""Drafted and accepted tokens of an MTP head that drafts 3: Qwen3.6-27B in Q8_0, from public llama.cpp runs."""
PUBLISHED_CAP = 3


def machine_table(machines: Sequence[Machine]) -> str:
    """Cost of a drafting step and the acceptance from which it pays; and the measured speed-ups beside the formula."""
    rows = [("", "at once", "cap", "plain step", "drafting step", "break-even", *(f"at {a}" for a in ACCEPTANCES))]
    for machine in machines:
        for concurrency in machine.concurrencies:
            for cap in CAPS:
                needed = machine.break_even(cap, concurrency)
                rows.append(
                    (
                        machine.name,
                        str(concurrency),
                        str(cap),
                        f"{1000 * machine.plain_s(concurrency):.1f} ms",
                        f"{machine.step_cost(cap, concurrency):.2f}",
                        "none" if needed is None else f"{needed:.2f}",
                        *(
                            f"{machine.speed_up(acceptance, cap, concurrency):.2f} "
                            f"({machine.predicted(acceptance, cap, concurrency):.2f})"
                            for acceptance in ACCEPTANCES
                        ),
                    )
                )
    return (
        "Cost of a drafting step in plain steps of the same company, the acceptance from which it pays, and the "
        f"speed-up measured at three acceptances (by the formula):\n\n```\n{columns(rows)}\n```\n"
    )


def draw_machine(machines: Sequence[Machine], tasks: Results | None, folder: Path) -> None:
    """Speed-up over acceptance for each cap, alone and in company, with the tasks' acceptances marked."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    across = len(machines[0].concurrencies)
    figure, grid = pyplot.subplots(
        len(machines), across, figsize=(4 * across, 3.2 * len(machines)), squeeze=False, sharey=True
    )
    steps = [place / 50 for place in range(50)]
    for row, machine in zip(grid, machines, strict=True):
        for axes, concurrency in zip(row, machine.concurrencies, strict=True):
            for place, cap in enumerate(CAPS):
                line = [machine.predicted(acceptance, cap, concurrency) for acceptance in steps]
                axes.plot(steps, line, color=f"C{place}", label=f"{cap} drafted")
                points = [machine.speed_up(acceptance, cap, concurrency) for acceptance in ACCEPTANCES]
                axes.plot(ACCEPTANCES, points, "o", color=f"C{place}")
            axes.axhline(1, color="#222222", linewidth=0.8)
            axes.set_title(f"{machine.name}, {concurrency} at once", fontsize=9)
            axes.set_xlabel("acceptance of each drafted token")
            _mark(axes, tasks)
        row[0].set_ylabel("speed over plain")
    grid[0][0].legend(fontsize=7)
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "png"):
        figure.savefig(folder / f"speed-up-by-acceptance.{kind}", dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def _mark(axes: Any, tasks: Results | None) -> None:
    """Published acceptances above, those measured here below."""
    for task, (drafted, accepted) in PUBLISHED.items():
        at = acceptance_of(accepted / drafted * PUBLISHED_CAP, PUBLISHED_CAP)
        axes.annotate(
            task, (at, 0.98), xycoords=("data", "axes fraction"), rotation=90, fontsize=5, ha="center", va="top"
        )
    if tasks is None:
        return
    (part, *_) = slices(tasks)
    for task, cells in part.tasks.items():
        lane = next((lane for lane in part.break_even if "/mtp-" in lane), None)
        if lane is None or cells[lane].acceptance is None:
            continue
        draft = part.break_even[lane].draft
        at = acceptance_of((cells[lane].acceptance or 0) * draft, draft)
        _write(axes, task, at, 0.02, "bottom")


def _write(axes: Any, task: str, acceptance: float, height: float, side: str) -> None:
    axes.annotate(
        task, (acceptance, height), xycoords=("data", "axes fraction"), rotation=90, fontsize=5, ha="center", va=side
    )
