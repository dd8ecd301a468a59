"""What the doctor looks at."""

import shlex
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct

from paceline.configuration import ConfigurationError, load, located_in
from paceline.configuration.places import line_of
from paceline.engines.identify import Seen
from paceline.engines.llama_cpp_build import Build, builds, usable
from paceline.planning.devices import Machine
from paceline.planning.find_devices import find_machine
from paceline.settings import Configuration


def quoted(path: Path | str) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


class Gateway(Struct, frozen=True, kw_only=True):
    """A gateway that runs.

    Args:
        url: where it was reached.
        lanes: its document ``/paceline/lanes``; empty where it does not tell us.
        problem: why it does not tell.
    """

    url: str
    lanes: Mapping[str, Any] = {}
    problem: str | None = None


class Scene(Struct, frozen=True, kw_only=True, dict=True):
    """An installation, as its user sees it.

    Args:
        file: the configuration; ``None`` where there is none.
        state: Paceline's folder of what it keeps.
        cache: Paceline's folder of what can be made again.
        environment: the user's variables.
        gateway: the one that runs at the configured address; ``None`` where none does.
        at_port: what else answers there; ``None`` where nothing that speaks HTTP does.
    """

    file: Path | None
    state: Path
    cache: Path
    environment: Mapping[str, str]
    gateway: Gateway | None = None
    at_port: Seen | None = None

    @cached_property
    def problems(self) -> str:
        """What keeps the file from being served with, a line each; empty where nothing does."""
        if self.file is None:
            return ""
        try:
            load(self.file)
        except ConfigurationError as error:
            return str(error)
        return ""

    @cached_property
    def configuration(self) -> Configuration:
        """What the file says, or as much of it as can be used: the usual one where it can't be read."""
        if self.file is None:
            return Configuration()
        try:
            return load(self.file, here=False)
        except ConfigurationError:
            return Configuration()

    @cached_property
    def built(self) -> Build | None:
        """The engine of `paceline engine build` that would be used."""
        return usable(self.cache)

    @cached_property
    def builds(self) -> tuple[Build, ...]:
        return tuple(builds(self.cache))

    @cached_property
    def machine(self) -> Machine:
        """Its devices are asked for once."""
        return find_machine(self.built.server if self.built else None)

    def place(self, *keys: str | int) -> str:
        """Where a key of the configuration stands: ``paceline.toml:12``."""
        if self.file is None:
            return "the configuration"
        try:
            text = self.file.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError):
            text = ""
        return f"{self.file}:{line_of(text, keys)}"

    def located(self, keys: tuple[str | int, ...], message: str) -> str:
        """A problem with file, line and key."""
        return located_in(self.file, [(keys, message)]) if self.file else message

    def plan_command(self, model: Path | str) -> str:
        """A command that plans a model beside the configuration, which has more than an engine."""
        file = (self.file or Path("paceline.toml")).with_suffix(".planned.toml")
        return f"paceline plan {quoted(model)} --write {quoted(file)}"

    @property
    def config_option(self) -> str:
        """As commands are given the configuration."""
        return f"--config {quoted(self.file)}" if self.file else "--config paceline.toml"
