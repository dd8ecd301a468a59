"""Providers whose keys are in the environment."""

from collections.abc import Mapping

from msgspec import Struct


class Provider(Struct, frozen=True, kw_only=True):
    """A provider's API.

    Args:
        name: as its engine is to be called.
        variable: that its own programs read the key from.
        kind: of engine.
        url: where it is not the kind's own.
    """

    name: str
    title: str
    variable: str
    kind: str = "openai-api"
    url: str | None = None


PROVIDERS = (
    Provider(name="openai", title="OpenAI", variable="OPENAI_API_KEY"),
    Provider(name="anthropic", title="Anthropic", variable="ANTHROPIC_API_KEY", kind="anthropic-api"),
    Provider(name="openrouter", title="OpenRouter", variable="OPENROUTER_API_KEY", url="https://openrouter.ai/api/v1"),
    Provider(name="deepseek", title="DeepSeek", variable="DEEPSEEK_API_KEY", url="https://api.deepseek.com/v1"),
    Provider(name="mistral", title="Mistral", variable="MISTRAL_API_KEY", url="https://api.mistral.ai/v1"),
    Provider(name="groq", title="Groq", variable="GROQ_API_KEY", url="https://api.groq.com/openai/v1"),
)


def providers_with_keys(environment: Mapping[str, str]) -> list[Provider]:
    """Those whose variable is set, and not empty."""
    return [provider for provider in PROVIDERS if environment.get(provider.variable, "").strip()]
