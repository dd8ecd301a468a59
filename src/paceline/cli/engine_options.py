"""The options that say which engines to use, and the configuration that they make."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from paceline.cli.common import say, shortened
from paceline.configuration import ConfigurationError, check_usable, load, located_in
from paceline.engines import ENGINES
from paceline.engines.bundled_model import NAME, bundled_model
from paceline.engines.embedded import EMBEDDED
from paceline.engines.interface import LaunchError
from paceline.engines.llama_cpp_build import CPU, Build, usable
from paceline.engines.llama_cpp_flags import CONTEXT, HOST, PORT, THREADS, flag_values
from paceline.machine import available_memory_bytes, engine_threads
from paceline.paths import cache_directory
from paceline.planning.drafters import FoundDrafter, find_drafter
from paceline.planning.dry_run import judge_of
from paceline.planning.find_devices import find_machine
from paceline.planning.gguf import Header, read_model
from paceline.planning.launch_check import launch_problems
from paceline.planning.memory import model_of
from paceline.planning.one_model import Wanted, an_engine_each, context_for, one_engine
from paceline.planning.plan import DoesNotFit, Wish
from paceline.planning.plan_text import decisions
from paceline.planning.planner import make_plan
from paceline.planning.written_plan import planned_engine
from paceline.settings import Configuration, EngineSettings

ENGINE_FLAGS = "engine_flags"
"""Where ``commands.py`` puts what stands behind ``--``."""
SLOTS = 4
"""Requests decoded at once by default; set by hand, for the programs of one person."""
MAX_SLOTS = 256
"""llama.cpp's ``LLAMA_MAX_SEQ``."""
MAX_THREADS = 512
"""ggml's ``GGML_MAX_N_THREADS``."""
MAX_CONTEXT_TOKENS = 1 << 26
"""For each request, and more than any model has: a larger number is a slip."""
OF_ONE_MODEL = ("draft_model", "llama_server", "slots", "context_tokens", "threads")
"""Options that go with ``--model`` alone."""
GATEWAYS_OWN = (PORT, HOST)
"""Flags of the engine that Paceline sets."""


class Once(argparse.Action):
    """Stores a value, and refuses a second one."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: Any, option: str | None = None
    ) -> None:
        if getattr(namespace, self.dest, None) is not None:
            parser.error(f"{option} is given twice; several models behind one gateway need a --config")
        setattr(namespace, self.dest, value)


def whole_number(smallest: int, largest: int) -> Callable[[str], int]:
    """A type of argparse's options: a whole number from ``smallest`` to ``largest``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if not smallest <= value <= largest:
            raise argparse.ArgumentTypeError(f"is {value}; it has to be from {smallest} to {largest}")
        return value

    return read


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Options that say which engines to use."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, action=Once, metavar="FILE", help="configuration file, TOML")
    add_model_options(parser, source)


def add_model_options(parser: argparse.ArgumentParser, source: Any) -> None:
    """Options that say how a model is served.

    Args:
        source: the parser, or the group of it that ``--model`` is to be in.
    """
    source.add_argument(
        "--model",
        type=Path,
        action=Once,
        metavar="FILE",
        help="GGUF file to serve: plain, with n-gram lookup, and with another drafter if there is one: the "
        "model's own MTP layers, or an EAGLE-3 head or a draft model in the same folder, with `eagle` "
        "or `draft` in its name",
    )
    parser.add_argument(
        "--draft-model", type=Path, action=Once, metavar="FILE", help="with --model: the draft model or EAGLE-3 head"
    )
    parser.add_argument(
        "--llama-server",
        metavar="PROGRAM",
        help="without --config: start this llama-server, or `embedded`, the one in the xllamacpp package (default: the "
        "one that `paceline engine build` made, else the embedded one)",
    )
    parser.add_argument(
        "--slots",
        type=whole_number(1, MAX_SLOTS),
        metavar="N",
        help=f"without --config: requests that a lane decodes at once (default: {SLOTS})",
    )
    parser.add_argument(
        "--context-tokens",
        type=whole_number(1, MAX_CONTEXT_TOKENS),
        metavar="N",
        help="without --config: context for each request (default: 16384, which agents need; less for models "
        "that were made for less or have more than 4 GB, or if memory is short)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(1, MAX_THREADS),
        metavar="N",
        help="without --config: processor threads of each engine (default: one for each core but one)",
    )
    parser.set_defaults(**{ENGINE_FLAGS: []})
    parser.usage = "%(prog)s [OPTIONS] [-- FLAGS OF THE ENGINE]"


