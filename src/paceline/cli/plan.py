"""``paceline plan``: which command line a model is best served with on a machine, and what it takes."""

import argparse
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import msgspec
from msgspec.structs import replace

from paceline.cli.common import Subparsers, add_command, fail, positive_number, said_while, say
from paceline.cli.engine_options import MAX_CONTEXT_TOKENS, MAX_SLOTS, whole_number
from paceline.cli.plan_folder import planned_folder, printed
from paceline.engines.embedded import EMBEDDED
from paceline.engines.llama_cpp_build import CPU, Build, usable
from paceline.machine import available_memory_bytes, engine_threads
from paceline.paths import cache_directory
from paceline.planning.devices import Machine
from paceline.planning.drafters import NoDrafter, find_drafter
from paceline.planning.dry_run import judge_of
from paceline.planning.find_devices import find_machine
from paceline.planning.gguf import BadModelFile, read_model
from paceline.planning.given_devices import BadDevices, given_machine
from paceline.planning.memory import model_of
from paceline.planning.model_folder import BadModelFolder
from paceline.planning.plan import DoesNotFit, Plan, Wish
from paceline.planning.plan_speed import speed_sentences
from paceline.planning.plan_text import plan_text
from paceline.planning.planner import make_plan
from paceline.planning.written_plan import planned_engine, written
from paceline.settings import LocalEngineSettings

AUTO, NONE = "auto", "none"
GIB = 1 << 30
BACKENDS_BY_DEVICE = {"rocm": "hip"}
"""Of ``paceline engine build``, where they have another word."""
SERVER = "llama-server"
"""The program's name in a command line for a machine that has none of ours."""

DESCRIPTION = """Plan how a model is served: which layers go on which card, which cache is used, how many tokens are
drafted, and what is given up if not everything fits. The plan is worked out from the header of the model's
file. If `paceline engine build` has built an engine, that engine's own planner checks the result. Nothing is
loaded, and the cards need not be in this machine."""
EXAMPLES = """examples:
  paceline plan model.gguf                                        for this machine
  paceline plan model.gguf --gpus "2x RTX PRO 6000" --context-tokens 524288
  paceline plan model.gguf --gpus 24,24 --host-memory 64 --explain
  paceline plan model.gguf --write paceline.toml                  then: paceline serve --config paceline.toml
"""


