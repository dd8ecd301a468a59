"""A deployment that decodes by itself: no engine, but what one takes, in time."""

import asyncio
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from paceline import Observation, Strategy
from paceline.integrations.ray_serve import Lanes, PacelineReplica

PLAIN_S, HIT_S, MISS_S = 0.001, 0.0004, 0.0014
"""Seconds per token: plain, and of drafts that are accepted or not."""
TOKENS = 50


class Decoder(PacelineReplica):
    """Says that lookups pay for edits alone."""

    def __init__(self) -> None:
        self.paceline = Lanes.of([Strategy(), Strategy("ngram", 8)], "test model", name="decoder")

    async def __call__(self, body: Mapping[str, Any]) -> dict[str, Any]:
        with self.paceline.serving(body) as serving:
            text = serving.fields["messages"][0]["content"]
            is_hit = "file" in text
            drafted, accepted = (40, 35 if is_hit else 2) if serving.strategy.drafts else (0, 0)
            s_per_token = PLAIN_S if not serving.strategy.drafts else HIT_S if is_hit else MISS_S
            begun_s = perf_counter()
            await asyncio.sleep(TOKENS * s_per_token)
            serving.observed = Observation(
                prompt_tokens=len(text) // 4,
                completion_tokens=TOKENS,
                decode_tokens=TOKENS,
                decode_s=perf_counter() - begun_s,
                drafted=drafted,
                accepted=accepted,
            )
            return {
                "lane": serving.lane_name,
                "reason": serving.choice.reason if serving.choice else None,
                "said": sorted(body.keys() - serving.fields.keys()),
            }
