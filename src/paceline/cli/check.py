"""``paceline check``: is a configuration file usable?"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from paceline.cli.colour import Colour, painted
from paceline.cli.common import Subparsers, add_command, add_json_option, fail, print_json
from paceline.configuration import ConfigurationError, has_keys, is_loopback, load, located_in
from paceline.planning.launch_check import launch_problems
from paceline.settings import CloudEngineSettings, Configuration


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "check",
        "check a configuration file",
        "Check a configuration file without starting anything: keys and values, addresses, variables "
        "with keys, and the programs and models of engines that Paceline is to start. Every problem is "
        "printed with file, line and key; the exit status is 1 if there is one. `paceline doctor` also "
        "examines what the file names.",
    )
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--config", type=Path, metavar="FILE", help="the configuration file, TOML")
    # Scripts of older versions name it so.
    named.add_argument("file", type=Path, nargs="?", help=argparse.SUPPRESS)
    add_json_option(parser)
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    problems, notes = "", []
    if options.config is None and options.file is None:
        options.usage_error("say which file is to be checked: paceline check --config FILE")
    file: Path = options.config or options.file
    try:
        configuration = load(file)
        problems = located_in(file, launch_problems(configuration))
        notes = list(_notes(configuration))
    except ConfigurationError as error:
        problems = str(error)
    if options.json:
        print_json({"file": str(file), "problems": problems.splitlines(), "notes": notes})
        return 1 if problems else 0
    if problems:
        return fail(problems)
    print("\n".join(notes))
    count = len(configuration.engine)
    fine = painted("fine", Colour.GREEN, sys.stdout)
    print(f"{file}: {fine}, {count} engine{'s' * (count != 1)}; each has its lanes when it is up")
    return 0


def _notes(configuration: Configuration) -> Iterator[str]:
    """What the file means, and what is worth knowing of it."""
    for engine in configuration.engine:
        if isinstance(engine, CloudEngineSettings):
            yield f"{engine.name}: {engine.kind}, {', '.join(engine.models)}, {engine.url}"
            continue
        where = engine.url or " ".join(engine.launch)
        yield f"{engine.name}: {engine.kind}, {engine.as_started}, device {engine.device or 'of its own'}, {where}"
        if engine.url and engine.url.rstrip("/").endswith("/v1"):
            yield f"{engine.name}: the /v1 at the end of its url is left off: requests bring their own"
    server = configuration.server
    if not is_loopback(server.host) and not has_keys(configuration):
        yield f"warning: {server.host} is open to other machines without a key, as server.insecure says"
