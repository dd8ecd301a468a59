"""SGLang. Its strategy is set at start."""

import msgspec

from paceline.engines.examination import lost_when_drafting
from paceline.engines.interface import Examination, Facts, NotReady
from paceline.engines.observation import Observer, count
from paceline.engines.openai_compatible import KnownServer, fetch_json, fetch_models
from paceline.engines.usage import PredictedTokensObserver
from paceline.settings import LocalEngineSettings
from paceline.types import UNKNOWN_DRAFTER, Abilities, Observation, Request, Strategy
from paceline.wire.client import Client

INFORMATION = ("/server_info", "/get_server_info")
"""Where it tells its arguments; the second is the older name."""

KINDS = {"EAGLE3": "eagle3", "NGRAM": "ngram"}
"""Of drafter, by its names of algorithms."""


class SglangSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="sglang"):
    """SGLang's server."""


class Sglang(KnownServer[SglangSettings]):
    settings_type = SglangSettings

    async def probe(self, client: Client) -> Facts:
        facts = await super().probe(client)
        version = (await _arguments(client)).get("version")
        return msgspec.structs.replace(facts, build=version if isinstance(version, str) else None)

    async def examine(self, client: Client, settings: SglangSettings) -> Examination:
        strategy = settings.as_started
        arguments = await _arguments(client)
        algorithm = arguments.get("speculative_algorithm")
        drafts = bool(algorithm) or ("speculative_algorithm" not in arguments and strategy.drafts)
        model = next(iter(await fetch_models(client)), None)
        lost = await lost_when_drafting(client, model) if drafts or strategy.drafts else frozenset()
        contradictions: tuple[str, ...] = ()
        if drafts != strategy.drafts:
            started = f"it was started with speculative_algorithm {algorithm}"
            contradictions = (f"its strategy is configured as {strategy.kind}, but {started}",)
        as_seen = Strategy(KINDS.get(str(algorithm), UNKNOWN_DRAFTER)) if drafts and not strategy.drafts else None
        return Examination(abilities=Abilities((), lost, as_seen), contradictions=contradictions)

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy.drafts)


class _Observer(PredictedTokensObserver):
    """Reads also what is told when a client asks with ``return_spec_tokens_details``."""

    reports = (*PredictedTokensObserver.reports, b'"spec_tokens_details"')

    def _observed(self) -> Observation:
        observation = super()._observed()
        details = self.report(b'"spec_tokens_details"')
        drafted = count(details, "spec_num_proposed_drafts")
        if drafted is None:
            return observation
        accepted, steps = count(details, "spec_num_correct_drafts"), count(details, "spec_verify_ct")
        return msgspec.structs.replace(observation, drafted=drafted, accepted=accepted, drafting_steps=steps)


async def _arguments(client: Client) -> dict[str, object]:
    """What it says it was started with; empty where it does not say."""
    for path in INFORMATION:
        try:
            document = await fetch_json(client, path)
        except NotReady:
            continue
        if isinstance(document, dict):
            return document
    return {}
