"""Who asks for what: kinds of requests, drawn with the signals that inspection finds in prompts of their tasks."""

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from training.task_model.prompts import own_prompts

from benchmarks.worlds.published import Floats
from benchmarks.worlds.traffic import Ints
from paceline.inspection import inspect
from paceline.types import Api, Request, Signals, Task

MISTOLD = 0.06
"""Share of requests whose signals are those of another task, as often as the task model errs on instructions that it
never saw (docs/learning.md): here it is asked about prompts that it was trained on."""
LENGTHS = (64, 128, 256)
"""Tokens of an answer: around the 192 of mtp-bench.py, of which most of the published tables are made."""
MIN_TOKENS, MAX_TOKENS = 4, 6000
TURNS = 5
"""Of a conversation."""
TOOL = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}
"""What an agent offers its model."""


class Kind(Struct, frozen=True):
    """Requests that drafters treat alike."""

    name: str
    task: Task
    weight: float = 1.0
    application: str = ""
    """Who asks, where the world has several programs."""
    reasoning: bool | None = None


class Mix(Struct, frozen=True):
    """What arrives, in which shares, and how well it is told."""

    kinds: tuple[Kind, ...]
    mistold: float = MISTOLD
    heavy_tailed: bool = False
    """Answers of 20 tokens times a Pareto variable of exponent 0.9: most are short, a few take thousands."""
    in_conversations: bool = False
    """Whether each application's requests are turns of conversations that the client names."""


class Arrivals(Struct):
    """Requests of a mix, drawn."""

    kinds: Ints
    """Indexes of the mix's kinds."""
    signals: list[Signals]
    tokens: Floats


def one_kind_a_task(tasks: Sequence[str]) -> tuple[Kind, ...]:
    return tuple(Kind(task, Task(task)) for task in tasks)


def draw(mix: Mix, requests: int, rng: np.random.Generator) -> Arrivals:
    weights = np.array([kind.weight for kind in mix.kinds])
    chosen = rng.choice(len(mix.kinds), requests, p=weights / weights.sum())
    tasks = list(dict.fromkeys(kind.task for kind in mix.kinds))
    is_mistold = rng.random(requests) < mix.mistold
    instead = rng.integers(len(tasks), size=requests)
    prompt = rng.random(requests)
    signals = []
    turns: dict[str, tuple[str, int]] = {}
    for number in range(requests):
        kind = mix.kinds[chosen[number]]
        bank = signals_by_task()[tasks[instead[number]] if is_mistold[number] else kind.task]
        prompt_signals = bank[int(prompt[number] * len(bank))]
        changes: dict[str, object] = {}
        if kind.reasoning is not None:
            changes["reasoning"] = kind.reasoning
        if kind.application and "application" in Signals.__struct_fields__:
            changes["application"] = kind.application
        if mix.in_conversations:
            name, turn = turns.get(kind.application, ("", TURNS))
            name, turn = (name, turn + 1) if turn < TURNS else (f"{kind.application} {number}", 1)
            turns[kind.application] = (name, turn)
            changes |= {"conversation": name, "conversation_is_named": True, "turns": turn}
        signals.append(replace(prompt_signals, **changes) if changes else prompt_signals)
    if mix.heavy_tailed:
        tokens = np.clip(20 * (1 + rng.pareto(0.9, requests)), MIN_TOKENS, MAX_TOKENS).round()
    else:
        tokens = rng.choice(np.array(LENGTHS, float), requests)
    return Arrivals(chosen, signals, tokens)


@cache
def signals_by_task() -> dict[Task, list[Signals]]:
    """Signals of the project's own prompts, greedy; of tool calls, those of instructions to write code, sent to an
    agent's model."""
    by_task: dict[Task, list[Signals]] = {}
    for prompt in own_prompts():
        by_task.setdefault(Task(prompt.task), []).append(signals_of(prompt.text))
        if prompt.task == Task.CODE:
            by_task.setdefault(Task.TOOL_CALL, []).append(signals_of(prompt.text, {"tools": [TOOL]}))
    return by_task


def signals_of(text: str, more: Mapping[str, object] = MappingProxyType({})) -> Signals:
    """Of a prompt on its own, with more request fields; without the conversation, since no prompt comes twice in
    life."""
    fields = {"messages": [{"role": "user", "content": text}], "temperature": 0, **more}
    return replace(inspect(Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", fields)), conversation="")
