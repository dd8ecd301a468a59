"""One patched llama-server with caps per request, beside a server for each setting.

    python -m benchmarks.per_request [--rounds N] [--prompts N] [--max-tokens N]

Needs `paceline engine build`. One request after the other, greedily, nothing cached; every prompt goes down every way
in every round, in turn. Tokens/s of decoding, medians over the rounds, and the memory of each set-up.

- *fixed*: servers of the same build, started plain and with n-gram lookup of 4, 8 and 12 tokens
- *by request*: one server with n-gram lookup of 12, asked for no drafts, and for 4, 8 and 12; and for 12 with the guard
  against drafts that don't pay (``min_yield``)
- *draft model*: a server with a draft model loaded, asked for no drafts
"""

import argparse
import sys
from collections import defaultdict
from statistics import median
from typing import Any, NamedTuple

from training.task_model.prompts import Prompt

from benchmarks.gateways import NGRAM, NGRAM_DRAFT
from benchmarks.llama_server import LlamaServer, built_server
from benchmarks.routing.__main__ import CAPS, prompts_of
from paceline.engines.bundled_model import bundled_model
from paceline.paths import cache_directory

MIN_YIELD = 4.0
"""About what the router sends: a step that verifies 12 tokens costs 5.2 plain ones here."""


class Way(NamedTuple):
    name: str
    server: LlamaServer
    fields: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=1, help="per task")
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args()
    program = built_server()
    model = bundled_model(cache_directory())
    prompts = prompts_of(options.prompts, first=0)
    plain = LlamaServer(program, model)
    fixed = {cap: LlamaServer(program, model, *NGRAM[:-1], str(cap)) for cap in CAPS}
    by_request = LlamaServer(program, model, *NGRAM)
    drafting = LlamaServer(program, model, "--spec-type", "draft-simple", "--spec-draft-model", str(model))
    none = {"speculative.n_max": 0}
    ways = [
        Way("fixed: plain", plain, {}),
        Way("by request: 0", by_request, none),
        Way("draft model: 0", drafting, none),
    ]
    for cap in CAPS:
        ways += [
            Way(f"fixed: {cap}", fixed[cap], {}),
            Way(f"by request: {cap}", by_request, {"speculative.n_max": cap}),
        ]
    guarded = {"speculative.n_max": NGRAM_DRAFT, "speculative.min_yield": MIN_YIELD}
    ways.append(Way(f"by request: {NGRAM_DRAFT}, guarded", by_request, guarded))
    samples: dict[tuple[Prompt, str], list[float]] = defaultdict(list)
    try:
        for number in range(options.rounds):
            for place, prompt in enumerate(prompts):
                for shift in range(len(ways)):
                    way = ways[(number + place + shift) % len(ways)]
                    asked = {"max_tokens": options.max_tokens, "ignore_eos": True} | way.fields
                    _, timings = way.server.chat(prompt.text, **asked)
                    seconds = timings["predicted_ms"] / 1000 / (timings["predicted_n"] - 1)
                    samples[prompt, way.name].append(seconds)
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
        one_mb = by_request.memory_bytes() / 1e6
        fixed_mb = sum(server.memory_bytes() for server in (plain, *fixed.values())) / 1e6
    finally:
        for server in (plain, by_request, drafting, *fixed.values()):
            server.stop()
    taken_s = {key: median(values) for key, values in samples.items()}
    print("| tokens/s | " + " | ".join(way.name for way in ways) + " |")
    print("|---" * (1 + len(ways)) + "|")
    for task in (*dict.fromkeys(prompt.task for prompt in prompts), None):
        alike = [prompt for prompt in prompts if task in (prompt.task, None)]
        cells = [f"{len(alike) / sum(taken_s[prompt, way.name] for prompt in alike):.1f}" for way in ways]
        print(f"| {task or 'all'} | {' | '.join(cells)} |")
    print("\nspeed of the first over the second, median over the prompts:")
    for first, second in (
        *(("by request: 0", "fixed: plain"), ("draft model: 0", "fixed: plain")),
        *((f"by request: {cap}", f"fixed: {cap}") for cap in CAPS),
        (ways[-1].name, "fixed: plain"),
    ):
        print(f"  {first} / {second}: {median(taken_s[p, second] / taken_s[p, first] for p in prompts):.3f}")
    print(f"memory: {one_mb:.0f} MB by request, {fixed_mb:.0f} MB for {1 + len(fixed)} fixed servers")


if __name__ == "__main__":
    main()
