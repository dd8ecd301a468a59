"""OpenAI's API, at OpenAI or at whoever else offers it: OpenRouter, Groq, DeepSeek, Mistral, Together ..."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from paceline.engines.openai_compatible import KnownServer
from paceline.settings import CloudEngineSettings, Url
from paceline.types import Api

USUAL_APIS = (Api.OPENAI_CHAT,)
"""All of them speak chat."""
OPENAIS_APIS = (Api.OPENAI_CHAT, Api.OPENAI_RESPONSES)


class OpenAIApiSettings(CloudEngineSettings, frozen=True, kw_only=True, tag="openai-api"):
    """A provider that speaks OpenAI's API."""

    url: Annotated[
        Url | None,
        Meta(description="Base URL as for OpenAI's SDK, with the version: `https://openrouter.ai/api/v1`."),
    ] = "https://api.openai.com/v1"
    limit_field: Annotated[
        Literal["max_tokens", "max_completion_tokens"] | None,
        Meta(
            description="The field that limits the length of an answer in requests that are translated. Default: "
            "`max_completion_tokens` at OpenAI, else `max_tokens`."
        ),
    ] = None

    @property
    def speaks(self) -> frozenset[Api]:
        return frozenset(self.apis or (OPENAIS_APIS if self.is_openais else USUAL_APIS))

    @property
    def is_openais(self) -> bool:
        host = urlsplit(self.url or "").hostname or ""
        return host == "openai.com" or host.endswith((".openai.com", ".openai.azure.com"))

    @property
    def max_tokens_field(self) -> str:
        return self.limit_field or ("max_completion_tokens" if self.is_openais else "max_tokens")

    @property
    def base_url(self) -> str | None:
        """As it is written; where it has no path, OpenAI's version is added."""
        url = (self.url or "").rstrip("/")
        return url if urlsplit(url).path else f"{url}/v1"

    def path(self, path: str) -> str:
        return path.removeprefix("/v1")

    @property
    def usually_passed(self) -> frozenset[bytes]:
        return frozenset((b"idempotency-key",))


class OpenAIApi(KnownServer[OpenAIApiSettings]):
    settings_type = OpenAIApiSettings
