"""``paceline check``: is a configuration file usable?"""

import argparse
from pathlib import Path

from paceline.cli.common import Subparsers, add_command, fail
from paceline.configuration import ConfigurationError, has_keys, is_loopback, load, located_in
from paceline.planning.launch_check import launch_problems
from paceline.settings import CloudEngineSettings


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "check",
        "check a configuration file",
        "Check a configuration file without starting anything: keys and values, addresses, variables with keys, and of "
        "engines that are to be started the programs and models. Every problem is said with file, line and key; the "
        "exit status is 1 if there is one.",
    )
    parser.add_argument("file", type=Path, help="the configuration file, TOML")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        configuration = load(options.file)
    except ConfigurationError as error:
        return fail(str(error))
    if problems := launch_problems(configuration):
        return fail(located_in(options.file, problems))
    for engine in configuration.engine:
        if isinstance(engine, CloudEngineSettings):
            print(f"{engine.name}: {engine.kind}, {', '.join(engine.models)}, {engine.url}")
            continue
        where = engine.url or " ".join(engine.launch)
        print(f"{engine.name}: {engine.kind}, {engine.as_started}, device {engine.device or 'of its own'}, {where}")
        if engine.url and engine.url.rstrip("/").endswith("/v1"):
            print(f"{engine.name}: the /v1 at the end of its url is left off: requests bring their own")
    server = configuration.server
    if not is_loopback(server.host) and not has_keys(configuration):
        print(f"warning: {server.host} is open to other machines without a key, as server.insecure says")
    count = len(configuration.engine)
    print(f"{options.file}: fine, {count} engine{'s' * (count != 1)}; each has its lanes when it is up")
    return 0
