"""Figures of the learning benchmark; needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def draw_regret(runs: Mapping[str, Mapping[str, Sequence[Any]]], changed_at: int, folder: Path) -> None:
    """Time beyond the oracle's, summed up over the requests: mean over the seeds, band from the 10th to the 90th
    percentile; one panel for each world."""
    figure, panels = plt.subplots(1, len(runs), figsize=(4.6 * len(runs), 4.2), layout="constrained")
    for panel, (world, policies) in zip(np.atleast_1d(panels), runs.items(), strict=True):
        fixed = {name: done for name, done in policies.items() if name.startswith("always")}
        best = min(fixed, key=lambda name: np.mean([sum(one.taken_s) for one in fixed[name]]))
        for name, done in policies.items():
            if name.startswith("always") and name not in (best, "always plain"):
                continue
            length = min(len(one.taken_s) for one in done)
            beyond = [np.subtract(one.taken_s[:length], one.oracle_s[:length]) for one in done]
            regret = np.cumsum(beyond, axis=1)
            low, high = np.percentile(regret, (10, 90), axis=0)
            label = f"{name} (best fixed)" if name == best else name
            line = panel.plot(regret.mean(axis=0), label=label, linewidth=2.2 if name == "Paceline" else 1.2)[0]
            panel.fill_between(range(len(low)), low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        panel.axvline(changed_at, color="grey", linestyle=":", linewidth=1)
        panel.set_title(world, fontsize=9)
        panel.set_xlabel("requests")
        panel.set_ylabel("regret, s")
        panel.set_ylim(bottom=0)
        panel.legend(fontsize=7)
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"learning-regret.{suffix}", dpi=110)
    plt.close(figure)
