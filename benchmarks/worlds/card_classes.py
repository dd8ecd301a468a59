"""What it brings at first to know the class of the card and whether the model is a mixture of experts.

    python -m benchmarks.worlds.card_classes [--seeds N] [--requests N] [--tuning]

Paceline in the worlds of one card each, told nothing of what a drafted token costs, told its class's figure
(``paceline.planning.speed``), and told another class's. The figures come from the same public runs as the worlds, so
this shows what being right brings and being wrong costs, not how right the figures are of other cards.
"""

import argparse

import numpy as np

from benchmarks.worlds import REPORTING_SEEDS, TUNING_SEEDS
from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.policies import policy
from benchmarks.worlds.published import Floats
from benchmarks.worlds.run import run
from paceline.planning.given_devices import given_machine
from paceline.planning.speed import Experts, cost_per_drafted_token
from paceline.text_table import columns

A35B = Experts(256, 8)
WORLDS: dict[str, tuple[str, Experts | None, str]] = {
    "card-rtx-5090": ("RTX 5090", None, "M3 Ultra 96GB"),
    "card-rx-7900-xtx": ("RX 7900 XTX", None, "M3 Ultra 96GB"),
    "base": ("RTX 3090", None, "M3 Ultra 96GB"),
    "card-v100": ("V100 32GB", None, "RTX 5090"),
    "card-m3-ultra": ("M3 Ultra 96GB", None, "RTX 5090"),
    "moe-laptop": ("RTX 3060", A35B, "RTX 5090"),
}
"""World, its card and experts, and a card of another class."""
AT_FIRST = 50


def shares(world: str, drafted_token_cost: float | None, requests: int, seed: int) -> tuple[float, float]:
    """Speed over the best static lane's, in the first requests and after."""
    traffic = worlds()[world].traffic(requests, seed)
    traffic.drafted_token_cost = drafted_token_cost
    taken: Floats = run(traffic, policy("paceline"), seed)
    best = traffic.expected_s[:, traffic.expected_s.sum(axis=0).argmin()]
    return (
        float(best[:AT_FIRST].sum() / taken[:AT_FIRST].sum()),
        float(best[AT_FIRST:].sum() / taken[AT_FIRST:].sum()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--tuning", action="store_true")
    options = parser.parse_args()
    first = (TUNING_SEEDS if options.tuning else REPORTING_SEEDS).start
    rows = [("over the best static lane, requests 0-50 (50-)", "told nothing", "its class", "another class")]
    means: list[list[float]] = [[], [], []]
    for world, (gpu, experts, other) in WORLDS.items():
        told = cost_per_drafted_token(given_machine(gpu), experts)
        wrong = cost_per_drafted_token(given_machine(other))
        cells = []
        for number, drafted_token_cost in enumerate((None, told, wrong)):
            found = np.array(
                [shares(world, drafted_token_cost, options.requests, first + seed) for seed in range(options.seeds)]
            )
            error = found[:, 0].std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else 0.0
            means[number].append(float(found[:, 0].mean()))
            label = "" if drafted_token_cost is None else f"{drafted_token_cost:.2f}: "
            cells.append(f"{label}{found[:, 0].mean():.3f} ± {error:.3f} ({found[:, 1].mean():.3f})")
        rows.append((world, cells[0], cells[1], cells[2]))
    rows.append(("mean", *(f"{np.mean(values):.3f}" for values in means)))  # type: ignore[arg-type]
    print(f"{options.seeds} seeds from {first} on, {options.requests} requests each\n")
    print(columns(rows))


if __name__ == "__main__":
    main()
