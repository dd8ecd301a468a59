"""The settings of a gateway: frozen types, without any input or output.

``paceline.configuration`` reads them from a TOML file and checks them. The descriptions of the fields are the
documentation: ``docs/configuration.md`` is generated from them. The settings that one kind of engine has stand beside
its driver in ``paceline/engines``; what engines have in common stands here.
"""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct, field

from paceline.addresses import is_loopback
from paceline.types import AS_STARTED, Abilities, Api, Lane, Strategy, Task

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
FROM_ENVIRONMENT = "env:"
"""Before the name of a variable that holds a secret."""
FROM_FILE = "file:"
"""Before the path of a file that holds a secret."""
NAME, URL = r"^[A-Za-z0-9][A-Za-z0-9._-]*$", r"^https?://"
CREDENTIALS = frozenset(("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization"))
"""Names of headers that tell who a client is. They go to no provider."""
HEADER_NAME = r"^[A-Za-z0-9-]+$"
DEFAULT_MAX_TOKENS = 16_384
"""Of an answer, where an API wants a limit and the client names none. Models of 2026 write 32,000 and more."""

Name = Annotated[str, Meta(pattern=NAME)]
Price = Annotated[float, Meta(ge=0)]
Url = Annotated[str, Meta(pattern=URL)]
Key = Annotated[str, Meta(min_length=1)]
"""A secret, ``env:NAME``, or ``file:PATH``."""
Header = Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+(: .+)?$")]
Seconds = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
AtLeastOne = Annotated[int, Meta(ge=1)]


ALL_APIS = frozenset(Api)


class ConfigurationError(Exception):
    """A configuration that can't be used. ``str()`` gives one line per problem: file, line, key, what to do."""


class ServerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
            description="Keys of clients (`Authorization: Bearer KEY` or `x-api-key: KEY`). `env:NAME` reads one "
            "from the variable NAME. Without `api_keys`, `[[key]]` and `admin_key` no key is asked for. "
            "If there is a single key and no `admin_key`, that key is the administrator's, too."
        ),
    ] = ()
    admin_key: Annotated[
        Key | None,
        Meta(
            description="The administrator's key. It opens everything, including `/paceline/*`, `/metrics`, reloads "
            "and the endpoints that change engines. `env:NAME` reads it from the variable NAME."
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
            description="Names in the `Host` header that are accepted, besides loopback's own names, names without "
            "a dot, and addresses. So a page whose name was made to point to this machine is refused."
        ),
    ] = ()
    strict_models: Annotated[
        bool,
        Meta(
            description="Answer 404 if no engine serves the model that a request names. Default: the default model "
            "serves it."
        ),
    ] = False
    default_lane: Annotated[
        str | None,
        Meta(
            description="The lane for requests that are passed through, and for all requests while routing fails. "
            "Default: the first."
        ),
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
        Seconds, Meta(description="Time that a client may pause while it sends a body, or reads an answer.")
    ] = 60.0
    connect_timeout_s: Annotated[
        Seconds, Meta(description="Time to connect to an engine before the next lane is tried, in seconds.")
    ] = 3.0
    queue_timeout_s: Annotated[
        Seconds,
        Meta(
            description="Time that a request may wait for its turn on the device. It waits a minute at most for an "
            "engine that starts."
        ),
    ] = 600.0
    first_byte_timeout_s: Annotated[
        Seconds,
        Meta(
            description="Time until an engine has sent the first byte of its answer; after that the next lane is "
            "tried. If a long prompt is predicted to take longer at the engine's pace, the limit is "
            "three times the predicted time."
        ),
    ] = 300.0
    idle_timeout_s: Annotated[
        Seconds,
        Meta(description="Longest silence within an engine's answer, in seconds; pings count as signs of life."),
    ] = 300.0
    total_timeout_s: Annotated[
        Seconds, Meta(description="Longest time from a request's arrival to the end of its answer.")
    ] = 7200.0
    health_interval_s: Annotated[Seconds, Meta(description="Seconds between two looks at an engine's health.")] = 2.0
    drain_s: Annotated[
        float,
        Meta(
            ge=0,
            description="Time after SIGTERM in which requests are still taken while `/readyz` says 503, so that "
            "load balancers notice. There is no such time after Ctrl-C.",
        ),
    ] = 1.0
    shutdown_grace_s: Annotated[
        int,
        Meta(
            ge=0,
            description="Seconds that running answers may take to finish after SIGTERM or Ctrl-C; a second signal "
            "ends them at once. If a service manager stops the gateway, it should wait longer than "
            "this.",
        ),
    ] = 5
    log_requests: Annotated[bool, Meta(description="One line per request on standard output.")] = True


class DeviceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
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
            description="With `turns`: how long, in seconds, a waiting request lets others join the engine that has "
            "the turn. A longer time is better for throughput, a shorter one for fairness.",
        ),
    ] = 2.0
    queue_limit: Annotated[
        int,
        Meta(ge=1, description="With `turns`: most requests that may wait; one more is answered with 503."),
    ] = 256

    @property
    def takes_turns(self) -> bool:
        return (self.sharing or ("turns" if self.name.startswith("cpu") else "together")) == "turns"


class EngineSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What the settings of all engines have in common. Each kind's own type derives from this one, beside its driver;
    the type's tag is the kind."""

    name: Annotated[Name, Meta(description="Name of the engine and of its lane.")]
    url: Annotated[Url | None, Meta(description="Base URL of a running engine; a `/v1` at its end is left off.")] = None
    strategy: Annotated[
        StrategyKind, Meta(description="How the engine drafts, as it was started; `autoregressive` is plain decoding.")
    ] = "autoregressive"
    n_max: Annotated[
        AtLeastOne | None, Meta(description="The max draft length that the engine was started with, in tokens.")
    ] = None
    api_key: Annotated[
        Key | None,
        Meta(
            description="Key sent to this engine in place of the client's. `env:NAME` reads it from the variable NAME, "
            "`file:PATH` from a file."
        ),
    ] = None
    apis: Annotated[
        tuple[Api, ...],
        Meta(
            description="The APIs that it speaks; requests in another API are translated into one of them. Default: "
            "all of them, so that every request is sent as it came."
        ),
    ] = ()

    @property
    def machine_kind(self) -> str | None:
        """What its machine is, where others like it have one of the same; ``None`` where nobody says."""
        return None

    @property
    def kind(self) -> str:
        """The kind of engine, as the key ``kind`` names it."""
        return str(self.__struct_config__.tag)

    @property
    def is_cloud(self) -> bool:
        """Whether it is a provider's: it is paid for by tokens, and stands in for others only where that is
        declared."""
        return True

    @property
    def speaks(self) -> frozenset[Api]:
        """The APIs that it is sent requests in."""
        return frozenset(self.apis) if self.apis else ALL_APIS

    @property
    def max_tokens_field(self) -> str:
        """How chat completions that were translated limit the answer's length."""
        return "max_tokens"

    @property
    def is_openais(self) -> bool:
        """Whether it is OpenAI's own service, which refuses fields that it does not know."""
        return False

    @property
    def default_max_tokens(self) -> int:
        """Of the answer to a translated request that names no limit, where the API wants one."""
        return DEFAULT_MAX_TOKENS

    @property
    def is_to_cache(self) -> bool:
        """Whether translated requests ask it to keep what they say in its cache."""
        return False

    @property
    def base_url(self) -> str | None:
        """The address to which the paths of requests are added, in the form that clients of the gateway use."""
        return None if self.url is None else self.url.rstrip("/").removesuffix("/v1")

    def path(self, path: str) -> str:
        """What a request's path is called there."""
        return path

    @property
    def leaves_machine(self) -> bool:
        """Whether what is sent to it may leave the operator's hands, so that no private request is."""
        return True

    @property
    def launch(self) -> tuple[str, ...]:
        """The command that starts the engine; empty where it is not Paceline that starts it."""
        return ()

    @property
    def device(self) -> str | None:
        """The device that it shares with other engines; ``None`` where it shares none."""
        return None

    @property
    def slots(self) -> int | None:
        """Requests it decodes at once; ``None`` where the engine is to say that itself."""
        return None

    @property
    def caps(self) -> tuple[int, ...]:
        """Draft lengths to choose among, in tokens; empty where Paceline chooses them."""
        return ()

    @property
    def drafted_token_cost(self) -> float | None:
        """What each drafted token is believed to add to a verification step, in plain steps; ``None`` where nobody
        says."""
        return None

    @property
    def own_decoding(self) -> object:
        """What of the kind's own settings changes how the engine decodes; ``None`` where nothing does."""
        return None

    @property
    def as_started(self) -> Strategy:
        """What the engine does with a request that says nothing."""
        return Strategy(self.strategy, self.n_max)

    @property
    def decoding(self) -> tuple[object, ...]:
        """All that changes how fast the engine decodes. What was learned of it holds while this stays the same, so
        neither its parts nor their order may change from one version of Paceline to the next."""
        believed = () if self.drafted_token_cost is None else (self.drafted_token_cost,)
        return (self.name, self.kind, self.strategy, self.n_max, self.own_decoding, self.launch, *believed)

    def lanes(self, abilities: Abilities = AS_STARTED) -> list[Lane]:
        """The lanes this engine offers: the one it was started with, named like the engine, with the strategy that it
        was seen to have; or those that requests can choose among, named like ``gpu/plain`` and ``gpu/ngram-8``."""
        strategies = abilities.strategies(self.caps)
        if not strategies:
            return [Lane(self.name, self.name, abilities.as_seen or self.as_started, self.device)]
        return [Lane(f"{self.name}/{strategy.name}", self.name, strategy, self.device) for strategy in strategies]


