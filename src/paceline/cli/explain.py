"""``paceline explain``: what would be decided for a request, and why?"""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from paceline.cli.common import Subparsers, add_command, add_json_option, fail, print_json
from paceline.cli.remote import Unanswered, add_address_options, address, ask
from paceline.configuration import ConfigurationError, load
from paceline.http.documents import explanation
from paceline.http.errors import ApiError
from paceline.http.parse import parse_request
from paceline.http.routes import GENERATION
from paceline.routing.router import Router
from paceline.settings import RoutingSettings
from paceline.types import Lane, Strategy

EXAMPLES = """examples:
  paceline explain "Tell me a story about a lighthouse."
  paceline explain --running request.json                 by the gateway on port 8080, with what it has learned
  paceline explain --config paceline.toml - < request.json
  paceline explain --path /v1/messages request.json
"""
NAME_WIDTH = len("conversation_is_named")
"""Characters: of the longest signal."""
FILE_ENDINGS = (".json", ".jsonl", ".txt")
SEPARATORS = ("/", "\\")


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "explain",
        "show signals, decision and reason for a request",
        "Show what Paceline finds in a request, which lane it would take, and why. With --running, the "
        "running gateway is asked, with what it has learned. Otherwise the lanes of a configuration are "
        "taken (default: one plain, one n-gram), with all engines up and idle and nothing learned. "
        "Nothing is started or sent to an engine.",
        EXAMPLES,
    )
    parser.add_argument(
        "request",
        metavar="REQUEST",
        help="a prompt, a file with a request body (JSON), or - to read one from standard input",
    )
    parser.add_argument("--running", action="store_true", help="ask the running gateway")
    add_address_options(parser, also_for="; without --running, the configuration with the lanes to choose from")
    parser.add_argument(
        "--path",
        default="/v1/chat/completions",
        choices=sorted(GENERATION),
        metavar="PATH",
        help="the path that the request would be sent to (default: /v1/chat/completions)",
    )
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        body = _body(options.request, options.path)
    except _NoRequest as error:
        return fail(str(error))
    if options.running or options.url:
        try:
            _tell(options, ask(address(options), "POST", f"/paceline/explain{options.path}", body))
        except (ConfigurationError, Unanswered) as error:
            return fail(str(error))
        return 0
    lanes = [Lane("plain", "plain", Strategy(), "cpu"), Lane("ngram", "ngram", Strategy("ngram"), "cpu")]
    if options.config:
        try:
            lanes = [lane for engine in load(options.config, here=False).engine for lane in engine.lanes()]
        except ConfigurationError as error:
            return fail(str(error))
    try:
        request = asyncio.run(parse_request(GENERATION[options.path], options.path, body, []))
    except ApiError as error:
        return fail(error.message)
    decision = Router(lanes, RoutingSettings(exploration=0)).explain(request)
    _tell(options, msgspec.to_builtins(explanation(decision)))
    return 0


def _tell(options: argparse.Namespace, document: Mapping[str, Any]) -> None:
    if options.json:
        print_json(document)
    else:
        _print(document)


def _print(document: Mapping[str, Any]) -> None:
    print("signals")
    for name, value in document["signals"].items():
        _line(name, value)
    print("decision")
    for name, value in document["decision"].items():
        _line(name, value)
    if placement := document.get("placement"):
        print("placement")
        for name, terms in placement["terms"].items():
            _line(name, _terms(terms))
        for name, why in placement["struck"].items():
            _line(name, f"struck: {why}")
    print("predictions")
    for lane, expected in document["predictions"].items():
        time = expected["ms_per_token"]
        parts = [
            f"{expected['plain_steps_per_token']:.2f} plain steps/token +-{100 * expected['relative_spread']:.0f} %"
        ]
        if time is not None:
            parts.insert(0, f"{time:.1f} ms/token")
        if expected["acceptance"] is not None:
            parts.append(f"accept {expected['acceptance']:.2f}")
            parts.append(f"of {expected['coverage']:.2f} of the tokens")
        _line(lane, ", ".join(parts))


def _terms(terms: Mapping[str, Any]) -> str:
    parts = [f"{terms['time_s']:.1f} s"]
    if terms["queue_s"]:
        parts.append(f"{terms['queue_s']:.1f} s of them waiting")
    parts.append("price unknown" if terms["cost"] is None else f"price {terms['cost']:.4g}")
    if terms["poor"]:
        parts.append(f"poor {terms['poor']:.2f}")
    if terms["late"] is not None:
        parts.append(f"late {terms['late']:.2f}")
    return ", ".join([*parts, f"in all {terms['total']:.4g}"])


def _line(name: str, value: Any) -> None:
    if value is None or value == "":
        value = "not given"
    elif isinstance(value, dict):
        value = ", ".join(f"{key} {share:.2f}" for key, share in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(value) or "none"
    elif isinstance(value, float):
        value = f"{value:g}"
    print(f"  {name:<{NAME_WIDTH}} {value}")


class _NoRequest(Exception):
    """What is given is neither a prompt nor a request; ``str()`` says why."""


def _body(text: str, path: str) -> bytes:
    """The request's body: from standard input, from a file, or built around a prompt.

    Raises:
        _NoRequest: there is none, or it is no JSON object.
    """
    if text == "-":
        return _object(sys.stdin.buffer.read(), "standard input")
    if not text.strip():
        raise _NoRequest("the prompt is empty; give a prompt, a file with a request's body, or - for standard input")
    if (body := _of_file(text)) is not None:
        return _object(body, text)
    if text.lstrip().startswith(("{", "[")) and _is_json(text):
        return _object(text.encode(), "the request")
    if text.lstrip().startswith("{"):
        return text.encode()  # what is wrong with it is told by line and column
    if path.endswith(("/chat/completions", "/messages")):
        return msgspec.json.encode({"messages": [{"role": "user", "content": text}]})
    return msgspec.json.encode({"input" if path.endswith("/responses") else "prompt": text})


def _of_file(name: str) -> bytes | None:
    """
    Raises:
        _NoRequest: it is the name of a file that can't be read.
    """
    file = Path(name)
    try:
        if file.is_dir():
            raise _NoRequest(f"{name} is a directory; name a file with a request's body")
        if file.exists():
            return file.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise _NoRequest(f"{name}: {error.strerror}") from error
        return None  # too long to be a file's name, or with a NUL in it
    is_one_word = not any(letter.isspace() for letter in name)
    if is_one_word and (name.lower().endswith(FILE_ENDINGS) or any(mark in name for mark in SEPARATORS)):
        raise _NoRequest(f"there is no file {name}; to have it taken for a prompt, put a space behind it")
    return None


def _object(body: bytes, source: str) -> bytes:
    """
    Raises:
        _NoRequest: it is JSON, but no object.
    """
    if not body.strip():
        raise _NoRequest(f"{source} is empty; a request's body is a JSON object")
    if _is_json(body) and not body.lstrip().startswith(b"{"):
        raise _NoRequest(f"{source} is JSON, but no object; a request's body is one, such as " + '{"messages": [...]}')
    return body


def _is_json(text: str | bytes) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