def engine_words(options: argparse.Namespace) -> list[str]:
    """The same options as words of a command line; the engine's flags come last."""
    words: list[str] = []
    for name in ("config", "model", *OF_ONE_MODEL):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    flags = getattr(options, ENGINE_FLAGS)
    return [*words, "--", *flags] if flags else words


def misused(options: argparse.Namespace) -> str | None:
    """What can't be meant by the options together; ``None`` if all is well."""
    flags: Sequence[str] = getattr(options, ENGINE_FLAGS)
    if options.config:
        for name in OF_ONE_MODEL:
            if getattr(options, name) is not None:
                option = name.replace("_", "-")
                return f"--{option} goes with --model; with --config, write it into the engine's `launch`"
        if flags:
            return f"{flags[0]}: with --config, write the engine's flags into its `launch`"
    for flag, _ in flag_values(flags):
        if flag in GATEWAYS_OWN:
            return f"{flag.name} behind --: Paceline says where its engine listens; before --, it is for the gateway"
    return None


class FileReader:
    """Reads a configuration file, at the start and at each reload.

    At the start, an engine whose program or model is missing keeps the others from nothing: it is said. Later, when
    there is a configuration in force, such a slip in an engine that is new or changed refuses the file.
    """

    def __init__(self, path: Path, server: Mapping[str, Any]) -> None:
        self._path = path
        self._server = server
        self._in_force: Configuration | None = None

    def __call__(self) -> Configuration:
        """
        Raises:
            ConfigurationError: it can't be used.
        """
        configuration = load(self._path, self._server)
        unchanged = self._in_force.engine if self._in_force else ()
        if problems := launch_problems(configuration, unchanged):
            text = located_in(self._path, problems)
            if self._in_force:
                raise ConfigurationError(text)
            say(text)
        self._in_force = configuration
        return configuration


def configuration_of_model(options: argparse.Namespace, server: Mapping[str, Any]) -> Configuration:
    """For the given model, or the bundled one: one engine that takes its strategy from each request, if such a one was
    built; else one for each way. What was chosen is printed.

    Raises:
        BadModelFile, NoDrafter, NoBundledModel: the file can't be served.
        ConfigurationError: the engine can't be started so.
    """
    engines, chosen = engines_of_model(options)
    usual = Configuration()
    configuration = replace(usual, engine=engines, server=replace(usual.server, **server))
    check_usable(configuration)
    for engine in engines:
        try:
            ENGINES[engine.kind].launch(engine.launch, 1)
        except LaunchError as error:
            raise ConfigurationError(str(error)) from error
    print(chosen, flush=True)
    return configuration


def engines_of_model(options: argparse.Namespace) -> tuple[tuple[EngineSettings, ...], str]:
    """The engines for the given model, or the bundled one, and what was chosen, for people.

    Raises:
        BadModelFile, NoDrafter, NoBundledModel: the file can't be served.
    """
    path = options.model
    if path is None:
        path = bundled_model(cache_directory(), lambda: print("unpacking the bundled model (once) ...", flush=True))
    parts = read_model(path.absolute())  # a link stays one: drafters stand beside it, not beside what it points to
    return _engines(options, parts, find_drafter(parts, options.draft_model))


def _engines(
    options: argparse.Namespace, parts: Sequence[Header], drafter: FoundDrafter | None
) -> tuple[tuple[EngineSettings, ...], str]:
    """Also returns what was chosen, for people.

    Raises:
        BadModelFile: the drafter's file can't be used.
    """
    built = None if options.llama_server else usable(cache_directory())
    return _by_plan(options, parts, drafter, built) if built else _one_each(options, parts, drafter)


