"""Which addresses there are, by which methods, and for whom. What stands in no row is the engines'."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from paceline.types import Api


class Audience(StrEnum):
    """Whom an address is for, where keys are asked for."""

    ANYONE = "anyone"
    CLIENTS = "clients"
    ADMINISTRATORS = "administrators"


class Route(Struct, frozen=True):
    """One address, or with ``*`` at its end all that begin with it."""

    methods: tuple[str, ...]
    path: str
    name: str
    """Of what answers it: a method of :class:`paceline.http.answers.Answers`."""
    audience: Audience
    about: str
    """What it answers, for people, in Markdown; rows with the same words are one in :func:`reference`."""

    def fits(self, path: str) -> bool:
        """Whether a path is this one, or begins with it."""
        return path.startswith(self.path[:-1]) if self.path.endswith("*") else path == self.path

    def audience_of(self, method: str) -> Audience:
        """A page that is open to anyone is there to be looked at."""
        is_page = self.path.startswith("/paceline") and self.audience is Audience.ANYONE
        return Audience.CLIENTS if is_page and method != "GET" else self.audience

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods, those that follow from them included."""
        return (*self.methods, *(("HEAD",) if "GET" in self.methods else ()), "OPTIONS")


GENERATION: dict[str, Api] = {
    "/v1/chat/completions": Api.OPENAI_CHAT,
    "/chat/completions": Api.OPENAI_CHAT,
    "/v1/completions": Api.OPENAI_COMPLETIONS,
    "/v1/responses": Api.OPENAI_RESPONSES,
    "/responses": Api.OPENAI_RESPONSES,
    "/v1/messages": Api.ANTHROPIC_MESSAGES,
    "/completion": Api.LLAMA_CPP,
    "/completions": Api.LLAMA_CPP,
    "/infill": Api.LLAMA_CPP,
}
"""The paths whose requests are decided on. ``/completions`` without ``/v1`` is llama.cpp's own."""

_GET, _POST = ("GET",), ("POST",)
_ANYONE, _CLIENTS, _ADMINISTRATORS = Audience.ANYONE, Audience.CLIENTS, Audience.ADMINISTRATORS

_GENERATES = "the request is decided on, and sent down a lane"
_MODELS = "all models that lanes serve, and the names of `[[model]]`"
_HEALTH = "200 while a lane is up, else 503"
_DASHBOARD = "the dashboard"

ROUTES: Sequence[Route] = (
    *(Route(_POST, path, "generate", _CLIENTS, _GENERATES) for path in GENERATION),
    Route(_GET, "/v1/chat/completions", "pass_on", _CLIENTS, "the completions that the default engine stored"),
    Route(_GET, "/v1/models", "models", _CLIENTS, _MODELS),
    Route(_GET, "/models", "models", _CLIENTS, _MODELS),
    Route(_GET, "/v1/models/*", "model", _CLIENTS, "one entry of that list"),
    Route(("DELETE",), "/v1/models/*", "pass_on", _ADMINISTRATORS, "makes the engine delete the model"),
    Route(_GET, "/health", "health", _ANYONE, _HEALTH),
    Route(_GET, "/v1/health", "health", _ANYONE, _HEALTH),
    Route(_GET, "/livez", "live", _ANYONE, "200 while the gateway runs"),
    Route(
        _GET,
        "/readyz",
        "ready",
        _ANYONE,
        "200 while requests can be served; 503 from SIGTERM on, `server.drain_s` before the port closes",
    ),
    Route(
        _GET,
        "/metrics",
        "metrics",
        _ADMINISTRATORS,
        "counters and histograms for Prometheus; with the header `x-paceline-lane`, that engine's own",
    ),
    Route(
        _GET,
        "/",
        "front",
        _CLIENTS,
        "leads to the dashboard, or shows llama.cpp's chat page if the default engine has it and no key is asked for",
    ),
    Route(_GET, "/paceline", "to_dashboard", _ANYONE, "leads to the dashboard"),
    Route(_GET, "/paceline/", "dashboard", _ANYONE, _DASHBOARD),
    Route(_GET, "/paceline/page/*", "dashboard", _ANYONE, _DASHBOARD),
    Route(
        _GET,
        "/paceline/lanes",
        "lanes",
        _ADMINISTRATORS,
        "each lane: engine, strategy, health, what was measured, by model if there are several; budgets, where "
        "requests went and what they cost; what is in flight (`running`), and what needs a person's attention "
        '(`needs`); `null` is "not reported"',
    ),
    Route(
        _GET,
        "/paceline/requests",
        "requests",
        _ADMINISTRATORS,
        "the last 1,000 requests, or with `?after=N` those after number `N`, without their text: lane, "
        "reason, placement, prediction, cost, what was measured; `id` is the client's `x-request-id`, "
        "`client` the name of its key",
    ),
    Route(
        _GET,
        "/paceline/requests/*",
        "request",
        _ADMINISTRATORS,
        "one of these requests by its number, with its signals and what was predicted for every lane",
    ),
    Route(
        _GET,
        "/paceline/history",
        "history",
        _ADMINISTRATORS,
        "requests, failures, tokens, speeds and times of the last `?range_s=3600` seconds, at most 30 days, in slices",
    ),
    Route(
        _GET,
        "/paceline/drafting",
        "drafting",
        _ADMINISTRATORS,
        "by drafter: what its steps are estimated to cost, what its drafts yielded at each position, "
        "and whether that pays",
    ),
    Route(_GET, "/paceline/report", "report", _ADMINISTRATORS, "an estimate of what routing brought so far"),
    Route(_POST, "/paceline/reload", "reload", _ADMINISTRATORS, "applies the changed configuration"),
    Route(
        _POST,
        "/paceline/explain/*",
        "explain",
        _CLIENTS,
        "signals, decision and predictions for a request that would go to the rest of the path; nothing is sent",
    ),
    Route(
        _POST,
        "/paceline/feedback",
        "feedback",
        _CLIENTS,
        'tells the gateway whether an answer was good enough: `{"id": "...", "good": true}`, with the request\'s '
        "`x-request-id`",
    ),
    Route((), "/paceline/*", "nothing", _ADMINISTRATORS, "does not exist"),
)

