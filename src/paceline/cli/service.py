"""``paceline service``: have the system run the gateway, and start it again."""

import argparse
import getpass
import os
import sys
from pathlib import Path

from paceline.cli.colour import Colour, painted
from paceline.cli.common import Subparsers, add_command, add_json_option, fail, print_json, say
from paceline.configuration import ConfigurationError, load
from paceline.service import launchd, systemd
from paceline.service.description import Service, any_service
from paceline.service.manager import ServiceError, install, manager_here, uninstall

SUDO_USER = "SUDO_USER"
"""Who has called sudo."""
ADMINISTRATOR = "root"
EXAMPLES = """examples:
  paceline service install --config paceline.toml           of yours: runs while you are logged in
  sudo paceline service install --config /etc/paceline/paceline.toml --system --run-as paceline
  paceline service status
  paceline service install --config paceline.toml --print   shows what would be written
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "service",
        "make the system run the gateway",
        "Make systemd or launchd start the gateway with the machine or your session, and start it again "
        "if it fails. A stop or restart drains: running answers end first.",
        EXAMPLES,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    action = add_command(
        actions,
        "install",
        "write the service's file and start it",
        "Write a unit for systemd or a property list for launchd, and start it now and from then on. "
        "Installing again renews the file; a file that something else wrote stays as it is. Variables "
        "with keys belong into a file beside the configuration that ends in .env. launchd reads no such "
        "file, so write keys as file:PATH there.",
    )
    action.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the configuration that the gateway runs with"
    )
    _add_scope_options(action)
    action.add_argument(
        "--run-as", metavar="USER", help="with --system: the user that it runs as (default: the one who calls sudo)"
    )
    action.add_argument("--force", action="store_true", help="replace a file of that name that something else wrote")
    action.add_argument("--print", action="store_true", help="print the file, and do nothing")
    action.add_argument(
        "--for",
        dest="manager",
        choices=("systemd", "launchd"),
        help="with --print: for which service manager (default: this machine's)",
    )
    action.set_defaults(run=_install)
    action = add_command(
        actions,
        "uninstall",
        "stop the service and remove its file",
        "Stop the service, which drains, and remove its file. The configuration, and what was learned, stay.",
    )
    _add_scope_options(action)
    action.set_defaults(run=_uninstall)
    action = add_command(
        actions,
        "status",
        "print the state of the service",
        "Print the state of the service. The exit status is 1 if it does not run.",
    )
    _add_scope_options(action)
    add_json_option(action)
    action.set_defaults(run=_status)


def _add_scope_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--system",
        action="store_true",
        help="a service of the whole machine, from its start on (default: one of your own session)",
    )


def _install(options: argparse.Namespace) -> int:
    if options.run_as and not options.system:
        return fail("--run-as goes with --system; a service of your own runs as you")
    if options.manager and not options.print:
        return fail("--for goes with --print; what is installed is for this machine")
    run_as = options.run_as or os.environ.get(SUDO_USER) or getpass.getuser()
    if options.system and run_as == ADMINISTRATOR and not options.run_as:
        return fail(
            "--run-as USER is wanted: engines should not run as root; `sudo useradd --system paceline` makes one"
        )
    try:
        configuration = load(options.config, here=False)
        service = Service(
            file=options.config.absolute(),
            server=configuration.server,
            is_system=options.system,
            run_as=run_as if options.system else None,
        )
        if options.print:
            print(_printed(options.manager, service), end="")
            return 0
        manager = manager_here()
        path = install(manager, service, options.force)
    except (ConfigurationError, ServiceError) as error:
        return fail(str(error))
    print(f"wrote {path}, and started it")
    for hint in manager.hints(service, configuration.secret_variables):
        say(hint)
    return 0


def _printed(kind: str | None, service: Service) -> str:
    if kind == "launchd" or (kind is None and sys.platform == "darwin"):
        return launchd.plist_text(service, Path.home())
    return systemd.unit_text(service)


def _uninstall(options: argparse.Namespace) -> int:
    try:
        path = uninstall(manager_here(), any_service(options.system))
    except ServiceError as error:
        return fail(str(error))
    print(f"stopped it, and removed {path}")
    return 0


def _status(options: argparse.Namespace) -> int:
    try:
        status = manager_here().status(any_service(options.system))
    except ServiceError as error:
        return fail(str(error))
    if options.json:
        print_json(status)
    elif not status.is_installed:
        print(f"not installed: there is no {status.file}; `paceline service install --config FILE` installs it")
    else:
        state = painted(status.state, Colour.GREEN if status.is_running else Colour.RED, sys.stdout)
        more = f", process {status.pid}" if status.pid else ""
        more += f", started again {status.restarts} times" if status.restarts else ""
        print(f"{state}{more}\n{status.file}")
    return 0 if status.is_running else 1
