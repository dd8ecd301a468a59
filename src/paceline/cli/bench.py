"""``paceline bench``: when does speculation pay, on this machine, with this model, on this traffic?"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import structs, to_builtins

from paceline import __version__
from paceline.bench import results, workload
from paceline.bench.asking import POOLED, Asker, Settings
from paceline.bench.calibrate import LaneRefused
from paceline.bench.lossless import Parting, partings
from paceline.bench.own_gateway import NotStarted, own_gateway
from paceline.bench.results import BadResults, Results, Sample, Writer
from paceline.bench.run import Progress, run_bench
from paceline.bench.show import advice, comparison, table
from paceline.bench.summary import slices
from paceline.bench.workload import BadWorkload, Workload
from paceline.cli.calibrate import calibrated, print_calibrated
from paceline.cli.common import (
    INTERRUPTED,
    Subparsers,
    add_command,
    add_json_option,
    fail,
    print_json,
    say,
    say_in_place,
)
from paceline.cli.engine_options import ENGINE_FLAGS, add_engine_options, engine_words, misused, whole_number
from paceline.cli.remote import KEY_VARIABLE, Address, Unanswered, ask, gateway_url, key
from paceline.configuration import ConfigurationError, load
from paceline.paths import state_directory
from paceline.settings import Configuration
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

EXAMPLES = """examples:
  paceline bench run --quick                        the bundled model, a look of two minutes
  paceline bench run --model model.gguf             a model of yours, ten minutes or so
  paceline bench run --url http://127.0.0.1:8080    a Paceline that runs, with what it has learned
  paceline bench run --workload mine.jsonl          your own requests: JSON lines with `messages` or `prompt`, or
                                                    questions of Spec-Bench or SPEED-Bench, or ShareGPT's conversations
  paceline bench compare before.jsonl after.jsonl