class CloudEngineSettings(EngineSettings, frozen=True, kw_only=True):
    """Settings that providers' APIs have besides those. A provider is sent nothing but clients' requests, with only a
    few of the clients' headers."""

    models: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(description="Names of the models to be used, as the provider has them. It serves no others. Required."),
    ] = ()
    headers: Annotated[
        dict[Annotated[str, Meta(pattern=HEADER_NAME)], Key],
        Meta(
            description='Further headers of each request: `{ OpenAI-Organization = "org-1" }`. A value may be '
            "`env:NAME` or `file:PATH`."
        ),
    ] = {}
    pass_headers: Annotated[
        tuple[Annotated[str, Meta(pattern=HEADER_NAME)], ...],
        Meta(description="Names of clients' headers that are passed on, besides those in docs/cloud.md."),
    ] = ()
    first_byte_timeout_s: Annotated[
        Seconds | None,
        Meta(
            description="Time until a stream has sent its first byte; after that the next engine is tried. Default: "
            "`server.first_byte_timeout_s`, which always holds for answers that are not streams."
        ),
    ] = None
    stall_timeout_s: Annotated[
        Seconds | None,
        Meta(
            description="Longest silence within a stream, before it is given up. Default: five times the longest "
            "pause of the engine's last 200 streams, and not below 20 s; before 20 streams were seen, "
            "`server.idle_timeout_s`."
        ),
    ] = None

    @property
    def passed_headers(self) -> frozenset[bytes]:
        """Names of clients' headers that go there, in small letters."""
        return frozenset(name.lower().encode() for name in self.pass_headers) | self.usually_passed

    @property
    def usually_passed(self) -> frozenset[bytes]:
        """Those of any client."""
        return frozenset()


