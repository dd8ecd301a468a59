"""The finding at the size people run: does choosing by request pay, and does the engine's own control add to it?

    python -m benchmarks.real_size [--shape 0.4b-f16] [--concurrency 1 4 16] [--rounds N] [--answers FILE] [--json FILE]
    python -m benchmarks.real_size --show FILE [FILE ...]

A model of a real shape with random weights runs in the server that ``paceline engine build`` makes. It drafts with its
layer for multi-token prediction; where the shape has none, with a small draft model. The requests of a mix of tasks
bring the acceptance that was published for such tasks: the server accepts by dice, and every step costs what it costs.
The mix goes down every way, in turn and in another order each round: plain; drafts of at most 1, 2, 4 and 6 tokens;
always on, under the engine's control; routed by a gateway without that control; routed by one with it. The oracle takes
for each request the best of the static ways in hindsight. Both gateways start knowing nothing, and learn from other
requests of the same tasks first.

Text of random weights repeats nothing, so a lookup beside it would draft nothing. With ``--answers``, the requests are
recorded turns (as ``benchmarks.lookups.turns`` reads them), and the server generates their answers in place of what it
samples. A lookup of at most 2, 4 and 8 tokens then drafts what it would have drafted for such an answer, beside drafts
of the other drafter of as many.

Take an idle machine: two threads of an engine that share a processor with anything else are many times slower.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.llama_server import built_server
from benchmarks.real_size.filling import fill
from benchmarks.real_size.measure import measure
from benchmarks.real_size.random_model import hollow
from benchmarks.real_size.serving import serving
from benchmarks.real_size.shapes import DRAFT_MODEL, SHAPES, Shape
from benchmarks.real_size.show import show, show_files
from benchmarks.real_size.tasks import mix, recorded_mix
from paceline.engines.bundled_model import bundled_model
from paceline.engines.llama_cpp_flags import LoadedDrafter
from paceline.paths import cache_directory
from paceline.planning.one_model import NGRAM
from paceline.types import Strategy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="0.4b-f16")
    parser.add_argument("--server", help="a llama-server with Paceline's patch; by default the one that was built")
    parser.add_argument("--flag", action="append", default=[], help="one more for the server, such as --flag=-ngl=999")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--prompts", type=int, default=2, help="of each task")
    parser.add_argument("--teaching", type=int, default=4, help="requests of each task to learn from before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="of an answer")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--answers", type=Path, help="recorded turns to ask instead of prompts of our own")
    parser.add_argument("--json", type=Path, help="add every sample to this file, one a line")
    parser.add_argument("--show", type=Path, nargs="+", help="measure nothing: show what such files hold, together")
    options = parser.parse_args()
    if options.show:
        show_files(options.show)
        return
    program = options.server or built_server()
    if options.answers:
        taught = recorded_mix(options.answers, options.teaching, half=0, seed=options.seed)
        asked = recorded_mix(options.answers, options.prompts, half=1, seed=options.seed)
    else:
        taught = mix(options.teaching, options.prompts, options.seed)
        asked = mix(options.prompts, 0, options.seed)
    flags = [word for flag in options.flag for word in flag.split("=", 1)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape, model, draft_model = SHAPES[options.shape], folder / "target.gguf", folder / "draft.gguf"
        _write(shape, model)
        drafters = [LoadedDrafter(Strategy("mtp"))]
        if not shape.predicts_tokens:
            _write(DRAFT_MODEL, draft_model)
            drafters = [LoadedDrafter(Strategy("draft"), model=draft_model)]
        if options.answers:
            drafters.append(NGRAM)
        for concurrency in options.concurrency:
            samples = []
            with serving(program, model, drafters, flags, folder, max(options.concurrency)) as ways:
                for of_round in measure(ways, taught, asked, concurrency, options.rounds, options.tokens):
                    samples += of_round
                    if options.json:
                        setup = {"shape": options.shape, "seed": options.seed}
                        with options.json.open("a") as file:
                            file.writelines(json.dumps(sample.row() | setup) + "\n" for sample in of_round)
            show(samples, concurrency, [way.name for way in ways])


def _write(shape: Shape, file: Path) -> None:
    fill(hollow(shape, bundled_model(cache_directory()), file.parent), file)
    print(f"{file.stem}: {file.stat().st_size / 2**30:.2f} GiB", file=sys.stderr)


if __name__ == "__main__":
    main()
