"""What is well-formed in a configuration but can't be meant, or can't work here: a list of checks, each with one
concern."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import urlsplit

from paceline.addresses import is_address, is_loopback, url_problem
from paceline.api_keys import resolved
from paceline.configuration.places import KeyPath, Problem, dotted
from paceline.engines.embedded import EMBEDDED
from paceline.engines.llama_cpp import LlamaCppSettings
from paceline.patterns import TooCostly, compiled_pattern
from paceline.settings import (
    CREDENTIALS,
    FROM_ENVIRONMENT,
    FROM_FILE,
    CloudEngineSettings,
    Configuration,
    ConfigurationError,
    EngineSettings,
    LocalEngineSettings,
)
from paceline.types import Api, engine_of

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.*-]*://[^/\s?#@]+", re.IGNORECASE)
HOST = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9_.*-]*[A-Za-z0-9*])?\.?")


def contradictions(configuration: Configuration) -> Iterator[Problem]:
    """What the file itself shows to be wrong, wherever it is read."""
    for check in CHECKS:
        yield from check(configuration)


def contradictions_here(configuration: Configuration) -> Iterator[Problem]:
    """What keeps a gateway from being started with it on this machine and in this environment."""
    for check in CHECKS_HERE:
        yield from check(configuration)


def check_usable(configuration: Configuration) -> None:
    """Check a configuration that was not read from a file.

    Raises:
        ConfigurationError: it can't be served with here.
    """
    problems = [*contradictions(configuration), *contradictions_here(configuration)]
    if problems:
        raise ConfigurationError("\n".join(f"{dotted(keys)}: {message}" for keys, message in problems))


def has_keys(configuration: Configuration) -> bool:
    """Whether a key is asked for."""
    return bool(configuration.server.api_keys or configuration.server.admin_key or configuration.key)


def _engines_are_there(configuration: Configuration) -> Iterator[Problem]:
    if not configuration.engine:
        yield ("engine",), "no engine is configured; add an [[engine]] table"


def _each_engine(configuration: Configuration) -> Iterator[Problem]:
    """Checks that look at one engine alone; they name a key of its table, or "" for the table."""
    for index, engine in enumerate(configuration.engine):
        for check in CHECKS_OF_AN_ENGINE:
            for key, message in check(engine):
                yield (("engine", index, key) if key else ("engine", index)), message


def _engine_has_one_source(engine: EngineSettings) -> Iterator[tuple[str, str]]:
    if bool(engine.url) == bool(engine.launch):
        yield "", "needs either url (a running engine) or launch (one to start), not both"


def _engine_can_be_reached(engine: EngineSettings) -> Iterator[tuple[str, str]]:
    if engine.url and (problem := _engine_url_problem(engine.url)):
        yield "url", problem


def _engine_launch(engine: EngineSettings) -> Iterator[tuple[str, str]]:
    if not engine.launch:
        return
    if engine.launch[0] == EMBEDDED and not isinstance(engine, LlamaCppSettings):
        yield "kind", 'the embedded engine is of kind "llama.cpp"'
    if not any("{port}" in word for word in engine.launch):
        yield "launch", "has no {port}; Paceline chooses the port, so the command must take it"


def _engine_environment(engine: EngineSettings) -> Iterator[tuple[str, str]]:
    if isinstance(engine, LocalEngineSettings) and engine.environment and not engine.launch:
        yield "environment", "only an engine that Paceline starts gets variables: it needs launch"


def _engine_strategy(engine: EngineSettings) -> Iterator[tuple[str, str]]:
    if engine.strategy == "autoregressive" and engine.n_max is not None:
        yield "n_max", "an autoregressive engine drafts nothing; drop n_max or name the strategy"


def _engine_is_a_provider(engine: EngineSettings) -> Iterator[tuple[str, str]]:
    """A provider's key belongs into no file that is shown, copied and kept; and its models are not asked for."""
    if not isinstance(engine, CloudEngineSettings):
        return
    if not engine.models:
        yield "", 'needs the key models: the provider\'s own names of those to be used, as in models = ["gpt-5.5"]'
    if engine.api_key is None:
        yield "", 'needs the key api_key: "env:NAME" for the variable NAME that holds it, or "file:PATH"'
    elif not engine.api_key.startswith((FROM_ENVIRONMENT, FROM_FILE)):
        yield "api_key", 'does not stand here itself: write "env:NAME" for the variable NAME, or "file:PATH"'
    if engine.url and engine.url.startswith("http:") and not is_loopback(urlsplit(engine.url).hostname or ""):
        yield "url", "is http: the key and all requests could be read on their way; write https"
    for name in engine.pass_headers:
        if name.lower() in CREDENTIALS:
            yield "pass_headers", f"{name} holds what the client is known by, which goes to no provider"
    for api in engine.apis:
        if api is Api.LLAMA_CPP:
            yield "apis", "no provider speaks llama.cpp's own API"


def _engine_url_problem(url: str) -> str | None:
    if problem := url_problem(url):
        return problem
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return "has a name or password in it, which would be shown with it; put a key into api_key"
    if parts.query or parts.fragment:
        return "ends in a ? or # part, which no request could keep; leave it out"
    return None


