"""ik_llama.cpp's server, a fork of llama.cpp whose requests may say how far is drafted, in its normal build.

Written after its source (``examples/server`` at 8337e4c, August 2026), and tried with a build of it: a request has
``speculative.n_max``, ``.n_min``, ``.p_min`` and ``.stages``; the latter has to name the stages that the server was
started with, in their order. What is loaded it tells nowhere, so the configuration has to say. Its ``timings`` tell
drafts by depth.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from paceline.engines.body import with_fields
from paceline.engines.examination import COMPLETION_TIMEOUT_S, REPEATED_TEXT, TOO_SLOW, has_bare_tokens
from paceline.engines.interface import Examination, Facts, NotReady, assumed
from paceline.engines.llama_cpp_flags import kind_of
from paceline.engines.observation import Observer, count
from paceline.engines.openai_compatible import OpenAICompatible, fetch_json, fetch_optional
from paceline.settings import Caps, LocalEngineSettings
from paceline.types import LOGPROBS, UNKNOWN_DRAFTER, Abilities, DraftControl, Drafter, Observation, Request, Strategy
from paceline.wire.client import Client

N_MAX, P_MIN, STAGES = "speculative.n_max", "speculative.p_min", "speculative.stages"
OWN = "speculative."
"""Fields of that name are the client's wish about drafts, which stays as it is."""

Probability = Annotated[float, Meta(ge=0, le=1)]
StageName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class IkLlamaCppSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="ik_llama.cpp"):
    """ik_llama.cpp's ``llama-server``."""

    caps: Caps = ()
    stages: Annotated[
        tuple[StageName, ...],
        Meta(
            description="Names of all its `--spec-type` stages, in their order, if it was started with several: "
            '`["ngram-mod", "mtp"]`. One of them then drafts for a request. Default: it has one, the `strategy`.'
        ),
    ] = ()
    p_min: Annotated[
        Probability | None,
        Meta(
            description="Least probability of a drafted token, sent with requests that have drafts: a draft model "
            "or head stops at a token that is less likely. To let Paceline choose among several values, "
            "configure an engine for each, with the same `url` and `device`. Default: as it was "
            "started."
        ),
    ] = None

    @property
    def own_decoding(self) -> object:
        return (self.stages, self.p_min) if self.stages or self.p_min is not None else None


class IkLlamaCpp(OpenAICompatible[IkLlamaCppSettings]):
    settings_type = IkLlamaCppSettings
    written_fields = frozenset({N_MAX, P_MIN, STAGES})
    takes_any_model_name = True
    may_have_page = True

    async def probe(self, client: Client) -> Facts:
        facts = await super().probe(client)
        props = await fetch_optional(client, "/props")
        context, slots = count(props, "n_ctx"), count(props, "total_slots")
        return msgspec.structs.replace(facts, context_tokens=context or None, slots=slots or None)

    async def examine(self, client: Client, settings: IkLlamaCppSettings) -> Examination:
        """By effect: a text that repeats itself is continued with and without drafts, and by each stage alone."""
        try:
            return await self._examined(client, settings)
        except TimeoutError:
            return Examination(abilities=assumed(settings.as_started), contradictions=(TOO_SLOW,))

    async def _examined(self, client: Client, settings: IkLlamaCppSettings) -> Examination:
        strategy, wrong = settings.as_started, ""
        free = await _tried(client, {})
        if bool(free.drafted) != strategy.drafts:
            wrong = f"it is configured as {strategy.kind}, but drafted {free.drafted} tokens"
        if not free.drafted:
            return Examination(abilities=assumed(strategy), contradictions=(wrong,) if wrong else ())
        if wrong:
            strategy = Strategy(UNKNOWN_DRAFTER, free.longest or None)
        with_probabilities = await _tried(client, {"n_probs": 2})
        keeps = with_probabilities.drafted and with_probabilities.has_bare_tokens is False
        abilities = Abilities((), frozenset() if keeps else LOGPROBS, strategy if wrong else None)
        contradictions = [wrong] if wrong else []
        if not (await _tried(client, {N_MAX: 0})).drafted:
            names, longest = settings.stages or (strategy.kind,), settings.n_max or free.longest
            drafters = tuple(Drafter(kind_of(name), name, longest, p_min=settings.p_min) for name in names)
            try:
                contradictions += await _idle(client, drafters) if len(drafters) > 1 else ()
                abilities = Abilities(drafters, abilities.not_when_drafting)
            except NotReady as error:
                if error.status != 400:
                    raise
                contradictions.append(f"requests can't choose its stages: {error}; it is used as it was started")
        return Examination(abilities=abilities, contradictions=tuple(contradictions))

    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl) -> bytes:
        if not abilities.drafters or any(name.startswith(OWN) for name in request.fields):
            return request.body
        return with_fields(request, _fields(strategy, abilities.drafters))

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return _Observer(request, counts_drafts=strategy.drafts)

    def key_variable(self, command: Sequence[str]) -> str | None:
        return "LLAMA_API_KEY"


