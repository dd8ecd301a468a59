"""The configuration file: TOML in, checked frozen types out; every error names file, line and key.

The descriptions on the fields are the documentation: ``docs/configuration.md`` is generated from them.
"""

import difflib
import os
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct, field

from paceline.decision import EXPLORATION
from paceline.types import AS_STARTED, Abilities, Lane, Strategy, Task

EngineKind = Literal["llama.cpp", "vllm", "sglang", "lmstudio", "mlx-lm", "ollama", "tabbyapi", "openai"]
StrategyKind = Literal[
    "autoregressive",
    "ngram",
    "ngram-map-k",
    "ngram-map-k4v",
    "ngram-mod",
    "ngram-cache",
    "draft",
    "eagle3",
    "mtp",
    "dflash",
    "dspark",
]
EMBEDDED = "embedded"
"""As the first word of ``launch``: llama.cpp's server from the ``xllamacpp`` package."""

FROM_ENVIRONMENT = "env:"
"""Before the name of a variable that holds a secret."""
NAME, URL = r"^[A-Za-z0-9][A-Za-z0-9._-]*$", r"^https?://"

Name = Annotated[str, Meta(pattern=NAME)]
Price = Annotated[float, Meta(ge=0)]
Url = Annotated[str, Meta(pattern=URL)]
Key = Annotated[str, Meta(min_length=1)]
"""A secret, or ``env:NAME``."""
Header = Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+(: .+)?$")]
Seconds = Annotated[float, Meta(gt=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
KeyPath = tuple[str | int, ...]
"""Where something stands in a file: ``("engine", 1, "n_max")``."""


class ConfigurationError(Exception):
    """A configuration that can't be used. ``str()`` gives one line per problem: file, line, key, what to do."""


class ServerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the gateway listens and what it accepts."""

    host: Annotated[
        str, Meta(description="Address to listen on. Anything but loopback needs a key, or `insecure`.")
    ] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8080
    insecure: Annotated[
        bool,
        Meta(description="Listen beyond loopback although no key is asked for. `serve --insecure` does the same."),
    ] = False
    api_keys: Annotated[
        tuple[Key, ...],
        Meta(
            description="Keys of clients (`Authorization: Bearer KEY` or `x-api-key: KEY`). `env:NAME` reads one from "
            "the variable NAME. Without `api_keys`, `[[key]]` and `admin_key` no key is asked for. A single key with "
            "no `admin_key` beside it is the administrator's, too."
        ),
    ] = ()
    admin_key: Annotated[
        Key | None,
        Meta(
            description="The administrator's key: it opens everything, also `/paceline/*`, `/metrics`, reloads and the "
            "endpoints that change engines. `env:NAME` reads it from the variable NAME."
        ),
    ] = None
    cors: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins whose pages may use the gateway from a browser, such as `http://localhost:3000`; `*` "
            "stands for any part. Pages of all others are refused."
        ),
    ] = ()
    hosts: Annotated[
        tuple[str, ...],
        Meta(
            description="Names in the `Host` header that are accepted beside loopback's own, names without a dot and "
            "addresses. A page that has its name resolve to this machine is refused."
        ),
    ] = ()
    strict_models: Annotated[
        bool,
        Meta(description="Answer 404 to a model's name that nobody serves. Default: the default model serves it."),
    ] = False
    default_lane: Annotated[
        str | None,
        Meta(description="Lane for requests that are passed through, and when routing fails. Default: the first."),
    ] = None
    max_body_bytes: Annotated[
        int, Meta(ge=1024, description="Largest request body in bytes; a larger one is answered with 413.")
    ] = 64 * 1024 * 1024
    max_header_bytes: Annotated[
        int, Meta(ge=1024, description="Most bytes of a request's line and headers; more are answered with 431.")
    ] = 64 * 1024
    max_buffered_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="Most bytes of all request bodies that are being received or served; beyond that, 503.",
        ),
    ] = 256 * 1024 * 1024
    max_connections: Annotated[
        int, Meta(ge=1, description="Most connections of clients at once; one more is answered with 503.")
    ] = 4096
    header_timeout_s: Annotated[
        Seconds, Meta(description="Time that a client may take for a request's line and headers.")
    ] = 20.0
    body_timeout_s: Annotated[
        Seconds, Meta(description="Time that a client may pause while it sends a body, or takes an answer.")
    ] = 60.0
    connect_timeout_s: Annotated[
        Seconds, Meta(description="Time to connect to an engine before the next lane is tried, in seconds.")
    ] = 3.0
    queue_timeout_s: Annotated[
        Seconds,
        Meta(
            description="Time that a request may wait for its device's turn. For an engine that starts it waits a "
            "minute at most."
        ),
    ] = 600.0
    first_byte_timeout_s: Annotated[
        Seconds,
        Meta(
            description="Time until an engine has sent the first byte of its answer. Where a long prompt is known to "
            "take longer at the engine's pace, it has three times that. Then the next lane is tried."
        ),
    ] = 300.0
    idle_timeout_s: Annotated[
        Seconds, Meta(description="Longest silence within an engine's answer, in seconds; pings count as life.")
    ] = 300.0
    total_timeout_s: Annotated[
        Seconds, Meta(description="Longest time from a request's arrival to the end of its answer.")
    ] = 7200.0
    health_interval_s: Annotated[Seconds, Meta(description="Seconds between two looks at an engine's health.")] = 2.0
    drain_s: Annotated[
        float,
        Meta(
            ge=0,
            description="After SIGTERM, time in which requests are still taken while `/readyz` says 503, so that load "
            "balancers notice. Not after Ctrl-C.",
        ),
    ] = 1.0
    shutdown_grace_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Seconds that running answers may take to finish after SIGTERM or Ctrl-C; a second one ends "
            "them at once. Where something else starts the gateway again, its own patience should be longer.",
        ),
    ] = 5
    log_requests: Annotated[bool, Meta(description="One line per request on standard output.")] = True


class DeviceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the engines of one device share it."""

    name: Annotated[Name, Meta(description="The name that engines give as their `device`.")]
    sharing: Annotated[
        Literal["turns", "together"] | None,
        Meta(
            description="`turns`: one engine decodes at a time. `together`: all may. Default: `turns` for devices "
            "whose name begins with `cpu`, where engines that decode together slow each other to a crawl, "
            "else `together`."
        ),
    ] = None
    patience_s: Annotated[
        float,
        Meta(
            ge=0,
            description="With `turns`: how long a waiting request lets others join the engine that has the turn, "
            "in seconds. More is better for throughput, less for fairness.",
        ),
    ] = 2.0
    queue_limit: Annotated[
        int,
        Meta(ge=1, description="With `turns`: most requests that may wait; one more is answered with 503."),
    ] = 256

    @property
    def takes_turns(self) -> bool:
        return (self.sharing or ("turns" if self.name.startswith("cpu") else "together")) == "turns"


class EngineSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """One engine: already running (`url`), or started and supervised by Paceline (`launch`)."""

    name: Annotated[Name, Meta(description="Name of the engine and of its lane.")]
    kind: Annotated[EngineKind, Meta(description="Which engine module talks to it.")]
    url: Annotated[Url | None, Meta(description="Base URL of a running engine; a `/v1` at its end is left off.")] = None
    launch: Annotated[
        tuple[str, ...],
        Meta(
            description="Command that starts the engine. `{port}` becomes a free port. `embedded` as the first word "
            "is llama.cpp's server from the `xllamacpp` package; it takes the usual flags of llama-server by the same "
            "names, and refuses the others (`python -m paceline.engines.embedded --help` lists them)."
        ),
    ] = ()
    strategy: Annotated[StrategyKind, Meta(description="How the engine drafts, as it was started.")] = "autoregressive"
    n_max: Annotated[
        AtLeastOne | None, Meta(description="Cap on the draft length the engine was started with, in tokens.")
    ] = None
    caps: Annotated[
        tuple[AtLeastOne, ...],
        Meta(
            description="Where the engine takes its strategy from each request: draft lengths to choose among, beside "
            "none at all. Default: the longest that the engine was started with, its half, quarter and eighth."
        ),
    ] = ()
    draft_model: Annotated[
        str | None,
        Meta(description="With `lmstudio`: the model that drafts for the requests that are to be drafted for."),
    ] = None
    device: Annotated[
        Name | None, Meta(description="What it runs on; engines of one device are scheduled together.")
    ] = None
    slots: Annotated[
        AtLeastOne | None, Meta(description="Requests it decodes at once. Default: what the engine reports.")
    ] = None
    api_key: Annotated[
        Key | None,
        Meta(description="Key sent to this engine in place of the client's. `env:NAME` reads it from NAME."),
    ] = None
    environment: Annotated[
        tuple[Name, ...],
        Meta(
            description="With `launch`: further variables of the gateway's environment that the engine gets. It always "
            "gets those that programs and GPUs need (PATH, HOME, LANG, CUDA_*, HIP_*, GGML_*, LLAMA_ARG_* ...)."
        ),
    ] = ()
    start_timeout_s: Annotated[
        Seconds,
        Meta(description="With `launch`: time to become healthy before it counts as failed, in seconds."),
    ] = 300.0

    @property
    def as_started(self) -> Strategy:
        """What the engine does with a request that says nothing."""
        return Strategy(self.strategy, self.n_max)

    def lanes(self, abilities: Abilities = AS_STARTED) -> list[Lane]:
        """The lanes this engine offers: the one it was started with, named like the engine; or those that requests
        can choose among, named like ``gpu/plain`` and ``gpu/ngram-8``."""
        strategies = abilities.strategies(self.caps)
        if not strategies:
            return [Lane(self.name, self.name, self.as_started, self.device)]
        return [Lane(f"{self.name}/{strategy.name}", self.name, strategy, self.device) for strategy in strategies]


class KeySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A client's key with a name and limits."""

    name: Annotated[Name, Meta(description="Who has it; shown in records in the key's place.")]
    key: Annotated[Key, Meta(description="The key, or `env:NAME` for the variable NAME.")]
    paths: Annotated[
        tuple[str, ...],
        Meta(
            description="Paths that it opens; `*` stands for any part. Default: what generates, embeds, reranks, "
            "tokenizes or lists models, and nothing that changes an engine or tells of other clients."
        ),
    ] = ()
    admin: Annotated[bool, Meta(description="Whether it is an administrator's: it opens everything.")] = False


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A model's name as clients use it, and what stands behind it."""

    name: Annotated[str, Meta(min_length=1, description="As it stands in `/v1/models`.")]
    aliases: Annotated[
        tuple[str, ...],
        Meta(description="Other names for it; `*` stands for any part: `claude-*`, `gpt-4o*`. Case is ignored."),
    ] = ()
    lanes: Annotated[
        tuple[str, ...],
        Meta(description="Lanes, or engines with all of their lanes, that serve it. Default: all that list it."),
    ] = ()
    engine_model: Annotated[
        str | None, Meta(description="What the engines call it. Default: `name`, where they list that, else their own.")
    ] = None
    engine_models: Annotated[
        dict[str, str], Meta(description='The same for single engines: `{ gpu = "qwen3:8b" }`.')
    ] = {}


class RoutingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How lanes are chosen."""

    exploration: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="Share of the decode time that may be spent on lanes that are not predicted to be the fastest, "
            "so that changes are noticed and it can be told what routing brings. 0 never does.",
        ),
    ] = EXPLORATION
    remember: Annotated[
        bool, Meta(description="Keep what was learned in a file of the user's state directory, over restarts.")
    ] = True


class EvidenceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of the requests, to see later what routing brought."""

    log: Annotated[
        bool,
        Meta(
            description="Keep signals, decision and outcome of every request in a file of the user's state directory."
        ),
    ] = True
    keep_days: Annotated[float, Meta(gt=0, description="Older entries are dropped.")] = 30.0
    max_mb: Annotated[
        int, Meta(ge=1, description="Of a file that is larger, in megabytes, the oldest entries are dropped.")
    ] = 256
    keep_text: Annotated[
        bool, Meta(description="Keep the requests' bodies, too. Nothing else that Paceline keeps holds any text.")
    ] = False
    traces: Annotated[
        Url | None,
        Meta(
            description="Send a span of every request to this OpenTelemetry collector (OTLP over HTTP), such as "
            "`http://127.0.0.1:4318/v1/traces`. Needs `paceline[traces]`."
        ),
    ] = None


class CostSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What this machine costs, for `paceline report`."""

    watts: Annotated[
        Price | None,
        Meta(description="Power that the machine draws while it works on requests. Without it, no costs are told."),
    ] = None
    price_per_kwh: Annotated[Price, Meta(description="Of electricity.")] = 0.0
    currency: Annotated[str, Meta(description="Of all prices; only shown.")] = "USD"


class CloudModel(Struct, frozen=True, forbid_unknown_fields=True):
    """A cloud model that `paceline report` compares costs with; its prices are per million tokens."""

    name: Annotated[str, Meta(min_length=1, description="As it is to be shown.")]
    input_price: Annotated[Price, Meta(description="Of prompt tokens.")]
    output_price: Annotated[Price, Meta(description="Of generated tokens.")]
    cached_input_price: Annotated[
        Price | None, Meta(description="Of prompt tokens that are in a cache. Default: `input_price`.")
    ] = None


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """Requests that go down a given lane, whatever is predicted. All keys that are given have to fit; the first rule
    that fits counts."""

    lane: Annotated[str, Meta(description="The lane. While it is down, the request is decided on as any other.")]
    model: Annotated[str | None, Meta(description="The model that the request names.")] = None
    task: Annotated[Task | None, Meta(description="The likeliest task.")] = None
    header: Annotated[
        Header | None, Meta(description="A header of the request: `x-team`, or with its value `x-team: batch`.")
    ] = None
    api_key: Annotated[str | None, Meta(description="The key that the client gave.")] = None


class Configuration(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole configuration file."""

    server: ServerSettings = field(default_factory=ServerSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)
    cost: CostSettings = field(default_factory=CostSettings)
    cloud: tuple[CloudModel, ...] = ()
    rule: tuple[Rule, ...] = ()
    key: tuple[KeySettings, ...] = ()
    device: tuple[DeviceSettings, ...] = ()
    engine: tuple[EngineSettings, ...] = ()
    model: tuple[ModelSettings, ...] = ()

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the variables that hold keys."""
        keys = [*self.server.api_keys, self.server.admin_key, *(one.key for one in self.key)]
        keys += [engine.api_key for engine in self.engine]
        keys += [rule.api_key for rule in self.rule]
        return frozenset(key.removeprefix(FROM_ENVIRONMENT) for key in keys if key and key.startswith(FROM_ENVIRONMENT))

    def device_settings(self, name: str) -> DeviceSettings:
        """The settings of a device; the defaults where the file has none."""
        return next((d for d in self.device if d.name == name), DeviceSettings(name))


def load(path: Path, server: Mapping[str, Any] = MappingProxyType({}), *, here: bool = True) -> Configuration:
    """Read and check a configuration file.

    Args:
        server: settings of ``[server]`` that take the place of the file's.
        here: whether it is to be served with, on this machine and in this environment: then variables that it names
            have to be set, and it must not be open to strangers.

    Raises:
        ConfigurationError: the file can't be read, is no TOML, or holds a wrong or missing key.
    """
    try:
        text = path.read_text("utf-8-sig")  # some editors put a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error
    return parse(text, str(path), server, here=here)


def parse(
    text: str,
    source: str = "configuration",
    server: Mapping[str, Any] = MappingProxyType({}),
    *,
    here: bool = True,
) -> Configuration:
    """Like :func:`load`, from a string; ``source`` is the name used in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = re.sub(r" \(at (line (\d+), column \d+|end of document)\)$", "", str(error))
        at = re.search(r"line (\d+)", str(error))
        line = int(at[1]) if at else text.count("\n") + 1
        raise ConfigurationError(f"{source}:{line}: {message}") from error
    except RecursionError as error:
        raise ConfigurationError(f"{source}: is nested too deeply") from error
    if server and isinstance(table.setdefault("server", {}), dict):
        table["server"] |= server

    def refuse(problems: Iterable[tuple[KeyPath, str]]) -> None:
        if lines := _located(source, text, problems):
            raise ConfigurationError("\n".join(lines))

    refuse(_problems(table, Configuration))
    configuration = msgspec.convert(table, Configuration, strict=True)
    refuse(_contradictions(configuration, here))
    return configuration


def located(path: Path, problems: Iterable[tuple[KeyPath, str]]) -> str:
    """Problems of a file that was read, a line for each: file, line, key, and what is wrong."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        text = ""  # it is gone meanwhile
    return "\n".join(_located(str(path), text, problems))


def _located(source: str, text: str, problems: Iterable[tuple[KeyPath, str]]) -> list[str]:
    return [f"{source}:{_line_of(text, keys)}: {_dotted(keys)}: {message}" for keys, message in problems]


def check(configuration: Configuration) -> None:
    """Check a configuration that was not read from a file.

    Raises:
        ConfigurationError: it can't be served with here.
    """
    if lines := [f"{_dotted(keys)}: {message}" for keys, message in _contradictions(configuration, here=True)]:
        raise ConfigurationError("\n".join(lines))


def resolved(key: str) -> str:
    """A secret as it is sent: itself, or for ``env:NAME`` the value of the variable NAME.

    Raises:
        ConfigurationError: the variable is not set, or no header could carry the secret. The message does not hold it.
    """
    if not key.startswith(FROM_ENVIRONMENT):
        secret, what = key, "the key"
    else:
        name = key.removeprefix(FROM_ENVIRONMENT)
        if not name:
            raise ConfigurationError("env: names no variable; write it as env:NAME")
        if name not in os.environ:
            raise ConfigurationError(f"the variable {name} is not set")
        secret, what = os.environ[name], f"the variable {name}"
    if not secret:
        raise ConfigurationError(f"{what} is empty")
    if not re.fullmatch(r"[!-~]+", secret):
        raise ConfigurationError(f"{what} holds a space, a line's end or another character that no key may have")
    return secret


def _contradictions(configuration: Configuration, here: bool) -> list[tuple[KeyPath, str]]:
    """What is well-formed but can't be meant."""
    from paceline.contradictions import contradictions, contradictions_here  # which looks at these types

    return [*contradictions(configuration), *(contradictions_here(configuration) if here else ())]


def _problems(table: Mapping[str, Any], kind: type[Struct], at: KeyPath = ()) -> list[tuple[KeyPath, str]]:
    """All wrong keys and values, where msgspec alone would stop at the first."""
    found: list[tuple[KeyPath, str]] = []
    hints = get_type_hints(kind, include_extras=True)
    for key, value in table.items():
        if key not in hints:
            known = ", ".join(hints)
            found.append(((*at, key), f"unknown key; known here: {known}{_meant(key, hints)}"))
            continue
        inner = _struct_in(hints[key])
        if inner and get_origin(hints[key]) is tuple:
            if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
                found.append(((*at, key), f"write it as tables, each under [[{key}]]"))
                continue
            for index, item in enumerate(value):
                found += _problems(item, inner, (*at, key, index))
        elif inner and isinstance(value, dict):
            found += _problems(value, inner, (*at, key))
        else:
            try:
                msgspec.convert(value, hints[key], strict=True)
            except msgspec.ValidationError as error:
                found.append(((*at, key), _explained(str(error), value, hints[key])))
    for info in msgspec.structs.fields(kind):
        if info.required and info.name not in table:
            found.append((at, f"needs the key {info.name}"))
    return found


def _explained(error: str, value: Any, annotation: Any) -> str:
    """A type's complaint about a value, with what may stand there."""
    complaint = error.split(" - at `$")[0]
    allowed = _allowed(annotation)
    if allowed and isinstance(value, str):
        return f"{complaint}; it may be: {', '.join(allowed)}{_meant(value, allowed)}"
    if "length >= 1" in complaint:
        return f"{complaint}: it is empty"
    for pattern, hint in ((URL, "write it as http://127.0.0.1:8001"), (NAME, "use letters, digits, dots, _ and -")):
        if pattern in complaint:
            return f"{complaint}; {hint}"
    return complaint


def _allowed(annotation: Any) -> list[str]:
    """The words of which a value has to be one; none where it may be any."""
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return [str(value) for value in annotation]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [word for part in get_args(annotation) for word in _allowed(part)]


def _meant(word: str, known: Iterable[str]) -> str:
    """A question after the word that it is close to."""
    close = difflib.get_close_matches(word.lower(), known, 1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _struct_in(annotation: Any) -> type[Struct] | None:
    """The Struct that an annotation is, or is a tuple of."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, Struct):
            return part
    return None


def _dotted(keys: KeyPath) -> str:
    """``("engine", 1, "n_max")`` as people say it: ``engine[2].n_max``; tables are counted from 1."""
    text = ""
    for key in keys:
        text += f"[{key + 1}]" if isinstance(key, int) else f".{key}" if text else key
    return text or "file"


def _line_of(text: str, keys: KeyPath) -> int:
    """The line (from 1) where a key stands; that of its table where the key itself is not written."""
    table = [str(key) for key in keys if isinstance(key, str)]
    index = next((key for key in keys if isinstance(key, int)), 0)
    line, inside, count = 1, False, -1
    for number, content in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*([\w.\-\"]+)\s*\]\]?", content)
        if header:
            count += header[1] == table[0] if table else 0
            inside = bool(table) and header[1] == table[0] and count == index
            if inside:
                line = number
        elif inside and len(table) > 1 and re.match(rf'\s*"?{re.escape(table[1])}"?\s*[=.]', content):
            return number
        elif not inside and table and line == 1 and re.match(rf'\s*"?{re.escape(table[0])}"?\s*[=.]', content):
            line = number
    return line


def reference() -> str:
    """The reference of all keys as Markdown; ``docs/configuration.md`` holds it between two markers."""
    parts = []
    for heading, kind in (
        ("[server]", ServerSettings),
        ("[routing]", RoutingSettings),
        ("[evidence]", EvidenceSettings),
        ("[cost]", CostSettings),
        ("[[cloud]]", CloudModel),
        ("[[rule]]", Rule),
        ("[[key]]", KeySettings),
        ("[[model]]", ModelSettings),
        ("[[device]]", DeviceSettings),
        ("[[engine]]", EngineSettings),
    ):
        rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
        hints = get_type_hints(kind, include_extras=True)
        for info in msgspec.structs.fields(kind):
            default = "**required**" if info.required else f"`{_as_toml(_default(info))}`"
            rows.append(
                f"| `{info.name}` | {_type_name(hints[info.name])} | {default} | {_description(hints[info.name])} |"
            )
        parts.append(f"## `{heading}`\n\n{kind.__doc__}\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _default(info: msgspec.structs.FieldInfo) -> Any:
    return info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()


def _as_toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "[]"
    if isinstance(value, dict):
        return "{}"
    return str(msgspec.json.encode(value), "ascii")


def _description(annotation: Any) -> str:
    metas = [meta for meta in getattr(annotation, "__metadata__", ()) if isinstance(meta, Meta)]
    return next(meta.description for meta in metas if meta.description)


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return " or ".join(f'`"{value}"`' for value in annotation)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return _type_name(next(part for part in get_args(annotation) if part is not type(None)))
    if origin is dict:
        return "table of strings"
    if origin is tuple:
        return f"list of {_type_name(get_args(annotation)[0])}s"
    return {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}[annotation.__name__]


if __name__ == "__main__":
    print(reference())
