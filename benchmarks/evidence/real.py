"""Are off-policy estimates right? On the real embedded engine, where the truth can be measured.

    python -m benchmarks.evidence.real [--prompts N] [--exploration SHARE]

Each request of the bench's workload is sent three times, in random order: as routing has it, and down the plain and
the n-gram lane by name. The log of the routed ones alone gives the estimates of the two policies that never ran; the
others are what these policies really took.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import httpx2

from benchmarks.gateways import NGRAM, NGRAM_DRAFT, engine, gateway
from paceline.bench.workload import Item, shipped
from paceline.cli.common import say_in_place
from paceline.evidence.estimate import always, estimate
from paceline.evidence.usable import usable
from paceline.paths import DECISION_LOG
from paceline.records.read import entries

ROUTED, LANES = "routed", ("plain", "ngram")
MAX_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=8, help="of each task")
    parser.add_argument("--exploration", type=float, default=0.05)
    options = parser.parse_args()
    rng = Random(0)
    items = list(shipped().part(options.prompts))
    rng.shuffle(items)
    configuration = f"routing.exploration = {options.exploration}\n"
    configuration += engine("plain") + engine("ngram", *NGRAM, strategy="ngram", n_max=NGRAM_DRAFT)
    with tempfile.TemporaryDirectory() as folder:
        with gateway(configuration, Path(folder)) as running, httpx2.Client(base_url=running.url, timeout=300) as http:
            for number, item in enumerate(items):
                say_in_place(f"{number} of {len(items)} prompts")
                for way in rng.sample((ROUTED, *LANES), 1 + len(LANES)):
                    ask(http, item, way)
        found = list(entries(next(Path(folder).rglob(DECISION_LOG))))
    say_in_place("")
    tell(found)


def ask(http: httpx2.Client, item: Item, way: str) -> None:
    asked = {"max_tokens": MAX_TOKENS, "temperature": 0, "cache_prompt": False, "prompt_cache_key": f"{item.id} {way}"}
    if "response_format" not in item.fields and "tools" not in item.fields:
        asked["ignore_eos"] = True
    headers = {"x-request-id": f"{way} {item.id}", "x-paceline-learn": "yes" if way == ROUTED else "no"}
    if way != ROUTED:
        headers["x-paceline-lane"] = way
    http.post("/v1/chat/completions", json=asked | item.fields, headers=headers).raise_for_status()


def tell(found: list[dict[str, Any]]) -> None:
    took = {entry["id"]: entry["decode_s"] / entry["decode_tokens"] for entry in found if entry["decode_tokens"]}
    pairs = [(entry["id"].removeprefix(f"{ROUTED} "), one) for entry, one in usable(found)]
    pairs = [(item, one) for item, one in pairs if all(f"{lane} {item}" in took for lane in LANES)]
    used = [one for _, one in pairs]
    taken_s = sum(one.seconds for one in used)
    went = Counter(one.lane for one in used)
    print(f"{len(used)} routed requests of {len(found)}: {dict(went)}\n")
    print("| policy | estimated time over routed | 95 % interval | measured | inside | on predictions |")
    print("|---|---|---|---|---|---|")
    for lane in LANES:
        one = estimate(used, always(lane))
        truth = sum(routed.tokens * took[f"{lane} {item}"] for item, routed in pairs) / taken_s
        inside = "yes" if one.low <= truth <= one.high else "no"
        print(
            f"| always {lane} | {one.ratio:.3f} | {one.low:.3f} to {one.high:.3f} | {truth:.3f} | {inside} "
            f"| {one.on_predictions:.0%} |"
        )


if __name__ == "__main__":
    main()
