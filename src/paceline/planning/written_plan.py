"""A plan as an engine of a configuration, and as the file that ``paceline serve --config`` runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from paceline.engines.llama_cpp import LlamaCppSettings
from paceline.engines.llama_cpp_flags import ALIAS, MODEL, PORT, THREADS, drafting_flags
from paceline.planning.plan import Plan
from paceline.settings import LocalEngineSettings, StrategyKind

NAME = "llama"


def planned_engine(
    plan: Plan, model: Path, alias: str, program: str, threads: int | None = None, flags: Sequence[str] = ()
) -> LlamaCppSettings:
    """One engine with all of the plan's drafters, which takes its strategy from each request where it can.

    Args:
        program: a ``llama-server``.
        threads: it computes with; ``None`` leaves that to the engine.
        flags: further ones, which have the last word over the plan's.
    """
    first = plan.drafters[0].strategy
    return LlamaCppSettings(
        name=NAME,
        launch=(
            *(program, MODEL.name, str(model), ALIAS.name, alias, PORT.name, "{port}"),
            *plan.flags,
            *((THREADS.name, str(threads)) if threads else ()),
            *flags,
            *drafting_flags(plan.drafters),
        ),
        strategy=cast(StrategyKind, first.kind),
        n_max=first.n_max,
        device="gpu" if plan.devices else "cpu",
        drafted_token_cost=plan.drafted_token_cost,
    )


def written(engine: LocalEngineSettings, text: str) -> str:
    """A configuration file with this engine.

    Args:
        text: of the plan, which stands above it as a comment.
    """
    comment = "\n".join(f"# {line}".rstrip() for line in text.splitlines())
    return f"""\
{comment}
#
# Lanes come from the engine once it is up: {engine.name}/plain, and those of its drafters.

{engine_table(engine)}"""


def engine_table(engine: LocalEngineSettings) -> str:
    """An ``[[engine]]`` table: where it runs, or what it is started with, and how it drafts."""
    texts = {"name": engine.name, "kind": engine.kind, "url": engine.url, "device": engine.device}
    values = {key: _quoted(text) for key, text in texts.items() if text is not None}
    values["strategy"] = _quoted(engine.strategy)
    numbers = {"n_max": engine.n_max, "drafted_token_cost": engine.drafted_token_cost}
    values |= {key: str(number) for key, number in numbers.items() if number is not None}
    lines = ["[[engine]]", *(f"{key} = {value}" for key, value in values.items())]
    if engine.launch:
        lines += ["launch = [", *(f"    {line}," for line in _lines(engine.launch)), "]"]
    return "\n".join([*lines, ""])


def _lines(words: Sequence[str]) -> list[str]:
    """Each flag with its values in a line of its own."""
    lines: list[str] = []
    for word in words:
        if word.startswith("-") or not lines:
            lines.append(_quoted(word))
        else:
            lines[-1] += f", {_quoted(word)}"
    return lines


def _quoted(text: str) -> str:
    """A basic string of TOML has the escapes of JSON's."""
    return json.dumps(text, ensure_ascii=False)
