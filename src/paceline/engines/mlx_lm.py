"""mlx-lm's server (``mlx_lm.server``), started with a draft model: a request may say how much is drafted per step.

Tried with mlx-lm 0.32.2. It has the field ``draft_model`` too, but another model there means loading both anew. Its
answers tell no draft counts: of its lanes only the times teach.
"""

from typing import Any

import msgspec

from paceline.engines.interface import TRY_LIMIT_S, Examination, Facts, NotReady
from paceline.engines.meaning import assumed
from paceline.engines.openai import KnownServer
from paceline.types import LOGPROBS, Abilities, Drafter, Request, Strategy
from paceline.wire.client import Client, ConnectionLost

N_MAX = "num_draft_tokens"
DRAFT_LENGTH = 3
"""Its default."""


class MlxLm(KnownServer):
    async def probe(self, client: Client) -> Facts:
        try:
            return await super().probe(client)
        except NotReady as error:
            raise NotReady(
                f"{error} (mlx-lm breaks off here where there is no folder ~/.cache/huggingface/hub)"
            ) from error

    async def examine(self, client: Client, strategy: Strategy, draft_model: str | None) -> Examination:
        """That it reads the field is seen by its refusing a value that can't be; whether a draft model is loaded it
        does not tell."""
        if not strategy.drafts:
            return Examination()
        asked = msgspec.json.encode({"prompt": "1", "max_tokens": 1, N_MAX: -1})
        headers = [(b"content-type", b"application/json")]
        try:
            status, answer = await client.fetch("POST", "/v1/completions", headers, asked, TRY_LIMIT_S, fresh=True)
        except ConnectionLost:
            status, answer = 0, b""
        if status != 400 or N_MAX.encode() not in answer:
            return Examination(
                assumed(strategy), (f"requests can't choose their {N_MAX}; it is used as it was started",)
            )
        drafter = Drafter(strategy.kind, strategy.kind, strategy.n_max or DRAFT_LENGTH)
        return Examination(Abilities((drafter,), LOGPROBS))

    def fields(self, request: Request, strategy: Strategy, abilities: Abilities, min_yield: float) -> dict[str, Any]:
        if not abilities.drafters or N_MAX in request.fields:
            return {}
        return {N_MAX: strategy.n_max or 0}
