"""Two lanes on one CPU: taking turns, against sharing out the threads, against one plain server.

    python -m benchmarks.device_sharing [--rounds N] [--requests N]

Total tokens/s over a mixed list of requests, by number of clients. Every round measures every set-up once at every
number of clients; the figures are medians over the rounds, and their ratio to one plain server in the same round.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.gateways import NGRAM, NGRAM_DRAFT, engine, gateway
from benchmarks.prompts import BY_TASK, chat
from paceline.wire.client import Client

MAX_TOKENS = 96
BASE = "one plain server"


def setups() -> dict[str, str]:
    cores = os.cpu_count() or 1
    share = max(1, cores // 2)
    together = '[[device]]\nname = "cpu"\nsharing = "together"\n'
    return {
        BASE: engine("plain"),
        "one n-gram server": engine("ngram", *NGRAM, strategy="ngram", n_max=NGRAM_DRAFT),
        "two lanes, turns": engine("plain") + engine("ngram", *NGRAM, strategy="ngram", n_max=NGRAM_DRAFT),
        f"two lanes, {share} of {cores} threads each": together
        + engine("plain", threads=share)
        + engine("ngram", *NGRAM, strategy="ngram", n_max=NGRAM_DRAFT, threads=share),
        "two lanes, all threads each": together
        + engine("plain")
        + engine("ngram", *NGRAM, strategy="ngram", n_max=NGRAM_DRAFT),
    }


async def throughput(url: str, clients: int, requests: int) -> float:
    """Tokens/s of all clients together, from the first request's start to the last answer's end."""
    prompts = list(BY_TASK.values())
    bodies = iter([json.dumps(chat(prompts[i % len(prompts)], MAX_TOKENS)).encode() for i in range(requests)])
    client = Client(url)
    tokens = 0

    async def run() -> None:
        nonlocal tokens
        for body in bodies:
            status, answer = await client.fetch("POST", "/v1/chat/completions", body=body, timeout_s=120)
            assert status == 200, answer
            tokens += json.loads(answer)["usage"]["completion_tokens"]

    started = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(clients)))
    elapsed = time.perf_counter() - started
    client.close()
    return tokens / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16, help="of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--only", nargs="+", default=[], help="set-ups whose names hold one of these words")
    parser.add_argument("--with-collapse", action="store_true", help="measure all threads each too; takes minutes")
    options = parser.parse_args()
    results: dict[tuple[str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        configurations = setups()
        if not options.with_collapse:
            configurations.pop("two lanes, all threads each")
        chosen = [name for name in configurations if name == BASE or any(word in name for word in options.only)]
        if options.only:
            configurations = {name: configurations[name] for name in chosen}
        urls = {name: stack.enter_context(gateway(text, Path(folder))).url for name, text in configurations.items()}
        for url in urls.values():
            asyncio.run(throughput(url, 1, 2))
        for number in range(options.rounds):
            for clients in options.clients:
                for name, url in urls.items():
                    results[name, clients].append(asyncio.run(throughput(url, clients, options.requests)))
            print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    print(f"| tokens/s (ratio to {BASE}) | " + " | ".join(f"{clients} clients" for clients in options.clients) + " |")
    print("|---" * (len(options.clients) + 1) + "|")
    for name in urls:
        cells = []
        for clients in options.clients:
            ratios = [own / base for own, base in zip(results[name, clients], results[BASE, clients], strict=True)]
            cells.append(f"{median(results[name, clients]):.0f} ({median(ratios):.2f})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
