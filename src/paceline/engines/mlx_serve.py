"""mlx-serve, for Apple's GPUs. A request may switch each of its drafters on or off: prompt lookup, a drafter model, and
the model's own multi-token-prediction head.

Written after its source (``src/server.zig`` at 9a785b7, August 2026): ``enable_pld``, ``enable_drafter`` and
``enable_mtp`` are read by all of its APIs; one that a request gives is not questioned by the server's own look at the
prompt, and of several that are on the head goes first, then the drafter model. Its answers tell no draft counts, so an
examination goes by the time that drafts save on a text that repeats itself.
"""

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import msgspec

from paceline.engines.examination import COMPLETION_TIMEOUT_S, REPEATED_TEXT, TOO_SLOW
from paceline.engines.interface import Examination, Facts, assumed
from paceline.engines.observation import Observer, count, milliseconds
from paceline.engines.openai_compatible import KnownServer, fetch_json, fetch_models
from paceline.engines.usage import UsageObserver
from paceline.settings import LocalEngineSettings
from paceline.types import LOGPROBS, UNKNOWN_DRAFTER, Abilities, DraftControl, Drafter, Observation, Request, Strategy
from paceline.wire.client import Client

LOOKUP, MODEL, HEAD = "enable_pld", "enable_drafter", "enable_mtp"
SWITCHES = (LOOKUP, MODEL, HEAD)
TOKENS = 48
"""Of a completion that is timed."""
TIMES = 2
"""Each way is timed so often; the shortest counts."""
SAVED = 0.8
"""Drafts that are all accepted leave at most this part of the time: half of it, as a rule."""


class MlxServeSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="mlx-serve"):
    """mlx-serve."""


class MlxServe(KnownServer[MlxServeSettings]):
    settings_type = MlxServeSettings
    written_fields = KnownServer.written_fields | set(SWITCHES)
    takes_any_model_name = True
    may_have_page = True

    async def probe(self, client: Client) -> Facts:
        facts = await super().probe(client)
        return msgspec.structs.replace(facts, context_tokens=count(_first(facts.models), "context_length") or None)

    async def examine(self, client: Client, settings: MlxServeSettings) -> Examination:
        strategy = settings.as_started
        models = await fetch_models(client)
        model, meta = next(iter(models), None), _first(models).get("meta")
        if not isinstance(meta, dict):
            return Examination(abilities=assumed(strategy), is_provisional=bool(models))  # no model is loaded
        try:
            await _time_s(client, model, {})  # reads the prompt, and compiles what is new
            plain_s = await _time_s(client, model, _only(None))
            free_s = await _time_s(client, model, {})
            drafters = []
            for switch, kind, is_loaded in (
                (LOOKUP, "ngram", True),
                (MODEL, "dflash" if strategy.kind == "dflash" else "draft", meta.get("drafter_loaded") is True),
                (HEAD, "mtp", meta.get("mtp_loaded") is True),
            ):
                if is_loaded and await _time_s(client, model, _only(switch)) < SAVED * plain_s:
                    drafters.append(Drafter(kind, switch, None))
        except TimeoutError:
            return Examination(abilities=assumed(strategy), contradictions=(TOO_SLOW,))
        contradictions: tuple[str, ...] = ()
        drafts = free_s < SAVED * plain_s
        if drafts != strategy.drafts:
            seen = "drafts save time" if drafts else "no drafts save any time"
            contradictions = (f"it is configured as {strategy.kind}, but {seen} on a text that repeats itself",)
        if not drafters:
            as_seen = Strategy(UNKNOWN_DRAFTER) if drafts and not strategy.drafts else None
            lost = LOGPROBS if drafts or strategy.drafts else frozenset()
            return Examination(abilities=Abilities((), lost, as_seen), contradictions=contradictions)
        return Examination(abilities=Abilities(tuple(drafters), LOGPROBS), contradictions=contradictions)

    def fields(
        self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl
    ) -> dict[str, Any]:
        if not abilities.drafters or not request.fields.keys().isdisjoint(SWITCHES):
            return {}
        return _only(next((one.name for one in abilities.drafters if one.kind == strategy.kind), None))

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy.drafts)


class _Observer(UsageObserver):
    """Reads the times of ``timings``; their counts of the prompt's tokens include those from its cache."""

    reports = (*UsageObserver.reports, b'"timings"')

    def _observed(self) -> Observation:
        observation = self._from_usage(self._usage())
        timings = self.report(b'"timings"')
        decode_s = milliseconds(timings, "predicted_ms")
        if decode_s is None:
            return observation
        prompt, cached = count(timings, "prompt_n"), count(timings, "cached_n")
        if prompt is not None and cached is not None:
            observation = msgspec.structs.replace(
                observation, prompt_tokens=max(0, prompt - cached), cached_tokens=cached
            )
        return self._with_times(observation, milliseconds(timings, "prompt_ms"), decode_s)


def _only(switch: str | None) -> dict[str, bool]:
    """The fields that leave one drafter on, or none."""
    return {each: each == switch for each in SWITCHES}


def _first(models: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(iter(models.values()), {})


async def _time_s(client: Client, model: str | None, fields: Mapping[str, Any]) -> float:
    """Of a short completion, by the clock; the shorter of two. Its prompt is in the server's cache after the first."""
    named = {"model": model} if model else {}
    asked = {"prompt": REPEATED_TEXT, "max_tokens": TOKENS, "temperature": 0}
    body = msgspec.json.encode({**named, **asked, **fields})
    times = []
    for _ in range(TIMES):
        begun_s = perf_counter()
        await fetch_json(client, "/v1/completions", body, COMPLETION_TIMEOUT_S)
        times.append(perf_counter() - begun_s)
    return min(times)
