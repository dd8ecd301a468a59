"""Reproduces docs/the-finding.md on this machine: when does speculation pay?

    python -m benchmarks.the_finding [--quick] [--out FOLDER] [--parts A,B]

Needs `paceline engine build`. The bundled model with an MTP layer fitted to it (training/drafters), n-gram lookup and
MTP loaded together in one engine that takes its strategy from each request; each part is a `paceline bench` of it:

- *q8*, *f16*: temperature 0, one request at a time, in two quantizations
- *hot*: temperature 1
- *crowd*: two and four requests at once
- *lookup*: the n-gram drafters that llama.cpp has, beside one another
- *machine*: what drafting costs at any acceptance, without a drafter's luck (``--spec-synth-rates``)
- *vllm*: vLLM on the CPU with n-gram lookup (only when named; installs 3 GB)

Tables go to FOLDER/tables.md, figures and results beside them. Half an hour on two cores, with --quick two minutes.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

from gguf import GGMLQuantizationType
from msgspec import Struct
from training.drafters.fit import projection
from training.drafters.gguf_file import ModelFile, converted
from training.drafters.models import model_with_mtp

from benchmarks import vllm_server
from benchmarks.llama_server import built_server
from benchmarks.the_finding.machine import CONCURRENCIES, Machine, measure
from benchmarks.the_finding.show import draw_machine, machine_table
from paceline.bench import results
from paceline.cli import main as paceline
from paceline.cli.common import say_in_place
from paceline.engines.bundled_model import bundled_model
from paceline.engines.llama_cpp_flags import LoadedDrafter, drafting_flags
from paceline.paths import cache_directory
from paceline.types import Strategy

FITTED_ON = 12
"""Answers. Of the tokens of others the layer then predicts 18 %; fitted on 200, 20 %."""
QUANTIZATIONS = {"q8": GGMLQuantizationType.Q8_0, "f16": GGMLQuantizationType.F16}
LOOKUPS = (
    LoadedDrafter(Strategy("ngram", 12), match_tokens=4),
    LoadedDrafter(Strategy("ngram-map-k", 12), match_tokens=4),
    LoadedDrafter(Strategy("ngram-map-k4v", 12), match_tokens=4),
    LoadedDrafter(Strategy("ngram-mod", 12), match_tokens=6),
)


class Part(Struct, frozen=True):
    """A bench: which engine, and how."""

    title: str
    engine: str
    words: tuple[str, ...]
    quick_words: tuple[str, ...]


FEW = ("--prompts", "2", "--teach", "2", "--max-tokens", "64")
QUICK = ("--prompts", "1", "--teach", "0", "--rounds", "1", "--max-tokens", "24")
PARTS = {
    "q8": Part("Q8_0, temperature 0", "q8", (*FEW, "--rounds", "2"), QUICK),
    "f16": Part("F16, temperature 0", "f16", (*FEW, "--rounds", "1"), ()),
    "hot": Part("Q8_0, temperature 1", "q8", (*FEW, "--prompts", "1", "--rounds", "1", "--temperature", "1"), ()),
    "crowd": Part(
        "Q8_0, several requests at once",
        "q8",
        (*FEW, "--prompts", "1", "--rounds", "1", "--concurrency", "2,4"),
        (),
    ),
    "lookup": Part("n-gram drafters, Q8_0", "lookup", (*FEW, "--prompts", "1", "--rounds", "1", "--teach", "0"), ()),
    "vllm": Part("vLLM 0.32 on the CPU", "vllm", (*FEW, "--prompts", "1", "--rounds", "1", "--teach", "1"), QUICK),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/the-finding"))
    parser.add_argument("--parts", help="q8, f16, hot, crowd, lookup, machine, vllm; all but the last by default")
    options = parser.parse_args()
    usual = ["q8", "machine"] if options.quick else [*(name for name in PARTS if name != "vllm"), "machine"]
    parts = options.parts.split(",") if options.parts else usual
    program = built_server()
    options.out.mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    sections = []
    with tempfile.TemporaryDirectory() as scratch:
        models = _models(Path(scratch), None if options.quick else program)
        sections += [
            _bench(name, PARTS[name], program, models, options.out, Path(scratch), options.quick)
            for name in parts
            if name != "machine"
        ]
        if "machine" in parts:
            sections.append(_machine(program, models, options.out, options.quick))
    (options.out / "tables.md").write_text("\n".join(sections))
    print(f"{options.out}/tables.md, after {(time.monotonic() - began_s) / 60:.0f} min")


def _models(folder: Path, program: str | None) -> dict[str, Path]:
    """The bundled model with an MTP layer, by quantization; without a program to fit it with, the layer is random."""
    path, weights = bundled_model(cache_directory()), None
    if program:
        weights, share = projection(program, path, FITTED_ON)
        print(f"the MTP layer predicts {share:.0%} of the tokens of answers that it was not fitted on", file=sys.stderr)
    target = ModelFile(path)
    files = {name: folder / f"{name}.gguf" for name in QUANTIZATIONS}
    for name, kind in QUANTIZATIONS.items():
        model_with_mtp(converted(target, kind), files[name], weights)
    return files


def _bench(name: str, part: Part, program: str, models: dict[str, Path], out: Path, scratch: Path, quick: bool) -> str:
    configuration = scratch / f"{name}.toml"
    configuration.write_text(_configuration(part.engine, program, models))
    file = out / f"{name}.jsonl"
    file.unlink(missing_ok=True)
    words = [*(part.quick_words if quick else part.words), "--figures", str(out / name)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = paceline(["bench", "run", "--config", str(configuration), "--results", str(file), *words])
    if status:
        raise SystemExit(f"{part.title} failed:\n{printed.getvalue()}")
    print(f"{part.title}: {printed.getvalue().splitlines()[-1]}", file=sys.stderr)
    return f"## {part.title}\n\n`paceline bench run {' '.join(words)}`\n\n```\n{printed.getvalue()}```\n"


def _configuration(engine: str, program: str, models: dict[str, Path]) -> str:
    table: dict[str, object] = {"name": engine, "kind": "llama.cpp", "strategy": "ngram", "n_max": 12, "device": "cpu"}
    if engine == "vllm":
        launch = vllm_server.command(bundled_model(cache_directory()), context_tokens=2048)
        environment = ["env", *(f"{name}={value}" for name, value in vllm_server.ENVIRONMENT.items())]
        table |= {"kind": "vllm", "launch": [*environment, *launch], "n_max": vllm_server.LONGEST, "caps": [2, 6]}
        return "[[engine]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    model = models.get(engine, models["q8"])
    launch = [program, "--model", str(model), "--alias", "m", "--port", "{port}", "--parallel", "4"]
    launch += ["--ctx-size", "12288"]
    if engine == "lookup":
        launch += [*drafting_flags(LOOKUPS), "--spec-ngram-mod-n-min", "1"]
        table["caps"] = [12]
    else:
        launch += drafting_flags([LOOKUPS[0], LoadedDrafter(Strategy("mtp", 2))])
        table["caps"] = [2, 4, 12]
    table["launch"] = launch
    return "[[engine]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())


def _machine(program: str, models: dict[str, Path], out: Path, quick: bool) -> str:
    names = ["q8"] if quick else list(QUANTIZATIONS)
    machines: list[Machine] = [
        measure(program, name, models[name], (1,) if quick else CONCURRENCIES, 24 if quick else 32, say_in_place)
        for name in names
    ]
    tasks = results.read(out / "q8.jsonl") if (out / "q8.jsonl").exists() else None
    draw_machine(machines, tasks, out / "machine")
    return f"## The machine's side\n\n{machine_table(machines)}\n"


if __name__ == "__main__":
    main()