def _names_of_engines(configuration: Configuration) -> Iterator[Problem]:
    yield from _twice("engine", [engine.name for engine in configuration.engine])


def _traces(configuration: Configuration) -> Iterator[Problem]:
    traces = configuration.evidence.traces
    if traces and (problem := url_problem(traces)):
        yield ("evidence", "traces"), problem


def _default_lane(configuration: Configuration) -> Iterator[Problem]:
    lane = configuration.server.default_lane
    if lane is not None and (problem := _missing_lane(lane, configuration)):
        yield ("server", "default_lane"), problem


def _rules(configuration: Configuration) -> Iterator[Problem]:
    for index, rule in enumerate(configuration.rule):
        if problem := _missing_lane(rule.lane, configuration):
            yield ("rule", index, "lane"), problem
        if rule.model is None and rule.task is None and rule.header is None and rule.api_key is None:
            yield ("rule", index), "fits every request; say which: model, task, header or api_key"


def _placement(configuration: Configuration) -> Iterator[Problem]:
    """Patterns that can't be searched in time, and names of engines and keys that there are not."""
    for pattern in configuration.privacy.patterns:
        try:
            compiled_pattern(pattern)
        except TooCostly as error:
            yield ("privacy", "patterns"), f"{pattern!r} {error}"
    for path in configuration.privacy.paths:
        if not path.startswith(("/", "*")):
            yield ("privacy", "paths"), f"{path!r} is no path: it begins with /"
    engines = {engine.name: engine for engine in configuration.engine}
    for index, key in enumerate(configuration.key):
        for name in key.engines:
            if name not in engines:
                yield ("key", index, "engines"), f"no engine {name!r}; there are: {', '.join(engines)}"
    keys = [key.name for key in configuration.key]
    for index, budget in enumerate(configuration.budget):
        if budget.key is not None and budget.key not in keys:
            yield ("budget", index, "key"), f"no key {budget.key!r}; there are: {', '.join(keys) or 'none'}"
    for index, cloud in enumerate(configuration.cloud):
        if (cloud.input_price is None) != (cloud.output_price is None):
            yield ("cloud", index), "needs both input_price and output_price, or neither"


def _private_engine(engine: EngineSettings) -> Iterator[tuple[str, str]]:
    if isinstance(engine, LocalEngineSettings) and engine.cloud and engine.takes_private:
        yield "takes_private", "a cloud engine gets no private request"


def _lanes_of_models(configuration: Configuration) -> Iterator[Problem]:
    engines = [engine.name for engine in configuration.engine]
    for index, model in enumerate(configuration.model):
        for lane in model.lanes:
            if problem := _missing_lane(lane, configuration):
                yield ("model", index, "lanes"), problem
        for number, offer in enumerate(model.offer):
            if offer.engine not in engines:
                there = ", ".join(engines)
                yield ("model", index, "offer", number, "engine"), f"no engine {offer.engine!r}; there are: {there}"
        for name, engine_model in model.engine_models.items():
            if name not in engines:
                yield ("model", index, "engine_models"), f"no engine {name!r}; there are: {', '.join(engines)}"
            if not engine_model:
                yield ("model", index, "engine_models"), f"the model's name at {name} is empty"


def _missing_lane(lane: str, configuration: Configuration) -> str | None:
    """What is wrong with a lane that is named, where there is no such engine. Which lanes an engine has is known when
    it is up."""
    engines = [engine.name for engine in configuration.engine]
    return None if engine_of(lane) in engines else f"no lane {lane!r}; there are: {', '.join(engines)}"


def _devices(configuration: Configuration) -> Iterator[Problem]:
    used = {engine.device for engine in configuration.engine}
    for index, device in enumerate(configuration.device):
        if device.name not in used:
            yield ("device", index, "name"), f"no engine runs on a device {device.name!r}"
    yield from _twice("device", [device.name for device in configuration.device])


def _twice(table: str, names: list[str]) -> Iterator[Problem]:
    """Names of tables of one sort that an earlier one has already."""
    for index, name in enumerate(names):
        if name in names[:index]:
            yield (table, index, "name"), f"{name!r} is the name of {table} {names.index(name) + 1} already"


def _models(configuration: Configuration) -> Iterator[Problem]:
    """Names that would stand for two models; case is ignored, as it is when a request names one."""
    taken: dict[str, str] = {}
    for index, model in enumerate(configuration.model):
        for key, name in (("name", model.name), *(("aliases", alias) for alias in model.aliases)):
            if not name.strip():
                yield ("model", index, key), "an empty name is nobody's"
                continue
            own = taken.get(name.casefold())
            if own == model.name:
                yield ("model", index, key), f"{name!r} is there twice"
            elif own is not None:
                yield ("model", index, key), f"{name!r} stands for the model {own!r} already"
            taken.setdefault(name.casefold(), model.name)
        if model.engine_model is not None and not model.engine_model:
            yield ("model", index, "engine_model"), "the name is empty"


