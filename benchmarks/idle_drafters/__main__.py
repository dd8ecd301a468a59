"""What does a loaded drafter cost a request that does not use it?

    python -m benchmarks.idle_drafters [--drafter NAME ...] [--concurrency 1 4 8] [--rounds N] [--json FILE]

Needs `paceline engine build`, and an idle machine. Beside each server with a drafter runs one of the same model without
any, and a second one of those: what the two plain ones differ by is noise. Requests without any fields of Paceline's
would be drafted for, so these ask for no drafts, as a plain lane does. Each round sends the same requests to the three
servers, so many at once, in another order. The table has the median of rounds' quotients over the first plain server,
and a 95 % interval of it (bootstrap over rounds): of the tokens by the time of decoding, summed over requests, and of
the tokens by the time until all are answered, prompts included.

Heads are random: they are loaded and follow, which is what costs. *qwen35* is a hybrid model of random weights with a
layer for multi-token prediction (0.4b-f16 of ``benchmarks.real_size``), the others are for the bundled model.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from training.drafters.gguf_file import ModelFile
from training.drafters.models import draft_model, eagle3_head, model_with_mtp

from benchmarks.llama_server import LlamaServer, built_server
from benchmarks.prompts import BY_TASK
from benchmarks.real_size.filling import fill
from benchmarks.real_size.random_model import hollow
from benchmarks.real_size.shapes import SHAPES
from paceline.engines.bundled_model import bundled_model
from paceline.paths import cache_directory

SHAPE = "0.4b-f16"
RESAMPLES = 2000
PLAIN, AGAIN, IDLE = "plain", "plain again", "idle drafter"
DECODING, WHOLE = "decoding_tokens_per_s", "tokens_per_s"


def lookup(folder: Path, bundled: Path) -> tuple[Path, Sequence[str]]:
    return bundled, ("--spec-type", "ngram-simple", "--spec-draft-n-max", "12")


def model(folder: Path, bundled: Path) -> tuple[Path, Sequence[str]]:
    draft_model(ModelFile(bundled), folder / "draft.gguf")
    return bundled, ("--spec-type", "draft-simple", "--spec-draft-model", str(folder / "draft.gguf"))


def eagle3(folder: Path, bundled: Path) -> tuple[Path, Sequence[str]]:
    eagle3_head(ModelFile(bundled), folder / "eagle3.gguf")
    return bundled, ("--spec-type", "draft-eagle3", "--spec-draft-model", str(folder / "eagle3.gguf"))


def mtp(folder: Path, bundled: Path) -> tuple[Path, Sequence[str]]:
    model_with_mtp(ModelFile(bundled), folder / "mtp.gguf")
    return folder / "mtp.gguf", ("--spec-type", "draft-mtp", "--spec-draft-n-max", "4")


def qwen35(folder: Path, bundled: Path) -> tuple[Path, Sequence[str]]:
    path = folder / "qwen35.gguf"
    if not path.exists():
        fill(hollow(SHAPES[SHAPE], bundled, folder), path)
    return path, ("--spec-type", "draft-mtp", "--spec-draft-n-max", "4")


DRAFTERS: dict[str, Callable[[Path, Path], tuple[Path, Sequence[str]]]] = {
    "lookup": lookup,
    "draft-model": model,
    "eagle3": eagle3,
    "mtp": mtp,
    "qwen35-mtp": qwen35,
}


def speeds(server: LlamaServer, texts: Sequence[str], tokens: int, pool: ThreadPoolExecutor) -> dict[str, float]:
    """Tokens a second of one round."""

    def one(text: str) -> tuple[int, float]:
        fields: dict[str, Any] = {"max_tokens": tokens, "ignore_eos": True, "speculative.n_max": 0}
        _, timings = server.chat(text, **fields)
        assert not timings.get("draft_n"), "it was drafted for"
        return timings["predicted_n"] - 1, timings["predicted_ms"] / 1000

    begin = time.monotonic()
    answers = list(pool.map(one, texts))
    taken_s = time.monotonic() - begin
    decoded = sum(count for count, _ in answers)
    decode_s = sum(seconds for _, seconds in answers) / len(answers)
    return {DECODING: decoded / decode_s, WHOLE: decoded / taken_s}


def measure(
    servers: dict[str, LlamaServer], concurrency: int, rounds: int, tokens: int, drafter: str
) -> list[dict[str, Any]]:
    texts = [f"{number}. {text}" for number, text in zip(range(concurrency), cycle(BY_TASK.values()), strict=False)]
    samples = []
    with ThreadPoolExecutor(concurrency) as pool:
        for number in range(-1, rounds):  # the first one warms up
            names = list(servers)
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                measured = speeds(servers[name], texts, tokens, pool)
                sample = {"drafter": drafter, "concurrency": concurrency, "round": number, "server": name}
                samples += [sample | measured] if number >= 0 else []
    return samples


def show(samples: Sequence[dict[str, Any]]) -> str:
    """A row of the table: speeds over the first plain server's."""
    random = np.random.default_rng(0)
    cells = []
    for speed in (DECODING, WHOLE):
        by_server: dict[str, list[float]] = {}
        for sample in samples:
            by_server.setdefault(sample["server"], []).append(sample[speed])
        cells.append(f"{np.median(by_server[PLAIN]):.1f}")
        for name in (AGAIN, IDLE):
            quotients = np.array(by_server[name]) / np.array(by_server[PLAIN])
            drawn = np.median(quotients[random.integers(0, len(quotients), (RESAMPLES, len(quotients)))], axis=1)
            low, high = np.quantile(drawn, (0.025, 0.975))
            cells.append(f"{np.median(quotients):.3f} ({low:.3f} to {high:.3f})")
    return f"| {samples[0]['drafter']} | {samples[0]['concurrency']} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="a llama-server with Paceline's patch; by default the one that was built")
    parser.add_argument("--drafter", nargs="+", choices=DRAFTERS, default=list(DRAFTERS))
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer")
    parser.add_argument("--json", type=Path, help="add every sample to this file, one a line")
    options = parser.parse_args()
    program = options.server or built_server()
    slots = ("--parallel", str(max(options.concurrency)), "--ctx-size", str(2048 * max(options.concurrency)))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for drafter in options.drafter:
            target, flags = DRAFTERS[drafter](Path(name), bundled_model(cache_directory()))
            servers = {
                kind: LlamaServer(program, target, *slots, *(flags if kind == IDLE else ()), start_timeout_s=300)
                for kind in (PLAIN, IDLE, AGAIN)
            }
            try:
                for concurrency in options.concurrency:
                    samples = measure(servers, concurrency, options.rounds, options.tokens, drafter)
                    rows.append(show(samples))
                    print(rows[-1], file=sys.stderr)
                    if options.json:
                        with options.json.open("a") as file:
                            file.writelines(json.dumps(sample) + "\n" for sample in samples)
            finally:
                for server in servers.values():
                    server.stop()
    print(
        "| drafter | at once | decoding, tokens/s | plain again | idle drafter | whole | plain again | idle drafter |"
    )
    print("|---" * 8 + "|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
