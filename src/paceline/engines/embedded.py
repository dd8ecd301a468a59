"""llama.cpp's own server out of the ``xllamacpp`` wheel, one child process each: ``python -m`` this module.

It takes the flags of ``llama-server`` that a lane needs, by the same names, so that a configuration can name
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

from paceline.engines.interface import LaunchError

NAME = "embedded"
"""The first word of a ``launch`` that means this engine."""

MISSING = (
    "the embedded engine is not installed; install the package xllamacpp "
    "(or paceline[embedded]), or name a llama-server in `launch`"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LaunchError(f"the embedded engine: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m {__name__}", description=__doc__, allow_abbrev=False)
    parser.add_argument("-m", "--model", required=True, help="GGUF file")
    parser.add_argument("-a", "--alias", help="name the model goes by; several are separated by commas")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("-c", "--ctx-size", type=int, default=0, help="tokens of context of all slots together")
    parser.add_argument("-np", "--parallel", type=int, default=1, help="requests decoded at once")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count(), help="threads (default: all)")
    parser.add_argument("-b", "--batch-size", type=int)
    parser.add_argument("-ub", "--ubatch-size", type=int)
    parser.add_argument("-ngl", "--gpu-layers", type=int)
    parser.add_argument("--chat-template-file", help="Jinja file that takes the place of the model's own template")
    parser.add_argument("-md", "--spec-draft-model", help="GGUF file of a draft model")
    parser.add_argument("--spec-type", default="none", help="drafters, separated by commas")
    parser.add_argument("--spec-draft-n-max", type=int, help="most tokens a draft model drafts")
    parser.add_argument("--spec-ngram-simple-size-n", type=int, help="length of the n-gram that is looked up")
    parser.add_argument("--spec-ngram-simple-size-m", type=int, help="most tokens an n-gram hit drafts")
    parser.add_argument("--spec-ngram-simple-min-hits", type=int, help="hits before an n-gram drafts")
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
    parameters.cpuparams_batch.n_threads = arguments.threads
    parameters.endpoint_metrics = True
    if arguments.chat_template_file:
        parameters.chat_template = Path(arguments.chat_template_file).read_text("utf-8")
    for name, value in (
        ("n_batch", arguments.batch_size),
        ("n_ubatch", arguments.ubatch_size),
        ("n_gpu_layers", arguments.gpu_layers),
    ):
        if value is not None:
            setattr(parameters, name, value)
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
    for holder, name, value in (
        (speculative.draft, "n_max", arguments.spec_draft_n_max),
        (speculative.ngram_simple, "size_n", arguments.spec_ngram_simple_size_n),
        (speculative.ngram_simple, "size_m", arguments.spec_ngram_simple_size_m),
        (speculative.ngram_simple, "min_hits", arguments.spec_ngram_simple_min_hits),
    ):
        if value is not None:
            setattr(holder, name, value)
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
