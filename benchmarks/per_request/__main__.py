"""One patched llama-server with caps per request, beside a server for each setting.

    python -m benchmarks.per_request [--rounds N] [--prompts N] [--max-tokens N]

Needs `paceline engine build`. N-gram lookup, one request after the other, greedily, nothing cached; every prompt goes
to every server in every round, in turn. Tokens/s of decoding, medians over the rounds, and the memory of each set-up.
"""

import argparse
import sys
from collections import defaultdict
from statistics import median

from benchmarks.gateways import NGRAM
from benchmarks.llama_server import LlamaServer
from benchmarks.routing.__main__ import CAPS, prompts_of
from paceline.cli.common import cache_directory
from paceline.engines.bundled_model import bundled_model
from paceline.engines.llama_cpp_build import usable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=2, help="per task")
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args()
    built = usable(cache_directory())
    if built is None:
        raise SystemExit("nothing is built; run `paceline engine build`")
    model = bundled_model(cache_directory())
    prompts = prompts_of(options.prompts, first=0)
    one = LlamaServer(built.server, model, *NGRAM)
    fixed = {0: LlamaServer(built.server, model)}
    for cap in CAPS:
        fixed[cap] = LlamaServer(built.server, model, *NGRAM[:-1], str(cap))
    ways = [(cap, server) for cap in fixed for server in ("fixed", "per request")]
    samples: dict[tuple[object, int, str], list[float]] = defaultdict(list)
    try:
        for number in range(options.rounds):
            for place, prompt in enumerate(prompts):
                for shift in range(len(ways)):
                    cap, kind = ways[(number + place + shift) % len(ways)]
                    server, fields = (one, {"speculative.n_max": cap}) if kind == "per request" else (fixed[cap], {})
                    _, timings = server.chat(prompt.text, max_tokens=options.max_tokens, ignore_eos=True, **fields)
                    samples[prompt, cap, kind].append(timings["predicted_ms"] / 1000 / (timings["predicted_n"] - 1))
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
        memory_mb = {"per request": one.memory_bytes() / 1e6}
        memory_mb["fixed"] = sum(server.memory_bytes() for server in fixed.values()) / 1e6
    finally:
        for server in (one, *fixed.values()):
            server.stop()
    taken_s = {key: median(values) for key, values in samples.items()}
    print("| tokens/s | " + " | ".join(f"{'plain' if cap == 0 else cap}: {kind}" for cap, kind in ways) + " |")
    print("|---" * (1 + len(ways)) + "|")
    for task in (*dict.fromkeys(prompt.task for prompt in prompts), None):
        some = [prompt for prompt in prompts if task in (prompt.task, None)]
        cells = [f"{len(some) / sum(taken_s[prompt, *way] for prompt in some):.1f}" for way in ways]
        print(f"| {task or 'all'} | {' | '.join(cells)} |")
    print("\nper request over fixed, median over the prompts:")
    for cap in fixed:
        ratio = median(taken_s[prompt, cap, "fixed"] / taken_s[prompt, cap, "per request"] for prompt in prompts)
        print(f"  {'plain' if cap == 0 else cap}: {ratio:.3f}")
    print(f"memory: {memory_mb['per request']:.0f} MB, {memory_mb['fixed']:.0f} MB for {len(fixed)} servers")


if __name__ == "__main__":
    main()