class LocalEngineSettings(EngineSettings, frozen=True, kw_only=True):
    """What the settings of engines that run on a machine of one's own have in common beside that: Paceline may start
    them, and they share devices."""

    launch: Annotated[
        tuple[str, ...],
        Meta(description="Command that starts the engine. `{port}` becomes a free port."),
    ] = ()
    device: Annotated[
        Name | None, Meta(description="What it runs on; engines of one device are scheduled together.")
    ] = None
    machine_kind: Annotated[
        Name | None,
        Meta(
            description="The kind of machine that it runs on, in a word, such as `rtx-4090`. What is learned of an "
            "engine also holds for others with the same model, build, settings and kind of machine, "
            "except how fast each machine is. Default: `device` or `name`."
        ),
    ] = None
    slots: Annotated[
        AtLeastOne | None, Meta(description="Requests it decodes at once. Default: what the engine reports.")
    ] = None
    drafted_token_cost: Annotated[
        Annotated[float, Meta(gt=0, le=4)] | None,
        Meta(
            description="What each drafted token adds to a verification step, in plain steps, until that has been "
            "measured: 0.15 on an RTX 5090, 0.3 on an RTX 3090, 1 on an M3 Ultra; more for a mixture of "
            "experts. `paceline plan` gives the number. Default: 0.3."
        ),
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
    cloud: Annotated[
        bool,
        Meta(
            description="Whether it is a provider's engine, or leads to one. It is then paid for by tokens, gets no "
            "private request, and stands in for your own engines only where a `[[model]]` names it."
        ),
    ] = False
    takes_private: Annotated[
        bool | None,
        Meta(
            description="Whether private requests may be sent to it. Default: yes if Paceline starts it or its "
            "address is this machine's own (loopback), otherwise no."
        ),
    ] = None

    @property
    def is_cloud(self) -> bool:
        return self.cloud

    @property
    def leaves_machine(self) -> bool:
        if self.cloud:
            return True
        if self.takes_private is not None:
            return not self.takes_private
        return not (self.launch or (self.url and is_loopback(urlsplit(self.url).hostname or "")))


Caps = Annotated[
    tuple[AtLeastOne, ...],
    Meta(
        description="Max draft lengths to choose among, besides no drafts, where the engine takes its strategy from "
        "each request. Default: the longest that the engine was started with, and a half, a quarter and "
        "an eighth of it."
    ),
]
"""The key of kinds whose requests may choose how much is drafted."""
ControlsDrafts = Annotated[
    bool,
    Meta(
        description="Whether a server that can control its drafts, step by step, does so. Its lanes are then its "
        "drafters. Otherwise its lanes are its drafters at some lengths."
    ),
]
"""The key of kinds that may control drafts."""


class KeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client's key with a name and limits."""

    name: Annotated[Name, Meta(description="The name of whoever has the key; records show it in place of the key.")]
    key: Annotated[Key, Meta(description="The key, or `env:NAME` for the variable NAME.")]
    paths: Annotated[
        tuple[str, ...],
        Meta(
            description="Paths that the key opens; `*` stands for any part. Default: those that generate, embed, "
            "rerank, tokenize or list models, and none that change an engine or show other clients' "
            "requests."
        ),
    ] = ()
    admin: Annotated[bool, Meta(description="Whether it is an administrator's key, which opens everything.")] = False
    private: Annotated[bool, Meta(description="Whether none of its requests may leave this machine.")] = False
    engines: Annotated[tuple[Name, ...], Meta(description="Engines that its requests may go to. Default: all.")] = ()


Capability = Literal["images", "audio", "files", "tools", "structured"]


class OfferSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one engine offers under a model's name. With tables of this kind, engines with different models stand in
    for one another. A key that is left out is not considered."""

    engine: Annotated[Name, Meta(description="The engine.")]
    model: Annotated[
        str | None,
        Meta(description="What the engine calls its model; its prices are looked up by this name, too."),
    ] = None
    quality: Annotated[
        Share | None,
        Meta(description="Share, 0 to 1, of answers that are good enough."),
    ] = None
    quality_by_task: Annotated[dict[Task, Share], Meta(description="The same for single tasks: `{ code = 0.7 }`.")] = {}
    can: Annotated[
        tuple[Capability, ...] | None,
        Meta(
            description="What it can do besides text; `structured` is output by a schema. Requests that need "
            "anything else don't go there. Default: everything."
        ),
    ] = None
    context_tokens: Annotated[
        AtLeastOne | None, Meta(description="Tokens of context for one request. Default: what the engine reports.")
    ] = None


class ModelSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model's name as clients use it, and what stands behind it."""

    name: Annotated[str, Meta(min_length=1, description="As it stands in `/v1/models`.")]
    aliases: Annotated[
        tuple[str, ...],
        Meta(description="Other names for it; `*` stands for any part: `claude-*`, `gpt-4o*`. Case is ignored."),
    ] = ()
    lanes: Annotated[
        tuple[str, ...],
        Meta(
            description="Lanes, or engines with all of their lanes, that serve it. Default: the engines with an "
            "offer, or else all engines that list it."
        ),
    ] = ()
    engine_model: Annotated[
        str | None,
        Meta(
            description="What the engines call it. Default: `name`, if they list that, or else the name that they list."
        ),
    ] = None
    engine_models: Annotated[
        dict[str, str], Meta(description='The same for single engines: `{ gpu = "qwen3:8b" }`.')
    ] = {}
    private: Annotated[bool, Meta(description="Whether no request for it may leave this machine.")] = False
    offer: Annotated[
        tuple[OfferSettings, ...],
        Meta(description="What single engines offer under this name; they serve it beside those in `lanes`."),
    ] = ()

    def offer_of(self, engine: str) -> OfferSettings | None:
        """What an engine offers under this name, where that is said."""
        return next((offer for offer in self.offer if offer.engine == engine), None)

    def own_name(self, engine: str) -> str | None:
        """What an engine is said to call it."""
        offer = self.offer_of(engine)
        return (offer and offer.model) or self.engine_models.get(engine) or self.engine_model


class RoutingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How lanes are chosen."""

    exploration: Annotated[
        float,
        Meta(
            ge=0,
            le=0.5,
            description="Share of the decode time that may be spent on lanes that are not predicted to be the "
            "fastest, so that changes are noticed and the gain of routing can be estimated. With 0, "
            "nothing is explored.",
        ),
    ] = 0.01
    hedging: Annotated[
        bool,
        Meta(
            description="Send a streamed request to the next engine as well, if the first one has not begun to answer "
            "when 95 % of its streams have. Whichever begins first serves it, and the other is cancelled; both may "
            "cost."
        ),
    ] = False
    remember: Annotated[
        bool, Meta(description="Keep what was learned in a file of the user's state directory, over restarts.")
    ] = True


Mode = Literal["local-first", "balanced", "fastest", "cheapest", "best"]


class PlacementSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Paceline decides which engine serves a request, where several can stand in for one another. An answer's
    cost is its time, at the value of time, plus its price, plus its risk of being poor, at the cost of a poor answer.
    The engine with the least cost is chosen."""

    mode: Annotated[
        Mode,
        Meta(
            description="`local-first`: a cloud engine only if no other engine can serve the request in time. "
            "`balanced`: the least cost. `fastest`, `cheapest` and `best` look at time, price or "
            "quality before all else."
        ),
    ] = "local-first"
    value_of_time_per_hour: Annotated[
        Price, Meta(description="What an hour of waiting for answers costs, in `cost.currency`.")
    ] = 20.0
    cost_of_poor_answer: Annotated[
        Price, Meta(description="What an answer costs that is not good enough, in `cost.currency`.")
    ] = 0.05
    quality_needed: Annotated[
        Share, Meta(description="Share of answers that have to be good enough; quality beyond that has no value.")
    ] = 1.0
    quality_needed_by_task: Annotated[dict[Task, Share], Meta(description="The same for single tasks.")] = {}
    escalate_after: Annotated[
        int,
        Meta(
            ge=0,
            description="If so many tool calls of one turn failed, the next turn of the conversation is placed as "
            "in the mode `best`. With 0 this never happens.",
        ),
    ] = 0
    deadline_s: Annotated[
        Seconds | None,
        Meta(
            description="Time in seconds from a request's arrival within which its whole answer is wanted. A "
            "request's header `x-paceline-deadline-ms` overrides it. Engines that would be late are "
            "taken last. Default: none."
        ),
    ] = None


class PrivacySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests never leave this machine, beside those of a `[[key]]` or for a `[[model]]` with `private = true`,
    and those with the header `x-paceline-private: yes`. They go to no engine that would take them elsewhere, whatever
    is down."""

    paths: Annotated[
        tuple[str, ...], Meta(description="Paths whose requests are private; `*` stands for any part.")
    ] = ()
    headers: Annotated[
        tuple[Header, ...],
        Meta(description="Headers that make a request private: `x-team`, or with their value `x-team: legal`."),
    ] = ()
    patterns: Annotated[
        tuple[str, ...],
        Meta(
            description="Regular expressions. A request is private if one is found in its body, address or headers. "
            "Expressions whose search might take long are refused. Bodies that are too long to be "
            "searched are private."
        ),
    ] = ()
    secrets: Annotated[
        bool,
        Meta(
            description="Whether a request is private if something in it looks like a key or a password of a service."
        ),
    ] = False


class BudgetSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much may be spent on cloud engines. A request that would exceed it does not go to one."""

    limit: Annotated[Price, Meta(description="In `cost.currency`.")]
    per: Annotated[Literal["day", "month"], Meta(description="Of the calendar, by UTC.")] = "day"
    key: Annotated[
        Name | None, Meta(description="The `[[key]]` whose requests count. Default: all requests together.")
    ] = None


class SharingSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Gateways that learn together. Each writes what it learned into a common store, and reads there what the others
    learned. While the store can't be reached, each goes on alone."""

    store: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(
            description="Where the common store is: `redis://host:6379/0` or `rediss://…` for a Redis or Valkey "
            "(`unix:///path` for its socket; needs `paceline[sharing]`), or the path of a folder, which may be on a "
            "network's file system. `env:NAME` reads that from the variable NAME, `file:PATH` from a file. Default: "
            "nothing is shared.",
        ),
    ] = None
    group: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9_-]{1,64}$",
            description="Gateways with the same store and the same group learn together.",
        ),
    ] = "paceline"
    interval_s: Annotated[
        float,
        Meta(
            ge=0.05,
            le=60,
            description="Time between two looks into the store, in seconds. With more than 64 gateways it is "
            "longer, so that none has to read more than 64 messages in that time.",
        ),
    ] = 1.0


class EvidenceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of the requests, to see later what routing brought."""

    log: Annotated[
        bool,
        Meta(
            description="Keep signals, decision and outcome of every request in a file of the user's state directory."
        ),
    ] = True
    keep_days: Annotated[float, Meta(gt=0, description="Older entries are dropped.")] = 30.0
    max_mb: Annotated[
        int, Meta(ge=1, description="Largest size of the file, in megabytes; beyond it the oldest entries are dropped.")
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


class CostSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this machine costs. For a decision, only what a request adds counts: power beyond that of the idle
    machine. For `paceline cost`, everything counts."""

    watts: Annotated[
        Price | None,
        Meta(description="Power that the machine draws while it works on requests. Without it, no costs are shown."),
    ] = None
    idle_watts: Annotated[Price, Meta(description="Power that it draws while it does nothing.")] = 0.0
    price_per_kwh: Annotated[Price, Meta(description="Price of electricity.")] = 0.0
    hardware_price: Annotated[Price, Meta(description="Price of the machine, when it was bought.")] = 0.0
    hardware_months: Annotated[float, Meta(gt=0, description="Months in which the machine is to be paid off.")] = 36.0
    operations_per_month: Annotated[
        Price, Meta(description="Price of whatever else the machine needs: rent, cooling, work.")
    ] = 0.0
    currency: Annotated[str, Meta(description="The currency of all prices; it is only shown.")] = "USD"
    usd: Annotated[
        float,
        Meta(gt=0, description="What a US dollar costs in that currency: published prices of models are in dollars."),
    ] = 1.0


