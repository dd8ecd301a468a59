"""llama.cpp's server: stock builds, whose strategy is set at start, and ours, which takes it from each request."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from paceline.engines import embedded
from paceline.engines.body import with_fields
from paceline.engines.examination import (
    CHEAP,
    COMPLETION_TIMEOUT_S,
    CONTROLLED_LENGTH,
    DEAR,
    REPEATED_TEXT,
    TOO_SLOW,
    has_bare_tokens,
)
from paceline.engines.interface import Examination, Facts, LaunchError, NotReady, assumed, put_port
from paceline.engines.launch_environment import engine_environment
from paceline.engines.llama_cpp_flags import NONE, kind_of, unknown_flags
from paceline.engines.observation import Observer
from paceline.engines.openai_compatible import fetch_json, fetch_models
from paceline.settings import Caps, ControlsDrafts, LocalEngineSettings
from paceline.types import (
    LOGPROBS,
    UNKNOWN_DRAFTER,
    Abilities,
    DraftControl,
    Drafter,
    DrafterControl,
    Request,
    Strategy,
)
from paceline.wire.client import Client, ConnectFailed, bearer
from paceline.wire.connection import ConnectionLost
from paceline.wire.headers import Headers

N_MAX, TYPES, MIN_YIELD = "speculative.n_max", "speculative.types", "speculative.min_yield"
"""Fields of a request to the server that ``paceline engine build`` makes; some older and forked ones take the first."""
CONTROL = "speculative.control"
"""The field that such a server's control of drafts starts from (docs/llama-cpp-patch.md)."""
DEFAULT_N_MAX = 16
"""Longest draft where neither the server nor the configuration tells it."""
NO_SUCH_PATH = (404, 405, 501)
"""Of ``/props``: something stands before the server, or it is older than that."""
REFUSED = 400
"""A field that makes no sense."""
SLOTS_TIMEOUT_S = 1.0
"""For ``/slots``, which is nice to know, and no more."""
NO_COMPLETIONS = (400, 404, 405, 501)
"""Of ``/completion``: it was started to embed or to rank."""
_DRAFTER_NAME = re.compile(r"(?:^|,)\s*([\w.-]{1,60})\s*(?=,|$)", re.ASCII)
"""They become names of lanes, which stand in headers, paths and terminals: what does not look like one is none."""


class LlamaCppSettings(LocalEngineSettings, frozen=True, kw_only=True, tag="llama.cpp"):
    """llama.cpp's ``llama-server``, a stock build, a fork, or the one that ``paceline engine build`` makes; or the
    embedded engine."""

    launch: Annotated[
        tuple[str, ...],
        Meta(
            description="Command that starts the engine. `{port}` becomes a free port. `embedded` as the first word "
            "is llama.cpp's server from the `xllamacpp` package; it takes the usual flags of llama-server by the same "
            "names, and refuses the others (`python -m paceline.engines.embedded --help` lists them)."
        ),
    ] = ()
    caps: Caps = ()
    draft_control: ControlsDrafts = True


