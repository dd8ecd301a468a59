"""vLLM. With ``--scheduler-cls paceline.inside.vllm_scheduler.scheduler`` it takes the draft length from each request,
or what control of its drafts starts from; else its strategy is set at start."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from paceline.engines.examination import (
    CHEAP,
    COMPLETION_TIMEOUT_S,
    CONTROLLED_LENGTH,
    DEAR,
    REPEATED_TEXT,
    TOO_SLOW,
    lost_when_drafting,
)
from paceline.engines.interface import Examination, Facts, NotReady, assumed
from paceline.engines.observation import MAX_POSITIONS, TAIL_BYTES, Observer, count, counts, milliseconds
from paceline.engines.openai_compatible import KnownServer, fetch_json, fetch_models, with_version
from paceline.engines.usage import UsageObserver
from paceline.inside.vllm_arguments import CONTROL, MIN_YIELD, N_MAX
from paceline.settings import Caps, ControlsDrafts, LocalEngineSettings
from paceline.types import (
    UNKNOWN_DRAFTER,
    Abilities,
    DraftControl,
    DraftCounts,
    Drafter,
    DrafterControl,
    Observation,
    Request,
    Strategy,
)
from paceline.wire.client import Client

XARGS = "vllm_xargs"
"""The field in which vLLM takes what it does not know itself."""
METRICS_ADVICE = (
    "its answers tell no draft counts; start it with --per-request-spec-decode-metrics detailed "
    "--enable-per-request-metrics, and Paceline learns faster"
)


class VllmSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="vllm"):
    """vLLM's server."""

    caps: Caps = ()
    draft_control: ControlsDrafts = True


class Vllm(KnownServer[VllmSettings]):
    settings_type = VllmSettings
    written_fields = KnownServer.written_fields | {XARGS}

    async def probe(self, client: Client) -> Facts:
        return await with_version(await super().probe(client), client, "/version")

    async def examine(self, client: Client, settings: VllmSettings) -> Examination:
        """By effect: a text that repeats itself is continued with and without drafts. A scheduler that does not know
        the field passes it over in silence."""
        strategy = settings.as_started
        model = next(iter(await fetch_models(client)), None)
        try:
            drafters, contradictions, as_seen = await self._examined(client, strategy, model)
            controls = settings.draft_control and bool(drafters) and await _controls(client, model)
            lost = await lost_when_drafting(client, model) if strategy.drafts or contradictions else frozenset()
        except TimeoutError:
            return Examination(abilities=assumed(strategy), contradictions=(TOO_SLOW,))
        abilities = Abilities(drafters, lost, as_seen, controls)
        return Examination(abilities=abilities, contradictions=contradictions)

    async def _examined(
        self, client: Client, strategy: Strategy, model: str | None
    ) -> tuple[tuple[Drafter, ...], tuple[str, ...], Strategy | None]:
        """The drafters that requests can ask for, what contradicts the configuration, and what it does instead."""
        free = await _drafted(client, model, {})
        if free is None:
            return (), (METRICS_ADVICE,) if strategy.drafts else (), None
        drafted, longest = free["num_draft_tokens"], free["num_spec_tokens"]
        if not strategy.drafts:
            wrong = (f"it is configured as autoregressive, but drafted {drafted} tokens",)
            return ((), wrong, Strategy(UNKNOWN_DRAFTER, longest)) if drafted else ((), (), None)
        capped = await _drafted(client, model, {XARGS: {N_MAX: 0}})
        if not drafted or (capped and capped["num_draft_tokens"]):
            return (), (), None
        return (Drafter(strategy.kind, strategy.kind, longest),), (), None

    def key_variable(self, command: Sequence[str]) -> str | None:
        return "VLLM_API_KEY"

    def fields(
        self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl
    ) -> dict[str, Any]:
        given = request.fields.get(XARGS) or {}
        if not abilities.drafters or not isinstance(given, dict):  # what is no object is for vLLM to refuse
            return {}
        return {XARGS: _arguments(strategy, control) | given}

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, strategy)


