"""llama.cpp's own server out of the ``xllamacpp`` wheel, one child process each: ``python -m`` this module.

It takes most flags of ``llama-server`` by the same names (``llama_cpp_flags.py``), so that a configuration can name
either program.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from paceline.engines import llama_cpp_flags as flags
from paceline.engines.interface import LaunchError
from paceline.machine import engine_threads

EMBEDDED = "embedded"
"""The first word of a ``launch`` that means this engine."""
KEY_VARIABLE = "PACELINE_EMBEDDED_KEY"
"""Holds the key that requests have to show: other users see a command line, but no environment."""
NO_ORIGIN = ""
"""Pages are answered by the gateway, which knows whose may; none reaches the engine past it."""

NOT_OFFERED = "build or install llama-server for that (`paceline engine build`), and name it in `launch`"
MISSING = (
    "the embedded engine is not installed; install the package xllamacpp "
    "(or paceline[embedded]), or name a llama-server in `launch`"
)


_PLACED = tuple(flag for flag in flags.FLAGS if flag.places)
"""Flags whose value goes into ``CommonParams`` as it is; the others are seen to in :func:`_parameters`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = f"; {NOT_OFFERED}" if message.startswith("unrecognized") else ""
        raise LaunchError(f"the embedded engine: {message}{unknown}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m paceline.engines.embedded",
        description=__doc__,
        epilog=f"Of llama-server's other flags none is offered; {NOT_OFFERED}.",
        allow_abbrev=False,
    )

    def add(flag: flags.Flag, **more: Any) -> None:
        parser.add_argument(*flag.names, type=flag.kind, **({"help": flag.help} | more))

    threads = engine_threads()
    add(flags.MODEL, required=True)
    add(flags.ALIAS)
    add(flags.HOST, default="127.0.0.1")
    add(flags.PORT, required=True)
    add(flags.API_KEY)
    add(flags.CONTEXT, default=0)
    add(flags.PARALLEL, default=1)
    add(flags.THREADS, default=threads, help=f"threads (default: one less than processors, {threads})")
    add(flags.BATCH_THREADS)
    add(flags.TEMPLATE_FILE)
    parser.add_argument("--no-mmap", action="store_true", help="read the model into memory as a whole")
    parser.add_argument("--mlock", action="store_true", help="keep the model from being swapped out")
    parser.add_argument("--rerank", "--reranking", action="store_true", help="rank documents; it does not generate")
    add(flags.DRAFT_MODEL)
    add(flags.SPECULATIVE_TYPES_FLAG, default=flags.NONE)
    for flag in _PLACED:
        add(flag, dest=flag.places[0])
    for choice in flags.CHOICES:
        parser.add_argument(*choice.names, dest=choice.places[0], choices=tuple(choice.members))
    for switch in flags.SWITCHES:
        parser.add_argument(*switch.on, dest=switch.place, action="store_true", default=None)
        if switch.off:
            parser.add_argument(*switch.off, dest=switch.place, action="store_false", default=None)
    return parser


def check(words: Sequence[str]) -> None:
    """Check a command line before it is run.

    Raises:
        LaunchError: a flag is unknown or misused, or ``xllamacpp`` is not installed.
    """
    if find_spec("xllamacpp") is None:
        raise LaunchError(MISSING)
    _parser().parse_args(list(words))
    for flag, value in flags.flag_values(words):
        is_file = flag.is_model_file or flag is flags.TEMPLATE_FILE
        if is_file and value and not Path(value).is_file():
            raise LaunchError(f"{flag.name}: there is no file {value}")


def _parameters(arguments: argparse.Namespace) -> Any:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.model
    if arguments.alias:
        parameters.model_alias = set(arguments.alias.split(","))
    parameters.hostnames = [arguments.host]
    parameters.port = arguments.port
    parameters.n_ctx = arguments.ctx_size
    parameters.n_parallel = arguments.parallel
    parameters.cpuparams.n_threads = arguments.threads
    parameters.cpuparams_batch.n_threads = arguments.threads_batch or arguments.threads
    parameters.endpoint_metrics = True
    parameters.cors_origins, parameters.cors_origins_explicit, parameters.cors_credentials = NO_ORIGIN, True, False
    keys = [key for key in (arguments.api_key or os.environ.pop(KEY_VARIABLE, "")).split(",") if key]
    if keys:
        parameters.api_keys = keys
    _put_in_places(arguments, parameters)
    if arguments.chat_template_file:
        parameters.chat_template = Path(arguments.chat_template_file).read_text("utf-8")
    if arguments.rerank:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    if arguments.no_mmap or arguments.mlock:
        modes = xllamacpp.llama_load_mode
        locked = modes.LLAMA_LOAD_MODE_MLOCK if arguments.no_mmap else modes.LLAMA_LOAD_MODE_MMAP_MLOCK
        parameters.load_mode = locked if arguments.mlock else modes.LLAMA_LOAD_MODE_NONE
    speculative = parameters.speculative
    types = xllamacpp.common_speculative_type.__members__
    names = [
        f"COMMON_SPECULATIVE_TYPE_{name.strip().upper().replace('-', '_')}" for name in arguments.spec_type.split(",")
    ]
    for name in names:
        if name not in types:
            offered = [key.removeprefix("COMMON_SPECULATIVE_TYPE_").lower().replace("_", "-") for key in types]
            raise LaunchError(f"--spec-type {arguments.spec_type}: this build offers {', '.join(offered[:-1])}")
    speculative.types = [types[name] for name in names]
    if arguments.spec_draft_model:
        speculative.draft.mparams.path = arguments.spec_draft_model
    return parameters


def _put_in_places(arguments: argparse.Namespace, parameters: Any) -> None:
    """Put what was given into a ``CommonParams``; the rest stays as it is there."""
    import xllamacpp

    given = vars(arguments)
    for flag in _PLACED:
        value = given[flag.places[0]]
        if value is not None:
            for place in flag.places:
                _put(parameters, place, value)
    for switch in flags.SWITCHES:
        if given[switch.place] is not None:
            _put(parameters, switch.place, given[switch.place])
    for choice in flags.CHOICES:
        word = given[choice.places[0]]
        if word is not None:
            members = getattr(xllamacpp, choice.enumeration).__members__
            for place in choice.places:
                _put(parameters, place, members[choice.members[word]])


def _put(parameters: Any, place: str, value: Any) -> None:
    *holders, name = place.split(".")
    holder = reduce(getattr, holders, parameters)
    if name == "tensor_split":
        value = [*value, *getattr(holder, name)[len(value) :]]
    setattr(holder, name, value)


def _leave_with_parent() -> None:
    """The parent holds the other end of standard input; it closes however the parent ends."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


def main() -> None:
    """Serve until SIGTERM, or until standard input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        parameters = _parameters(_parser().parse_args())
    except LaunchError as error:
        sys.exit(str(error))
    import xllamacpp

    threading.Thread(target=_leave_with_parent, daemon=True).start()
    server = xllamacpp.Server(parameters)
    print(f"serving at {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
