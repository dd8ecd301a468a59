"""``paceline serve``: run the gateway."""

import argparse
import asyncio
import errno
import json
import logging
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paceline import __version__
from paceline.cli.announce import announce, announce_stop
from paceline.cli.common import Subparsers, add_command, fail
from paceline.cli.engine_options import FileReader, add_engine_options, configuration_of_model, misused, whole_number
from paceline.cli.log_file import printed_into
from paceline.cli.notify import READY, notify
from paceline.cli.remote import http_url
from paceline.cli.signals import handled_signals
from paceline.configuration import ConfigurationError
from paceline.engines.bundled_model import NoBundledModel
from paceline.http.own_process import calm_garbage_collector, calm_matrices, loop_factory, say
from paceline.http.server import CannotListen, Gateway
from paceline.paths import log_directory, state_directory
from paceline.planning.drafters import NoDrafter
from paceline.planning.gguf import BadModelFile
from paceline.records.lines import Lines
from paceline.settings import Configuration, ServerSettings
from paceline.workers.keeper import CannotStart, Keeper

MAX_PORT = 65_535
MAX_WORKERS = 64
"""More than one for each processor core bring nothing; a larger number is a slip."""
LOOK_TIMEOUT_S = 2.0
"""For what listens on a port that is taken to say who it is."""
MAX_LOOK_BYTES = 1 << 20
"""Of what it says; a gateway's health has some hundred bytes."""

EXAMPLES = """examples:
  paceline serve                                    the bundled model, one plain and one n-gram lane
  paceline serve --model model.gguf                 the same with a model of yours
  paceline serve --model model.gguf -- -ngl 99      ... with flags for its engine
  paceline serve --config paceline.toml             your engines; docs/configuration.md has every key
"""

log = logging.getLogger("paceline.cli")


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "serve",
        "run the gateway",
        "Run the gateway, and the engines that it is to start, until Ctrl-C. Flags after -- are passed to the engine.",
        EXAMPLES,
    )
    add_engine_options(parser)
    parser.add_argument(
        "--host", metavar="ADDRESS", help="address to listen on (default: the configuration's, else 127.0.0.1)"
    )
    parser.add_argument(
        "--port",
        type=whole_number(0, MAX_PORT),
        metavar="N",
        help="port to listen on (default: the configuration's, else 8080)",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1, MAX_WORKERS),
        default=1,
        metavar="N",
        help="processes that answer requests, at one address and with the same engines (default: 1); use "
        "more than one if one processor core can't serve all requests",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="listen beyond this machine although no key is configured"
    )
    parser.add_argument(
        "--log-file",
        type=Path,
        metavar="FILE",
        help="write the output into a file, which is put aside as .log.1 when it has 20 MB",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if problem := misused(options):
        return fail(problem)
    with printed_into(options.log_file, f"paceline {__version__}"):
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    try:
        reader = _reader(options)
        gateway = _of_several(reader, options.workers) if options.workers > 1 else _of_one(reader)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_serve(gateway, of_one_model=options.config is None))
    except (ConfigurationError, NoBundledModel, NoDrafter, BadModelFile) as error:
        return fail(str(error))
    except CannotStart as error:
        return fail(str(error))
    except CannotListen as error:
        return fail(f"{error}{_hint(error, reader().server)}")


def _reader(options: argparse.Namespace) -> Callable[[], Configuration]:
    """
    Raises:
        ConfigurationError, NoBundledModel, NoDrafter, BadModelFile: what the options name can't be served.
    """
    server: dict[str, Any] = {key: value for key in ("host", "port") if (value := getattr(options, key)) is not None}
    if options.insecure:
        server["insecure"] = True
    if options.config:
        return FileReader(options.config, server)
    configuration = configuration_of_model(options, server)  # once: a reload finds the same
    return lambda: configuration


def _of_one(reader: Callable[[], Configuration]) -> Gateway:
    """A gateway in this process.

    Raises:
        ConfigurationError: the configuration can't be used.
    """
    gateway = Gateway(
        reader,
        log_directory=log_directory(),
        state_directory=state_directory(),
        sink=Lines(say, is_wanted=lambda: gateway.fleet.configuration.server.log_requests),
        say=say,
        on_stop=announce_stop,
    )
    return gateway


def _of_several(reader: Callable[[], Configuration], workers: int) -> Keeper:
    """A gateway of several processes.

    Raises:
        ConfigurationError: the configuration can't be used.
    """
    return Keeper(
        reader, workers, log_directory=log_directory(), state_directory=state_directory(), on_stop=announce_stop
    )


async def _serve(gateway: Gateway | Keeper, of_one_model: bool) -> int:
    """Returns the exit status.

    Raises:
        CannotListen, ConfigurationError: the gateway can't be started.
    """
    status = 0

    async def tell() -> None:
        nonlocal status
        try:
            is_any_up = await announce(gateway, of_one_model)
        except Exception:
            log.exception("saying how the engines come up failed; requests are served without it")
            return
        if not is_any_up:
            status = 1
            gateway.ask_to_stop()

    with handled_signals(gateway):
        await gateway.start()
        calm_garbage_collector()
        calm_matrices()
        announcer = asyncio.create_task(tell())
        try:
            notify(READY)
            await gateway.serve_forever()
        finally:
            announcer.cancel()
            await asyncio.wait([announcer])
            print("stopped", flush=True)
    return status


def _hint(error: CannotListen, server: ServerSettings) -> str:
    """What to do about an address that is taken; empty where it is something else."""
    cause = error.__cause__
    if not isinstance(cause, OSError) or cause.errno != errno.EADDRINUSE:
        return ""
    host, port = server.host, server.port
    who = "another Paceline runs there" if _is_paceline(host, port) else "another program listens there"
    other = port + 1 if port < MAX_PORT else port - 1
    return f'\n{who}; choose another port with --port {other} (make run ARGS="--port {other}"), or stop it'


def _is_paceline(host: str, port: int) -> bool:
    """Whether a Paceline answers there, in whatever state its engines are."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{http_url(host, port)}/health", timeout=LOOK_TIMEOUT_S) as answer:
            body = answer.read(MAX_LOOK_BYTES)
    except urllib.error.HTTPError as error:
        body = error.read(MAX_LOOK_BYTES)  # 503: no lane is up
    except (OSError, ValueError):
        return False
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and "lanes" in document
