"""TabbyAPI (ExLlama). Its strategy is set at start; its usage tells times and draft counts.

After the source of its ``UsageStats`` and its pull request 452.
"""

import msgspec

from paceline.engines.examination import COMPLETION_TIMEOUT_S, REPEATED_TEXT
from paceline.engines.interface import Examination, NotReady, assumed
from paceline.engines.observation import Observer, count, seconds
from paceline.engines.openai_compatible import KnownServer, fetch_json
from paceline.engines.usage import PredictedTokensObserver
from paceline.settings import LocalEngineSettings
from paceline.types import LOGPROBS, UNKNOWN_DRAFTER, Abilities, Observation, Request, Strategy
from paceline.wire.client import Client


class TabbyApiSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="tabbyapi"):
    """TabbyAPI's server."""


class TabbyApi(KnownServer[TabbyApiSettings]):
    settings_type = TabbyApiSettings

    async def examine(self, client: Client, settings: TabbyApiSettings) -> Examination:
        """That a plain engine drafts nothing is seen by its count of what drafts proposed."""
        strategy = settings.as_started
        if strategy.drafts:
            return Examination(abilities=assumed(strategy))
        try:
            drafted = await _drafted(client)
        except (NotReady, TimeoutError):
            return Examination()
        if not drafted:
            return Examination()
        wrong = f"it is configured as {strategy.kind}, but drafted {drafted} tokens"
        abilities = Abilities(not_when_drafting=LOGPROBS, as_seen=Strategy(UNKNOWN_DRAFTER))
        return Examination(abilities=abilities, contradictions=(wrong,))

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy.drafts)


class _Observer(PredictedTokensObserver):
    def _observed(self) -> Observation:
        observation = super()._observed()
        usage = self.report(b'"usage"')
        decode_s, prefill_s = seconds(usage, "completion_time"), seconds(usage, "prompt_time")
        return observation if decode_s is None else self._with_times(observation, prefill_s, decode_s)


async def _drafted(client: Client) -> int:
    """For a short completion; 0 where it does not tell."""
    asked = {"prompt": REPEATED_TEXT, "max_tokens": 16, "temperature": 0}
    answer = await fetch_json(client, "/v1/completions", msgspec.json.encode(asked), COMPLETION_TIMEOUT_S)
    usage = answer.get("usage") if isinstance(answer, dict) else None
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    if not isinstance(details, dict):
        return 0
    return sum(count(details, f"{which}_prediction_tokens") or 0 for which in ("accepted", "rejected"))