class CloudModel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cloud model and its prices per million tokens. Its answers are counted at these prices, and `paceline report`
    and `paceline cost` compare with them. If a model has no prices here, the published ones are taken, provided that
    `paceline[prices]` is installed."""

    name: Annotated[str, Meta(min_length=1, description="As its provider calls it.")]
    input_price: Annotated[Price | None, Meta(description="Price of prompt tokens. Default: as published.")] = None
    output_price: Annotated[Price | None, Meta(description="Price of generated tokens. Default: as published.")] = None
    cached_input_price: Annotated[
        Price | None, Meta(description="Price of prompt tokens that are in a cache. Default: `input_price`.")
    ] = None
    cache_write_price: Annotated[
        Price | None, Meta(description="Price of prompt tokens that are put into a cache. Default: `input_price`.")
    ] = None


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that go down a given lane, whatever is predicted. All given keys have to fit a request, and the first
    rule that fits decides."""

    lane: Annotated[str, Meta(description="The lane. While it is down, the request is decided on like any other.")]
    model: Annotated[str | None, Meta(description="The model that the request names.")] = None
    task: Annotated[Task | None, Meta(description="The likeliest task.")] = None
    header: Annotated[
        Header | None, Meta(description="A header of the request: `x-team`, or with its value `x-team: batch`.")
    ] = None
    api_key: Annotated[str | None, Meta(description="The key that the client gave.")] = None


class Configuration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole configuration file."""

    server: ServerSettings = field(default_factory=ServerSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    placement: PlacementSettings = field(default_factory=PlacementSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    evidence: EvidenceSettings = field(default_factory=EvidenceSettings)
    sharing: SharingSettings = field(default_factory=SharingSettings)
    cost: CostSettings = field(default_factory=CostSettings)
    cloud: tuple[CloudModel, ...] = ()
    budget: tuple[BudgetSettings, ...] = ()
    rule: tuple[Rule, ...] = ()
    key: tuple[KeySettings, ...] = ()
    device: tuple[DeviceSettings, ...] = ()
    engine: tuple[EngineSettings, ...] = ()
    model: tuple[ModelSettings, ...] = ()

    @property
    def secret_variables(self) -> frozenset[str]:
        """Names of the variables that hold keys."""
        keys = [*self.server.api_keys, self.server.admin_key, *(client.key for client in self.key)]
        keys += [engine.api_key for engine in self.engine]
        keys += [*(rule.api_key for rule in self.rule), self.sharing.store]
        keys += [value for one in self.engine if isinstance(one, CloudEngineSettings) for value in one.headers.values()]
        return frozenset(key.removeprefix(FROM_ENVIRONMENT) for key in keys if key and key.startswith(FROM_ENVIRONMENT))

    def device_settings(self, name: str) -> DeviceSettings:
        """The settings of a device; the defaults where the file has none."""
        return next((device for device in self.device if device.name == name), DeviceSettings(name=name))
