"""A thousand routers with ten thousand requests a second each: how fast a change is known everywhere.

    python -m benchmarks.scale.simulation [--routers N] [--seed N] [--json FILE]

Simulated in steps of 0.25 s, with numpy. Each of many groups of requests (an application with a task) has two lanes, of
which one is used and the other tried now and then. All routers observe times with noise; what they know is, by group
and lane, a weight and a weighted sum, bounded so that old times give way to new ones. In the middle, the lane that is
used becomes slow on all engines at once. A router has understood when it uses the other lane.

What routers tell each other travels as it does in the program: each adds up what it observed, puts it into the store
every interval, and reads there what others put in. Bytes and processor time are those that benchmarks.scale.costs
measures, times the messages that the simulation counts.

Ways to share:
  alone     nobody tells anybody
  one store all put into and read from one store; the interval grows with their number, so that each reads at most 64
            messages a second
  groups    stores of 32 routers each, which learn apart from each other
  tree      stores of 32 routers each; one router of each puts what its group learned into a store above, and what the
            others learned into that of its group. Not built; it shows what could be gained
"""

import argparse
import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STEP_S = 0.25
CHANGE_S = 60.0
END_S = 360.0
REQUESTS_PER_S = 10_000.0
"""Of one router."""
GROUPS = 40
RAREST = 0.03
"""Requests of the rarest group, of all routers a second. Each group comes some 0.6 times as often as the one before it.
A guess: most traffic comes from a few programs."""
NOISE = 0.35
"""Standard deviation of a time's logarithm within a group. In the decision's published worlds 0.2 to 0.5."""
MEMORY = 200.0
"""Requests that knowledge of a lane stands for at most: older ones give way. The decision forgets variances within 100
and shares of lanes within 1,000 requests."""
BEFORE, OTHER, AFTER = 1.0, 1.15, 1.5
"""Time for a token of the lane that is used, of the other one, and of the first after the change."""
TRIED = 0.01
"""Share of a group's requests that are tried elsewhere, of all routers that learn together."""
PEERS_AT_INTERVAL, INTERVAL_S = 64, 1.0
"""As in the program: up to so many others, each looks into the store every interval; with more, less often."""
GROUP_SIZE = 32
STORE_S = 0.002
"""For a message to be in the store, and for one to be read: a network's way within a site."""
FREQUENCIES = (1000.0, 100.0, 10.0)
"""Of requests of all routers a second, the groups that are told of."""
Floats = NDArray[np.float64]


class Costs(NamedTuple):
    """Of one message, as measured."""

    bytes: float
    make_ms: float
    learn_ms: float


@dataclass
class Fault:
    """What goes wrong meanwhile."""

    name: str = "none"
    cut_off: float = 0.0
    """Share of routers that can't reach the store from the change on."""
    cut_off_s: float = 0.0
    restarts_per_s: float = 0.0
    """Of all routers, those that start again and have forgotten everything."""
    with_snapshot: bool = True
    """Whether such a one begins with what the store's snapshot holds."""


class Knowledge:
    """Weights and weighted sums of logarithms, by router (or store), group and lane."""

    def __init__(self, owners: int, groups: int) -> None:
        self.weight: Floats = np.zeros((owners, groups, 2))
        self.sums: Floats = np.zeros((owners, groups, 2))

    def add(self, weight: Floats, sums: Floats) -> None:
        """Newer observations; older ones give way."""
        total = self.weight + weight
        kept = np.where(total > MEMORY, np.maximum(MEMORY - weight, 0.0) / np.maximum(self.weight, 1e-12), 1.0)
        new = np.minimum(weight, MEMORY) / np.maximum(weight, 1e-12)
        kept = np.minimum(kept, 1.0)
        self.weight = kept * self.weight + new * weight
        self.sums = kept * self.sums + new * sums

    def mean(self) -> Floats:
        """Of the logarithm; what is unknown is taken to be as it was at the beginning."""
        prior = np.log([BEFORE, OTHER])
        return (self.sums + prior) / (self.weight + 1.0)


