"""Ollama. Whether a model drafts is set in its Modelfile; its answers tell tokens, of a stream when asked."""

import msgspec

from paceline.engines.interface import Facts
from paceline.engines.openai import KnownServer, fetch_optional
from paceline.wire.client import Client


class Ollama(KnownServer):
    async def probe(self, client: Client) -> Facts:
        facts = await super().probe(client)
        version = (await fetch_optional(client, "/api/version")).get("version")
        return msgspec.structs.replace(facts, build=version if isinstance(version, str) else None)
