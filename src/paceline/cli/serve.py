"""``paceline serve``: run the gateway."""

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from paceline import __version__
from paceline.cli.common import Subparsers, add_command, cache_directory, fail, log_directory, state_directory
from paceline.configuration import EMBEDDED, Configuration, ConfigurationError, load
from paceline.engines import Health
from paceline.engines.bundled_model import NAME, NoBundledModel, bundled_model
from paceline.engines.llama_cpp_build import usable
from paceline.gateway.fleet import EngineHandle
from paceline.gateway.server import CannotListen, Gateway
from paceline.planning.drafters import NoDrafter, find_drafter
from paceline.planning.one_model import Wanted, an_engine_each, one_engine
from paceline.records.kept import kept_outcome, kept_path
from paceline.types import Decision, Outcome, Request, Signals

PROGRESS_INTERVAL_S = 5.0
OBJECTS_BETWEEN_COLLECTIONS = 10_000

EXAMPLES = """examples:
  paceline serve                              the bundled model, one plain and one n-gram lane
  paceline serve --model model.gguf           the same with a model of yours
  paceline serve --config paceline.toml       your engines; docs/configuration.md has every key
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "serve",
        "run the gateway",
        "Run the gateway until Ctrl-C, and the engines that it is to start.",
        EXAMPLES,
    )
    add_engine_options(parser)
    parser.add_argument("--host", help="address to listen on (default: the configuration's, else 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the configuration's, else 8080)")
    parser.set_defaults(run=run)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which engines to use."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--config", type=Path, help="configuration file, TOML")
    what.add_argument(
        "--model",
        type=Path,
        help="GGUF file to serve: plain, by n-gram lookup, and by what else can draft for it: its own MTP layers, or "
        "an EAGLE-3 head or a draft model in the same folder, with `eagle` or `draft` in its name",
    )
    parser.add_argument(
        "--draft-model", type=Path, metavar="FILE", help="with --model: the draft model or EAGLE-3 head"
    )
    parser.add_argument(
        "--llama-server",
        metavar="PROGRAM",
        help="with --model: start this llama-server, or `embedded`, the one in the xllamacpp package (default: the one "
        "that `paceline engine build` made, else the embedded one)",
    )
    parser.add_argument(
        "--slots", type=int, default=4, help="with --model: requests a lane decodes at once (default: 4)"
    )
    parser.add_argument(
        "--context-tokens",
        type=int,
        default=4096,
        help="with --model: context for each request (default: 4096)",
    )


def engine_words(options: argparse.Namespace) -> list[str]:
    """The same options as words of a command line."""
    words = ["--slots", str(options.slots), "--context-tokens", str(options.context_tokens)]
    for name in ("config", "model", "draft_model", "llama_server"):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def run(options: argparse.Namespace) -> int:
    for name in ("llama_server", "draft_model"):
        if options.config and getattr(options, name):
            return fail(
                f"--{name.replace('_', '-')} goes with --model; with --config, name it in the engine's `launch`"
            )
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    def record(request: Request, _: Signals, decision: Decision, outcome: Outcome) -> None:
        if gateway.fleet.configuration.server.log_requests:
            _print_outcome(request, decision, outcome)

    try:
        model = None if options.config else _model(options)
        gateway = Gateway(lambda: _configuration(options, model), log_directory(), record, state_directory())
    except (ConfigurationError, NoBundledModel, NoDrafter) as error:
        return fail(str(error))
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(gateway))
    except CannotListen as error:
        return fail(str(error))
    return 0


def _model(options: argparse.Namespace) -> Path:
    if options.model is None:
        return bundled_model(cache_directory(), lambda: print("unpacking the bundled model (once) ...", flush=True))
    model: Path = options.model
    if not model.is_file():
        raise ConfigurationError(f"--model: there is no file {model}")
    return model.absolute()  # a link stays one: drafters stand beside it, not beside what it points to


def _configuration(options: argparse.Namespace, model: Path | None) -> Configuration:
    configuration = load(options.config) if model is None else _of_one_model(model, options)
    server = configuration.server
    changed = {key: value for key in ("host", "port") if (value := getattr(options, key)) is not None}
    return replace(configuration, server=replace(server, **changed))


def _of_one_model(model: Path, options: argparse.Namespace) -> Configuration:
    """One engine that takes its strategy from each request, if such a one was built; else one for each way."""
    name = NAME if options.model is None else model.stem
    built = None if options.llama_server else usable(cache_directory())
    program = options.llama_server or (built.server if built else EMBEDDED)
    drafter = find_drafter(model, options.draft_model)
    if drafter:
        print(f"drafts by {drafter}", flush=True)
    wanted = Wanted(model, name, program, options.slots, options.context_tokens)
    if built:
        device = "cpu" if built.backend == "cpu" else "gpu"
        return Configuration(engine=(one_engine(replace(wanted, device=device), drafter),))
    return Configuration(engine=an_engine_each(wanted, drafter))


async def _serve(gateway: Gateway) -> None:
    announcer: asyncio.Task[None] | None = None

    def announce(running: Gateway) -> None:
        nonlocal announcer
        _calm_garbage_collector()
        announcer = asyncio.create_task(_announce(running))

    try:
        await gateway.run(announce)
    finally:
        if announcer:
            announcer.cancel()
        print("stopped", flush=True)


def _calm_garbage_collector() -> None:
    """What is loaded by now stays to the end, and a request makes hardly any cycles: looking for garbage at the usual
    rate took 6 % of the time under load."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