class LlamaCpp:
    settings_type = LlamaCppSettings
    written_fields = frozenset({N_MAX, TYPES, MIN_YIELD, CONTROL})
    takes_any_model_name = True
    may_have_page = True

    async def probe(self, client: Client) -> Facts:
        models: dict[str, Any] = dict(await fetch_models(client))
        props = await _props(client)
        settings = props.get("default_generation_settings")
        context = settings.get("n_ctx") if isinstance(settings, dict) else None
        slots, build = props.get("total_slots"), props.get("build_info")
        return Facts(
            models=models,
            build=build if isinstance(build, str) else None,
            context_tokens=context if isinstance(context, int) and context > 0 else None,
            slots=slots if isinstance(slots, int) and slots > 0 else None,
            slot_tokens=await _slot_tokens(client) if props.get("endpoint_slots") is True else (),
        )

    async def examine(self, client: Client, settings: LlamaCppSettings) -> Examination:
        """By effect, not by claim: ``/props`` of stock builds says ``none`` even where a drafter is loaded, and a field
        that a build does not know is passed over in silence. So one token is decoded, and the drafters in its settings
        are read; and where there are some, a text that repeats itself is continued with and without drafts.

        A router (``--models-dir``) is asked for a model that is loaded already, if there is one: asking for another
        would load it."""
        strategy = settings.as_started
        model: str | None = None
        if (await _props(client)).get("role") == "router":
            model = _loaded(await fetch_models(client))
            if model is None:
                return Examination(abilities=assumed(strategy), is_provisional=True)
        try:
            types = (await _tried(client, model, {"prompt": "1", "n_predict": 1})).types
        except NotReady as error:
            if error.status in NO_COMPLETIONS and not strategy.drafts:
                return Examination()  # it embeds or ranks
            raise
        if types is None:
            return Examination(abilities=assumed(strategy))  # an older build does not say
        loaded = [name for name in types if name != NONE]
        contradictions: tuple[str, ...] = ()
        if bool(loaded) != strategy.drafts or (strategy.drafts and not _has(loaded, strategy.kind)):
            drafts = ", ".join(loaded) or "nothing"
            contradictions = (f"its strategy is configured as {strategy.kind}, but it drafts by: {drafts}",)
        try:
            if not loaded:
                return await self._plain(client, model, contradictions)
            abilities = await self._abilities(client, model, settings, loaded)
        except TimeoutError:
            return Examination(
                abilities=Abilities(not_when_drafting=LOGPROBS), contradictions=(*contradictions, TOO_SLOW)
            )
        return Examination(abilities=abilities, contradictions=contradictions)

    async def _plain(self, client: Client, model: str | None, contradictions: tuple[str, ...]) -> Examination:
        """What a server does that names no drafter: later builds are to draft unless they are told not to (llama.cpp
        #28391)."""
        drafted = (await _tried(client, model, {})).drafted
        if not drafted:
            return Examination(contradictions=contradictions)
        wrong = f"it names no drafter, but drafted {drafted} tokens; start it with --no-spec-type for a plain lane"
        abilities = Abilities(not_when_drafting=LOGPROBS, as_seen=Strategy(UNKNOWN_DRAFTER))
        return Examination(abilities=abilities, contradictions=(*contradictions, wrong))

    async def _abilities(
        self, client: Client, model: str | None, settings: LlamaCppSettings, loaded: list[str]
    ) -> Abilities:
        strategy = settings.as_started
        drafting = await _tried(client, model, {"n_probs": 2})
        lost = LOGPROBS if drafting.has_bare_tokens is not False else frozenset()
        if not drafting.drafted:  # perhaps just because probabilities were asked for
            drafting = await _tried(client, model, {})
        if not drafting.drafted or (await _tried(client, model, {N_MAX: 0})).drafted:
            as_seen = None if strategy.drafts else Strategy(kind_of(loaded[0]))
            return Abilities(not_when_drafting=lost, as_seen=as_seen)
        told = await _told(client)
        longest = _longest_drafts(told)
        drafters = [
            Drafter(kind_of(name), name, longest.get(name) or strategy.n_max or DEFAULT_N_MAX) for name in loaded
        ]
        controls = settings.draft_control and await _controls(client, model, loaded)
        apart = told.get("decodes_apart") is True
        return Abilities(tuple(drafters), lost, controls_drafts=controls, decodes_apart=apart)

    def prepare(self, request: Request, strategy: Strategy, abilities: Abilities, control: DraftControl) -> bytes:
        if not abilities.drafters or not request.fields.keys().isdisjoint((N_MAX, TYPES, CONTROL)):
            return request.body
        if strategy.among:
            return with_fields(request, _controlled(strategy, abilities, control))
        asked: dict[str, Any] = {N_MAX: strategy.n_max if strategy.drafts else 0}
        for drafter in abilities.drafters:
            if drafter.kind == strategy.kind:
                asked |= {TYPES: drafter.name} | ({} if MIN_YIELD in request.fields else {MIN_YIELD: control.min_yield})
        return with_fields(request, asked)

    def observe(self, request: Request, strategy: Strategy) -> Observer:
        return Observer(request, counts_drafts=strategy.drafts, kind_of=kind_of)

    def launch(self, command: Sequence[str], port: int) -> tuple[str, ...]:
        program, *words = put_port(command, port)
        if program == embedded.EMBEDDED:
            embedded.check(words)
            return (sys.executable, "-m", embedded.__name__, *words)
        path = shutil.which(program)
        if path is None:
            raise LaunchError(f"there is no program {program!r}")
        if Path(path).name.startswith("llama-server"):
            check_flags(path, words)
        return (path, *words)

    def key_variable(self, command: Sequence[str]) -> str | None:
        return embedded.KEY_VARIABLE if command[0] == embedded.EMBEDDED else "LLAMA_API_KEY"

    def key_headers(self, key: str | None) -> Headers:
        return bearer(key)

    def full_model_name(self, name: str) -> str:
        return name


class _Tried(Struct):
    """What a short completion showed."""

    types: list[str] | None
    """Drafters by the server's names; ``None`` where it does not say."""
    drafted: int
    has_bare_tokens: bool | None
    """Whether tokens came without the alternatives that were asked for; ``None`` where it has no list of them."""


async def _tried(client: Client, model: str | None, fields: dict[str, Any]) -> _Tried:
    """A short completion. Its prompt stays in the server's cache for the next one, which so costs a few steps only."""
    asked = {"prompt": REPEATED_TEXT, "n_predict": 16, "temperature": 0, "ignore_eos": True, "cache_prompt": True}
    named = {"model": model} if model else {}
    body = msgspec.json.encode(asked | named | fields)
    answer = await fetch_json(client, "/completion", body, COMPLETION_TIMEOUT_S)
    settings = answer.get("generation_settings") if isinstance(answer, dict) else None
    types = settings.get(TYPES) if isinstance(settings, dict) else None
    timings = answer.get("timings") if isinstance(answer, dict) else None
    drafted = timings.get("draft_n", 0) if isinstance(timings, dict) else 0
    names = _DRAFTER_NAME.findall(types) if isinstance(types, str) else None
    return _Tried(names, drafted if isinstance(drafted, int) else 0, has_bare_tokens(answer))


