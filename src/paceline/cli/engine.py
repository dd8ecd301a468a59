"""``paceline engine``: build, list and remove engines that take their strategy from each request."""

import argparse
import time
from pathlib import Path

from paceline.cli.common import Subparsers, add_command, add_json_option, fail, print_json, say_in_place
from paceline.cli.engine_options import whole_number
from paceline.engines.llama_cpp_build import BACKENDS, LLAMA_CPP, CannotBuild, Progress, build, builds, remove, usable
from paceline.paths import cache_directory

MAX_JOBS = 1024
DESCRIPTION = f"""Build llama.cpp's server ({LLAMA_CPP}) so that it takes its speculative decoding from each request:
one engine and one copy of the weights serve all lanes. Needs CMake, a C++ compiler and git, and for
a GPU its toolkit. `paceline serve` uses it from then on."""


def register(commands: Subparsers) -> None:
    parser = add_command(commands, "engine", "build an engine that takes its strategy from each request", DESCRIPTION)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = add_command(actions, "build", "build the engine, which takes minutes once", DESCRIPTION)
    action.add_argument("--backend", choices=BACKENDS, default="cpu", help="what the engine computes on (default: cpu)")
    action.add_argument(
        "--jobs",
        type=whole_number(1, MAX_JOBS),
        metavar="N",
        help="compilers that run at once (default: one per processor)",
    )
    action.set_defaults(run=_build)
    action = add_command(actions, "list", "list what was built", "List what was built.")
    add_json_option(action)
    action.set_defaults(run=_list)
    action = add_command(actions, "remove", "remove what was built", "Remove what was built.")
    action.add_argument("key", metavar="KEY", help="the key as listed, or `all`")
    action.set_defaults(run=_remove)


def _build(options: argparse.Namespace) -> int:
    began_s = time.monotonic()
    shown = ""

    def report(progress: Progress) -> None:
        nonlocal shown
        text = f"{progress.step} {progress.share:.0%}" if progress.share else progress.step
        if progress.left_s is not None:
            text += f", about {_duration(progress.left_s)} left"
        if text != shown:
            shown = text
            say_in_place(text)

    try:
        built = build(cache_directory(), options.backend, options.jobs, report)
    except CannotBuild as error:
        return fail(str(error))
    finally:
        say_in_place("")
    if shown:
        print(f"built in {_duration(time.monotonic() - began_s)}")
    print(f"{built.key}: {built.server}")
    return 0


def _list(options: argparse.Namespace) -> int:
    current = usable(cache_directory())
    if options.json:
        print_json({"used": current and current.key, "builds": builds(cache_directory())})
        return 0
    for engine_build in builds(cache_directory()):
        note = "used by `paceline serve`" if engine_build == current else "of another version, or not the latest"
        size_mb = Path(engine_build.server).stat().st_size / 1e6
        built = time.strftime("%Y-%m-%d %H:%M", time.localtime(engine_build.built_at_s))
        print(f"{engine_build.key}  {size_mb:.0f} MB  {built}  {note}")
    if current is None:
        print("nothing that fits this version is built; `paceline engine build` does it")
    return 0


def _remove(options: argparse.Namespace) -> int:
    keys = [engine_build.key for engine_build in builds(cache_directory())]
    if options.key != "all" and options.key not in keys:
        return fail(f"there is no build {options.key!r}; there are: {', '.join(keys) or 'none'}")
    if not keys:
        print("nothing was built")
    for key in keys:
        if options.key in ("all", key):
            remove(cache_directory(), key)
            print(f"removed {key}")
    return 0


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