def _by_plan(
    options: argparse.Namespace, parts: Sequence[Header], drafter: FoundDrafter | None, built: Build
) -> tuple[tuple[EngineSettings, ...], str]:
    """One engine that takes its strategy from each request."""
    machine = find_machine(built.server)
    if built.backend == CPU:  # whatever cards drivers know of
        machine = replace(machine, devices=())
    wanted, why = _wanted(options, parts, built.server, 1, "gpu" if machine.devices else "cpu")
    # On cards, the plan finds the context, too.
    asked = options.context_tokens if machine.devices else wanted.context_tokens
    wish = Wish(context_tokens=asked, slots=options.slots, usual_slots=SLOTS)
    try:
        plan = make_plan(model_of(parts), machine, wish, drafter, judge_of(built))
    except DoesNotFit as error:
        said = f"warning: {error} It is started all the same; it may be read from the disk again and again."
        return (one_engine(wanted, drafter),), "\n".join([_chosen(wanted, parts, drafter, why), said])
    if plan.context_tokens != wanted.context_tokens:
        why = "what fits; --context-tokens changes it"
    wanted = replace(wanted, slots=plan.settings.slots, context_tokens=plan.context_tokens)
    engine = planned_engine(plan, wanted.model, wanted.alias, wanted.program, wanted.threads, wanted.flags)
    return (engine,), "\n".join([_chosen(wanted, parts, drafter, why), *decisions(plan)])


def _one_each(
    options: argparse.Namespace, parts: Sequence[Header], drafter: FoundDrafter | None
) -> tuple[tuple[EngineSettings, ...], str]:
    """An engine for each way."""
    wanted, why = _wanted(options, parts, options.llama_server or EMBEDDED, 2 + (drafter is not None), "cpu")
    lines = [_chosen(wanted, parts, drafter, why)]
    model_bytes, memory_bytes = sum(part.tensor_bytes for part in parts), available_memory_bytes()
    if memory_bytes is not None and model_bytes > memory_bytes:
        lines.append(
            f"warning: its weights have {model_bytes / 1e9:.1f} GB and {memory_bytes / 1e9:.1f} GB of memory are free: "
            "unless a GPU holds the rest, it will be read from the disk again and again, or not load at all"
        )
    return an_engine_each(wanted, drafter), "\n".join(lines)


def _wanted(
    options: argparse.Namespace, parts: Sequence[Header], program: str, engine_count: int, device: str
) -> tuple[Wanted, str]:
    """Slots, context and threads as they are given, or as the host and the model have room for; and why so much
    context."""
    header = parts[0]
    slots = options.slots or SLOTS
    context_tokens, why = options.context_tokens, "--context-tokens"
    if context_tokens is None:
        model_bytes, memory_bytes = sum(part.tensor_bytes for part in parts), available_memory_bytes()
        context_tokens, why = context_for(header, model_bytes, slots * engine_count, memory_bytes)
        why += "; --context-tokens changes it"
    wanted = Wanted(
        model=header.path,
        alias=NAME if options.model is None else header.path.stem,
        program=program,
        slots=slots,
        context_tokens=context_tokens,
        threads=options.threads or (engine_threads() if device == "cpu" else None),
        flags=tuple(getattr(options, ENGINE_FLAGS)),
        device=device,
    )
    return wanted, why


def _chosen(wanted: Wanted, parts: Sequence[Header], drafter: FoundDrafter | None, why: str) -> str:
    """Flags behind -- that repeat one of these are the engine's last word on it."""
    given = {flag for flag, _ in flag_values(wanted.flags)}
    chosen = [f"{shortened(wanted.alias)}: {sum(part.tensor_bytes for part in parts) / 1e9:.2f} GB"]
    if CONTEXT not in given:
        plural = "s" * (wanted.slots > 1)
        chosen.append(f"{wanted.slots} slot{plural} of {wanted.context_tokens} tokens ({why})")
    if wanted.threads and THREADS not in given:
        chosen.append(f"{wanted.threads} thread{'s' * (wanted.threads > 1)}")
    if drafter:
        chosen.append(f"drafts by {drafter}")
    return ", ".join(chosen)
