"""The part of ``paceline plan`` for vLLM and SGLang, whose models are folders."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec

from paceline.engines.sglang import SglangSettings
from paceline.engines.vllm import VllmSettings
from paceline.planning.devices import Machine
from paceline.planning.model_folder import read_folder
from paceline.planning.plan_text import wrapped
from paceline.planning.speed import cost_per_drafted_token
from paceline.planning.vllm_plan import EngineKind, ParallelPlan, Wish, drafting_of, plan_parallel
from paceline.settings import LocalEngineSettings, StrategyKind
from paceline.text_table import columns

GIB = 1 << 30
ENGINES = {"vllm": VllmSettings, "sglang": SglangSettings}
KINDS = {"none": "autoregressive"}
"""Of drafting, where the configuration has another word."""


def planned_folder(
    options: argparse.Namespace, folder: Path, machine: Machine
) -> tuple[ParallelPlan, LocalEngineSettings, str]:
    """The plan, the engine of a configuration that runs it, and what is said of it.

    Raises:
        BadModelFolder: the folder can't be planned with.
    """
    kind: EngineKind = "sglang" if options.engine == "sglang" else "vllm"
    model = read_folder(folder)
    wish = Wish(
        context_tokens=options.context or 0,
        slots=options.slots or (4 if options.aim == "throughput" else 1),
        cache=options.kv,
        draft=options.draft,
    )
    plan = plan_parallel(model, machine, wish, kind)
    drafting = drafting_of(model, machine, wish)
    engine = ENGINES[kind](
        name=kind,
        launch=plan.command,
        device="gpu",
        strategy=cast(StrategyKind, KINDS.get(drafting.kind, drafting.kind)),
        n_max=drafting.length or None,
        drafted_token_cost=cost_per_drafted_token(machine),
    )
    return plan, engine, _text(plan, machine, folder)


def printed(plan: ParallelPlan, machine: Machine, text: str, is_json: bool) -> str:
    if is_json:
        return msgspec.json.format(msgspec.json.encode({"machine": machine, "plan": plan})).decode()
    return f"{text}\n\n{shlex.join(_without_port(plan.command))}"


def _without_port(command: Sequence[str]) -> list[str]:
    """For people, who leave it to the engine; ``{port}`` is filled in by ``serve`` alone."""
    at = command.index("{port}")
    return [*command[: at - 1], *command[at + 1 :]]


def _text(plan: ParallelPlan, machine: Machine, folder: Path) -> str:
    rows = [("GiB", "each card", "")]
    need = plan.need
    for name, size in (("weights", need.weights), ("drafter", need.drafter), ("buffers", need.other)):
        if size:
            rows.append((name, f"{size / GIB:.1f}".rjust(9), ""))
    rows.append(("cache", f"{max(0, need.cache) / GIB:.1f}".rjust(9), "what is left of what the engine takes"))
    cards = ", ".join(machine.devices[card].name for card in plan.cards)
    verdict = "Fits." if plan.fits else "Does not fit." if plan.fits is False else "Left to the engine."
    if plan.context_tokens and need.cache > 0:
        verdict += f" {plan.context_tokens:,} tokens for each request"
        if plan.capacity_tokens:
            verdict += f", {plan.capacity_tokens:,} for all together"
        verdict += "."
    headline = f"{folder.name} on {len(plan.cards)} of {len(machine.devices)} cards ({cards}), {plan.engine}."
    return "\n".join([*wrapped(headline), "", columns(rows), *wrapped(verdict, *plan.notes, *machine.warnings)])
