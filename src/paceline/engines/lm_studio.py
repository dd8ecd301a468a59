"""LM Studio's server. A request may name a model that drafts for it; the draft's length is LM Studio's own.

Fields and counts after its documentation of ``draft_model`` (API changelog, 0.3.10) and answers recorded from 0.4.24:
the counts stand under ``stats`` or under ``usage``.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from paceline.engines.examination import COMPLETION_TIMEOUT_S, REPEATED_TEXT, TOO_SLOW
from paceline.engines.interface import Examination, NotReady, assumed
from paceline.engines.observation import Observer, count
from paceline.engines.openai_compatible import KnownServer, fetch_json
from paceline.engines.usage import UsageObserver
from paceline.settings import LocalEngineSettings
from paceline.types import LOGPROBS, Abilities, DraftControl, Drafter, Observation, Request, Strategy
from paceline.wire.client import Client

DRAFT_MODEL = "draft_model"
DRAFTED, ACCEPTED = "total_draft_tokens_count", "accepted_draft_tokens_count"
TEXT_MODELS = ("llm", "vlm")


class LmStudioSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="lmstudio"):
    """LM Studio's server."""

    draft_model: Annotated[
        str | None, Meta(description="The draft model, named in each request that is to have drafts.")
    ] = None

    @property
    def own_decoding(self) -> object:
        return self.draft_model


class LmStudio(KnownServer[LmStudioSettings]):
    settings_type = LmStudioSettings
    written_fields = KnownServer.written_fields | {DRAFT_MODEL}

    async def examine(self, client: Client, settings: LmStudioSettings) -> Examination:
        """By effect: a text that repeats itself is continued with and without the draft model. Only a model that is
        loaded already is asked: asking for another would load it."""
        draft_model = settings.draft_model
        if draft_model is None:
            return await self._as_loaded(client, settings.as_started)
        model = await _loaded_model(client)
        if model is None:
            why = f"no model is loaded, so it could not be seen whether {draft_model} drafts"
            return msgspec.structs.replace(_unchecked(why), is_provisional=True)
        try:
            plain = await _drafted(client, {"model": model})
            drafting = await _drafted(client, {"model": model, DRAFT_MODEL: draft_model})
        except TimeoutError:
            return _unchecked(TOO_SLOW)
        except NotReady as error:
            return _unchecked(f"it does not take {draft_model} as the draft model of {model}: {error}")
        if plain:
            return _unchecked(f"{model} drafts without being asked; take its draft model out of its settings")
        if not drafting:
            return _unchecked(f"{model} does not draft when asked to with {draft_model}")
        return Examination(abilities=Abilities((Drafter("draft", draft_model, None, model),), LOGPROBS))

    async def _as_loaded(self, client: Client, strategy: Strategy) -> Examination:
        """Whether a model that is to be plain has a draft model in its own settings."""
        if strategy.drafts:
            return Examination(abilities=assumed(strategy))
        try:
            model = await _loaded_model(client)
            drafted = await _drafted(client, {"model": model}) if model else 0
        except (NotReady, TimeoutError):
            return Examination()
        if not drafted:
            return Examination()
        wrong = f"it is configured as {strategy.kind}, but {model} drafted {drafted} tokens"
        abilities = Abilities(not_when_drafting=LOGPROBS, as_seen=Strategy("draft"))
        return Examination(abilities=abilities, contradictions=(wrong,))

    def fields(
        self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl
    ) -> dict[str, Any]:
        if not strategy.drafts or DRAFT_MODEL in request.fields:
            return {}
        fitting = [drafter for drafter in abilities.drafters if request.model in (None, drafter.for_model)]
        return {DRAFT_MODEL: fitting[0].name} if fitting else {}

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy.drafts)


class _Observer(UsageObserver):
    reports = (*UsageObserver.reports, b'"stats"')

    def _observed(self) -> Observation:
        observation = super()._observed()
        if not self._drafts:
            return observation
        counts = self.report(b'"usage"') | self.report(b'"stats"')
        return msgspec.structs.replace(observation, drafted=count(counts, DRAFTED), accepted=count(counts, ACCEPTED))


def _unchecked(why: str) -> Examination:
    return Examination(abilities=Abilities(not_when_drafting=LOGPROBS), contradictions=(f"{why}; it is used as it is",))


async def _loaded_model(client: Client) -> str | None:
    """The first model for text that is in memory, after ``/api/v0/models``."""
    listed = await fetch_json(client, "/api/v0/models")
    entries = listed.get("data") if isinstance(listed, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get("state") == "loaded" and entry.get("type") in TEXT_MODELS:
            name = entry.get("id")
            return name if isinstance(name, str) else None
    return None


async def _drafted(client: Client, fields: Mapping[str, Any]) -> int:
    """Tokens that were drafted for a short completion."""
    asked = {"prompt": REPEATED_TEXT, "max_tokens": 16, "temperature": 0, **fields}
    answer = await fetch_json(client, "/v1/completions", msgspec.json.encode(asked), COMPLETION_TIMEOUT_S)
    reports = [answer.get(key) for key in ("usage", "stats")] if isinstance(answer, dict) else []
    return max((count(report, DRAFTED) or 0 for report in reports if isinstance(report, dict)), default=0)
