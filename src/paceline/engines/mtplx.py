"""MTPLX's server: models with multi-token-prediction heads on Apple's GPUs. A request may say how deep is drafted.

Written after its source (2.12.2 of its package): ``generation_mode`` is ``mtp`` or ``ar``, ``depth`` is checked against
the model's range, and both are heard of clients that it does not manage itself, unless it was told otherwise
(``MTPLX_CLIENT_CONTROLS_DEFAULT=hints``). Its answers tell drafts by depth under ``mtplx_stats``.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from paceline.engines.examination import COMPLETION_TIMEOUT_S, REPEATED_TEXT, TOO_SLOW, lost_when_drafting
from paceline.engines.interface import Examination, Facts, NotReady, assumed
from paceline.engines.observation import MAX_COUNT, Observer, count, milliseconds
from paceline.engines.openai_compatible import KnownServer, fetch_json
from paceline.engines.usage import UsageObserver
from paceline.settings import Caps, LocalEngineSettings
from paceline.types import UNKNOWN_DRAFTER, Abilities, DraftControl, Drafter, Observation, Request, Strategy
from paceline.wire.client import Client

MODE, DEPTH = "generation_mode", "depth"
OWN = frozenset({MODE, DEPTH, "mtp_depth", "speculative_depth", "draft_block_size", "gemma_draft_block_size"})
"""Names of fields by which a client may have said itself how it is to be drafted."""
DRAFTS, PLAIN = "mtp", "ar"
TOO_DEEP = 10_000
"""A depth that no model has: it is refused, and the refusal names the depths that there are."""
_RANGE = re.compile(r"must be between (\d{1,3}) and (\d{1,3})")


class MtplxSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="mtplx"):
    """MTPLX's server."""

    caps: Caps = ()


class Mtplx(KnownServer[MtplxSettings]):
    settings_type = MtplxSettings
    written_fields = KnownServer.written_fields | {MODE, DEPTH}
    takes_any_model_name = True
    may_have_page = True

    async def probe(self, client: Client) -> Facts:
        facts = await super().probe(client)
        entry = next(iter(facts.models.values()), {})
        return msgspec.structs.replace(facts, context_tokens=count(entry, "context_length") or None)

    async def examine(self, client: Client, settings: MtplxSettings) -> Examination:
        """By effect: a text that repeats itself is continued with and without drafts."""
        strategy = settings.as_started
        try:
            free = await _drafted(client, {})
            if free is None:
                return Examination(abilities=assumed(strategy))
            contradictions: tuple[str, ...] = ()
            if bool(free) != strategy.drafts:
                contradictions = (f"it is configured as {strategy.kind}, but drafted {free} tokens",)
            asked = free or await _drafted(client, {MODE: DRAFTS})
            lost = await lost_when_drafting(client, None) if free else frozenset()
            if not asked or await _drafted(client, {MODE: PLAIN}):
                as_seen = Strategy(UNKNOWN_DRAFTER) if free and not strategy.drafts else None
                abilities = Abilities(not_when_drafting=lost, as_seen=as_seen) if free else assumed(strategy)
                return Examination(abilities=abilities, contradictions=contradictions)
            drafter = Drafter("mtp", "mtp", await _deepest(client))
        except TimeoutError:
            return Examination(abilities=assumed(strategy), contradictions=(TOO_SLOW,))
        return Examination(abilities=Abilities((drafter,), lost), contradictions=contradictions)

    def fields(
        self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl
    ) -> dict[str, Any]:
        if not abilities.drafters or not request.fields.keys().isdisjoint(OWN):
            return {}
        if not strategy.drafts:
            return {MODE: PLAIN}
        return {MODE: DRAFTS} | ({} if strategy.n_max is None else {DEPTH: strategy.n_max})

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy.drafts)


class _Observer(UsageObserver):
    """Reads ``usage`` for tokens, ``timings`` for times and counts, and of ``mtplx_stats``, which may be longer than
    any report that is read, the one list that tells most."""

    reports = (*UsageObserver.reports, b'"timings"')

    def _observed(self) -> Observation:
        observation = self._from_usage(self._usage())
        timings = self.report(b'"timings"')
        prefill_s, decode_s = milliseconds(timings, "prompt_ms"), milliseconds(timings, "predicted_ms")
        if decode_s is not None:
            observation = self._with_times(observation, prefill_s, decode_s)
        if not self._drafts:
            return observation
        drafted = self._counts(b"drafted_by_depth")
        return msgspec.structs.replace(
            observation,
            drafted=count(timings, "draft_n"),
            accepted=count(timings, "draft_n_accepted"),
            drafting_steps=drafted[0] if drafted else None,
            accepted_by_position=self._counts(b"accepted_by_depth"),
        )

    def _counts(self, name: bytes) -> tuple[int, ...]:
        """The last list of counts of a name."""
        found = re.findall(rb'(?<!\\)"%b": ?(\[[\d, ]{0,400}\])' % name, b"".join(self._tail))
        counts = json.loads(found[-1]) if found else []
        return tuple(counts) if all(number <= MAX_COUNT for number in counts) else ()


async def _drafted(client: Client, fields: Mapping[str, Any]) -> int | None:
    """Tokens that were drafted for a short completion; ``None`` where it does not tell, or refuses the fields."""
    asked = {"prompt": REPEATED_TEXT, "max_tokens": 16, "temperature": 0}
    body = msgspec.json.encode({**asked, **fields})
    try:
        answer = await fetch_json(client, "/v1/completions", body, COMPLETION_TIMEOUT_S)
    except NotReady as error:
        if fields and error.status == 400:
            return None
        raise
    timings = answer.get("timings") if isinstance(answer, dict) else None
    return count(timings, "draft_n") if isinstance(timings, dict) else None


async def _deepest(client: Client) -> int | None:
    """The deepest draft that a request may ask for; ``None`` where depths from 1 on can't be asked for."""
    headers = [(b"content-type", b"application/json")]
    body = msgspec.json.encode({"prompt": "1", "max_tokens": 1, MODE: DRAFTS, DEPTH: TOO_DEEP})
    status, answer = await client.fetch("POST", "/v1/completions", headers, body, COMPLETION_TIMEOUT_S, fresh=True)
    named = _RANGE.search(answer[:1000].decode("utf-8", "replace"))
    if status != 400 or named is None or int(named[1]) > 1:
        return None
    return int(named[2])
