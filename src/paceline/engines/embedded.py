"""llama.cpp's own server out of the ``xllamacpp`` wheel, one child process each: ``python -m`` this module.

It takes most flags of ``llama-server`` by the same names (``embedded_flags.py``), so that a configuration can name
either program.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from paceline.engines import embedded_flags
from paceline.engines.interface import LaunchError
from paceline.planning.machine import engine_threads

NAME = "embedded"
"""The first word of a ``launch`` that means this engine."""
KEY_VARIABLE = "PACELINE_EMBEDDED_KEY"
"""Holds the key that requests have to show: other users see a command line, but no environment."""
NO_ORIGIN = ""
"""Pages are answered by the gateway, which knows whose may; none reaches the engine past it."""

MISSING = (
    "the embedded engine is not installed; install the package xllamacpp "
    "(or paceline[embedded]), or name a llama-server in `launch`"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = f"; {embedded_flags.NOT_OFFERED}" if message.startswith("unrecognized") else ""
        raise LaunchError(f"the embedded engine: {message}{unknown}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m {__name__}",
        description=__doc__,
        epilog=f"Of llama-server's other flags none is offered; {embedded_flags.NOT_OFFERED}.",
        allow_abbrev=False,
    )
    parser.add_argument("-m", "--model", required=True, help="GGUF file")
    parser.add_argument("-a", "--alias", help="name the model goes by; several are separated by commas")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--api-key", help="keys that requests may show, separated by commas")
    parser.add_argument("-c", "--ctx-size", type=int, default=0, help="tokens of context of all slots together")
    parser.add_argument("-np", "--parallel", type=int, default=1, help="requests decoded at once")
    threads = engine_threads()
    parser.add_argument(
        "-t", "--threads", type=int, default=threads, help=f"threads (default: one less than processors, {threads})"
    )
    parser.add_argument("-tb", "--threads-batch", type=int, help="threads for prompts (default: as --threads)")
    parser.add_argument("--chat-template-file", help="Jinja file that takes the place of the model's own template")
    parser.add_argument("--no-mmap", action="store_true", help="read the model into memory as a whole")
    parser.add_argument("--mlock", action="store_true", help="keep the model from being swapped out")
    parser.add_argument("--rerank", "--reranking", action="store_true", help="rank documents; it does not generate")
    parser.add_argument("-md", "--spec-draft-model", help="GGUF file of a draft model")
    parser.add_argument("--spec-type", default="none", help="drafters, separated by commas")
    embedded_flags.add_to(parser)
    return parser


def check(words: Sequence[str]) -> None:
    """Check a command line before it is run.

    Raises:
        LaunchError: a flag is unknown or misused, or ``xllamacpp`` is not installed.
    """
    if find_spec("xllamacpp") is None:
        raise LaunchError(MISSING)
    arguments = _parser().parse_args(list(words))
    for flag, file in (
        ("--model", arguments.model),
        ("--chat-template-file", arguments.chat_template_file),
        ("--spec-draft-model", arguments.spec_draft_model),
        ("--mmproj", getattr(arguments, "mmproj.path")),
    ):
        if file and not Path(file).is_file():
            raise LaunchError(f"{flag}: there is no file {file}")


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
    embedded_flags.write(arguments, parameters)
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
    known = xllamacpp.common_speculative_type.__members__
    names = [
        f"COMMON_SPECULATIVE_TYPE_{name.strip().upper().replace('-', '_')}" for name in arguments.spec_type.split(",")
    ]
    for name in names:
        if name not in known:
            offered = [key.removeprefix("COMMON_SPECULATIVE_TYPE_").lower().replace("_", "-") for key in known]
            raise LaunchError(f"--spec-type {arguments.spec_type}: this build offers {', '.join(offered[:-1])}")
    speculative.types = [known[name] for name in names]
    if arguments.spec_draft_model:
        speculative.draft.mparams.path = arguments.spec_draft_model
    return parameters


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