def register(commands: Subparsers) -> None:
    parser = add_command(commands, "plan", "plan how a model is served on a machine", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="GGUF file (the first part, if it is split); for vLLM and SGLang a folder with config.json and "
        "safetensors",
    )
    parser.add_argument(
        "--gpus",
        default=AUTO,
        metavar="CARDS",
        help="auto for this machine's cards (default), names such as '2x RTX 3090', GiB such as 24,24, or a "
        "file in JSON",
    )
    parser.add_argument(
        "--host-memory",
        type=positive_number,
        metavar="GIB",
        help="memory of the host (default: what is available here)",
    )
    parser.add_argument(
        "--context",
        "--context-tokens",
        type=whole_number(1, MAX_CONTEXT_TOKENS),
        metavar="N",
        help="context of each request, in tokens (default: as many as are useful and fit)",
    )
    parser.add_argument(
        "--slots", type=whole_number(1, MAX_SLOTS), metavar="N", help="requests decoded at once (default: by --for)"
    )
    parser.add_argument(
        "--for",
        dest="aim",
        choices=("latency", "throughput"),
        default="latency",
        help="one request as fast as possible (default), or four at once",
    )
    parser.add_argument(
        "--kv", choices=(AUTO, "f16", "q8_0", "q4_0"), default=AUTO, help="type of the cache (default: auto)"
    )
    parser.add_argument(
        "--engine",
        choices=("llama.cpp", "vllm", "sglang"),
        help="default: llama.cpp for a file, vllm for a folder",
    )
    parser.add_argument(
        "--draft",
        default=AUTO,
        metavar="FILE",
        help="auto for the drafter that is found for the model (default), none for lookup alone, or a draft "
        "model's file",
    )
    parser.add_argument("--explain", action="store_true", help="give the reason for every choice")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a configuration that `serve --config` runs")
    parser.add_argument("--force", action="store_true", help="with --write: overwrite a file that exists")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    is_folder = options.model.is_dir()
    if is_folder != (options.engine in ("vllm", "sglang")) and options.engine:
        kind = "a folder with config.json and safetensors" if options.engine != "llama.cpp" else "a GGUF file"
        return fail(f"{options.engine} needs {kind}, and {options.model} is none")
    if options.write and options.write.is_file() and not options.force:
        said = "exists, and stays as it is; --force overwrites it, --write FILE names another"
        return fail(f"{options.write} {said}")
    try:
        built = usable(cache_directory())
        machine = _machine(options, built)
        return _run_folder(options, machine) if is_folder else _run_file(options, machine, built)
    except (BadDevices, BadModelFile, BadModelFolder, DoesNotFit, NoDrafter) as error:
        return fail(str(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        return fail(f"{error.filename} can't be written: {error.strerror or error}")


def _run_file(options: argparse.Namespace, machine: Machine, built: Build | None) -> int:
    """
    Raises:
        BadModelFile, DoesNotFit, NoDrafter: there is no plan.
        OSError: the configuration can't be written.
    """
    path = options.model.absolute()
    headers = read_model(path)
    given = Path(options.draft) if options.draft not in (AUTO, NONE) else None
    drafter = None if options.draft == NONE else find_drafter(headers, given)
    wish = Wish(
        context_tokens=options.context,
        slots=options.slots,
        aim=options.aim,
        cache_type=None if options.kv == AUTO else options.kv,
    )
    model = model_of(headers)
    with said_while("planning"):
        plan = make_plan(model, machine, wish, drafter, judge_of(built))
    text = plan_text(plan, model, list(speed_sentences(plan, model, machine)), options.explain)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode({"machine": machine, "plan": plan})).decode())
    else:
        print(f"{text}\n\n{shlex.join([SERVER, '--model', str(options.model), *plan.engine_flags])}")
    if options.write:
        program = built.server if built else _installed(plan)
        threads = None if plan.devices else engine_threads()
        _write(options.write, planned_engine(plan, path, path.stem, program, threads), text)
    return 0 if plan.fits else 1


def _run_folder(options: argparse.Namespace, machine: Machine) -> int:
    """
    Raises:
        BadModelFolder: there is no plan.
        OSError: the configuration can't be written.
    """
    plan, engine, text = planned_folder(options, options.model.absolute(), machine)
    print(printed(plan, machine, text, options.json))
    if options.write:
        _write(options.write, engine, text)
    return 0 if plan.fits is not False else 1


def _installed(plan: Plan) -> str:
    """The program to start where none was built: what computes on the processor needs no more than what is here."""
    has_embedded = not plan.devices and shutil.which(SERVER) is None and find_spec("xllamacpp") is not None
    return EMBEDDED if has_embedded else SERVER


def _write(path: Path, engine: LocalEngineSettings, text: str) -> None:
    path.write_text(written(engine, text), "utf-8")
    say(f"wrote {path}; run it with: paceline serve --config {shlex.quote(str(path))}")
    if engine.launch[0] == SERVER and shutil.which(SERVER) is None:
        say(
            f"It starts {SERVER}, which is not on this machine's PATH: `paceline engine build` makes one, and the same "
            "plan with --force then names it."
        )


def _machine(options: argparse.Namespace, built: Build | None) -> Machine:
    """
    Raises:
        BadDevices: ``--gpus`` can't be meant.
    """
    host = int(options.host_memory * GIB) if options.host_memory else None
    if options.gpus == AUTO:
        machine = find_machine(built.server if built else None, host_memory_bytes=host)
        if machine.devices and built and built.backend == CPU:
            backend = BACKENDS_BY_DEVICE.get(machine.devices[0].backend, machine.devices[0].backend)
            said = (
                "The engine that was built computes on the processor alone; for these cards: paceline engine build "
                f"--backend {backend}."
            )
            machine = replace(machine, warnings=(*machine.warnings, said))
        return machine
    machine = given_machine(options.gpus, host)
    if machine.host_memory_bytes is None:
        machine = replace(machine, host_memory_bytes=available_memory_bytes())
    return machine
