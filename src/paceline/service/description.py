"""What a service is, whoever runs it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from paceline.settings import ServerSettings

NAME = "paceline"
LABEL = "io.paceline.gateway"
"""launchd's own names are those of domains, backwards."""
WRITTEN_BY = "Written by `paceline service install`"
"""Stands in each file that is ours."""
STOP_SLACK_S = 30.0
"""Beyond drain and grace: engines are stopped, and what was learned is saved."""
OPEN_FILES = 65_536
CONFIGURATION_OPTION = "--config"


class Service(Struct, frozen=True, kw_only=True):
    """A gateway that the system starts, and starts again.

    Args:
        file: the configuration, its whole path. Paths in it are seen from its folder.
        python: the interpreter of the environment that Paceline is installed in.
        server: its settings, for how long a stop may take.
        is_system: of the whole machine; else of a user.
        run_as: of the whole machine's: the user that it runs as.
    """

    file: Path
    server: ServerSettings
    python: str = sys.executable
    is_system: bool = False
    run_as: str | None = None

    @property
    def command(self) -> tuple[str, ...]:
        return (self.python, "-m", "paceline", "serve", CONFIGURATION_OPTION, str(self.file))

    @property
    def environment_file(self) -> Path:
        """May hold variables with keys, for its owner's eyes."""
        return self.file.with_suffix(".env")

    @property
    def stop_timeout_s(self) -> int:
        """After which what still runs is killed."""
        return round(self.server.drain_s + self.server.shutdown_grace_s + STOP_SLACK_S)


def any_service(is_system: bool) -> Service:
    """That of the user or of the machine, whatever it runs with."""
    return Service(file=Path("paceline.toml").absolute(), server=ServerSettings(), is_system=is_system)


class Start(Struct, frozen=True, kw_only=True):
    """What a file that was written has started.

    Args:
        python: the interpreter.
        file: the configuration.
        run_as: of the whole machine's: the user that it runs as.
    """

    python: str
    file: Path
    run_as: str | None = None


def start_of(command: Sequence[str], run_as: str | None) -> Start | None:
    """What :attr:`Service.command` was made of; ``None`` where it is another command."""
    if CONFIGURATION_OPTION not in command[1:-1]:
        return None
    file = Path(command[command.index(CONFIGURATION_OPTION) + 1])
    return Start(python=command[0], file=file, run_as=run_as) if file.is_absolute() else None
