"""Looks at the configuration file: what it says, and who can read what it holds."""

import getpass
import re
import shlex
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from paceline.addresses import is_loopback
from paceline.configuration import has_keys
from paceline.doctor.finding import Finding, fault, fine, note, warning
from paceline.doctor.scene import Scene
from paceline.engines.embedded import EMBEDDED
from paceline.engines.llama_cpp import LlamaCppSettings
from paceline.engines.llama_cpp_flags import drafters_of
from paceline.money.prices import Prices
from paceline.planning.launch_check import launch_problems
from paceline.settings import FROM_ENVIRONMENT, FROM_FILE, CloudEngineSettings, Configuration

FILE = "configuration"
NO_VARIABLE = re.compile(r"the variable (\w+) is (?:not set|empty)")
NO_PROGRAM = re.compile(r"there is no program '(.*)'")
NO_FILE = re.compile(r"there is no file")


def file_can_be_used(scene: Scene) -> Iterator[Finding]:
    """What `paceline check` says, with what mends it."""
    if scene.file is None:
        yield note(
            "no-configuration",
            FILE,
            "No configuration was named, so only this machine is looked at.",
            "paceline init writes one; then: paceline doctor --config paceline.toml",
        )
        return
    again = f"then: paceline check {scene.config_option}"
    for line in scene.problems.splitlines():
        if found := NO_VARIABLE.search(line):
            yield fault("variable-not-set", FILE, line, f"export {found[1]}=... before paceline starts; {again}")
        elif "No such file" in line:
            yield fault("no-configuration-file", FILE, line, f"paceline init --write {shlex.quote(str(scene.file))}")
        elif "open to other machines" in line:
            yield fault("open-without-key", FILE, line, f"set server.api_keys in {scene.file}; {again}")
        elif "is the address of this gateway itself" in line:
            yield fault("own-address", FILE, line, f"paceline serve {scene.config_option} --port 8081")
        else:
            yield fault("bad-configuration", FILE, line, f"edit {_place(line, scene.file)}; {again}")
    if not scene.problems:
        count = len(scene.configuration.engine)
        yield fine(FILE, f"{scene.file} can be served with; it names {count} engine{'s' * (count != 1)}.")


def engines_can_be_started(scene: Scene) -> Iterator[Finding]:
    """Programs, flags and models of the engines that the configuration has started."""
    for keys, problem in launch_problems(scene.configuration):
        engine = scene.configuration.engine[int(keys[1])]
        about = f"engine {engine.name}"
        line = scene.located(keys, problem)
        place = scene.place(*keys)
        if found := NO_PROGRAM.search(problem):
            path = Path(found[1])
            if path.is_file():
                yield fault("program-not-executable", about, line, f"chmod +x {shlex.quote(str(path))}")
            elif path.name == "llama-server":
                yield fault(
                    "no-program",
                    about,
                    line,
                    f"paceline engine build; write the path that `paceline engine list --json` tells into {place}",
                )
            else:
                yield fault("no-program", about, line, f"install it, or correct the program's path in {place}")
        elif engine.launch[0] == EMBEDDED and find_spec("xllamacpp") is None:
            yield fault("no-embedded-engine", about, line, "pip install 'paceline[embedded]'")
        elif NO_FILE.search(problem):
            yield fault("no-model-file", about, line, f"correct the model's path in {place}")
        elif "is cut short" in problem:
            yield fault("model-cut-short", about, line, "download the model's file again: it is not whole")
        elif "Permission denied" in problem:
            yield fault("model-not-readable", about, line, f"make the file readable for {_user()}: chmod u+r FILE")
        else:
            yield fault("bad-launch", about, line, f"edit {place}; then: paceline check {scene.config_option}")