PASSED_ON = (
    "passed through once, without a decision: to the engine that keeps the response, file or batch that the path "
    "names, or that serves the model that the body names, or that the header `x-paceline-lane` names, else to the "
    "default lane's engine. A request that computes waits for its turn on the device. Each one is logged in a line "
    "and counted."
)
"""What becomes of requests that stand in no row, for people."""
PASSED_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
"""Methods with which requests are passed through to engines."""

CLIENT_PATHS = (
    *GENERATION,
    *(f"{path}/*" for path in GENERATION if "responses" in path or "messages" in path),
    *("/v1/models", "/v1/models/*", "/models", "/health", "/v1/health", "/props"),
    *("/v1/embeddings", "/embedding", "/embeddings", "/pooling", "/classify", "/score", "/v1/score"),
    *("/rerank", "/reranking", "/v1/rerank", "/v1/reranking", "/v2/rerank", "/v1/moderations"),
    *("/tokenize", "/detokenize", "/apply-template", "/v1/audio/*", "/v1/images/*"),
    *("/v1/files", "/v1/files/*", "/v1/batches", "/v1/batches/*", "/v1/conversations", "/v1/conversations/*"),
    *("/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/tags", "/api/version"),
    *("/paceline/explain/*", "/paceline/feedback"),
)
"""What a client's key opens where its ``paths`` say nothing: what computes or lists, not what changes an engine."""


class _Address(Struct, frozen=True):
    """The rows of one path, and the methods of all of them."""

    rows: tuple[Route, ...]
    allowed: tuple[str, ...]
    taking: Mapping[str, Route]
    """By method, the row that takes it."""


def _address(path: str) -> _Address:
    rows = tuple(row for row in ROUTES if row.path == path)
    allowed = tuple(dict.fromkeys(method for row in rows for method in row.allowed))
    return _Address(rows, allowed, {method: row for row in reversed(rows) for method in row.allowed})


_EXACT = {row.path: _address(row.path) for row in ROUTES if not row.path.endswith("*")}
_BEGINNINGS = [_address(path) for path in dict.fromkeys(row.path for row in ROUTES if row.path.endswith("*"))]
_PASSED_AND_OPTIONS = (*PASSED_METHODS, "OPTIONS")


def route(method: str, path: str) -> tuple[Route | None, tuple[str, ...]]:
    """The row for a request and the methods of its address; no row where it is for the engines, or where the
    address does not take the method: then it has methods, and this one is not among them."""
    address = _EXACT.get(path) or next((own for own in _BEGINNINGS if own.rows[0].fits(path)), None)
    if address is None:
        return None, _PASSED_AND_OPTIONS
    any_method = (row for row in address.rows if not row.methods)
    return address.taking.get(method) or next(any_method, None), address.allowed


def api_of(path: str) -> Api:
    """The dialect in which a path's errors are said."""
    if path.startswith("/v1/messages"):
        return Api.ANTHROPIC_MESSAGES
    openai = path.startswith(("/v1/", "/paceline/"))
    return GENERATION.get(path.rstrip("/"), Api.OPENAI_CHAT if openai else Api.LLAMA_CPP)


def reference() -> str:
    """The table of endpoints as Markdown; ``docs/endpoints.md`` holds it between two markers."""
    lines = ["| endpoint | for | what |", "|---|---|---|"]
    groups: dict[tuple[tuple[str, ...], Audience, str], list[str]] = {}
    for row in ROUTES:
        if row.methods:
            groups.setdefault((row.methods, row.audience, row.about), []).append(row.path)
    for (methods, audience, about), (first, *others) in groups.items():
        paths = ", ".join([f"`{' '.join(methods)} {first}`", *(f"`{path}`" for path in others)])
        lines.append(f"| {paths} | {audience} | {about} |")
    return "\n".join([*lines, f"| anything else | {Audience.CLIENTS} | {PASSED_ON} |"]) + "\n"


if __name__ == "__main__":
    print(reference())
