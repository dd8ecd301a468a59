"""Looks at the files that have the system run the gateway: whether they are what would be written now."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from paceline.configuration import ConfigurationError, load
from paceline.doctor.finding import Finding, fault, fine, note
from paceline.doctor.scene import Scene, quoted
from paceline.service.description import Service, Start, any_service
from paceline.service.manager import Manager, ServiceError, is_of_others, manager_here

SHOWN_LINES = 2
"""Of a difference."""


def service_is_current(scene: Scene) -> Iterator[Finding]:
    """Upgrades and settings change what `paceline service install` writes; the file changes when it is run again."""
    try:
        manager = manager_here()
    except ServiceError:
        return
    for is_system in (False, True):
        path = manager.path(any_service(is_system))
        if path.exists() and not is_of_others(path):
            yield _compared(manager, path, is_system)


def _compared(manager: Manager, path: Path, is_system: bool) -> Finding:
    about = "service of the machine" if is_system else "service"
    text = path.read_text("utf-8")
    start = manager.start_in(text)
    if start is None:
        message = f"{path} is not what would be written now: its command names no configuration."
        return fault("service-outdated", about, message, _install("FILE", None, is_system))
    again = _install(start.file, start.run_as, is_system)
    if _is_gone(start.python):
        return fault(
            "service-can-not-start",
            about,
            f"{path} starts the gateway with {start.python}, which is not there any more.",
            again,
        )
    if _is_gone(start.file):
        return fault(
            "service-can-not-start",
            about,
            f"{path} starts the gateway with {start.file}, which is not there any more.",
            f"put it back, or name another: {_install('FILE', start.run_as, is_system)}",
        )
    try:
        now = manager.text(_as_now(start, is_system))
    except ConfigurationError as error:
        return note(
            "service-not-compared",
            about,
            f"What {path} is to be can't be told: {str(error).splitlines()[0]}.",
            f"correct it: paceline check --config {quoted(start.file)}; or look with sudo, if it is another user's",
        )
    if text != now:
        return fault("service-outdated", about, f"{path} is not what would be written now{_told(text, now)}.", again)
    if Path(start.python).parent != Path(sys.executable).parent:
        return note(
            "service-elsewhere",
            about,
            f"{path} starts the Paceline of {start.python}, and this is that of {sys.executable}.",
            f"{again}, if this one is to serve",
        )
    return fine(about, f"{path} is what would be written now.")


def _is_gone(path: Path | str) -> bool:
    """Not merely out of sight, as another user's may be."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _as_now(start: Start, is_system: bool) -> Service:
    """
    Raises:
        ConfigurationError: the configuration that it starts with can't be used.
    """
    server = load(start.file, here=False).server
    return Service(file=start.file, server=server, python=start.python, is_system=is_system, run_as=start.run_as)


def _told(text: str, now: str) -> str:
    """Lines that differ, as the rest of a sentence."""
    has, wants = text.splitlines(), now.splitlines()
    extra, missing = [line for line in has if line not in wants], [line for line in wants if line not in has]
    told = []
    if extra:
        told.append(f"it has {_some(extra)}")
    if missing:
        told.append(f"{_some(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    return f": {', and '.join(told)}" if told else ": its lines stand in another order"


def _some(lines: Sequence[str]) -> str:
    shown = ", ".join(f"`{line.strip()}`" for line in lines[:SHOWN_LINES])
    return shown if len(lines) <= SHOWN_LINES else f"{shown} and {len(lines) - SHOWN_LINES} more"


def _install(file: Path | str, run_as: str | None, is_system: bool) -> str:
    command = f"paceline service install --config {quoted(file)}"
    return f"sudo {command} --system --run-as {run_as or 'USER'}" if is_system else command
