"""What servers that speak OpenAI's API have in common: the bases of their drivers, and the fetching of documents."""

import shutil
from collections.abc import Sequence
from typing import Any, Generic

import msgspec

from paceline.engines import usage
from paceline.engines.body import with_fields
from paceline.engines.interface import Examination, Facts, LaunchError, NotReady, SettingsType, assumed, put_port
from paceline.engines.observation import Observer
from paceline.printable import printable
from paceline.types import Abilities, DraftControl, Request, Strategy
from paceline.wire.client import Client, bearer
from paceline.wire.headers import Headers

LOOK_TIMEOUT_S = 5.0
"""For each answer of a look: a healthy server takes milliseconds, one that reads a long prompt may take seconds."""


class OpenAICompatible(Generic[SettingsType]):
    """A server of which nothing is known but its API."""

    settings_type: type[SettingsType]
    written_fields: frozenset[str] = frozenset()
    takes_any_model_name = False
    may_have_page = False

    async def probe(self, client: Client) -> Facts:
        models = await fetch_models(client)
        context = next((entry["max_model_len"] for entry in models.values() if "max_model_len" in entry), None)
        return Facts(models=models, context_tokens=context if isinstance(context, int) else None)

    async def examine(self, client: Client, settings: SettingsType) -> Examination:
        return Examination(abilities=assumed(settings.as_started))

    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl) -> bytes:
        return request.body

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return Observer(request)

    def launch(self, command: Sequence[str], port: int) -> tuple[str, ...]:
        if shutil.which(command[0]) is None:
            raise LaunchError(f"there is no program {command[0]!r}")
        return put_port(command, port)

    def key_variable(self, command: Sequence[str]) -> str | None:
        return None

    def key_headers(self, key: str | None) -> Headers:
        return bearer(key)

    def full_model_name(self, name: str) -> str:
        return name


class KnownServer(OpenAICompatible[SettingsType]):
    """A server that is known to tell a stream's usage when asked."""

    written_fields = frozenset({usage.FIELD})

    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl) -> bytes:
        fields = self.fields(request, strategy, abilities, control) | usage.question(request)
        return with_fields(request, fields) if fields else request.body

    def fields(
        self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl
    ) -> dict[str, Any]:
        """Those that carry the strategy; to be overridden where requests may choose it."""
        return {}

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return usage.UsageObserver(request, strategy.drafts)


async def fetch_models(client: Client) -> dict[str, dict[str, Any]]:
    """The entries of ``/v1/models`` by every name they go by: their id, and llama.cpp's aliases.

    Raises:
        NotReady: the answer is an error or no model list.
    """
    listed = await fetch_json(client, "/v1/models")
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        raise NotReady("/v1/models answers with no list of models")
    models: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if isinstance(entry, dict) and isinstance(entry.get("id"), str):
            aliases = entry.get("aliases")
            for name in (entry["id"], *(aliases if isinstance(aliases, list) else ())):
                if isinstance(name, str):
                    models.setdefault(name, entry)
    return models


async def fetch_json(client: Client, path: str, body: bytes = b"", timeout_s: float | None = None) -> Any:
    """The decoded answer to a GET, or to a POST where there is a body.

    Raises:
        NotReady: the status is not 200, or the answer is not JSON, or nests too deep.
    """
    headers = [(b"content-type", b"application/json")] if body else []
    status, answer = await client.fetch(
        "POST" if body else "GET", path, headers, body, timeout_s or LOOK_TIMEOUT_S, fresh=bool(body)
    )
    if status != 200:
        raise NotReady(f"{path} answers {status}: {_reason(answer)}", status)
    try:
        return msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotReady(f"{path} answers with something that is not JSON") from error


def _reason(answer: bytes) -> str:
    """What an error says: its message, where it has OpenAI's form, or else how it begins."""
    try:
        said = msgspec.json.decode(answer)["error"]["message"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, IndexError, TypeError):
        said = None
    return printable(said[:200] if isinstance(said, str) else answer[:200].decode("utf-8", "replace"))


async def fetch_optional(client: Client, path: str) -> dict[str, Any]:
    """Like :func:`fetch_json`, where an engine serves as well without: empty where it does not tell."""
    try:
        document = await fetch_json(client, path)
    except NotReady as error:
        if error.status is not None and (error.is_busy or error.status == 503):
            raise
        return {}
    return document if isinstance(document, dict) else {}


async def with_version(facts: Facts, client: Client, path: str) -> Facts:
    """Facts with the build that the server tells at a path, under ``version``."""
    version = (await fetch_optional(client, path)).get("version")
    return msgspec.structs.replace(facts, build=version if isinstance(version, str) else None)
