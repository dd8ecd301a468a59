"""What does control per step bring on the real engine, and a prior to it; and what do stories lose by it?

    python -m benchmarks.control [--quantization q8|f16] [--prompts N] [--stories N] [--tokens N] [--json FILE]

Needs `paceline engine build`. The bundled model beside a lookup and a draft model (its own first layers: dear, and
seldom right), one request at a time, greedily, nothing cached. A gateway first learns from other prompts of the same
tasks. Then each prompt goes down all ways, straight to the server:

- *plain*; *static*: a lookup of at most 2, 4, 8 and 12 tokens, and drafts of 2 by the model. The *oracle* takes the
  best of these for each request in hindsight
- *control with a prior*: what the gateway would send for this prompt
- *control without a prior*: the same costs, but what is usual of lookups, and of the model half accepted
- *lookup, control with a prior*: the same without the model

Stories are told apart: few of their drafts pay. Take an idle machine.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from msgspec import Struct
from msgspec.structs import asdict
from training.drafters.gguf_file import ModelFile, converted, write
from training.drafters.models import draft_model
from training.task_model.prompts import Prompt, one_of_each_instruction

from benchmarks.gateways import NGRAM, gateway
from benchmarks.llama_server import LlamaServer, built_server
from benchmarks.routing.__main__ import prompts_of
from benchmarks.the_finding.__main__ import QUANTIZATIONS
from paceline.engines.bundled_model import bundled_model
from paceline.inside.draft_control import LOOKUP
from paceline.paths import cache_directory

NGRAM_TYPE, MODEL_TYPE = "ngram-simple", "draft-simple"
LOOKUPS, DRAFTS, LONGEST_DRAFT = (2, 4, 8, 12), (2,), 4
CONTROL, TYPES, N_MAX = "speculative.control", "speculative.types", "speculative.n_max"
PLAIN, WITH_PRIOR, WITHOUT_PRIOR = "plain", "control with a prior", "control without a prior"
LOOKUP_ALONE = "lookup, control with a prior"
UNKNOWN = (0.5, 0.45, 0.4)
STORY = "story"
TELLS = "x-control"
"""A header of requests for which the gateway is asked what it would tell the control of all drafters."""
SHORT_TOKENS = 80


class Sample(Struct, frozen=True, kw_only=True):
    """One answer."""

    quantization: str
    task: str
    prompt: int
    way: str
    tokens: int
    decode_s: float
    drafted: int
    accepted: int
    steps: int
    """That verified a draft."""


def static_ways() -> dict[str, dict[str, Any]]:
    ways: dict[str, dict[str, Any]] = {PLAIN: {N_MAX: 0}}
    ways |= {f"lookup {cap}": {TYPES: NGRAM_TYPE, N_MAX: cap} for cap in LOOKUPS}
    return ways | {f"model {cap}": {TYPES: MODEL_TYPE, N_MAX: cap} for cap in DRAFTS}


def controls(told: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Ways with a control, from what the gateway tells of its drafters for a request."""
    fields = ("costs", "acceptance", "by_match", "weight")
    known = {
        name: {key: told[kind][key] for key in fields if told[kind].get(key)}
        for kind, name in (("ngram", NGRAM_TYPE), ("draft", MODEL_TYPE))
    }
    costs = {name: {"costs": one["costs"]} for name, one in known.items()}
    usual = {
        NGRAM_TYPE: costs[NGRAM_TYPE] | {"by_match": {str(match): list(one) for match, one in LOOKUP.items()}},
        MODEL_TYPE: costs[MODEL_TYPE] | {"acceptance": list(UNKNOWN)},
    }
    return {
        WITH_PRIOR: {CONTROL: known},
        WITHOUT_PRIOR: {CONTROL: usual},
        LOOKUP_ALONE: {CONTROL: {NGRAM_TYPE: known[NGRAM_TYPE]}},
    }


def asked_of(per_task: int, stories: int) -> list[Prompt]:
    every = [prompt for prompt in one_of_each_instruction()["create"] if "story" in prompt.text.lower()]
    return [Prompt(STORY, each.text, each.instruction) for each in every[:stories]] + prompts_of(per_task, first=0)


