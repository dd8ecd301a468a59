"""What is asked, and how much of a draft for it is accepted: prompts of our own, acceptances as they were published."""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from training.task_model.prompts import one_of_each_instruction

from benchmarks.worlds.published import Floats, acceptance_by_position, request_spread, shifted, with_share

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


class Asked(Struct, frozen=True):
    """One request of the mix."""

    task: str
    text: str
    acceptance: tuple[float, ...]
    """By position, given that the tokens before it were accepted."""


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
            own = shifted(acceptance, random.normal(0, request_spread()))
            asked.append(Asked(task, prompt.text, tuple(round(float(value), 4) for value in own)))
    return asked
