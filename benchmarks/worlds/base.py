"""The world that many others are variations of, and its cards."""

from functools import cache

from benchmarks.worlds.counted import CountedWorld, Drafting, Machine
from benchmarks.worlds.published import acceptance_by_task, plain_step_s, step_costs
from benchmarks.worlds.requests import Mix, one_kind_a_task
from paceline.types import Strategy

CAPS = (1, 2, 3, 4, 6, 8)
"""Draft lengths of heads, in tokens."""


@cache
def base() -> CountedWorld:
    """MTP at 1 to 6 on an RTX 3090: acceptance of mtp-bench.py's prompts by task (ggml-org/llama.cpp #22673), in the
    shape of Qwen3.5-397B's curve, at an Ampere card's costs. Right is 2 for stories, 3 for most, 4 for math."""
    acceptance = acceptance_by_task("qwen36-35b-a3b-gpu", "qwen35-397b-mtp")
    return CountedWorld(
        name="base",
        about=base.__wrapped__.__doc__ or "",
        mix=Mix(one_kind_a_task(tuple(acceptance))),
        strategies=(Strategy(), *(Strategy("mtp", cap) for cap in (1, 2, 3, 4, 6))),
        drafting={"mtp": {task: Drafting(curve) for task, curve in acceptance.items()}},
        machine=card("rtx-3090"),
    )


def card(name: str) -> Machine:
    """A class of card, by its name in ``published.toml``."""
    return Machine(plain_step_s(name), step_costs(name, max(CAPS)))