def simulate(way: str, routers: int, fault: Fault, costs: Costs, seed: int) -> dict[str, Any]:
    """Of one way to share."""
    random = np.random.default_rng(seed)
    per_s = frequencies(routers)
    size = {"alone": 1, "one store": routers, "groups": GROUP_SIZE, "tree": GROUP_SIZE}[way]
    stores = ceil(routers / size)
    store_of = np.arange(routers) // size
    peers = size - 1
    interval_s = INTERVAL_S * max(1.0, peers / PEERS_AT_INTERVAL)
    period = max(1, round(interval_s / STEP_S))
    phase = random.integers(0, period, routers)
    above_period = max(1, round(INTERVAL_S * max(1.0, (stores - 1) / PEERS_AT_INTERVAL) / STEP_S))
    known = Knowledge(routers, GROUPS)
    # What was observed and not told, what each store has taken in since each member looked, and the same of the tree.
    own = np.zeros((2, routers, GROUPS, 2))
    taken = np.zeros((2, stores, GROUPS, 2))
    read = np.zeros((2, routers, GROUPS, 2))
    above = np.zeros((2, GROUPS, 2))
    above_read, above_told = np.zeros((2, stores, GROUPS, 2)), np.zeros((2, stores, GROUPS, 2))
    from_above = np.zeros((2, stores, GROUPS, 2))
    cut = random.random(routers) < fault.cut_off
    tried = TRIED / size
    understood_s = np.full((routers, GROUPS), np.inf)
    lost = best_total = 0.0
    messages_out = messages_in = 0.0
    share = per_s / routers
    for step in range(round(END_S / STEP_S)):
        now_s = step * STEP_S
        has_changed = now_s >= CHANGE_S
        times = np.log([AFTER if has_changed else BEFORE, OTHER])
        # 1. Decide: the lane that is known as the faster one, the other one now and then.
        first_is_used = known.mean()[:, :, 0] <= known.mean()[:, :, 1]
        chosen = np.where(first_is_used, 1.0 - tried, tried)
        rates = STEP_S * share[:, None] * np.stack([chosen, 1.0 - chosen], axis=2)
        if has_changed:
            understood_s = np.where(~first_is_used & np.isinf(understood_s), now_s - CHANGE_S, understood_s)
            understood_s = np.where(first_is_used, np.inf, understood_s)
            spent = (chosen * AFTER + (1.0 - chosen) * OTHER) @ share
            lost += STEP_S * float(spent.sum() - routers * share.sum() * OTHER)
            best_total += STEP_S * routers * float(share.sum()) * OTHER
        # 2. Observe.
        counts = random.poisson(rates).astype(float)
        sums = counts * times + np.sqrt(counts) * NOISE * random.standard_normal(counts.shape)
        known.add(counts, sums)
        if way == "alone":
            continue
        own[0] += counts
        own[1] += sums
        # 3. Tell and learn, each in its turn.
        is_cut = cut & (CHANGE_S <= now_s < CHANGE_S + fault.cut_off_s)
        turn = ((step + phase) % period == 0) & ~is_cut
        if turn.any():
            for store in np.unique(store_of[turn]):
                members = turn & (store_of == store)
                taken[:, store] += own[:, members].sum(axis=1)
            heard = taken[:, store_of[turn]] + from_above[:, store_of[turn]] - read[:, turn] - own[:, turn]
            read[:, turn] = taken[:, store_of[turn]] + from_above[:, store_of[turn]]
            more = Knowledge(int(turn.sum()), GROUPS)
            more.weight, more.sums = known.weight[turn], known.sums[turn]
            more.add(np.maximum(heard[0], 0.0), heard[1])
            known.weight[turn], known.sums[turn] = more.weight, more.sums
            own[:, turn] = 0.0
            messages_out += int(turn.sum())
            messages_in += int(turn.sum()) * (peers + (way == "tree"))
        # 4. Between groups.
        if way == "tree" and step % above_period == 0:
            news = taken - above_told
            above += news.sum(axis=1)
            above_told = taken.copy()
            from_above += above[:, None] - above_read - news
            above_read = np.broadcast_to(above[:, None], above_read.shape).copy()
            messages_in += stores * (stores - 1)
            messages_out += 2 * stores
        # 5. Start again.
        if fault.restarts_per_s and has_changed:
            gone = random.random(routers) < fault.restarts_per_s * STEP_S
            if gone.any():
                alive = np.flatnonzero(~gone)
                for router in np.flatnonzero(gone):
                    mates = alive[store_of[alive] == store_of[router]]
                    source = int(random.choice(mates)) if fault.with_snapshot and len(mates) else None
                    known.weight[router] = known.weight[source] if source is not None else 0.0
                    known.sums[router] = known.sums[source] if source is not None else 0.0
                    own[:, router] = 0.0
                    read[:, router] = read[:, source] if source is not None else taken[:, store_of[router]]
    seconds = END_S
    delay_s = 2 * STORE_S
    shown = {}
    for frequency in FREQUENCIES:
        group = int(np.argmin(np.abs(np.log(per_s / frequency))))
        when = np.sort(understood_s[:, group]) + delay_s
        shown[f"{frequency:g}"] = {
            "requests_per_s": float(per_s[group]),
            **{f"known_{int(100 * part)}_s": _finite(when[ceil(part * routers) - 1]) for part in (0.5, 0.99, 1.0)},
            "routers": float(np.isfinite(when).mean()),
        }
    return {
        "way": way,
        "fault": fault.name,
        "interval_s": interval_s if way != "alone" else None,
        "groups": shown,
        "lost_percent": 100 * lost / best_total,
        "kB_in_per_s": messages_in / routers / seconds * costs.bytes / 1e3,
        "kB_out_per_s": messages_out / routers / seconds * costs.bytes / 1e3,
        "cpu_percent": (messages_in * costs.learn_ms + messages_out * costs.make_ms) / routers / seconds / 10,
        "store_MB_per_s": (messages_in + messages_out) / stores / seconds * costs.bytes / 1e6,
    }


