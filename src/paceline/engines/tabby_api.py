"""TabbyAPI (ExLlama). Its strategy is set at start; its usage tells times and draft counts.

After the source of its ``UsageStats`` and its pull request 452.
"""

from paceline.engines.observation import Observer, seconds
from paceline.engines.openai_compatible import KnownServer
from paceline.engines.usage import PredictedTokensObserver
from paceline.settings import LocalEngineSettings
from paceline.types import Observation, Request, Strategy


class TabbyApiSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="tabbyapi"):
    """TabbyAPI's server."""


class TabbyApi(KnownServer[TabbyApiSettings]):
    settings_type = TabbyApiSettings

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy.drafts)


class _Observer(PredictedTokensObserver):
    def _observed(self) -> Observation:
        observation = super()._observed()
        usage = self.report(b'"usage"')
        decode_s, prefill_s = seconds(usage, "completion_time"), seconds(usage, "prompt_time")
        return observation if decode_s is None else self._with_times(observation, prefill_s, decode_s)