"""
PROBLEMS = (
    BadResults,
    BadWorkload,
    ConfigurationError,
    NotStarted,
    LaneRefused,
    Unanswered,
    ConnectFailed,
    ConnectionLost,
)
QUICK: dict[str, Any] = {"prompts": 1, "teach": 1, "rounds": 1, "max_tokens": 48}
"""Settings of ``run --quick``: two minutes with the bundled model on two cores."""
MAX_COUNT, MAX_CONCURRENCY, MAX_SEED, MAX_TEMPERATURE = 1_000_000, 1024, (1 << 31) - 1, 5.0
"""Larger ones are slips; engines take seeds of 32 bits."""
PROGRESS_CHARS = 30
"""Of the bar that shows how far it is."""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "bench",
        "measure every lane and the routing side by side",
        "Measure lanes and routing with a workload, and look at what was measured.",
        EXAMPLES,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _register_run(actions)
    _register_results(actions)
    _register_lossless(actions)
    _register_calibrate(actions)


def _register_run(actions: Subparsers) -> None:
    parser = add_command(
        actions,
        "run",
        "send a workload down every lane and through the routing",
        "Send a workload down every lane and through the router, in turn, and print for each task what "
        "is fastest: speeds with their intervals, acceptance rates, what a verification step costs here "
        "and has to bring, the best static policy, the best lane for each request in hindsight "
        "(oracle), and how routing compares with both. The gateway does not learn from what is "
        "measured; it first gets other requests of the same tasks to learn from.",
        EXAMPLES,
    )
    what = _add_workload_options(parser)
    what.add_argument("--quick", action="store_true", help="one prompt of each task, 48 tokens: two minutes")
    what.add_argument(
        "--teach",
        type=whole_number(0, MAX_COUNT),
        metavar="N",
        help="prompts of each task that are routed first, for the gateway to learn from; none of them is measured "
        "(default: 3; 0 with --url)",
    )
    what.add_argument(
        "--rounds", type=whole_number(1, MAX_COUNT), metavar="N", help="how often everything is sent (default: 2)"
    )
    what.add_argument("--temperature", type=_temperatures, default=(0.0,), metavar="T,T", help="default: 0")
    what.add_argument(
        "--concurrency", type=_concurrencies, default=(1,), metavar="N,N", help="requests at once (default: 1)"
    )
    out = parser.add_argument_group("results")
    out.add_argument("--results", type=Path, metavar="FILE", help="keep every sample, as JSON lines")
    out.add_argument("--resume", action="store_true", help="continue a results file where it ended")
    _add_figures_option(out)
    add_json_option(parser)
    parser.set_defaults(run=_guarded(_run_action))


def _register_results(actions: Subparsers) -> None:
    show = add_command(actions, "show", "show a results file", "Print the tables of an earlier run again.")
    show.add_argument("file", type=Path, metavar="FILE", help="results that `bench run --results` wrote")
    _add_figures_option(show)
    add_json_option(show)
    show.set_defaults(run=_guarded(_show_action))
    compare = add_command(
        actions,
        "compare",
        "compare two results files",
        "Print by how much the second run was faster, by task and lane, with 95 % intervals.",
    )
    compare.add_argument("before", type=Path, metavar="BEFORE", help="results of the first run")
    compare.add_argument("after", type=Path, metavar="AFTER", help="results of the second")
    compare.set_defaults(run=_guarded(_compare))


def _register_lossless(actions: Subparsers) -> None:
    parser = add_command(
        actions,
        "lossless",
        "compare the lanes' texts at temperature 0",
        "Compare the texts that the lanes write at temperature 0 with those of the first lane. Texts "
        "may differ where two tokens are about equally likely, since rounding then decides. Any other "
        "difference is an error, and the exit status is 1.",
    )
    _add_workload_options(parser)
    parser.set_defaults(run=_guarded(_lossless_action), quick=False, teach=None, rounds=None, temperature=(0.0,))
    parser.set_defaults(concurrency=(1,))


def _register_calibrate(actions: Subparsers) -> None:
    parser = add_command(
        actions,
        "calibrate",
        "measure what steps cost, and keep it",
        "Start a gateway, let it learn for a minute what this machine's steps cost, and keep that for "
        "the next `paceline serve`. Print the acceptance rate from which each draft length pays. "
        "`paceline calibrate` does the same with a gateway that is running.",
    )
    add_engine_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=_guarded(_calibrate_action), url=None, api_key=None)


def _add_workload_options(parser: argparse.ArgumentParser) -> Any:
    """Which gateway, and what it is sent; returns the group of the latter."""
    add_engine_options(parser)
    running = parser.add_argument_group("a gateway that runs already")
    running.add_argument(
        "--url", metavar="URL", help="the gateway's address; by default, a gateway is started for the bench"
    )
    running.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"a key of the gateway, or env:NAME (default: that in the variable {KEY_VARIABLE})",
    )
    what = parser.add_argument_group("what is sent")
    what.add_argument("--workload", type=Path, metavar="FILE", help="requests to send (default: the built-in ones)")
    what.add_argument("--lanes", metavar="A,B", help="lanes to measure (default: all that are up)")
    what.add_argument(
        "--prompts", type=whole_number(1, MAX_COUNT), metavar="N", help="prompts of each task (default: 4)"
    )
    what.add_argument(
        "--max-tokens", type=whole_number(1, MAX_COUNT), metavar="N", help="tokens of each answer (default: 64)"
    )
    what.add_argument(
        "--seed", type=whole_number(0, MAX_SEED), metavar="N", default=0, help="seed of the order and of sampling"
    )
    return what


def _add_figures_option(parser: Any) -> None:
    parser.add_argument(
        "--figures", type=Path, metavar="FOLDER", help="draw figures, SVG and PNG (needs paceline[plots])"
    )


def _guarded(action: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """An action, with what may be wrong said in a sentence."""

    def run(options: argparse.Namespace) -> int:
        if hasattr(options, ENGINE_FLAGS) and (problem := misused(options)):
            return fail(problem)
        try:
            return action(options)
        except PROBLEMS as error:
            return fail(str(error))

    return run


def _run_action(options: argparse.Namespace) -> int:
    with _gateway(options, None) as to:
        return _bench(options, to)


def _lossless_action(options: argparse.Namespace) -> int:
    with _gateway(options, None) as to:
        return _check_lossless(options, to)


def _calibrate_action(options: argparse.Namespace) -> int:
    with _gateway(options, state_directory().parent) as to:
        print_calibrated(calibrated(to), options.json)
    return 0


def _show_action(options: argparse.Namespace) -> int:
    return _show(results.read(options.file), options.figures, options.json)


def _compare(options: argparse.Namespace) -> int:
    print(comparison(results.read(options.before), results.read(options.after)), end="")
    return 0


def _bench(options: argparse.Namespace, to: Address) -> int:
    load = workload.read(options.workload) if options.workload else workload.shipped()
    lanes = _lanes(ask(to, "GET", "/paceline/lanes")["lanes"], options.lanes)
    settings = _settings(options, lanes)
    about = _about(lanes, load, settings)
    writer = Writer(options.results, about, options.resume) if options.results else None
    samples = list(writer.measured) if writer else []

    def note(sample: Sample) -> None:
        samples.append(sample)
        if writer:
            writer.add(sample)

    stopped = False
    try:
        asyncio.run(_run(to, lanes, load, settings, list(samples), note))
    except KeyboardInterrupt:
        stopped = True
    finally:
        say_in_place("")
        if writer:
            writer.close()
    if stopped:
        kept = f", kept in {options.results}: --resume goes on from there" if writer else ""
        say(f"stopped after {len(samples)} measured requests{kept}")
    if samples or not stopped:
        status = _show(Results(about, samples), options.figures, options.json)
    return INTERRUPTED if stopped else status


def _check_lossless(options: argparse.Namespace, to: Address) -> int:
    load = workload.read(options.workload) if options.workload else workload.shipped()
    lanes = _lanes(ask(to, "GET", "/paceline/lanes")["lanes"], options.lanes)
    names = tuple(lane["lane"] for lane in lanes)
    if len(names) < 2:
        return fail("there is only one lane")
    settings = structs.replace(
        _settings(options, lanes), routed=False, teach=0, rounds=1, temperatures=(0.0,), keep_text=True
    )
    samples: list[Sample] = []
    asyncio.run(_run(to, lanes, load, settings, [], samples.append))
    say_in_place("")
    items = load.part(settings.prompts)

    async def compare() -> list[Parting]:
        client = Client(to.url, fetch_headers=to.headers)
        try:
            return await partings(Asker(client, lanes, settings), names, items, samples)
        finally:
            client.close()

    differences = asyncio.run(compare())
    failed = [sample for sample in samples if sample.error is not None]
    for sample in failed:
        print(f"{sample.way}, {sample.item}: {sample.error}")
    for lane in names[1:]:
        parted = sum(parting.lane == lane for parting in differences)
        print(f"{lane}: {len(items) - parted} of {len(items)} texts are the same as {names[0]}'s")
    for parting in differences:
        print(f"  {parting}{': rounding decides there' if parting.is_near_tie else ': THIS IS NO ROUNDING'}")
    return 0 if not failed and all(parting.is_near_tie for parting in differences) else 1


async def _run(
    to: Address, lanes: list[dict[str, Any]], load: Workload, settings: Settings, measured: list[Sample], note: Any
) -> None:
    client = Client(to.url, fetch_headers=to.headers)
    try:
        await run_bench(client, lanes, load, settings, measured, note, _say_progress)
    finally:
        client.close()


def _show(measured: Results, figures: Path | None, is_json: bool) -> int:
    """Print what was measured, and draw it. Where that is for programs, all else is said beside it."""
    parts = slices(measured)
    failed = [sample for sample in measured.samples if sample.error is not None]
    if is_json:
        errors = [{"way": sample.way, "item": sample.item, "error": sample.error} for sample in failed]
        print_json({"about": measured.about, "slices": parts, "failed": errors})
    tell = say if is_json else print
    if not is_json:
        for part in parts:
            print(table(part))
    if failed:
        tell(f"{len(failed)} requests failed; the first, {failed[0].way}: {failed[0].error}")
    if not parts:
        return fail("no request was answered on every lane with a decoding time")
    if figures:
        from paceline.bench.figures import draw

        for path in draw(measured, parts, figures):
            tell(str(path))
    tell(advice(parts[0]))
    return 0


@contextmanager
def _gateway(options: argparse.Namespace, state: Path | None) -> Iterator[Address]:
    """The one that runs, or one that is started for it."""
    configuration = load(options.config, here=False) if options.config else Configuration()
    shown_key = key(options.api_key, configuration)
    if options.url:
        yield Address(gateway_url(options.url), shown_key)
        return
    with tempfile.TemporaryDirectory(prefix="paceline-bench-") as folder:
        say_in_place("starting the engines ...")
        with own_gateway(engine_words(options), Path(folder), state) as running:
            say_in_place("")
            yield Address(running.url, shown_key)


def _lanes(all_lanes: list[dict[str, Any]], wanted: str | None) -> list[dict[str, Any]]:
    """Those that are up, or are asked for; those that draft nothing first.

    Raises:
        Unanswered: a lane that is asked for is not up, or none is.
    """
    up = {lane["lane"]: lane for lane in all_lanes if lane["health"] == "up"}
    names = wanted.split(",") if wanted else list(up)
    for name in names:
        if name not in up:
            raise Unanswered(f"no lane {name!r} is up; up are: {', '.join(up) or 'none'}")
    if not names:
        problems = "; ".join(f"{lane['lane']}: {lane['problem']}" for lane in all_lanes)
        raise Unanswered(f"no lane is up: {problems}")
    return sorted((up[name] for name in names), key=lambda lane: bool(lane["strategy"]["drafts"]))


def _settings(options: argparse.Namespace, lanes: list[dict[str, Any]]) -> Settings:
    given = {
        name: value
        for name in ("prompts", "teach", "rounds", "max_tokens")
        if (value := getattr(options, name)) is not None
    }
    usual = Settings(
        lanes=tuple(lane["lane"] for lane in lanes),
        temperatures=options.temperature,
        concurrencies=options.concurrency,
        seed=options.seed,
        **(QUICK if options.quick else {}),
    )
    if options.url:
        usual = structs.replace(usual, teach=0)
    wanted = structs.replace(usual, **given)
    pooled = [lane["lane"] for lane in lanes if lane["strategy"]["kind"] in POOLED]
    if not pooled:
        return wanted
    if len(pooled) > 1:
        raise Unanswered(f"{', '.join(pooled)} remember each other's answers; choose one of them with --lanes")
    say(f"{pooled[0]} remembers what other requests have said, so every prompt is sent once, and nothing is routed")
    return structs.replace(wanted, rounds=1, routed=False, teach=0)


def _about(lanes: list[dict[str, Any]], load: Workload, settings: Settings) -> dict[str, Any]:
    keys = ("lane", "strategy", "device", "engine")
    about = {
        "paceline": __version__,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv[1:],
        "machine": {"platform": platform.platform(), "processor": _processor(), "processors": os.cpu_count()},
        "workload": {"name": load.name, "hash": load.hash, "tasks": load.tasks},
        "settings": to_builtins(settings),
        "lanes": [{key: lane[key] for key in keys} for lane in lanes],
    }
    read_again: dict[str, Any] = json.loads(json.dumps(about))
    return read_again


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _say_progress(progress: Progress) -> None:
    full = PROGRESS_CHARS * progress.done // max(1, progress.of)
    left = "" if progress.left_s is None else f", {progress.left_s / 60:.1f} min left"
    say_in_place(f"[{'#' * full}{'.' * (PROGRESS_CHARS - full)}] {progress.done} of {progress.of}{left}")


def _concurrencies(text: str) -> tuple[int, ...]:
    read = whole_number(1, MAX_CONCURRENCY)
    return tuple(read(part) for part in text.split(","))


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as 0,0.7") from None
    if not all(0 <= value <= MAX_TEMPERATURE for value in values):
        raise argparse.ArgumentTypeError(f"is {text}; each has to be from 0 to {MAX_TEMPERATURE:g}")
    return values