def drafting_is_as_configured(scene: Scene) -> Iterator[Finding]:
    """Whether an engine that is to draft is started with a drafter."""
    for index, engine in enumerate(scene.configuration.engine):
        if not isinstance(engine, LlamaCppSettings) or not engine.launch:
            continue
        loaded = [drafter.strategy.kind for drafter in drafters_of(engine.launch)]
        wanted, place = engine.strategy, scene.place("engine", index, "strategy")
        if wanted != "autoregressive" and not loaded:
            yield warning(
                "no-drafter-started",
                f"engine {engine.name}",
                f"{place}: its strategy is {wanted}, but its command starts it without a drafter, so it decodes plain.",
                f"add --spec-type to launch, or remove strategy; or {scene.plan_command('MODEL')}, and take its "
                "[[engine]] over",
            )
        elif wanted == "autoregressive" and loaded:
            yield warning(
                "drafts-unasked",
                f"engine {engine.name}",
                f"{place}: it is configured as plain, but its command starts it with a drafter ({', '.join(loaded)}).",
                f'write strategy = "{loaded[0]}" into {place}',
            )


def secrets_are_private(scene: Scene) -> Iterator[Finding]:
    """Keys in files that others can read."""
    configuration = scene.configuration
    written = [key for key in _keys(configuration) if not key.startswith((FROM_ENVIRONMENT, FROM_FILE))]
    files = [
        Path(key.removeprefix(FROM_FILE)).expanduser() for key in _keys(configuration) if key.startswith(FROM_FILE)
    ]
    if scene.file and written:
        files.append(scene.file)
    for file in dict.fromkeys(files):
        if (mode := _mode(file)) is not None and mode & 0o077:
            yield warning(
                "secret-readable",
                FILE,
                f"{file} holds a key, and other users of this machine may read it (mode {mode:03o}).",
                f"chmod 600 {shlex.quote(str(file))}",
            )


def gateway_is_closed(scene: Scene) -> Iterator[Finding]:
    """Whether strangers get in because it was wished so."""
    server = scene.configuration.server
    if server.insecure and not is_loopback(server.host) and not has_keys(scene.configuration):
        yield warning(
            "open-without-key",
            FILE,
            f"{scene.place('server', 'insecure')}: whoever reaches {server.host} may use the engines without a key.",
            f"set server.api_keys in {scene.file}, unless something in front of Paceline asks for keys",
        )


def what_it_wants_is_installed(scene: Scene) -> Iterator[Finding]:
    """Packages of extras that the configuration needs."""
    if scene.configuration.evidence.traces and find_spec("opentelemetry") is None:
        yield fault(
            "no-traces-package",
            FILE,
            f"{scene.place('evidence', 'traces')}: spans need OpenTelemetry's packages, which are not installed.",
            "pip install 'paceline[traces]'",
        )


def budgets_can_be_held(scene: Scene) -> Iterator[Finding]:
    """Whether there are prices for what budgets limit."""
    configuration = scene.configuration
    if not configuration.budget:
        return
    prices = Prices(configuration.cloud, configuration.cost.usd)
    for index, engine in enumerate(configuration.engine):
        if not isinstance(engine, CloudEngineSettings):
            continue
        for model in engine.models:
            if prices.of(model, engine.url) is None:
                yield warning(
                    "no-price",
                    f"engine {engine.name}",
                    f"{scene.place('engine', index, 'models')}: no price of {model} is known, so no [[budget]] can "
                    "count it.",
                    "pip install 'paceline[prices]' for published prices, or add a [[cloud]] table with its prices",
                )


def _keys(configuration: Configuration) -> Iterator[str]:
    """As they are written."""
    server = configuration.server
    yield from server.api_keys
    yield from (client.key for client in configuration.key)
    yield from (
        key for key in (server.admin_key, *(engine.api_key for engine in configuration.engine)) if key is not None
    )


def _mode(file: Path) -> int | None:
    try:
        return stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return None


def _place(line: str, file: Path) -> str:
    """File and line at the beginning of a problem."""
    found = re.match(rf"{re.escape(str(file))}:\d+", line)
    return found[0] if found else str(file)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "the user of Paceline"