def frequencies(routers: int) -> Floats:
    """Requests of all routers a second, by group, the most frequent first."""
    total = routers * REQUESTS_PER_S
    relative: Floats = np.geomspace(0.4 * total, RAREST, GROUPS)
    shares: Floats = relative * total / relative.sum()
    return shares


def _finite(seconds: float) -> float | None:
    return float(seconds) if np.isfinite(seconds) else None


WAYS = ("alone", "groups", "one store", "tree")
FAULTS = (
    Fault("a third cut off for 120 s", cut_off=1 / 3, cut_off_s=120.0),
    Fault("1 % start again each minute, with the snapshot", restarts_per_s=0.01 / 60),
    Fault("1 % start again each minute, knowing nothing", restarts_per_s=0.01 / 60, with_snapshot=False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--costs", type=Path, required=True, help="what benchmarks.scale.costs has written")
    parser.add_argument("--lanes", type=int, default=6, help="of the router whose costs count")
    parser.add_argument("--json", type=Path, help="where the result is written")
    options = parser.parse_args()
    measured = next(one for one in json.loads(options.costs.read_text())["routers"] if one["lanes"] == options.lanes)
    delta = measured["deltas"][-1]
    costs = Costs(delta["bytes"], delta["make_ms"], delta["learn_ms"])
    results = [simulate(way, options.routers, Fault(), costs, options.seed) for way in WAYS]
    results += [
        simulate(way, options.routers, fault, costs, options.seed) for fault in FAULTS for way in ("one store", "tree")
    ]
    print(f"{options.routers} routers, {options.routers * REQUESTS_PER_S:,.0f} requests/s; a message of {costs}\n")
    heads = " | ".join(f"{frequency:g}/s: 50 %, 99 %, all" for frequency in FREQUENCIES)
    print(f"| | fault | {heads} | time lost | in, out | store | processor |")
    print(f"|---|---|{'---|' * len(FREQUENCIES)}---|---|---|---|")
    for result in results:
        cells = [
            ", ".join(_shown(of_group[f"known_{part}_s"]) for part in (50, 99, 100))
            for of_group in result["groups"].values()
        ]
        print(
            f"| {result['way']} | {result['fault']} | {' | '.join(cells)} | {result['lost_percent']:.2f} % "
            f"| {result['kB_in_per_s']:.0f}, {result['kB_out_per_s']:.1f} kB/s | {result['store_MB_per_s']:.1f} MB/s "
            f"| {result['cpu_percent']:.0f} % |"
        )
    if options.json:
        options.json.write_text(json.dumps({"costs": costs._asdict(), "results": results}, indent=1) + "\n")


def _shown(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


if __name__ == "__main__":
    main()
