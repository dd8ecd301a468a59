"""TabbyAPI (ExLlama). Its strategy is set at start; its usage tells times and draft counts.

After the source of its ``UsageStats`` and its pull request 452.
"""

import msgspec

from paceline.engines.observation import Observer, seconds
from paceline.engines.openai import KnownServer
from paceline.engines.usage import PredictedTokensObserver
from paceline.types import Observation, Request, Strategy


class TabbyApi(KnownServer):
    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy.drafts)


class _Observer(PredictedTokensObserver):
    def observation(self) -> Observation:
        seen = super().observation()
        usage = self.report(b'"usage"')
        decode_s, prefill_s = seconds(usage, "completion_time"), seconds(usage, "prompt_time")
        if decode_s is None or not seen.completion_tokens:
            return seen
        return msgspec.structs.replace(
            seen, decode_s=decode_s, decode_tokens=seen.completion_tokens - 1, prefill_s=prefill_s or seen.prefill_s
        )
