"""``paceline explain``: what would be decided for a request, and why?"""

import argparse
import sys
from pathlib import Path
from random import Random

import msgspec
from msgspec.structs import asdict

from paceline.cli.common import Subparsers, add_command, fail
from paceline.configuration import ConfigurationError, load
from paceline.decision import State, decide
from paceline.gateway.application import GENERATION
from paceline.gateway.errors import ApiError
from paceline.gateway.parse import parse_request
from paceline.inspection import inspect
from paceline.types import Lane, LaneState, Strategy

EXAMPLES = """examples:
  paceline explain "Tell me a story about a lighthouse."
  paceline explain --config paceline.toml - < request.json
  paceline explain --path /v1/messages request.json
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "explain",
        "show signals, decision and reason for a request",
        "Show what Paceline finds in a request, which lane it would take with all engines up and idle, and why. "
        "Nothing is started or sent.",
        EXAMPLES,
    )
    parser.add_argument(
        "request", help="a prompt, a file with a request body (JSON), or - to read one from standard input"
    )
    parser.add_argument("--config", type=Path, help="take the lanes from this file (default: one plain, one n-gram)")
    parser.add_argument(
        "--path", default="/v1/chat/completions", choices=sorted(GENERATION), help="where it would be sent"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    lanes = [Lane("plain", "plain", Strategy(), "cpu"), Lane("ngram", "ngram", Strategy("ngram"), "cpu")]
    if options.config:
        try:
            lanes = [engine.lane() for engine in load(options.config).engine]
        except ConfigurationError as error:
            return fail(str(error))
    try:
        request = parse_request(GENERATION[options.path], options.path, _body(options.request, options.path), [])
    except ApiError as error:
        return fail(error.message)
    signals = inspect(request)
    decision = decide(signals, [LaneState(lane) for lane in lanes], State(), Random(0))
    print("signals")
    for name, value in asdict(signals).items():
        print(f"  {name:<15}{'not given' if value is None else value}")
    print("decision")
    print(f"  {'lane':<15}{decision.lane}")
    print(f"  {'reason':<15}{decision.reason}")
    print(f"  {'propensity':<15}{decision.propensity:g}")
    print(f"  {'then':<15}{', '.join(decision.alternatives) or 'no other lane'}")
    return 0


def _body(text: str, path: str) -> bytes:
    """The request's body: from standard input, from a file, or built around a prompt."""
    if text == "-":
        return sys.stdin.buffer.read()
    try:
        if Path(text).is_file():
            return Path(text).read_bytes()
    except OSError:
        pass  # too long to be a file's name
    if text.lstrip().startswith("{"):
        return text.encode()
    if path.endswith(("/chat/completions", "/messages")):
        return msgspec.json.encode({"messages": [{"role": "user", "content": text}]})
    return msgspec.json.encode({"input" if path.endswith("/responses") else "prompt": text})