def _clients(configuration: Configuration) -> Iterator[Problem]:
    yield from _twice("key", [client.name for client in configuration.key])
    for index, client in enumerate(configuration.key):
        for path in client.paths:
            if not path.startswith(("/", "*")):
                yield ("key", index, "paths"), f"{path!r} is no path: it begins with /"
        if client.admin and client.paths:
            yield ("key", index, "paths"), "an administrator's key opens every path; drop paths or admin"


def _browsers(configuration: Configuration) -> Iterator[Problem]:
    server = configuration.server
    for origin in server.cors:
        if not ORIGIN.fullmatch(origin):
            yield (
                ("server", "cors"),
                f"{origin!r} is no origin: write scheme, host and port alone, as in http://localhost:3000",
            )
        elif "*" not in origin and (problem := url_problem(origin)):
            yield ("server", "cors"), f"{origin!r} {problem}"
    for host in server.hosts:
        if not HOST.fullmatch(host) and not is_address(host.strip("[]")):
            yield ("server", "hosts"), f"{host!r} is no host's name: write it without scheme, port and path"


def _keys(configuration: Configuration) -> Iterator[Problem]:
    """Keys that nobody could send, and two that are the same: a request would have two owners."""
    owners: dict[str, str] = {}
    for at, owner, key in _clients_keys(configuration):
        try:
            secret = resolved(key)
        except ConfigurationError as error:
            yield at, str(error)
            continue
        if secret in owners:
            yield at, f"{owner} is the same key as {owners[secret]}"
        owners.setdefault(secret, owner)
    others: Iterable[tuple[KeyPath, str | None]] = (
        *((("engine", index, "api_key"), engine.api_key) for index, engine in enumerate(configuration.engine)),
        *((("rule", index, "api_key"), rule.api_key) for index, rule in enumerate(configuration.rule)),
    )
    headers = [
        (("engine", index, "headers", name), value)
        for index, engine in enumerate(configuration.engine)
        if isinstance(engine, CloudEngineSettings)
        for name, value in engine.headers.items()
    ]
    for at, other in (*others, *headers):
        if other is not None:
            try:
                resolved(other, may_have_spaces="headers" in at)
            except ConfigurationError as error:
                yield at, str(error)


def _clients_keys(configuration: Configuration) -> Iterator[tuple[KeyPath, str, str]]:
    """Where each stands, what it is called, and what is written there."""
    server = configuration.server
    if server.admin_key is not None:
        yield ("server", "admin_key"), "admin_key", server.admin_key
    for index, key in enumerate(server.api_keys):
        yield ("server", "api_keys"), f"item {index + 1}", key
    for index, client in enumerate(configuration.key):
        yield ("key", index, "key"), f"that of {client.name}", client.key


def _exposure(configuration: Configuration) -> Iterator[Problem]:
    server = configuration.server
    if not server.host.strip():
        yield ("server", "host"), "is empty; 127.0.0.1 is this machine alone, 0.0.0.0 all that reach it"
    elif not is_address(server.host) and (url_problem(f"http://{server.host}") or not HOST.fullmatch(server.host)):
        yield (
            ("server", "host"),
            f"{server.host!r} is neither an address nor a host's name; write it without scheme and port",
        )
    elif not is_loopback(server.host) and not has_keys(configuration) and not server.insecure:
        yield (
            ("server", "host"),
            f"{server.host} is open to other machines, and no key is asked for: anybody could use the engines. Set "
            "server.api_keys (or admin_key, or [[key]] tables); or stay on 127.0.0.1; or, where something else keeps "
            "strangers out, set server.insecure or start with --insecure",
        )


def _own_address(configuration: Configuration) -> Iterator[Problem]:
    """An engine that is the gateway itself would send requests in a circle."""
    server = configuration.server
    for index, engine in enumerate(configuration.engine):
        if engine.url is None or url_problem(engine.url):
            continue
        parts = urlsplit(engine.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if port == server.port and is_loopback(parts.hostname or "") and _listens_on_loopback(server.host):
            yield ("engine", index, "url"), "is the address of this gateway itself; give the engine's, or another port"


def _listens_on_loopback(host: str) -> bool:
    return is_loopback(host) or (is_address(host) and ipaddress.ip_address(host).is_unspecified)


CHECKS: tuple[Callable[[Configuration], Iterator[Problem]], ...] = (
    _engines_are_there,
    _names_of_engines,
    _each_engine,
    _traces,
    _default_lane,
    _rules,
    _placement,
    _lanes_of_models,
    _devices,
    _models,
    _clients,
    _browsers,
)
"""Of what a file says, wherever it is read."""
CHECKS_HERE: tuple[Callable[[Configuration], Iterator[Problem]], ...] = (_keys, _exposure, _own_address)
"""Of this machine and its environment, too."""
CHECKS_OF_AN_ENGINE: tuple[Callable[[EngineSettings], Iterator[tuple[str, str]]], ...] = (
    _engine_has_one_source,
    _engine_can_be_reached,
    _engine_launch,
    _engine_environment,
    _engine_strategy,
    _engine_is_a_provider,
    _private_engine,
)
