"""Telling systemd or launchd: what is written where, and which of their commands are run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from paceline.service import launchd, systemd
from paceline.service.description import LABEL, WRITTEN_BY, Service, Start

RUN_SECONDS = 120.0
"""For commands that wait for no gateway to end; for the others the manager has a limit, by what draining takes."""
MAX_SAID = 2000
"""Characters of what a command says, in a message."""
NO_SESSION = (
    ". No systemd answers here: for a service of your own, log in as the user (not by su or sudo), or use --system; in "
    "a container, run `paceline serve`"
)
"""What follows systemctl's own words where nobody answers it."""


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
    def start_in(self, text: str) -> Start | None:
        """What a file of ours starts; ``None`` where that can't be told."""
        ...

    def start(self, service: Service) -> None: ...
    def stop(self, service: Service) -> None: ...
    def removed(self, service: Service) -> None:
        """Its file is gone."""
        ...

    def status(self, service: Service) -> Status: ...
    def hints(self, service: Service, variables: Collection[str]) -> Sequence[str]:
        """What to know after an installation, in sentences.

        Args:
            variables: that the configuration reads keys from.
        """
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

    def start_in(self, text: str) -> Start | None:
        return systemd.start_in(text)

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

    def hints(self, service: Service, variables: Collection[str]) -> Sequence[str]:
        option = "" if service.is_system else "--user "
        said = [f"its log: journalctl {option}-u paceline -f"]
        if not service.is_system:
            said.append("it ends when you log out, unless: loginctl enable-linger")
        if variables:
            names = ", ".join(sorted(variables))
            file = service.environment_file
            said.append(f"the configuration reads {names}: write them as NAME=VALUE into {file} (chmod 600)")
        return said

    def _systemctl(self, service: Service) -> list[str]:
        return ["systemctl"] if service.is_system else ["systemctl", "--user"]


class Launchd:
    def path(self, service: Service) -> Path:
        return launchd.plist_path(service, Path.home())

    def text(self, service: Service) -> str:
        return launchd.plist_text(service, Path.home())

    def start_in(self, text: str) -> Start | None:
        return launchd.start_in(text)

    def start(self, service: Service) -> None:
        if self._printed(service) is not None:
            self.stop(service)
        if service.is_system and service.run_as:
            _give_folder(launchd.log_path(service, Path.home()).parent, service.run_as)
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

    def hints(self, service: Service, variables: Collection[str]) -> Sequence[str]:
        command = "sudo tail" if service.is_system else "tail"
        said = [f"its log: {command} -f {shlex.quote(str(launchd.log_path(service, Path.home())))}"]
        if variables:
            names = ", ".join(f"env:{name}" for name in sorted(variables))
            said.append(f"launchd sets no variables: write file:PATH for {names}, each key in a file (chmod 600)")
        return said

    def _domain(self, service: Service) -> str:
        return "system" if service.is_system else f"gui/{os.getuid()}"

    def _printed(self, service: Service) -> str | None:
        try:
            return _run(["launchctl", "print", f"{self._domain(service)}/{LABEL}"])
        except ServiceError:
            return None


def install(manager: Manager, service: Service, is_forced: bool = False) -> Path:
    """Write the service's file, and have it started now and at each start of the machine, or of the user's session.

    Args:
        is_forced: whether a file there that others wrote is replaced.

    Raises:
        ServiceError: it can't be.
    """
    path = manager.path(service)
    try:
        if not is_forced and is_of_others(path):
            raise ServiceError(
                f"{path} is not from `paceline service install`, and stays as it is; --force replaces it"
            )
        manager.status(service)  # where nobody answers, nothing is written
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, manager.text(service))
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
    try:
        if is_of_others(path):
            raise ServiceError(f"{path} is not from `paceline service install`, and stays as it is")
        manager.stop(service)
        path.unlink()
    except OSError as error:
        raise _not_allowed(path, error) from error
    manager.removed(service)
    return path


def is_of_others(path: Path) -> bool:
    """Whether something else than ``paceline service install`` wrote a file that is there.

    Raises:
        OSError: it can't be read.
    """
    return path.is_symlink() or (path.exists() and WRITTEN_BY.encode() not in path.read_bytes())


def _write(path: Path, text: str) -> None:
    """The whole file or nothing of it; in place of a link, not through it.

    Raises:
        OSError: it can't be written.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise


def _give_folder(folder: Path, user: str) -> None:
    """
    Raises:
        ServiceError: it can't be made, or given to the user.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, user)
    except LookupError as error:
        raise ServiceError(f"there is no user {user}, whom --run-as names") from error
    except OSError as error:
        raise _not_allowed(folder, error) from error


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
        hint = NO_SESSION if re.search(r"connect to (?:\w+ scope )?bus", reason) else ""
        raise ServiceError(f"`{said}` fails: {reason}{hint}")
    return done.stdout