class _Observer(Observer):
    """Reads drafts by depth. A depth's tokens were drafted, not all of them verified; but every draft has a first."""

    def _observed(self) -> Observation:
        observation = super()._observed()
        depths = self.report(b'"timings"').get("draft_by_depth")
        found = {
            depth: (drafted, accepted)
            for one in (depths if isinstance(depths, list) else ())
            if isinstance(one, dict)
            and (depth := count(one, "depth"))
            and (drafted := count(one, "draft_n")) is not None
            and (accepted := count(one, "draft_n_accepted")) is not None
        }
        if not observation.drafted or sorted(found) != list(range(1, len(found) + 1)):
            return observation
        return msgspec.structs.replace(
            observation,
            drafting_steps=found[1][0] if found else None,
            accepted_by_position=tuple(found[depth][1] for depth in sorted(found)),
        )


class _Tried(Struct):
    """What a short completion showed."""

    drafted: int
    longest: int
    """Tokens of its longest draft."""
    has_bare_tokens: bool | None
    """Whether tokens came without the alternatives that were asked for; ``None`` where it has no list of them."""


async def _tried(client: Client, fields: Mapping[str, Any]) -> _Tried:
    """A short completion. Its prompt stays in the server's cache for the next one."""
    asked = {"prompt": REPEATED_TEXT, "n_predict": 32, "temperature": 0, "ignore_eos": True, "cache_prompt": True}
    body = msgspec.json.encode({**asked, **fields})
    answer = await fetch_json(client, "/completion", body, COMPLETION_TIMEOUT_S)
    timings = answer.get("timings") if isinstance(answer, dict) else None
    if not isinstance(timings, dict):
        return _Tried(0, 0, None)
    depths = timings.get("draft_by_depth")
    reached = [count(one, "depth") or 0 for one in depths if isinstance(one, dict)] if isinstance(depths, list) else []
    return _Tried(count(timings, "draft_n") or 0, max(reached, default=0), has_bare_tokens(answer))


def _fields(strategy: Strategy, drafters: Sequence[Drafter]) -> dict[str, Any]:
    """Those that carry a strategy. A length for all stages switches them off together, too."""
    chosen = next((drafter for drafter in drafters if drafter.kind == strategy.kind), None)
    if not strategy.drafts or chosen is None:
        return {N_MAX: 0}
    p_min = {} if chosen.p_min is None else {P_MIN: chosen.p_min}
    if len(drafters) == 1:
        return {N_MAX: strategy.n_max, **p_min}
    stages: list[dict[str, Any]] = [{"type": drafter.name, "n_max": 0} for drafter in drafters]
    stages[drafters.index(chosen)] |= {"n_max": strategy.n_max} | (
        {} if chosen.p_min is None else {"p_min": chosen.p_min}
    )
    return {STAGES: stages}


async def _idle(client: Client, drafters: Sequence[Drafter]) -> tuple[str, ...]:
    """What is to be said of stages that draft nothing when they are alone."""
    found = []
    for drafter in drafters:
        alone = await _tried(client, _fields(Strategy(drafter.kind, drafter.n_max), drafters))
        if not alone.drafted:
            found.append(f"its stage {drafter.name} drafts nothing of a text that repeats itself")
    return tuple(found)
