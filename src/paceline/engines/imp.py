"""imp's server, for NVIDIA's GPUs. A request may switch drafting off, or say how far its multi-token-prediction head
drafts.

Written after its source (``tools/imp-server`` and ``src/runtime/spec_request.h``, September 2026): ``speculative`` is
``false`` for no drafts at all, or ``{"mtp_k": N}`` for the head alone, which leaves an n-gram matcher on. More than the
server was started with is refused, and the refusal says how much that is. Its ``usage`` counts drafts.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from paceline.engines.examination import COMPLETION_TIMEOUT_S, REPEATED_TEXT, TOO_SLOW, lost_when_drafting
from paceline.engines.interface import Examination, assumed
from paceline.engines.observation import Observer, count
from paceline.engines.openai_compatible import KnownServer, fetch_json, fetch_models
from paceline.engines.usage import UsageObserver
from paceline.settings import Caps, LocalEngineSettings
from paceline.types import UNKNOWN_DRAFTER, Abilities, DraftControl, Drafter, Observation, Request, Strategy
from paceline.wire.client import Client

SPECULATIVE, LENGTH = "speculative", "mtp_k"
DRAFTED, ACCEPTED, STEPS = "imp_spec_drafted", "imp_spec_accepted", "imp_spec_verify_steps"
DETAILS = (b'"completion_tokens_details"', b'"output_tokens_details"', b'"usage"')
"""Where they stand, by API: chat and completions, responses, and Anthropic's messages."""
TOO_LONG = 10_000
_ARMED = re.compile(r"range 0\.\.(\d{1,3}) \(the MTP chain depth")


class ImpSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="imp"):
    """imp's server."""

    caps: Caps = ()


class Imp(KnownServer[ImpSettings]):
    settings_type = ImpSettings
    written_fields = KnownServer.written_fields | {SPECULATIVE}
    may_have_page = True

    async def examine(self, client: Client, settings: ImpSettings) -> Examination:
        """By effect: a text that repeats itself is continued as the server likes, without drafts, with the head alone,
        and with the n-gram matcher alone."""
        strategy = settings.as_started
        model = next(iter(await fetch_models(client)), None)
        try:
            free = await _drafted(client, model, {})
            contradictions: tuple[str, ...] = ()
            if bool(free) != strategy.drafts:
                contradictions = (f"it is configured as {strategy.kind}, but drafted {free} tokens",)
            if not free:
                return Examination(abilities=assumed(strategy), contradictions=contradictions)
            lost = await lost_when_drafting(client, model)
            if await _drafted(client, model, {SPECULATIVE: False}):
                as_seen = None if strategy.drafts else Strategy(UNKNOWN_DRAFTER)
                return Examination(
                    abilities=Abilities(not_when_drafting=lost, as_seen=as_seen), contradictions=contradictions
                )
            drafters = await _drafters(client, model)
        except TimeoutError:
            return Examination(abilities=assumed(strategy), contradictions=(TOO_SLOW,))
        return Examination(abilities=Abilities(drafters, lost), contradictions=contradictions)

    def fields(
        self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl
    ) -> dict[str, Any]:
        if not abilities.drafters or SPECULATIVE in request.fields:
            return {}
        if not strategy.drafts:
            return {SPECULATIVE: False}
        return {SPECULATIVE: {LENGTH: strategy.n_max or 0}}

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy.drafts)


class _Observer(UsageObserver):
    """An answer for which nothing was drafted has no counts."""

    def _observed(self) -> Observation:
        observation = super()._observed()
        if not self._drafts or observation.completion_tokens is None:
            return observation
        counts: dict[str, Any] = {DRAFTED: 0, ACCEPTED: 0, STEPS: 0}
        counts |= next((told for name in DETAILS if DRAFTED in (told := self.report(name))), {})
        return msgspec.structs.replace(
            observation,
            drafted=count(counts, DRAFTED),
            accepted=count(counts, ACCEPTED),
            drafting_steps=count(counts, STEPS),
        )


async def _drafters(client: Client, model: str | None) -> tuple[Drafter, ...]:
    """The head, as far as the server was started to draft with it, and the n-gram matcher, the length of whose drafts
    requests can't choose. A request for the head alone leaves the matcher on, where there is one."""
    found = []
    headers = [(b"content-type", b"application/json")]
    body = _completion(model, {SPECULATIVE: {LENGTH: TOO_LONG}, "max_tokens": 1})
    status, answer = await client.fetch("POST", "/v1/completions", headers, body, COMPLETION_TIMEOUT_S, fresh=True)
    armed = _ARMED.search(answer[:1000].decode("utf-8", "replace")) if status == 400 else None
    if armed:
        found.append(Drafter("mtp", "mtp", int(armed[1])))
    if await _drafted(client, model, {SPECULATIVE: {LENGTH: 0}}):
        found.append(Drafter("ngram", "ngram", None))
    return tuple(found)


async def _drafted(client: Client, model: str | None, fields: Mapping[str, Any]) -> int:
    """Tokens that were drafted for a short completion."""
    answer = await fetch_json(client, "/v1/completions", _completion(model, fields), COMPLETION_TIMEOUT_S)
    usage = answer.get("usage") if isinstance(answer, dict) else None
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return (count(details, DRAFTED) or 0) if isinstance(details, dict) else 0


def _completion(model: str | None, fields: Mapping[str, Any]) -> bytes:
    named = {"model": model} if model else {}
    asked = {"prompt": REPEATED_TEXT, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    return msgspec.json.encode({**named, **asked, **fields})
