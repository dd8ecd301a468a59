"""Telling systemd or launchd: what is written where, and which of their commands are run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from paceline.service import launchd, systemd
from paceline.service.description import LABEL, Service

RUN_SECONDS = 120.0
"""For commands that wait for no gateway to end; for the others the manager has a limit, by what draining takes."""
MAX_SAID = 2000
"""Characters of what a command says, in a message."""


class ServiceError(Exception):
    """The service can't be installed, removed or asked for; ``str()`` says why, and what to do."""


class Status(Struct, frozen=True, kw_only=True):
    """How a service is.

    Args:
        file: the unit or property list.
        state: in its manager's words.
        pid: ``None`` where it does not run.
    """

    file: str
    is_installed: bool
    is_running: bool
    state: str
    pid: int | None = None
    restarts: int | None = None


class Manager(Protocol):
    """What runs services here."""

    def path(self, service: Service) -> Path: ...
    def text(self, service: Service) -> str: ...
    def start(self, service: Service) -> None: ...
    def stop(self, service: Service) -> None: ...
    def removed(self, service: Service) -> None:
        """Its file is gone."""
        ...

    def status(self, service: Service) -> Status: ...
    def hints(self, service: Service) -> Sequence[str]:
        """What to know after an installation, in sentences."""
        ...


def manager_here() -> Manager:
    """That of this machine.

    Raises:
        ServiceError: there is none that is known.
    """
    if sys.platform == "darwin":
        return Launchd()
    if shutil.which("systemctl"):
        return Systemd()
    raise ServiceError(
        "neither systemd nor launchd runs here, so nothing can be installed; `paceline service install --print` prints "
        "a unit for another machine"
    )


class Systemd:
    def path(self, service: Service) -> Path:
        given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
        return systemd.unit_path(service, given if given.is_absolute() else Path.home() / ".config")

    def text(self, service: Service) -> str:
        return systemd.unit_text(service)

    def start(self, service: Service) -> None:
        _run([*self._systemctl(service), "daemon-reload"])
        _run([*self._systemctl(service), "enable", systemd.UNIT])
        _run([*self._systemctl(service), "restart", systemd.UNIT], timeout_s=None)

    def stop(self, service: Service) -> None:
        _run([*self._systemctl(service), "disable", "--now", systemd.UNIT], timeout_s=None)

    def removed(self, service: Service) -> None:
        _run([*self._systemctl(service), "daemon-reload"])

    def status(self, service: Service) -> Status:
        file = self.path(service)
        shown = _run(
            [
                *self._systemctl(service),
                *("show", systemd.UNIT, "--property=ActiveState,SubState,MainPID,NRestarts,LoadState"),
            ]
        )
        values = dict(line.partition("=")[::2] for line in shown.splitlines())
        pid = int(values.get("MainPID") or 0)
        return Status(
            file=str(file),
            is_installed=file.exists(),
            is_running=values.get("ActiveState") == "active",
            state=f"{values.get('ActiveState', 'unknown')} ({values.get('SubState', 'unknown')})",
            pid=pid or None,
            restarts=int(values.get("NRestarts") or 0),
        )

    def hints(self, service: Service) -> Sequence[str]:
        option = "" if service.is_system else "--user "
        said = [f"its log: journalctl {option}-u paceline -f"]
        if not service.is_system:
            said.append("it ends when you log out, unless: loginctl enable-linger")
        return said

    def _systemctl(self, service: Service) -> list[str]:
        return ["systemctl"] if service.is_system else ["systemctl", "--user"]


class Launchd:
    def path(self, service: Service) -> Path:
        return launchd.plist_path(service, Path.home())

    def text(self, service: Service) -> str:
        return launchd.plist_text(service, Path.home())

    def start(self, service: Service) -> None:
        if self._printed(service) is not None:
            self.stop(service)
        _run(["launchctl", "bootstrap", self._domain(service), str(self.path(service))])

    def stop(self, service: Service) -> None:
        _run(["launchctl", "bootout", f"{self._domain(service)}/{LABEL}"], timeout_s=None)

    def removed(self, service: Service) -> None:
        """launchd has forgotten it at its stop."""

    def status(self, service: Service) -> Status:
        file = self.path(service)
        printed = self._printed(service)
        pairs = (line.partition("=") for line in (printed or "").splitlines())
        values = {key.strip(): value.strip() for key, equals, value in pairs if equals}
        return Status(
            file=str(file),
            is_installed=file.exists(),
            is_running=values.get("state") == "running",
            state=values.get("state", "not loaded"),
            pid=int(values["pid"]) if values.get("pid", "").isdecimal() else None,
        )

    def hints(self, service: Service) -> Sequence[str]:
        return [f"its log: tail -f {launchd.log_path(service, Path.home())}"]

    def _domain(self, service: Service) -> str:
        return "system" if service.is_system else f"gui/{os.getuid()}"

    def _printed(self, service: Service) -> str | None:
        try:
            return _run(["launchctl", "print", f"{self._domain(service)}/{LABEL}"])
        except ServiceError:
            return None


def install(manager: Manager, service: Service) -> Path:
    """Write the service's file, and have it started now and at each start of the machine, or of the user's session.

    Raises:
        ServiceError: it can't be.
    """
    path = manager.path(service)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(manager.text(service), "utf-8")
    except OSError as error:
        raise _not_allowed(path, error) from error
    manager.start(service)
    return path


def uninstall(manager: Manager, service: Service) -> Path:
    """Stop the service, which drains, and remove its file. What was learned stays.

    Raises:
        ServiceError: it can't be, or is not installed.
    """
    path = manager.path(service)
    if not path.exists():
        raise ServiceError(f"it is not installed: there is no {path}")
    manager.stop(service)
    try:
        path.unlink()
    except OSError as error:
        raise _not_allowed(path, error) from error
    manager.removed(service)
    return path


def _not_allowed(path: Path, error: OSError) -> ServiceError:
    hint = "; with --system, run it by sudo" if isinstance(error, PermissionError) else ""
    return ServiceError(f"{path}: {error.strerror}{hint}")


def _run(command: Sequence[str], timeout_s: float | None = RUN_SECONDS) -> str:
    """What it prints.

    Raises:
        ServiceError: it fails.
    """
    said = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServiceError(f"`{said}` can't be run: {error}") from error
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()[:MAX_SAID] or f"it ends with status {done.returncode}"
        raise ServiceError(f"`{said}` fails: {reason}")
    return done.stdout