async def _announce(gateway: Gateway) -> None:
    """Say how the engines come up, and when all have or have failed, where to send what."""
    loop = asyncio.get_running_loop()
    started_s = said_s = loop.time()
    pending = dict(gateway.fleet.engines)
    print(
        f"paceline {__version__}: {len(pending)} engine{'s' * (len(pending) > 1)}; "
        f"logs of those it starts: {log_directory()}",
        flush=True,
    )
    while pending:
        for name, engine in list(pending.items()):
            supervisor, facts = engine.supervisor, engine.supervisor.facts
            if supervisor.health is Health.UP and facts:
                size = f"{facts.slots or '?'} slots of {facts.context_tokens or '?'} tokens"
                model = ", ".join(facts.models)
                print(f"  {name:<10} up after {loop.time() - started_s:.1f} s: {model}, {_chosen(engine)}, {size}")
                del pending[name]
            elif supervisor.health in (Health.FAILED, Health.DOWN):
                print(f"  {name:<10} {supervisor.health}: {supervisor.problem}")
                del pending[name]
        if pending and loop.time() - said_s >= PROGRESS_INTERVAL_S:
            said_s = loop.time()
            waiting = "; ".join(f"{name}: {engine.supervisor.problem}" for name, engine in pending.items())
            print(f"  ... {said_s - started_s:.0f} s, {waiting}", flush=True)
        await asyncio.sleep(0.05)
    models = list(gateway.fleet.models())
    body = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 64}
    if models:
        body = {"model": models[0], **body}
    data = msgspec.json.encode(body).decode()
    print(
        f"""serving
  OpenAI     {gateway.address}/v1
  Anthropic  {gateway.address}/v1/messages
  dashboard  {gateway.address}/paceline/
try
  curl -i {gateway.address}/v1/chat/completions -d '{data}'
  paceline bench --quick --url {gateway.address}    what each lane brings here, in two minutes
Ctrl-C stops.""",
        flush=True,
    )


def _chosen(engine: EngineHandle) -> str:
    """How it drafts."""
    lanes = [handle.lane for handle in engine.lanes()]
    if len(lanes) == 1:
        return str(lanes[0].strategy)
    return f"chosen by request: {', '.join(lane.strategy.name for lane in lanes)}"


def _print_outcome(request: Request, decision: Decision, outcome: Outcome) -> None:
    """One line per request, free of its text; what was not reported is left out."""
    outcome = kept_outcome(outcome, request)
    seen = outcome.observed
    parts = [f"{outcome.status} {kept_path(request.path)} {outcome.lane} {outcome.total_s:.2f} s"]
    if outcome.queue_s >= 0.01:
        parts.append(f"{outcome.queue_s:.2f} s queued")
    if seen.completion_tokens is not None:
        parts.append(f"{seen.completion_tokens} tokens")
    if seen.decode_tokens and seen.decode_s:
        parts.append(f"{seen.decode_tokens / seen.decode_s:.1f} t/s")
    if seen.drafted:
        parts.append(f"{seen.accepted}/{seen.drafted} drafts accepted")
    print(", ".join(parts) + f" | {outcome.error or decision.reason}", flush=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where there is one."""
    if sys.platform == "win32":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
