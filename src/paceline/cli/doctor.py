"""``paceline doctor``: what is wrong, and what mends it?"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from paceline import __version__
from paceline.cli.colour import Colour, painted
from paceline.cli.common import Subparsers, add_command, add_json_option, print_json, say_in_place
from paceline.cli.remote import Address, Unanswered, ask, http_url, key
from paceline.configuration import ConfigurationError
from paceline.doctor.examine import examine
from paceline.doctor.finding import Finding, Severity
from paceline.doctor.scene import Gateway, Scene
from paceline.engines.identify import Seen, identify
from paceline.paths import cache_directory, state_directory

USUAL_FILE = Path("paceline.toml")
"""Looked at where it is in the current folder and none is named."""
COLOURS = {
    Severity.FAULT: Colour.RED,
    Severity.WARNING: Colour.YELLOW,
    Severity.NOTE: Colour.BOLD,
    Severity.FINE: Colour.GREEN,
}
EXAMPLES = """examples:
  paceline doctor                            this machine, and paceline.toml in the current folder
  paceline doctor --config paceline.toml     ... and everything that a configuration names
  paceline doctor --json                     for programs
"""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "doctor",
        "find out what is wrong, and how to mend it",
        "Examine the configuration, the engines, their models and drafters, memory, port, service, files, disk, "
        "clock and limits, and a gateway that is running; say what is wrong, and which command or "
        "change mends it. Nothing is started or changed. The exit status is 1 if there is a fault, and "
        "0 if there are only warnings and notes.",
        EXAMPLES,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"the configuration (default: {USUAL_FILE}, where it is there)"
    )
    parser.add_argument("--all", action="store_true", help="say what is fine, too")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    file = options.config or (USUAL_FILE if USUAL_FILE.exists() else None)
    findings = asyncio.run(_examined(file))
    faults = [finding for finding in findings if finding.severity is Severity.FAULT]
    if options.json:
        print_json({"version": __version__, "configuration": file and str(file), "findings": findings})
    else:
        print(_text(findings, options.all))
    return 1 if faults else 0


async def _examined(file: Path | None) -> Sequence[Finding]:
    scene = Scene(file=file, state=state_directory(), cache=cache_directory(), environment=dict(os.environ))
    server = scene.configuration.server
    url = http_url(server.host, server.port)
    try:
        seen = await identify(url)
    except ValueError:  # no host
        seen = None
    scene = msgspec.structs.replace(scene, at_port=seen, gateway=await asyncio.to_thread(_gateway, scene, url, seen))
    try:
        return await examine(scene, _say)
    finally:
        _say("")


def _say(look: str) -> None:
    """What is being looked at, for those who wait before a terminal: it takes a second or two."""
    if sys.stderr.isatty():
        say_in_place(f"looking whether {look} ..." if look else "")


def _gateway(scene: Scene, url: str, seen: Seen | None) -> Gateway | None:
    """The one that runs there, with what it tells."""
    if seen is None or not seen.is_paceline:
        return None
    try:
        return Gateway(url=url, lanes=ask(Address(url, key(None, scene.configuration)), "GET", "/paceline/lanes"))
    except (Unanswered, ConfigurationError) as error:
        return Gateway(url=url, problem=str(error))


def _text(findings: Sequence[Finding], is_all: bool) -> str:
    lines = []
    for finding in findings:
        if finding.severity is Severity.FINE and not is_all:
            continue
        mark = painted(f"{finding.severity:<7}", COLOURS[finding.severity], sys.stdout)
        lines.append(f"{mark}  {finding.about}: {finding.message}")
        if finding.mend:
            lines.append(f"{'mend':>7}   {finding.mend}")
    counts = {
        severity: sum(finding.severity is severity for finding in findings)
        for severity in (Severity.FAULT, Severity.WARNING, Severity.NOTE)
    }
    told = [f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items() if count]
    lines.append(", ".join(told) if told else painted("nothing is wrong", Colour.GREEN, sys.stdout))
    return "\n".join(lines)
