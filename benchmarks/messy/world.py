"""The machine that the recorded requests are played on: what is accepted follows from what they truly ask for."""

import numpy as np

from benchmarks.messy.arriving import Recorded
from benchmarks.worlds.base import base, card
from benchmarks.worlds.counted import CountedWorld, Drafting
from benchmarks.worlds.published import acceptance_by_position, shifted, task_shifts
from benchmarks.worlds.requests import LENGTHS, Arrivals, Mix, one_kind_a_task
from benchmarks.worlds.traffic import Traffic
from paceline.types import Task

CURVE, CARD = "qwen35-397b-mtp", "rx-7900-xtx"
ALIKE = {
    Task.EDIT: Task.MATH,
    Task.TOOL_CALL: Task.SUMMARISE,
    Task.EXTRACT: Task.RETRIEVE,
    Task.CHAT: Task.TRANSLATE,
}
"""Tasks that mtp-bench.py has no prompt of, by the one of its tasks that they are taken to be as predictable as: edits
as the best, calls and extracts as what repeats the prompt, chat between answers and stories, as the speeds of
ARahim3/mlx-dspark #8 and ggml-org/llama.cpp #23869 have it. The others are guesses."""


def world(apart: float = 1.0) -> CountedWorld:
    """MTP at 1 to 6 on an RX 7900 XTX: the curve of Qwen3.5-397B, published for code, moved by what mtp-bench.py's
    prompts show of each task, ``apart`` times as far."""
    shifts = task_shifts()
    shifts_by_task = {task: shifts[ALIKE.get(task, task)] for task in Task if ALIKE.get(task, task) in shifts}
    acceptance = acceptance_by_position(CURVE)
    return CountedWorld(
        name="messy",
        about=world.__doc__ or "",
        mix=Mix(one_kind_a_task(tuple(shifts_by_task))),
        strategies=base().strategies,
        drafting={
            "mtp": {task: Drafting(shifted(acceptance, apart * shift)) for task, shift in shifts_by_task.items()}
        },
        machine=card(CARD),
    )


def traffic(arriving: list[Recorded], rng: np.random.Generator, apart: float = 1.0) -> Traffic:
    """The requests with what every lane would make of them."""
    place = world(apart)
    numbers = {kind.task: number for number, kind in enumerate(place.mix.kinds)}
    kinds = np.array([numbers[request.true] for request in arriving])
    tokens = rng.choice(np.array(LENGTHS, float), len(arriving))
    return place.answers(Arrivals(kinds, [request.signals for request in arriving], tokens), rng)