class _Observer(UsageObserver):
    """Reads ``metrics``."""

    reports = (*UsageObserver.reports, b'"metrics"')
    longest_report = TAIL_BYTES
    """With two numbers for each step."""

    def __init__(self, request: Request, strategy: Strategy) -> None:
        super().__init__(request, strategy.drafts)
        self._kind = strategy.kind
        self._longest = strategy.n_max

    def _observed(self) -> Observation:
        observation = super()._observed()
        metrics = self.report(b'"metrics"')
        drafting = metrics.get("speculative_decoding")
        drafting = drafting if isinstance(drafting, dict) else {}
        decode_s, first_s = milliseconds(metrics, "generation_time_ms"), milliseconds(metrics, "time_to_first_token_ms")
        if decode_s is not None:
            observation = self._with_times(observation, first_s, decode_s)
        if not self._drafts or not drafting:
            return observation
        counted = self._counts(drafting)
        return msgspec.structs.replace(
            observation,
            drafted=count(drafting, "num_draft_tokens"),
            accepted=count(drafting, "num_accepted_draft_tokens"),
            drafting_steps=count(drafting, "num_spec_steps"),
            accepted_by_position=counted.accepted_by_position if counted else (),
            by_drafter={self._kind: counted} if counted else {},
        )

    def _counts(self, drafting: Mapping[str, Any]) -> DraftCounts | None:
        """By position; ``None`` where the numbers do not fit each other. How often a position was verified follows from
        the steps' own numbers (vLLM's ``detailed``), or where all drafts had one length. Where neither is so, those
        accepted by position would be taken for fewer than they are, and are left out."""
        histogram = counts(drafting, "acceptance_histogram")
        steps, drafted, accepted = (
            count(drafting, key) for key in ("num_spec_steps", "num_draft_tokens", "num_accepted_draft_tokens")
        )
        accepted_at = [sum(histogram[position:]) for position in range(1, len(histogram))]
        if not steps or not drafted or sum(histogram) != steps or sum(accepted_at) != accepted:
            return None
        if not max(accepted, steps) <= drafted:
            return None
        verified_at = _verified(drafting, steps, drafted, accepted)
        if not verified_at:
            longest = min(count(drafting, "num_spec_tokens") or 0, self._longest or MAX_POSITIONS)
            if drafted != steps * longest:
                return DraftCounts(steps, drafted, accepted)
            verified_at = [steps, *accepted_at, *[0] * longest][:longest]
        accepted_at += [0] * (len(verified_at) - len(accepted_at))
        return DraftCounts(steps, drafted, accepted, tuple(accepted_at), tuple(verified_at))


def _verified(drafting: Mapping[str, Any], steps: int, drafted: int, accepted: int) -> list[int]:
    """How often each position was verified; empty where it does not tell of each step."""
    drafted_in, accepted_in = drafting.get("per_step_drafted"), drafting.get("per_step_accepted")
    if not isinstance(drafted_in, list) or not isinstance(accepted_in, list) or len(drafted_in) != len(accepted_in):
        return []
    pairs = list(zip(drafted_in, accepted_in, strict=True))
    if not all(type(one) is int and type(right) is int and 0 <= right <= one for one, right in pairs):
        return []
    longest = max((one for one, _ in pairs), default=0)
    if (len(pairs), sum(drafted_in), sum(accepted_in)) != (steps, drafted, accepted) or longest > MAX_POSITIONS:
        return []
    return [sum(one > at and right >= at for one, right in pairs) for at in range(longest)]


def _arguments(strategy: Strategy, control: DraftControl) -> dict[str, Any]:
    """What the scheduler is told. Where nothing is known that control could start from, drafts have their longest."""
    if not strategy.drafts:
        return {N_MAX: 0}
    if strategy.among:
        drafter = strategy.among[0]  # vLLM has one
        known = control.drafters.get(drafter.kind)
        return {N_MAX: drafter.n_max} | ({} if known is None else {CONTROL: _in_json(known)})
    return {N_MAX: strategy.n_max or 0} | ({MIN_YIELD: control.min_yield} if control.min_yield else {})


def _in_json(control: DrafterControl) -> str:
    """Lookups' matches are not known in the scheduler."""
    told: dict[str, Any] = {"costs": control.costs, "acceptance": control.acceptance}
    return msgspec.json.encode(told | ({"weight": control.weight} if control.weight else {})).decode()


async def _controls(client: Client, model: str | None) -> bool:
    """Whether it decides at each step from what a request says: all is drafted where that is said to be cheap, and next
    to nothing where it is said to be dear."""

    async def drafted(cost: float) -> int:
        said = _in_json(DrafterControl((cost,) * CONTROLLED_LENGTH, (0.9,) * CONTROLLED_LENGTH, weight=100.0))
        told = await _drafted(client, model, {XARGS: {CONTROL: said}})
        return told["num_draft_tokens"] if told else 0

    return 2 * await drafted(DEAR) < await drafted(CHEAP)


async def _drafted(client: Client, model: str | None, fields: Mapping[str, Any]) -> dict[str, int] | None:
    """The draft counts of a short completion; ``None`` where it tells none."""
    asked = {"model": model, "prompt": REPEATED_TEXT, "max_tokens": 16, "temperature": 0, "ignore_eos": True}
    answer = await fetch_json(client, "/v1/completions", msgspec.json.encode({**asked, **fields}), COMPLETION_TIMEOUT_S)
    metrics = answer.get("metrics") if isinstance(answer, dict) else None
    drafting = metrics.get("speculative_decoding") if isinstance(metrics, dict) else None
    if not isinstance(drafting, dict):
        return None
    told = {key: count(drafting, key) for key in ("num_draft_tokens", "num_spec_tokens")}
    if None in told.values():
        raise NotReady(f"its draft counts can't be read: {drafting}")
    return {key: value or 0 for key, value in told.items()}