def measure(server: LlamaServer, url: str, asked: Sequence[Prompt], tokens: int, quantization: str) -> Iterator[Sample]:
    for number, prompt in enumerate(asked):
        body = {"messages": [{"role": "user", "content": prompt.text}], "max_tokens": tokens, "temperature": 0}
        document = httpx2.post(
            f"{url}/paceline/explain/v1/chat/completions",
            json=body,
            headers={TELLS: "yes"},
            timeout=60,
            trust_env=False,
        ).json()["decision"]
        ways = list((static_ways() | controls(document["control"])).items())
        for place in range(len(ways)):
            name, fields = ways[(place + number) % len(ways)]
            _, timings = server.chat(prompt.text, max_tokens=tokens, ignore_eos=True, **fields)
            yield Sample(
                quantization=quantization,
                task=prompt.task,
                prompt=number,
                way=name,
                tokens=timings["predicted_n"] - 1,
                decode_s=timings["predicted_ms"] / 1000,
                drafted=timings.get("draft_n", 0),
                accepted=timings.get("draft_n_accepted", 0),
                steps=timings.get("draft_n_steps", 0),
            )
        print(f"{quantization}: {number + 1} of {len(asked)} prompts", file=sys.stderr)


def show(samples: Sequence[Sample]) -> None:
    taken: dict[str, dict[int, list[float]]] = {}
    for sample in samples:
        taken.setdefault(sample.way, {}).setdefault(sample.prompt, []).append(sample.decode_s / sample.tokens)
    times = {way: {prompt: float(np.median(one)) for prompt, one in found.items()} for way, found in taken.items()}
    tasks = {sample.prompt: sample.task for sample in samples}
    times["oracle"] = {prompt: min(times[way][prompt] for way in static_ways()) for prompt in tasks}
    print(f"\n| speed over plain | {' | '.join(times)} |\n{'|---' * (len(times) + 1)}|")
    groups = {
        task: [number for number, each in tasks.items() if each == task] for task in dict.fromkeys(tasks.values())
    }
    groups["all but stories"] = [number for number, task in tasks.items() if task != STORY]
    for name, numbers in groups.items():
        cells = [
            sum(times[PLAIN][number] for number in numbers) / sum(found[number] for number in numbers)
            for found in times.values()
        ]
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    for way in (WITH_PRIOR, WITHOUT_PRIOR, LOOKUP_ALONE):
        numbers = groups["all but stories"]
        share = sum(times["oracle"][number] for number in numbers) / sum(times[way][number] for number in numbers)
        stories = [times[PLAIN][number] / times[way][number] for number in groups.get(STORY, [])]
        of_stories = f"; stories {np.mean(stories):.3f} of plain, the slowest {min(stories):.3f}" if stories else ""
        print(f"- {way}: {share:.3f} of the oracle{of_stories}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quantization", choices=QUANTIZATIONS, default="q8")
    parser.add_argument("--prompts", type=int, default=1, help="of each task")
    parser.add_argument("--stories", type=int, default=12)
    parser.add_argument("--teaching", type=int, default=2, help="prompts of each task to learn from before")
    parser.add_argument("--tokens", type=int, default=SHORT_TOKENS)
    parser.add_argument("--json", type=Path, help="add every sample to this file, one a line")
    options = parser.parse_args()
    program = built_server()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        target, beside = folder / "target.gguf", folder / "draft.gguf"
        of_kind = converted(ModelFile(bundled_model(cache_directory())), QUANTIZATIONS[options.quantization])
        write(target, of_kind.architecture, of_kind, {}, of_kind.tensors)
        draft_model(of_kind, beside)
        types = ("--spec-type", f"{NGRAM_TYPE},{MODEL_TYPE}", "--spec-draft-model", str(beside))
        flags = (*types, *NGRAM[2:], "--spec-draft-n-max", str(LONGEST_DRAFT), "--parallel", "1")
        server = LlamaServer(program, target, *flags)
        try:
            url = str(server.http.base_url).rstrip("/")
            table = f'[[rule]]\nheader = "{TELLS}"\nlane = "llama/all"\n'
            table += f'[[engine]]\nname = "llama"\nkind = "llama.cpp"\nurl = "{url}"\nstrategy = "ngram"\n'
            with gateway(table, folder) as running:
                for prompt in prompts_of(options.teaching, first=options.prompts):
                    body = {"messages": [{"role": "user", "content": prompt.text}], "temperature": 0}
                    body |= {"max_tokens": options.tokens, "ignore_eos": True, "cache_prompt": False}
                    answer = httpx2.post(f"{running.url}/v1/chat/completions", json=body, timeout=300, trust_env=False)
                    answer.raise_for_status()
                asked = asked_of(options.prompts, options.stories)
                samples = []
                for sample in measure(server, running.url, asked, options.tokens, options.quantization):
                    samples.append(sample)
                    if options.json:
                        with options.json.open("a") as file:
                            file.write(json.dumps(asdict(sample)) + "\n")
        finally:
            server.stop()
    show(samples)


if __name__ == "__main__":
    main()
