"""Is routing faster than each fixed lane on mixed requests?

    python -m benchmarks.routing [--per-request] [--rounds N] [--prompts N] [--max-tokens N]

One client, one request after the other, all decoding the same number of tokens, greedily. The gateway starts knowing
nothing, and first gets other prompts of the same tasks, routed, to learn from. Then every round sends every prompt down
every lane and through the routing, in turn. Tokens/s of decoding, as the engine reports it; medians over the rounds.
The oracle takes for each prompt the lane whose median is best. No request belongs to a conversation seen before.

Two engines, a plain and an n-gram one; with ``--per-request`` one, which `paceline engine build` has made, with a lane
for each of several caps.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from training.task_model.prompts import Prompt, one_of_each_instruction

from benchmarks.gateways import NGRAM, NGRAM_DRAFT, engine, gateway
from benchmarks.llama_server import built_server
from benchmarks.prompts import chat
from paceline.wire.client import Client

ROUTED = "routed"
CAPS = (4, 8, NGRAM_DRAFT)


def prompts_of(per_task: int, first: int) -> list[Prompt]:
    """So many prompts of each task, each of another instruction, from the ``first``-th on; the tasks in turn."""
    by_task = one_of_each_instruction()
    stride = 7  # neighbours in a file are alike
    return [
        prompts[(first + number) * stride % len(prompts)] for number in range(per_task) for prompts in by_task.values()
    ]


class Asker:
    def __init__(self, client: Client, max_tokens: int) -> None:
        self._client = client
        self._max_tokens = max_tokens
        self._asked = 0

    async def seconds_per_token(self, prompt: Prompt, way: str) -> tuple[float, str]:
        """Of the decoding, and the lane that served."""
        self._asked += 1
        headers = [] if way == ROUTED else [(b"x-paceline-lane", way.encode())]
        body = chat(prompt.text, self._max_tokens) | {"prompt_cache_key": str(self._asked)}
        async with await self._client.send(
            "POST", "/v1/chat/completions", headers, json.dumps(body).encode()
        ) as answer:
            timings = json.loads(await answer.read_all())["timings"]
            lane = answer.header(b"x-paceline-lane") or b""
        return timings["predicted_ms"] / 1000 / (timings["predicted_n"] - 1), lane.decode()


async def measure(
    url: str, teaching: Sequence[Prompt], prompts: Sequence[Prompt], ways: Sequence[str], rounds: int, max_tokens: int
) -> tuple[dict[tuple[Prompt, str], float], dict[str, Counter[str]]]:
    client = Client(url)
    asker = Asker(client, max_tokens)
    for prompt in teaching:
        await asker.seconds_per_token(prompt, ROUTED)
    print(f"{len(teaching)} requests to learn from", file=sys.stderr)
    samples: dict[tuple[Prompt, str], list[float]] = defaultdict(list)
    routed_to: dict[str, Counter[str]] = defaultdict(Counter)
    for number in range(rounds):
        for place, prompt in enumerate(prompts):
            for shift in range(len(ways)):
                way = ways[(number + place + shift) % len(ways)]
                taken_s, lane = await asker.seconds_per_token(prompt, way)
                samples[prompt, way].append(taken_s)
                if way == ROUTED:
                    routed_to[prompt.task][lane] += 1
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    client.close()
    return {key: median(values) for key, values in samples.items()}, routed_to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=2, help="per task")
    parser.add_argument("--teaching", type=int, default=4, help="prompts per task to learn from before")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--per-request", action="store_true", help="one engine that takes its strategy by request")
    options = parser.parse_args()
    prompts = prompts_of(options.prompts, first=0)
    teaching = prompts_of(options.teaching, first=options.prompts)
    if options.per_request:
        configuration = engine("llama", *NGRAM, strategy="ngram", n_max=NGRAM_DRAFT, program=built_server())
        configuration += f"caps = {list(CAPS)}\n"
    else:
        configuration = engine("plain") + engine("ngram", *NGRAM, strategy="ngram", n_max=NGRAM_DRAFT)
    with tempfile.TemporaryDirectory() as folder, gateway(configuration, Path(folder)) as running:
        with urllib.request.urlopen(f"{running.url}/paceline/lanes") as answer:
            lanes = [lane["lane"] for lane in json.load(answer)["lanes"]]
        ways = [*lanes, ROUTED]
        taken_s, routed_to = asyncio.run(
            measure(running.url, teaching, prompts, ways, options.rounds, options.max_tokens)
        )
    print(f"| tokens/s | {' | '.join(ways)} | oracle | routed to |")
    print("|---" * (len(ways) + 3) + "|")
    best = {prompt: min(taken_s[prompt, lane] for lane in lanes) for prompt in prompts}
    for task in dict.fromkeys(prompt.task for prompt in prompts):
        alike = [prompt for prompt in prompts if prompt.task == task]
        cells = [len(alike) / sum(taken_s[prompt, way] for prompt in alike) for way in ways]
        cells.append(len(alike) / sum(best[prompt] for prompt in alike))
        lanes_taken = ", ".join(f"{lane.rpartition('/')[2]} {count}" for lane, count in routed_to[task].most_common())
        print(f"| {task} | {' | '.join(f'{cell:.0f}' for cell in cells)} | {lanes_taken} |")
    mix = {way: len(prompts) / sum(taken_s[prompt, way] for prompt in prompts) for way in ways}
    oracle = len(prompts) / sum(best.values())
    print(f"| all, weighted by tokens | {' | '.join(f'{mix[way]:.1f}' for way in ways)} | {oracle:.1f} | |")
    best_lane = max(lanes, key=mix.__getitem__)
    print(
        f"\nrouted: {mix[ROUTED] / mix[best_lane]:.3f} of the best fixed lane ({best_lane}), "
        f"{mix[ROUTED] / oracle:.3f} of the oracle, {mix[ROUTED] / mix[lanes[0]]:.2f} of plain"
    )


if __name__ == "__main__":
    main()
