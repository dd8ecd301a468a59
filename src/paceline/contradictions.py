"""What is well-formed in a configuration but can't be meant, or can't work here."""

import ipaddress
import re
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from paceline.configuration import EMBEDDED, Configuration, ConfigurationError, KeyPath, ServerSettings, resolved
from paceline.types import engine_of

Problem = tuple[KeyPath, str]
"""Where it stands, and what is wrong."""

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.*-]*://[^/\s?#@]+", re.IGNORECASE)
HOST = re.compile(r"[A-Za-z0-9*]([A-Za-z0-9_.*-]*[A-Za-z0-9*])?\.?")
LOOPBACK_NAME = "localhost"


def contradictions(configuration: Configuration) -> Iterator[Problem]:
    """What the file itself shows to be wrong, wherever it is read."""
    yield from _engines(configuration)
    yield from _lanes(configuration)
    yield from _devices(configuration)
    yield from _models(configuration)
    yield from _names_of_keys(configuration)
    yield from _browsers(configuration.server)


def contradictions_here(configuration: Configuration) -> Iterator[Problem]:
    """What keeps a gateway from being started with it on this machine and in this environment."""
    yield from _keys(configuration)
    yield from _exposure(configuration)
    yield from _itself(configuration)


def url_problem(url: str) -> str | None:
    """Why nothing can be reached at a URL; ``None`` if it may be."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "has a space or a control character in it"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"is no URL: {error}"
    host = parts.hostname
    if not host:
        return "names no host; write it as http://127.0.0.1:8001"
    if ":" in host:
        return None if port != 0 else "has the port 0"
    try:
        host.encode("idna")
    except UnicodeError:
        return f"names a host that can't be: {host!r}"
    if re.fullmatch(r"[\d.]+", host) and not is_address(host):
        return f"names an address that can't be: {host}"
    return None if port != 0 else "has the port 0"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    return host.lower() == LOOPBACK_NAME or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def is_address(host: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _engines(configuration: Configuration) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, engine in enumerate(configuration.engine):
        at = ("engine", index)
        if engine.name in seen:
            yield (*at, "name"), f"{engine.name!r} is the name of engine {seen[engine.name] + 1} already"
        seen.setdefault(engine.name, index)
        if bool(engine.url) == bool(engine.launch):
            yield at, "needs either url (a running engine) or launch (one to start), not both"
        if engine.url and (problem := _engine_url_problem(engine.url)):
            yield (*at, "url"), problem
        if engine.launch and engine.launch[0] == EMBEDDED and engine.kind != "llama.cpp":
            yield (*at, "kind"), 'the embedded engine is of kind "llama.cpp"'
        if engine.launch and not any("{port}" in word for word in engine.launch):
            yield (*at, "launch"), "has no {port}; Paceline chooses the port, so the command must take it"
        if engine.environment and not engine.launch:
            yield (*at, "environment"), "only an engine that Paceline starts gets variables: it needs launch"
        if engine.draft_model is not None and engine.kind != "lmstudio":
            yield (*at, "draft_model"), 'only an engine of kind "lmstudio" takes it from each request'
        if engine.strategy == "autoregressive" and engine.n_max is not None:
            yield (*at, "n_max"), "an autoregressive engine drafts nothing; drop n_max or name the strategy"
    if not configuration.engine:
        yield ("engine",), "no engine is configured; add an [[engine]] table"
    if configuration.evidence.traces and (problem := url_problem(configuration.evidence.traces)):
        yield ("evidence", "traces"), problem


def _engine_url_problem(url: str) -> str | None:
    if problem := url_problem(url):
        return problem
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return "has a name or password in it, which would be shown with it; put a key into api_key"
    if parts.query or parts.fragment:
        return "ends in a ? or # part, which no request could keep; leave it out"
    return None


def _lanes(configuration: Configuration) -> Iterator[Problem]:
    """Lanes that are named, and whose engine there is not. Which lanes an engine has is known when it is up."""
    engines = [engine.name for engine in configuration.engine]
    there = f"there are: {', '.join(engines)}"

    def is_there(lane: str) -> bool:
        return engine_of(lane) in engines

    default = configuration.server.default_lane
    if default is not None and not is_there(default):
        yield ("server", "default_lane"), f"no lane {default!r}; {there}"
    for index, rule in enumerate(configuration.rule):
        if not is_there(rule.lane):
            yield ("rule", index, "lane"), f"no lane {rule.lane!r}; {there}"
        if rule.model is None and rule.task is None and rule.header is None and rule.api_key is None:
            yield ("rule", index), "fits every request; say which: model, task, header or api_key"
    for index, model in enumerate(configuration.model):
        for lane in model.lanes:
            if not is_there(lane):
                yield ("model", index, "lanes"), f"no lane {lane!r}; {there}"
        for name, engine_model in model.engine_models.items():
            if name not in engines:
                yield ("model", index, "engine_models"), f"no engine {name!r}; {there}"
            if not engine_model:
                yield ("model", index, "engine_models"), f"the model's name at {name} is empty"


def _devices(configuration: Configuration) -> Iterator[Problem]:
    used = {engine.device for engine in configuration.engine}
    names = [device.name for device in configuration.device]
    for index, name in enumerate(names):
        if name not in used:
            yield ("device", index, "name"), f"no engine runs on a device {name!r}"
        if name in names[:index]:
            yield ("device", index, "name"), f"{name!r} is the name of device {names.index(name) + 1} already"


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


def _names_of_keys(configuration: Configuration) -> Iterator[Problem]:
    names = [key.name for key in configuration.key]
    for index, key in enumerate(configuration.key):
        if key.name in names[:index]:
            yield ("key", index, "name"), f"{key.name!r} is the name of key {names.index(key.name) + 1} already"
        for path in key.paths:
            if not path.startswith(("/", "*")):
                yield ("key", index, "paths"), f"{path!r} is no path: it begins with /"
        if key.admin and key.paths:
            yield ("key", index, "paths"), "an administrator's key opens every path; drop paths or admin"


def _browsers(server: ServerSettings) -> Iterator[Problem]:
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
    for at, other in others:
        if other is not None:
            try:
                resolved(other)
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


def has_keys(configuration: Configuration) -> bool:
    """Whether a key is asked for."""
    return bool(configuration.server.api_keys or configuration.server.admin_key or configuration.key)


def _itself(configuration: Configuration) -> Iterator[Problem]:
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