async def _controls(client: Client, model: str | None, loaded: Sequence[str]) -> bool:
    """Whether it decides at each step from what a request says of each drafter: what makes no sense is refused, and of
    the same drafters all is drafted where that is said to be cheap, and next to nothing where it is said to be dear."""

    def said(cost: float) -> dict[str, Any]:
        each = {"costs": [cost] * CONTROLLED_LENGTH, "acceptance": [0.9] * CONTROLLED_LENGTH, "weight": 100.0}
        return {CONTROL: dict.fromkeys(loaded, each)}

    try:
        await _tried(client, model, {CONTROL: {loaded[0]: {"costs": "none"}}})
    except NotReady as error:
        if error.status != REFUSED:
            raise
    else:
        return False
    try:
        cheap, dear = await _tried(client, model, said(CHEAP)), await _tried(client, model, said(DEAR))
    except NotReady as error:
        if error.status == REFUSED:
            return False
        raise
    return 2 * dear.drafted < cheap.drafted


def _controlled(strategy: Strategy, abilities: Abilities, control: DraftControl) -> dict[str, Any]:
    """Fields that have the server's control use a strategy's drafters. Where nothing is known to start it from, these
    draft as they were started."""
    allowed = {drafter.kind for drafter in strategy.among}
    names = {drafter.kind: drafter.name for drafter in abilities.drafters if drafter.kind in allowed}
    known = {names[kind]: _in_json(each) for kind, each in control.drafters.items() if kind in names}
    return {CONTROL: known} if known else {TYPES: list(names.values())}


def _in_json(control: DrafterControl) -> dict[str, Any]:
    fields: dict[str, Any] = {"costs": control.costs, "acceptance": control.acceptance}
    if control.by_match:
        fields["by_match"] = {str(match): accepted for match, accepted in control.by_match.items()}
    return fields | ({"weight": control.weight} if control.weight else {})


async def _props(client: Client) -> dict[str, Any]:
    """What it says of itself; empty where something before it lets only other paths pass.

    Raises:
        NotReady: it is loading, or this is no llama.cpp.
    """
    try:
        props = await fetch_json(client, "/props")
    except NotReady as error:
        if error.status in NO_SUCH_PATH:
            return {}
        raise
    if not isinstance(props, dict):
        raise NotReady("/props answers with no object; is this llama.cpp?")
    return props


async def _slot_tokens(client: Client) -> tuple[int, ...]:
    """What its slots hold; empty where it does not say. It answers between two batches, so that one that reads a long
    prompt may be late: that is no illness."""
    try:
        slots = await fetch_json(client, "/slots", timeout_s=SLOTS_TIMEOUT_S)
    except (NotReady, ConnectFailed, ConnectionLost, TimeoutError):
        return ()
    if not isinstance(slots, list) or not all(isinstance(slot, dict) for slot in slots):
        return ()
    held = [slot.get("n_prompt_tokens", 0) for slot in slots]
    return tuple(held) if all(isinstance(tokens, int) and tokens >= 0 for tokens in held) else ()


def _loaded(models: dict[str, dict[str, Any]]) -> str | None:
    """The first of a router's models that is in memory."""
    for name, entry in models.items():
        status = entry.get("status")
        if isinstance(status, dict) and status.get("value") == "loaded":
            return name
    return None


async def _told(client: Client) -> dict[str, Any]:
    """What the server tells of its drafters and how it decodes with them; nothing where it has not our patch."""
    speculative = (await _props(client)).get("speculative")
    return speculative if isinstance(speculative, dict) else {}


def _longest_drafts(told: dict[str, Any]) -> dict[str, int]:
    """By the server's names of its drafters, where it tells."""
    longest = told.get("n_max")
    return (
        {name: value for name, value in longest.items() if isinstance(value, int)} if isinstance(longest, dict) else {}
    )


def _has(loaded: Sequence[str], kind: str) -> bool:
    """Whether a drafter of a kind is among those that a server names; ``ngram`` may stand for any n-gram drafter."""
    return any(kind in (name, kind_of(name), name.split("-")[0]) for name in loaded)


def check_flags(program: str, words: Sequence[str]) -> None:
    """Check flags against ``--help`` of the build at hand; a flag that a build doesn't know must not get lost.

    Raises:
        LaunchError: names the unknown flags and what this build calls them.
    """
    if unknown := unknown_flags(words, offered_flags(program)):
        raise LaunchError(f"{program} does not know {'; '.join(unknown)}")


def offered_flags(program: str) -> frozenset[str]:
    """The flags in the help text of a ``llama-server``; empty where it prints none.

    Raises:
        LaunchError: it can't be run.
    """
    try:
        return _offered_flags(program, os.stat(program).st_mtime_ns)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"{program} --help: {error}") from error


@lru_cache
def _offered_flags(program: str, changed_ns: int) -> frozenset[str]:
    environment = engine_environment(os.environ)
    done = subprocess.run(
        [program, "--help"], env=environment, capture_output=True, text=True, errors="replace", timeout=30, check=False
    )
    return frozenset(re.findall(r"(?<![\w<\[-])--?[a-zA-Z][\w-]*", done.stdout))
