"""What is asked, and how much of a draft for it is accepted, as it was published; prompts of our own, or recorded
requests with their answers."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from msgspec import Struct
from training.task_model.prompts import one_of_each_instruction

from benchmarks.lookups.turns import RecordedTurn, half_of, read
from benchmarks.worlds.published import Floats, acceptance_by_position, request_spread, shifted, with_share

One = TypeVar("One")
LONGEST = 6
"""Tokens of a draft at most."""
CURVE = "qwen35-397b-mtp"
"""How acceptance falls with the position (``benchmarks/worlds/published.toml``)."""
NEIGHBOURS = 7
"""Prompts that follow one another in a file are alike: one of so many is taken."""


class Accepted(Struct, frozen=True):
    """As it was published."""

    share: float
    """Of the drafted tokens."""
    drafted: int
    """Tokens a step."""
    source: str


DOMAINS = "tenstorrent/vllm #442: Qwen3.8-27B, MTP, first token by domain (558 answers)"
FLASH_NEXT = "ikawrakow/ik_llama.cpp #2369: Qwen3.8-Flash-Next IQ4, MTP, 3 drafted, mean of 5 runs"
LAPTOP = "ggml-org/llama.cpp #22673: Qwen3.6-35B-A3B, MTP, 4 drafted, RTX 3060 laptop"
ACCEPTED: Mapping[str, Accepted] = {
    "code": Accepted(0.908, 1, DOMAINS),
    "extract": Accepted(0.91, 3, FLASH_NEXT),
    "math": Accepted(0.75, 4, LAPTOP),
    "summarise": Accepted(0.75, 4, LAPTOP),
    "retrieve": Accepted(0.606, 1, DOMAINS),
    "create": Accepted(0.492, 1, DOMAINS),
    "answer": Accepted(0.480, 1, DOMAINS),
    "translate": Accepted(0.41, 4, LAPTOP),
}


EDIT = "edit"
"""What recorded chats of aider are: of what MTP layers draft for them, as much is accepted as for other code."""
CATEGORIES = {
    "coding": "code",
    "extraction": "extract",
    "math": "math",
    "reasoning": "math",
    "writing": "create",
    "roleplay": "create",
    "stem": "answer",
    "humanities": "answer",
}
"""Of MT-Bench, which end the names of its conversations."""
LONGEST_CONTEXT, SHORTEST_ANSWER = 6000, 400
"""Of recorded turns, in characters: two cores take long for prompts."""


class Asked(Struct, frozen=True):
    """One request of the mix."""

    task: str
    messages: Sequence[Mapping[str, Any]]
    acceptance: tuple[float, ...]
    """By position, given that the tokens before it were accepted."""
    answer: str = ""
    """What is generated; empty: whatever comes."""


def usual_acceptance() -> dict[str, Floats]:
    """Of each task, by position: the published curve, moved to the task's published share."""
    curve = acceptance_by_position(CURVE)[:LONGEST]
    return {task: with_share(curve, accepted.drafted, accepted.share) for task, accepted in ACCEPTED.items()}


def mix(per_task: int, first: int, seed: int) -> list[Asked]:
    """So many requests of each task, the tasks in turn, from the ``first``-th prompt of each on. Each has an acceptance
    of its own about its task's, as far apart as published runs are."""
    random = np.random.default_rng([seed, first])
    prompts = one_of_each_instruction()
    usual = usual_acceptance()
    asked = []
    for number in range(first, first + per_task):
        for task, acceptance in usual.items():
            prompt = prompts[task][number * NEIGHBOURS % len(prompts[task])]
            messages = [{"role": "user", "content": prompt.text}]
            asked.append(Asked(task, messages, _own(acceptance, random)))
    return asked


def recorded_mix(file: Path, per_task: int, half: int, seed: int) -> list[Asked]:
    """Up to so many recorded turns of each task, the tasks in turn, with their answers. No conversation is in both
    halves, and the control's constants were tuned on half 0; the first turn of each comes before the second of any.
    Acceptances are as those of :func:`mix`.

    Args:
        file: as ``benchmarks.lookups.turns`` reads it: chats of aider, and MT-Bench.
        half: 0 or 1.
    """
    random = np.random.default_rng([seed, half])
    usual = usual_acceptance()
    usual[EDIT] = usual["code"]
    by_task = [
        [(task, turn) for turn in _in_turn(_conversations(turns, half))[:per_task]]
        for task, turns in _by_task(file).items()
    ]
    return [
        Asked(task, turn.body["messages"], _own(usual[task], random), turn.answer) for task, turn in _in_turn(by_task)
    ]


def _own(acceptance: Floats, random: np.random.Generator) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in shifted(acceptance, random.normal(0, request_spread())))


def _by_task(file: Path) -> dict[str, list[RecordedTurn]]:
    """Turns that are short enough, and whose task is known."""
    found: dict[str, list[RecordedTurn]] = {}
    for turn in read(file):
        task = EDIT if turn.source.startswith("aider") else CATEGORIES.get(turn.conversation.rpartition("-")[2])
        length = sum(len(message["content"]) for message in turn.body["messages"]) if task else 0
        if task and length <= LONGEST_CONTEXT and len(turn.answer) >= SHORTEST_ANSWER:
            found.setdefault(task, []).append(turn)
    return found


def _conversations(turns: Sequence[RecordedTurn], half: int) -> list[list[RecordedTurn]]:
    found: dict[str, list[RecordedTurn]] = {}
    for turn in turns:
        if half_of(turn.conversation) == half:
            found.setdefault(turn.conversation, []).append(turn)
    return list(found.values())


def _in_turn(lists: Iterable[Sequence[One]]) -> list[One]:
    """The first of each, then the second of each, and so on."""
    return [one for row in zip_longest(*lists) for one in row if one is not None]
