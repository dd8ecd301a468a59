"""Anthropic's API, at Anthropic or at whoever else offers it."""

from typing import Annotated

from msgspec import Meta

from paceline.engines.openai_compatible import KnownServer
from paceline.settings import DEFAULT_MAX_TOKENS, AtLeastOne, CloudEngineSettings, Url
from paceline.types import Api
from paceline.wire.headers import Headers

VERSION = b"2023-06-01"
"""The API's only one since then; https://docs.anthropic.com/en/api/versioning."""


class AnthropicApiSettings(CloudEngineSettings, frozen=True, kw_only=True, tag="anthropic-api"):
    """A provider that speaks Anthropic's API."""

    url: Annotated[Url | None, Meta(description="Base URL as for Anthropic's SDK, without the version.")] = (
        "https://api.anthropic.com"
    )
    max_tokens: Annotated[
        AtLeastOne,
        Meta(
            description="Longest answer to requests that name no limit, in tokens. Requests in OpenAI's APIs need "
            "none, but messages must have one."
        ),
    ] = DEFAULT_MAX_TOKENS

    caching: Annotated[
        bool,
        Meta(
            description="Whether translated requests that continue a conversation ask for the provider's cache, "
            "which OpenAI uses unasked. Tokens that are written to it cost a quarter more, and tokens "
            "that are read from it cost a tenth."
        ),
    ] = True

    @property
    def is_to_cache(self) -> bool:
        return self.caching

    @property
    def speaks(self) -> frozenset[Api]:
        return frozenset(self.apis or (Api.ANTHROPIC_MESSAGES,))

    @property
    def default_max_tokens(self) -> int:
        return self.max_tokens

    @property
    def usually_passed(self) -> frozenset[bytes]:
        return frozenset((b"anthropic-version", b"anthropic-beta", b"idempotency-key"))


class AnthropicApi(KnownServer[AnthropicApiSettings]):
    settings_type = AnthropicApiSettings

    def key_headers(self, key: str | None) -> Headers:
        shown = [(b"x-api-key", key.encode())] if key else []
        return [*shown, (b"anthropic-version", VERSION)]
