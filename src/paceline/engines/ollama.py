"""Ollama. Whether a model drafts is set in its Modelfile; its answers tell tokens, of a stream when asked."""

from paceline.engines.interface import Facts
from paceline.engines.openai_compatible import KnownServer, with_version
from paceline.settings import LocalEngineSettings
from paceline.wire.client import Client

DEFAULT_TAG = ":latest"
"""A name without a tag means this one, and case does not count (Ollama's ``model.ParseName``)."""
DEFAULT_HOST, DEFAULT_NAMESPACE = "registry.ollama.ai/", "library/"
"""Which Ollama lists no name with, and takes any name with."""


class OllamaSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="ollama"):
    """Ollama's server."""


class Ollama(KnownServer[OllamaSettings]):
    settings_type = OllamaSettings

    async def probe(self, client: Client) -> Facts:
        return await with_version(await super().probe(client), client, "/api/version")

    def full_model_name(self, name: str) -> str:
        folded = name.casefold().removeprefix(DEFAULT_HOST).removeprefix(DEFAULT_NAMESPACE)
        return folded if ":" in folded.rpartition("/")[2] else folded + DEFAULT_TAG
