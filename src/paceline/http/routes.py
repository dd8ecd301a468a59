"""Which addresses there are, by which methods, and for whom. What stands in no row is the engines'."""

from collections.abc import Sequence
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
    """Of what answers it: a method of the application."""
    audience: Audience
    about: str
    """In a few words, for people."""

    def fits(self, path: str) -> bool:
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

ROUTES: Sequence[Route] = (
    *(Route(_POST, path, "generate", _CLIENTS, "decided on, and sent down a lane") for path in GENERATION),
    Route(_GET, "/v1/chat/completions", "pass_on", _CLIENTS, "the engine's list of those that it stored"),
    Route(_GET, "/v1/models", "models", _CLIENTS, "what all lanes serve"),
    Route(_GET, "/models", "models", _CLIENTS, "the same"),
    Route(_GET, "/v1/models/*", "model", _CLIENTS, "one entry of it"),
    Route(("DELETE",), "/v1/models/*", "pass_on", _ADMINISTRATORS, "have the engine delete it"),
    Route(_GET, "/health", "health", _ANYONE, "200 while a lane is up, else 503"),
    Route(_GET, "/v1/health", "health", _ANYONE, "the same"),
    Route(_GET, "/livez", "live", _ANYONE, "200 while the gateway runs"),
    Route(_GET, "/readyz", "ready", _ANYONE, "200 while requests can be served; 503 from SIGTERM on"),
    Route(_GET, "/metrics", "metrics", _ADMINISTRATORS, "for Prometheus; with x-paceline-lane, that engine's own"),
    Route(_GET, "/", "front", _CLIENTS, "the engine's chat page, if it has one, else it leads to the dashboard"),
    Route(_GET, "/paceline", "to_dashboard", _ANYONE, "leads to the dashboard"),
    Route(_GET, "/paceline/", "dashboard", _ANYONE, "the dashboard"),
    Route(_GET, "/paceline/dashboard.css", "dashboard", _ANYONE, "its style"),
    Route(_GET, "/paceline/dashboard.js", "dashboard", _ANYONE, "its script"),
    Route(_GET, "/paceline/lanes", "lanes", _ADMINISTRATORS, "each lane: engine, strategy, health, what was measured"),
    Route(_GET, "/paceline/requests", "requests", _ADMINISTRATORS, "the last requests, without their text"),
    Route(_GET, "/paceline/report", "report", _ADMINISTRATORS, "what routing brought so far"),
    Route(_POST, "/paceline/reload", "reload", _ADMINISTRATORS, "take up the changed configuration"),
    Route(_POST, "/paceline/explain/*", "explain", _CLIENTS, "how a request to the rest of the path would be decided"),
    Route((), "/paceline/*", "nothing", _ADMINISTRATORS, "does not exist"),
)

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
    "/paceline/explain/*",
)
"""What a client's key opens where its ``paths`` say nothing: what computes or lists, not what changes an engine."""


class _Address(Struct, frozen=True):
    """The rows of one path, and the methods of all of them."""

    rows: tuple[Route, ...]
    allowed: tuple[str, ...]


def _address(path: str) -> _Address:
    rows = tuple(row for row in ROUTES if row.path == path)
    return _Address(rows, tuple(dict.fromkeys(method for row in rows for method in row.allowed)))


_EXACT = {row.path: _address(row.path) for row in ROUTES if not row.path.endswith("*")}
_BEGINNINGS = [_address(path) for path in dict.fromkeys(row.path for row in ROUTES if row.path.endswith("*"))]
_PASSED_AND_OPTIONS = (*PASSED_METHODS, "OPTIONS")


def route(method: str, path: str) -> tuple[Route | None, tuple[str, ...]]:
    """The row for a request and the methods of its address; no row where it is for the engines, or where the
    address does not take the method: then it has methods, and this one is not among them."""
    address = _EXACT.get(path) or next((one for one in _BEGINNINGS if one.rows[0].fits(path)), None)
    if address is None:
        return None, _PASSED_AND_OPTIONS
    taking = (row for row in address.rows if method in row.allowed or not row.methods)
    return next(taking, None), address.allowed


def api_of(path: str) -> Api:
    """The dialect in which a path's errors are said."""
    if path.startswith("/v1/messages"):
        return Api.ANTHROPIC_MESSAGES
    openai = path.startswith(("/v1/", "/paceline/"))
    return GENERATION.get(path.rstrip("/"), Api.OPENAI_CHAT if openai else Api.LLAMA_CPP)
