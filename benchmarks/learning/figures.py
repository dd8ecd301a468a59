"""Figures of the learning benchmark; needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

DRAWN_EVERY = 8
"""Requests."""


def draw_regret(runs: Mapping[str, Mapping[str, Sequence[Any]]], changed_at: int, folder: Path) -> None:
    """Time beyond the oracle's, summed up over the requests: mean over the seeds, band from the 10th to the 90th
    percentile; one panel for each world."""
    columns = 3
    rows = -(-len(runs) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.8 * rows), layout="constrained", squeeze=False)
    panels = list(axes.flat)
    for panel in panels[len(runs) :]:
        panel.axis("off")
    for panel, (world, policies) in zip(panels, runs.items(), strict=False):
        fixed = {name: done for name, done in policies.items() if name.startswith("always")}
        best = min(fixed, key=lambda name: np.mean([sum(done_run.taken_s) for done_run in fixed[name]]))
        for name, done in policies.items():
            if name in fixed and name != best:
                continue
            length = min(len(done_run.taken_s) for done_run in done)
            beyond = [np.subtract(done_run.taken_s[:length], done_run.oracle_s[:length]) for done_run in done]
            regret = np.cumsum(beyond, axis=1)[:, ::DRAWN_EVERY]
            requests: Any = np.arange(regret.shape[1]) * DRAWN_EVERY
            low, high = np.percentile(regret, (10, 90), axis=0)
            label = f"{name} (best fixed)" if name == best else name
            width = 2.4 if name == "Paceline" else 1.1
            line = panel.plot(requests, regret.mean(axis=0), label=label, linewidth=width)[0]
            panel.fill_between(requests, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        panel.axvline(changed_at, color="grey", linestyle=":", linewidth=1)
        panel.set_title(world, fontsize=9)
        panel.set_xlabel("requests")
        panel.set_ylabel("regret, s")
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=7, loc="upper left")
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"learning-regret.{suffix}", dpi=110)
    plt.close(figure)
