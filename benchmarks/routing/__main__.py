"""Is routing faster than each fixed lane on mixed requests?

    python -m benchmarks.routing [--rounds N] [--max-tokens N]

One client, one request after the other, all decoding the same number of tokens; every round sends every prompt down
every lane and through the routing, in turn. Tokens/s of decoding, as the engine reports it; medians over the rounds.
The oracle takes for each prompt the lane whose median is best.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from benchmarks.gateways import NGRAM, engine, gateway
from benchmarks.prompts import BY_TASK, chat
from paceline.http_client import Client

WAYS = ("plain", "ngram", "routed")


async def seconds_per_token(client: Client, prompt: str, way: str, max_tokens: int) -> tuple[float, str]:
    """Of the decoding, and the lane that served."""
    headers = [] if way == "routed" else [(b"x-paceline-lane", way.encode())]
    body = json.dumps(chat(prompt, max_tokens)).encode()
    async with await client.send("POST", "/v1/chat/completions", headers, body) as answer:
        timings = json.loads(await answer.read_all())["timings"]
        lane = answer.header(b"x-paceline-lane") or b""
    return timings["predicted_ms"] / 1000 / (timings["predicted_n"] - 1), lane.decode()


async def measure(url: str, rounds: int, max_tokens: int) -> tuple[dict[tuple[str, str], float], dict[str, str]]:
    client = Client(url)
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    routed_to: dict[str, str] = {}
    for number in range(rounds + 1):
        for task, prompt in BY_TASK.items():
            for shift in range(len(WAYS)):
                way = WAYS[(number + shift) % len(WAYS)]
                taken_s, lane = await seconds_per_token(client, prompt, way, max_tokens)
                if number:  # the first round warms up
                    samples[task, way].append(taken_s)
                if way == "routed":
                    routed_to[task] = lane
        print(f"round {number} of {rounds} done", file=sys.stderr)
    client.close()
    return {key: median(values) for key, values in samples.items()}, routed_to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=160)
    options = parser.parse_args()
    configuration = engine("plain") + engine("ngram", *NGRAM, strategy="ngram")
    with tempfile.TemporaryDirectory() as folder, gateway(configuration, Path(folder)) as running:
        taken_s, routed_to = asyncio.run(measure(running.url, options.rounds, options.max_tokens))
    print("| tokens/s | plain | n-gram | routed | routed to |")
    print("|---|---|---|---|---|")
    for task in BY_TASK:
        cells = " | ".join(f"{1 / taken_s[task, way]:.0f}" for way in WAYS)
        print(f"| {task} | {cells} | {routed_to[task]} |")
    mix = {way: len(BY_TASK) / sum(taken_s[task, way] for task in BY_TASK) for way in WAYS}
    print(f"| all, weighted by tokens | {' | '.join(f'{mix[way]:.0f}' for way in WAYS)} | |")
    oracle = len(BY_TASK) / sum(min(taken_s[task, "plain"], taken_s[task, "ngram"]) for task in BY_TASK)
    best_fixed = max(mix["plain"], mix["ngram"])
    print(
        f"\nrouted: {mix['routed'] / best_fixed:.2f} of the best fixed lane, {mix['routed'] / oracle:.2f} of the oracle"
    )


if __name__ == "__main__":
    main()
