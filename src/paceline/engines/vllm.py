"""vLLM. With ``--scheduler-cls paceline.engines.vllm_scheduler.scheduler`` it takes the draft length from each request;
else its strategy is set at start."""

from collections.abc import Mapping
from typing import Any

import msgspec

from paceline.engines.body import with_fields
from paceline.engines.interface import REPEATED, TOO_SLOW, Examination, Facts, NotReady
from paceline.engines.observation import Observer, count, milliseconds
from paceline.engines.openai import OpenAI, fetch_json, fetch_models
from paceline.http_client import Client
from paceline.types import AS_STARTED, Abilities, Api, Drafter, Observation, Request, Strategy

XARGS, N_MAX, MIN_YIELD = "vllm_xargs", "paceline_n_max", "paceline_min_yield"
USAGE_ON_REQUEST = (Api.OPENAI_CHAT, Api.OPENAI_COMPLETIONS)
"""APIs whose streams tell usage, and the metrics that come with it, only if asked."""
METRICS_ADVICE = (
    "its answers tell no draft counts; start it with --per-request-spec-decode-metrics summary "
    "--enable-per-request-metrics, and Paceline learns faster"
)


class Vllm(OpenAI):
    async def probe(self, client: Client) -> Facts:
        facts = await super().probe(client)
        told = await fetch_json(client, "/version")
        version = told.get("version") if isinstance(told, dict) else None
        return msgspec.structs.replace(facts, build=version if isinstance(version, str) else None)

    async def examine(self, client: Client, strategy: Strategy) -> Examination:
        """By effect: a text that repeats itself is continued with and without drafts. A scheduler that does not know
        the field passes it over in silence."""
        model = next(iter(await fetch_models(client)), None)
        try:
            return await self._examined(client, strategy, model)
        except TimeoutError:
            return Examination(contradictions=(TOO_SLOW,))

    async def _examined(self, client: Client, strategy: Strategy, model: str | None) -> Examination:
        free = await _drafted(client, model, {})
        if free is None:
            return Examination(AS_STARTED, (METRICS_ADVICE,) if strategy.drafts else ())
        if not strategy.drafts:
            drafts = free["num_draft_tokens"]
            return Examination(AS_STARTED, (f"it is configured as autoregressive, but drafted {drafts} tokens",))
        capped = await _drafted(client, model, {XARGS: {N_MAX: 0}})
        if not free["num_draft_tokens"] or (capped and capped["num_draft_tokens"]):
            return Examination()
        return Examination(Abilities((Drafter(strategy.kind, strategy.kind, free["num_spec_tokens"]),)))

    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, min_yield: float) -> bytes:
        more: dict[str, Any] = {}
        if abilities.drafters:
            given = request.fields.get(XARGS)
            own: dict[str, Any] = {N_MAX: strategy.n_max or 0}
            if strategy.drafts and min_yield:
                own[MIN_YIELD] = min_yield
            more[XARGS] = own | (given if isinstance(given, dict) else {})
        if _hides_usage(request):
            options = request.fields.get("stream_options")
            more["stream_options"] = (options if isinstance(options, dict) else {}) | {"include_usage": True}
        return with_fields(request, more) if more else request.body

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request.stream, strategy.drafts, _hides_usage(request))


class _Observer(Observer):
    """Reads ``metrics``, and takes out of a stream the usage that only Paceline has asked for."""

    def __init__(self, streamed: bool, drafts: bool, hides_usage: bool) -> None:
        super().__init__(streamed)
        self._drafts = drafts
        self._hides_usage = hides_usage

    def shown(self, events: bytes) -> bytes:
        if not self._hides_usage or b'"choices":[]' not in events:
            return events
        parts = events.split(b"\n\n")
        return b"\n\n".join([part for part in parts if not _is_usage(part)])

    def observation(self) -> Observation:
        seen = super().observation()
        metrics = self.report(b'"metrics"')
        drafting = metrics.get("speculative_decoding")
        drafting = drafting if isinstance(drafting, dict) else {}
        decode_s, first_s = milliseconds(metrics, "generation_time_ms"), milliseconds(metrics, "time_to_first_token_ms")
        if decode_s is not None and seen.completion_tokens:
            seen = msgspec.structs.replace(
                seen, decode_s=decode_s, decode_tokens=seen.completion_tokens - 1, prefill_s=first_s or seen.prefill_s
            )
        if not self._drafts or not drafting:
            return seen
        return msgspec.structs.replace(
            seen,
            drafted=count(drafting, "num_draft_tokens"),
            accepted=count(drafting, "num_accepted_draft_tokens"),
            drafting_steps=count(drafting, "num_spec_steps"),
        )


def _hides_usage(request: Request) -> bool:
    """Whether the usage of a stream, with the counts, has to be asked for in the client's place."""
    if not request.stream or request.api not in USAGE_ON_REQUEST:
        return False
    options = request.fields.get("stream_options")
    return not (isinstance(options, dict) and options.get("include_usage"))


def _is_usage(event: bytes) -> bool:
    """Whether it is the last event of a stream, with the usage and no choices."""
    if not event.startswith(b"data: {"):
        return False
    try:
        document = msgspec.json.decode(event[len(b"data: ") :])
    except msgspec.DecodeError:
        return False
    return isinstance(document, dict) and document.get("choices") == [] and "usage" in document


async def _drafted(client: Client, model: str | None, fields: Mapping[str, Any]) -> dict[str, int] | None:
    """The draft counts of a short completion; ``None`` where it tells none."""
    asked = {"model": model, "prompt": REPEATED, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    answer = await fetch_json(client, "/v1/completions", msgspec.json.encode({**asked, **fields}), 60.0)
    metrics = answer.get("metrics") if isinstance(answer, dict) else None
    told = metrics.get("speculative_decoding") if isinstance(metrics, dict) else None
    if not isinstance(told, dict):
        return None
    found = {key: count(told, key) for key in ("num_draft_tokens", "num_spec_tokens")}
    if None in found.values():
        raise NotReady(f"its draft counts can't be read: {told}")
    return {key: value or 0 for key, value in found.items()}
