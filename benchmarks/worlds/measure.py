"""What the world ``embedded`` draws from is measured: prompts of every task, down lanes of every cap, on the engine.

    python -m benchmarks.worlds.measure [--prompts N] [--max-tokens N]

Writes ``benchmarks/worlds/measured.json``. One request at a time, lanes interleaved, the same number of tokens.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from training.task_model.prompts import Prompt, one_of_each_instruction

from benchmarks.gateways import engine, gateway
from benchmarks.prompts import chat
from paceline.engines.llama_cpp_flags import LoadedDrafter, drafting_flags
from paceline.planning.one_model import NGRAM
from paceline.types import Strategy
from paceline.wire.client import Client

CAPS = (4, 8, 12)
OUTPUT = Path(__file__).parent / "measured.json"


def chosen_prompts(per_task: int) -> list[Prompt]:
    """The same number of prompts of each task, each of another instruction, spread over the task's instructions."""
    return [
        prompts[number * len(prompts) // per_task]
        for prompts in one_of_each_instruction().values()
        for number in range(per_task)
    ]


async def measure(url: str, prompts: list[Prompt], max_tokens: int) -> list[dict[str, object]]:
    client = Client(url)
    lanes = ["plain", *(f"ngram-{cap}" for cap in CAPS)]
    rows: list[dict[str, object]] = []
    for number, prompt in enumerate(prompts):
        for shift in range(len(lanes)):
            lane = lanes[(number + shift) % len(lanes)]
            body = json.dumps(chat(prompt.text, max_tokens) | {"cache_prompt": False}).encode()
            headers = [(b"x-paceline-lane", lane.encode())]
            async with await client.send("POST", "/v1/chat/completions", headers, body) as answer:
                timings = json.loads(await answer.read_all())["timings"]
            rows.append(
                {
                    "task": prompt.task,
                    "prompt": prompt.text,
                    "cap": 0 if lane == "plain" else int(lane.removeprefix("ngram-")),
                    "tokens": timings["predicted_n"] - 1,
                    "decode_s": round(timings["predicted_ms"] / 1000, 4),
                    "drafted": timings.get("draft_n", 0),
                    "accepted": timings.get("draft_n_accepted", 0),
                    "prompt_tokens": timings["prompt_n"],
                    "prefill_s": round(timings["prompt_ms"] / 1000, 4),
                }
            )
        print(f"{number + 1} of {len(prompts)} prompts", file=sys.stderr)
    client.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=6, help="per task")
    parser.add_argument("--max-tokens", type=int, default=128)
    options = parser.parse_args()
    configuration = engine("plain", slots=1) + "".join(
        engine(
            f"ngram-{cap}",
            *drafting_flags([LoadedDrafter(Strategy("ngram", cap), NGRAM.match_tokens)]),
            strategy="ngram",
            slots=1,
        )
        for cap in CAPS
    )
    with tempfile.TemporaryDirectory() as folder, gateway(configuration, Path(folder)) as running:
        rows = asyncio.run(measure(running.url, chosen_prompts(options.prompts), options.max_tokens))
    OUTPUT.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
