"""Worlds as others measured them: acceptance curves, cards, kinds of drafters, load."""

import numpy as np
from msgspec.structs import replace

from benchmarks.worlds.base import CAPS, base, card
from benchmarks.worlds.counted import CountedWorld, Drafting, Machine
from benchmarks.worlds.published import (
    acceptance_by_position,
    acceptance_by_task,
    content_costs,
    idle_tax,
    numbers,
    plain_step_s,
    shifted,
    step_costs,
    task_shifts,
)
from benchmarks.worlds.requests import Kind, Mix, one_kind_a_task
from benchmarks.worlds.timed import TimedWorld, published_lanes, published_speeds
from benchmarks.worlds.traffic import World
from paceline.types import Lane, Strategy, Task


def curves() -> list[World]:
    """Acceptance by position as published for coding, other tasks moved by the logits that mtp-bench.py's prompts
    show, verified at an RTX 5090's costs. Right is the length where the curve's next position no longer pays: 2 on the
    steepest, 4 to 6 on the flattest, less for creative writing."""
    shapes = {
        "dsv4-pro-mtp": "falls steeply: the fourth position accepts a fifth",
        "dsv4-pro-dspark": "flat up to 6, nothing beyond",
        "glm-52-mtp": "nearly geometric",
        "qwen35-397b-mtp": "starts high and falls slowly",
        "kimi-k25-eagle3": "an EAGLE-3 head, uneven",
    }
    worlds: list[World] = []
    for curve, shape in shapes.items():
        acceptance = acceptance_by_position(curve)
        kind = numbers()["curves"][curve].get("kind", curve.rsplit("-", 1)[1])
        drafting = {task: Drafting(shifted(acceptance, shift)) for task, shift in task_shifts().items()}
        worlds.append(
            CountedWorld(
                name=f"curve-{curve}",
                about=f"{numbers()['curves'][curve]['source']}; {shape}. {curves.__doc__}",
                mix=Mix(one_kind_a_task(tuple(task_shifts()))),
                strategies=(Strategy(), *(Strategy(kind, cap) for cap in CAPS)),
                drafting={kind: drafting},
                machine=card("rtx-5090"),
            )
        )
    return worlds


def thinking() -> list[World]:
    """Thinking on or off: half of the requests each, with curves of the same model (SemiAnalysisAI/InferenceX #3304).
    With thinking the third position accepts 0.65 instead of 0.77, the first 0.73 instead of 0.90. Right is a length by
    whether thinking is asked for, on a card where that matters (RTX 3090)."""
    kinds, drafting = [], {}
    for reasoning, curve in ((True, "qwen38-27b-mtp-thinking"), (False, "qwen38-27b-mtp")):
        for task in ("code", "math", "answer", "create"):
            name = f"{task}, thinking" if reasoning else task
            kinds.append(Kind(name, Task(task), reasoning=reasoning))
            drafting[name] = Drafting(shifted(acceptance_by_position(curve), task_shifts()[task]))
    return [
        CountedWorld(
            name="thinking",
            about=thinking.__doc__ or "",
            mix=Mix(tuple(kinds)),
            strategies=(Strategy(), *(Strategy("mtp", cap) for cap in (1, 2, 3, 4))),
            drafting={"mtp": drafting},
            machine=card("rtx-3090"),
        )
    ]


# --- Cards ---


def cards() -> list[World]:
    """Acceptance of mtp-bench.py's prompts on Qwen3.6-35B-A3B (ggml-org/llama.cpp #22673) at what verifying costs on a
    class of card (sudoingX/qwen38-mtp). Right is a length by card and task: 4 on Blackwell, 3 to 6 on RDNA, 2 to 4 on
    Ampere, 1 to 4 on Volta, 1 on an M3 Ultra."""
    return [
        replace(base(), name=f"card-{name}", about=f"{_source('steps', name)}. {cards.__doc__}", machine=card(name))
        for name in ("rtx-5090", "rx-7900-xtx", "v100", "m3-ultra")
    ]


def moe_laptop() -> list[World]:
    """A mixture of experts on a laptop: Qwen3.6-35B-A3B, RTX 3060 (ggml-org/llama.cpp #22673), where acceptance and
    speed are published by prompt, so that what verifying costs follows by task: from 0.88 times the usual (summaries)
    to 1.12 (explaining). Right is to draft 2 for most, and 1 for translating."""
    run = "qwen36-35b-a3b-3060"
    acceptance = acceptance_by_task(run, "qwen36-35b-a3b-mtp")
    return [
        CountedWorld(
            name="moe-laptop",
            about=moe_laptop.__doc__ or "",
            mix=Mix(one_kind_a_task(tuple(acceptance))),
            strategies=(Strategy(), *(Strategy("mtp", cap) for cap in (1, 2, 3, 4))),
            drafting={"mtp": {task: Drafting(curve) for task, curve in acceptance.items()}},
            machine=Machine(plain_step_s(run), step_costs(run, 4), content_costs(run, run)),
        )
    ]


# --- Kinds of drafters ---


def drafters() -> list[World]:
    """Speeds of several drafters by task; the engine tells no counts. Right is the fastest drafter by task."""
    return _as_published("drafters", "speeds", drafters.__doc__)


# --- Load ---


def loads() -> list[World]:
    """Speeds by load, which stays for ten requests on average; the whole batch is decoded like the request. Right is to
    draft while little goes on, and less or not at all when much does."""
    return _as_published("load", "load", loads.__doc__)


def _as_published(prefix: str, kind: str, right: str | None) -> list[World]:
    """A world for each table of a kind in ``published.toml``; ``right`` says what is right to do in them."""
    worlds: list[World] = []
    for name, table in numbers()[kind].items():
        at_a_time, speeds = published_speeds(kind, name)
        worlds.append(
            TimedWorld(
                name=f"{prefix}-{name}",
                about=f"{table['source']}. {right}",
                mix=Mix(one_kind_a_task(tuple(speeds))),
                lanes=published_lanes(kind, name),
                at_a_time=at_a_time,
                tokens_per_s=speeds,
            )
        )
    return worlds


def idle_drafter() -> list[World]:
    """An idle drafter costs up to 18 % under load: an engine without a drafter beside one with DSpark loaded, whose
    plain lane pays for it (vllm-project/vllm #49548; drafting as NVIDIA/TensorRT-LLM #16813). Right is drafting at 1 to
    16 requests at a time, and at 64 the bare engine, never the drafting engine's plain lane."""
    at_a_time, published = published_speeds("load", "trtllm")
    lanes = (
        Lane("bare", "bare", Strategy()),
        Lane("plain", "drafting", Strategy()),
        Lane("dspark-7", "drafting", Strategy("dspark", 7)),
    )
    tax = np.array([1 + max(0.0, idle_tax(load)) for load in at_a_time])
    speeds = {task: np.column_stack([table[:, 0], table[:, 0] / tax, table[:, 3]]) for task, table in published.items()}
    mix = Mix(one_kind_a_task(tuple(speeds)))
    return [TimedWorld("idle-drafter", idle_drafter.__doc__ or "", mix, lanes, at_a_time, speeds)]


def _source(section: str, name: str) -> str:
    return str(numbers()[section][name]["source"])
