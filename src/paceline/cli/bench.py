"""``paceline bench``: when does speculation pay, on this machine, with this model, on this traffic?"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
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
from paceline.cli.calibrate import calibrated
from paceline.cli.common import Subparsers, add_command, fail, say, say_in_place
from paceline.cli.engine_options import add_engine_options, engine_words, misused
from paceline.cli.remote import KEY_VARIABLE, Address, Unanswered, ask, gateway_url, key
from paceline.configuration import ConfigurationError, load
from paceline.paths import state_directory
from paceline.settings import Configuration
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

INTERRUPTED = 130
"""Exit status of what Ctrl-C has ended."""
EXAMPLES = """examples:
  paceline bench --quick                        the bundled model, a look of two minutes
  paceline bench --model model.gguf             a model of yours, ten minutes or so
  paceline bench --url http://127.0.0.1:8080    a Paceline that runs, with what it has learned
  paceline bench --workload mine.jsonl          your own requests: JSON lines with `messages` or `prompt`, or
                                                questions of Spec-Bench or SPEED-Bench, or ShareGPT's conversations
  paceline bench --compare before.jsonl after.jsonl
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
"""Settings of ``--quick``: two minutes with the bundled model on two cores."""
PROGRESS_CHARS = 30
"""Of the bar that shows how far it is."""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "bench",
        "measure every lane and the routing side by side",
        "Send a workload down every lane and through the routing, in turn, and tell for each task what is fastest: "
        "speeds with their intervals, acceptance, what a drafting step costs here and has to bring, the best fixed "
        "lane, the best one for each request in hindsight (oracle), and what routing makes of it. Nothing that is "
        "measured is learned from; to learn, the gateway first gets other requests of the same tasks.",
        EXAMPLES,
    )
    add_engine_options(parser)
    running = parser.add_argument_group("a gateway that runs already")
    running.add_argument("--url", help="its address; by default, a gateway is started for the bench")
    running.add_argument("--api-key", help=f"a key of it, or env:NAME (default: that of the variable {KEY_VARIABLE})")
    what = parser.add_argument_group("what is sent")
    what.add_argument("--quick", action="store_true", help="one prompt of each task, 48 tokens: two minutes")
    what.add_argument(
        "--workload", type=Path, metavar="FILE", help="requests to send (default: the ones that come along)"
    )
    what.add_argument("--lanes", metavar="A,B", help="lanes to measure (default: all that are up)")
    what.add_argument("--prompts", type=int, metavar="N", help="of each task (default: 4)")
    what.add_argument(
        "--teach",
        type=int,
        metavar="N",
        help="prompts of each task that are routed first, for the gateway to learn from; none of them is measured "
        "(default: 3; 0 with --url)",
    )
    what.add_argument("--rounds", type=int, metavar="N", help="how often all is sent (default: 2)")
    what.add_argument("--max-tokens", type=int, metavar="N", help="of each answer (default: 64)")
    what.add_argument("--temperature", type=_floats, default=(0.0,), metavar="T,T", help="default: 0")
    what.add_argument(
        "--concurrency", type=_integers, default=(1,), metavar="N,N", help="requests at once (default: 1)"
    )
    what.add_argument("--seed", type=int, default=0, help="of the order and of sampling")
    out = parser.add_argument_group("results")
    out.add_argument("--results", type=Path, metavar="FILE", help="keep every sample, as JSON lines")
    out.add_argument("--resume", action="store_true", help="go on with a results file where it ended")
    out.add_argument("--figures", type=Path, metavar="FOLDER", help="draw figures, SVG and PNG (needs paceline[plots])")
    out.add_argument("--show", type=Path, metavar="FILE", help="measure nothing; show a results file")
    out.add_argument(
        "--compare", type=Path, nargs=2, metavar=("A", "B"), help="measure nothing; compare two results files"
    )
    others = parser.add_argument_group("instead of speeds")
    others.add_argument(
        "--check-lossless", action="store_true", help="compare the lanes' texts at temperature 0 with the first lane's"
    )
    others.add_argument(
        "--calibrate",
        action="store_true",
        help="have the gateway learn for a minute what this machine's steps cost, and keep it; print the acceptance "
        "from which each draft length pays",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if problem := misused(options):
        return fail(problem)
    try:
        if options.compare:
            print(comparison(*(results.read(path) for path in options.compare)), end="")
            return 0
        if options.show:
            return _show(results.read(options.show), options.figures)
        if options.calibrate:
            with _gateway(options, state_directory().parent) as to:
                print(calibrated(to))
            return 0
        with _gateway(options, None) as to:
            return _check_lossless(options, to) if options.check_lossless else _bench(options, to)
    except PROBLEMS as error:
        return fail(str(error))


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
    status = _show(Results(about, samples), options.figures) if samples or not stopped else INTERRUPTED
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


def _show(measured: Results, figures: Path | None) -> int:
    """Print what was measured, and draw it."""
    parts = slices(measured)
    errors = [sample for sample in measured.samples if sample.error is not None]
    for part in parts:
        print(table(part))
    if errors:
        print(f"{len(errors)} requests failed; the first, {errors[0].way}: {errors[0].error}")
    if not parts:
        return fail("no request was answered on every lane with a decoding time")
    if figures:
        from paceline.bench.figures import draw

        for path in draw(measured, parts, figures):
            print(path)
    print(advice(parts[0]))
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


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
