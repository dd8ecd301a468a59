"""mlx-lm's server (``mlx_lm.server``), started with a draft model: a request may say how much is drafted per step.

Tried with mlx-lm 0.32.2. It has the field ``draft_model`` too, but another model there means loading both anew. Its
answers tell no draft counts: of its lanes only the times teach.
"""

from typing import Any

import msgspec

from paceline.engines.examination import COMPLETION_TIMEOUT_S
from paceline.engines.interface import Examination, Facts, NotReady, assumed
from paceline.engines.openai_compatible import KnownServer
from paceline.settings import Caps, LocalEngineSettings
from paceline.types import LOGPROBS, Abilities, DraftControl, Drafter, Request, Strategy
from paceline.wire.client import Client, ConnectionLost

N_MAX = "num_draft_tokens"
DEFAULT_N_MAX = 3
"""Its default."""


class MlxLmSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="mlx-lm"):
    """mlx-lm's server."""

    caps: Caps = ()


class MlxLm(KnownServer[MlxLmSettings]):
    settings_type = MlxLmSettings
    written_fields = KnownServer.written_fields | {N_MAX}

    async def probe(self, client: Client) -> Facts:
        try:
            return await super().probe(client)
        except NotReady as error:
            raise NotReady(
                f"{error} (mlx-lm breaks off here where there is no folder ~/.cache/huggingface/hub)"
            ) from error

    async def examine(self, client: Client, settings: MlxLmSettings) -> Examination:
        """That it reads the field is seen by its refusing a value that can't be; whether a draft model is loaded it
        does not tell."""
        strategy = settings.as_started
        if not strategy.drafts:
            return Examination()
        asked = msgspec.json.encode({"prompt": "1", "max_tokens": 1, N_MAX: -1})
        headers = [(b"content-type", b"application/json")]
        try:
            status, answer = await client.fetch(
                "POST", "/v1/completions", headers, asked, COMPLETION_TIMEOUT_S, fresh=True
            )
        except ConnectionLost:
            status, answer = 0, b""
        if status != 400 or N_MAX.encode() not in answer:
            return Examination(
                abilities=assumed(strategy),
                contradictions=(f"requests can't choose their {N_MAX}; it is used as it was started",),
            )
        drafter = Drafter(strategy.kind, strategy.kind, strategy.n_max or DEFAULT_N_MAX)
        return Examination(abilities=Abilities((drafter,), LOGPROBS))

    def fields(
        self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl
    ) -> dict[str, Any]:
        if not abilities.drafters or N_MAX in request.fields:
            return {}
        return {N_MAX: strategy.n_max or 0}
