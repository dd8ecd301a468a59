"""The numbers of ``published.toml`` in the shapes that worlds are made of."""

import tomllib
from functools import cache
from math import exp, log, sqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]

FILE = Path(__file__).parent / "published.toml"
MIN_ACCEPTED, MAX_ACCEPTED = 0.01, 0.99
"""Probabilities that logits are taken of; nothing published is nearer to 0 or 1."""
PROMPT_TASKS = {
    "python": "code",
    "cpp": "code",
    "explain": "answer",
    "summarise": "summarise",
    "factual": "retrieve",
    "translate": "translate",
    "creative": "create",
    "math": "math",
    "review": "reason",
}
"""The prompts of mtp-bench.py by the task that they ask for."""
COUNTED_DRAFTS = 170
"""Tokens drafted for one such prompt, roughly: 153 to 200 in the runs that print them."""


@cache
def numbers() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text())


def logit(probability: float) -> float:
    return log(probability / (1 - probability))


def acceptance_by_position(name: str) -> Floats:
    """Of a curve: the probability that a token is accepted if all before it were, by its position in the draft.

    Runs at different lengths are noisy; where a longer draft yielded less, the position beyond accepts nothing.
    """
    lengths = np.maximum.accumulate(numbers()["curves"][name]["lengths"])
    reached = np.minimum.accumulate(np.diff(lengths, prepend=1.0))
    before = np.concatenate([[1.0], reached[:-1]])
    accepted: Floats = np.divide(reached, before, out=np.zeros_like(reached), where=before > 0)
    return accepted


def shifted(acceptance: Floats, logits: float | Floats) -> Floats:
    """An acceptance by position, every position moved by so many logits; one row for each number of ``logits``. A
    position that accepts nothing stays so."""
    safe = np.clip(acceptance, MIN_ACCEPTED, MAX_ACCEPTED)
    moved = np.log(safe / (1 - safe)) + np.asarray(logits)[..., None]
    result: Floats = np.where(acceptance <= MIN_ACCEPTED, acceptance, 1 / (1 + np.exp(-moved)))
    return result


def tokens_per_step(acceptance: Floats, drafted: int) -> Floats:
    """What a step that verifies so many drafted tokens yields, the bonus token included."""
    result: Floats = 1 + np.cumprod(acceptance[..., :drafted], axis=-1).sum(axis=-1)
    return result


def with_share(acceptance: Floats, drafted: int, share: float) -> Floats:
    """The acceptance moved so that of ``drafted`` tokens this share is accepted."""
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        if (tokens_per_step(shifted(acceptance, middle), drafted) - 1) / drafted < share:
            low = middle
        else:
            high = middle
    return shifted(acceptance, low)


def acceptance_by_task(prompts: str, curve: str) -> dict[str, Floats]:
    """Of a run of mtp-bench.py: acceptance by position for each task, in the shape of a curve; of two prompts of one
    task, the mean."""
    table = numbers()["prompts"][prompts]
    shares: dict[str, list[float]] = {}
    for prompt, share in table["accepted"].items():
        shares.setdefault(PROMPT_TASKS[prompt], []).append(share)
    shape = acceptance_by_position(curve)
    return {
        task: with_share(shape, table["drafted"], sum(accepted) / len(accepted)) for task, accepted in shares.items()
    }


@cache
def task_shifts() -> dict[str, float]:
    """By how many logits a task's acceptance deviates from code's: the mean over the published runs."""
    shifts_by_task: dict[str, list[float]] = {}
    for table in numbers()["prompts"].values():
        accepted = table["accepted"]
        code = (logit(accepted["python"]) + logit(accepted["cpp"])) / 2
        for prompt, share in accepted.items():
            shifts_by_task.setdefault(PROMPT_TASKS[prompt], []).append(logit(share) - code)
    return {task: sum(shifts) / len(shifts) for task, shifts in shifts_by_task.items()}


@cache
def request_spread() -> float:
    """By how many logits requests of one task differ, as standard deviation: from the two prompts that ask for code in
    each run, less what counting so few tokens makes."""
    squares = []
    for table in numbers()["prompts"].values():
        python, cpp = table["accepted"]["python"], table["accepted"]["cpp"]
        counted = sum(1 / (COUNTED_DRAFTS * share * (1 - share)) for share in (python, cpp))
        squares.append((logit(python) - logit(cpp)) ** 2 - counted)
    return sqrt(max(0.0, sum(squares) / len(squares) / 2))


def step_costs(name: str, longest: int) -> Floats:
    """What a step that verifies 0, 1, 2 ... drafted tokens takes, in plain steps; beyond the longest that was measured
    on by the mean slope."""
    measured = [1.0, *numbers()["steps"][name]["costs"]]
    slope = (measured[-1] - measured[1]) / (len(measured) - 2)
    beyond = [measured[-1] + slope * more for more in range(1, longest + 2 - len(measured))]
    return np.array((measured + beyond)[: longest + 1])


def plain_step_s(name: str) -> float:
    return 1 / float(numbers()["steps"][name]["plain_tokens_per_s"])


def content_costs(prompts: str, steps: str) -> dict[str, float]:
    """How much dearer a verifying step is for a task than on average: from a run that tells both what was accepted and
    how fast it was."""
    table = numbers()["prompts"][prompts]
    drafted, plain = table["drafted"], table["plain_tokens_per_s"]
    usual = step_costs(steps, drafted)[drafted]
    costs_by_task: dict[str, list[float]] = {}
    for prompt, share in table["accepted"].items():
        cost = (1 + drafted * share) * plain / table["tokens_per_s"][prompt]
        costs_by_task.setdefault(PROMPT_TASKS[prompt], []).append(log(cost / usual))
    return {task: exp(sum(costs) / len(costs)) for task, costs in costs_by_task.items()}


def time_noise() -> float:
    """Of a measured time, as standard deviation of its logarithm."""
    return float(numbers()["noise"]["of_times"])


def idle_tax(at_a_time: float) -> float:
    """What a drafter that is loaded and drafts nothing costs per token: between the two published loads in proportion
    to the load's logarithm."""
    table = numbers()["idle_tax"]
    low, high = (log(load) for load in table["at_a_time"])
    less, more = table["slower"]
    return float(less + (more - less) * (log(at_a_time) - low) / (high - low))
