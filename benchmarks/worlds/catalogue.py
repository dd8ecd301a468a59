"""All worlds, by name."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
from msgspec.structs import replace

from benchmarks.worlds.counted import CountedWorld, Drafting, Machine
from benchmarks.worlds.embedded import EmbeddedWorld, lookup_acceptance, lookup_coverage
from benchmarks.worlds.published import (
    Floats,
    acceptance_by_position,
    acceptance_by_task,
    content_costs,
    idle_tax,
    numbers,
    plain_step_s,
    shifted,
    step_costs,
    task_shifts,
    with_share,
)
from benchmarks.worlds.requests import Kind, Mix, one_kind_a_task
from benchmarks.worlds.timed import TimedWorld, published_speeds
from benchmarks.worlds.traffic import Ints, World
from paceline.types import Lane, Strategy, Task

TURNED_AT = 300
"""Request from which on a task's acceptance is turned upside down."""
DRIFTS_EVERY = 60
"""Requests."""
CAPS = (1, 2, 3, 4, 6, 8)


@cache
def worlds() -> Mapping[str, World]:
    return {world.name: world for make in (*_CURVES, *_CARDS, *_SPEEDS, *_LOADS, *_NASTY) for world in make()}


# --- Acceptance curves by position ---


def curves() -> list[World]:
    """Acceptance by position as published for coding, other tasks moved by the logits that mtp-bench.py's prompts
    show, verified at an RTX 5090's costs. Right is the length where the curve's next position no longer pays: 2 on the
    steepest, 4 to 6 on the flattest, less for creative writing."""
    told = {
        "dsv4-pro-mtp": "falls steeply: the fourth position accepts a fifth",
        "dsv4-pro-dspark": "flat up to 6, nothing beyond",
        "glm-52-mtp": "nearly geometric",
        "qwen35-397b-mtp": "starts high and falls slowly",
        "kimi-k25-eagle3": "an EAGLE-3 head, uneven",
    }
    found: list[World] = []
    for curve, shape in told.items():
        acceptance = acceptance_by_position(curve)
        kind = numbers()["curves"][curve].get("kind", curve.rsplit("-", 1)[1])
        drafting = {task: Drafting(shifted(acceptance, shift)) for task, shift in task_shifts().items()}
        found.append(
            CountedWorld(
                name=f"curve-{curve}",
                about=f"{numbers()['curves'][curve]['source']}; {shape}. {curves.__doc__}",
                mix=Mix(one_kind_a_task(tuple(task_shifts()))),
                strategies=(Strategy(), *(Strategy(kind, cap) for cap in CAPS)),
                drafting={kind: drafting},
                machine=_card("rtx-5090"),
            )
        )
    return found


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
            machine=_card("rtx-3090"),
        )
    ]


# --- Cards ---


def cards() -> list[World]:
    """Acceptance of mtp-bench.py's prompts on Qwen3.6-35B-A3B (ggml-org/llama.cpp #22673) at what verifying costs on a
    class of card (sudoingX/qwen38-mtp). Right is a length by card and task: 4 on Blackwell, 3 to 6 on RDNA, 2 to 4 on
    Ampere, 1 to 4 on Volta, 1 on an M3 Ultra."""
    found: list[World] = []
    for card in ("rtx-5090", "rx-7900-xtx", "rtx-3090", "v100", "m3-ultra"):
        found.append(
            replace(
                base(), name=f"card-{card}", about=f"{_source('steps', card)}. {cards.__doc__}", machine=_card(card)
            )
        )
    return found


def moe_laptop() -> list[World]:
    """A mixture of experts on a laptop: Qwen3.6-35B-A3B, RTX 3060 (ggml-org/llama.cpp #22673), where both acceptance and
    speed are published by prompt, so that what verifying costs follows by task: from 0.88 times the usual (summaries) to
    1.12 (explaining). Right is to draft 2 for most, and hardly at all for translating and stories."""
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
    found: list[World] = []
    for name, table in numbers()["speeds"].items():
        loads, speeds = published_speeds("speeds", name)
        found.append(
            TimedWorld(
                name=f"drafters-{name}",
                about=f"{table['source']}. {drafters.__doc__}",
                mix=Mix(one_kind_a_task(tuple(speeds))),
                lanes=_published_lanes("speeds", name),
                at_a_time=loads,
                tokens_per_s=speeds,
            )
        )
    return found


def slow_plain() -> list[World]:
    """The Spec-Bench table with a plain lane at a third of its speed, as an engine without its fast kernels has.
    Right is never plain; each try of it costs as much as three to eight good answers."""
    loads, speeds = published_speeds("speeds", "spec-bench")
    slower = {task: table * np.array([1 / 3, 1.0, 1.0, 1.0]) for task, table in speeds.items()}
    lanes = _published_lanes("speeds", "spec-bench")
    mix = Mix(one_kind_a_task(tuple(speeds)))
    return [TimedWorld("slow-plain", slow_plain.__doc__ or "", mix, lanes, loads, slower)]


# --- Load ---


def loads() -> list[World]:
    """Speeds by load, which stays for ten requests on average; the whole batch is decoded like the request. Right is to
    draft while little goes on, and less or not at all when much does."""
    found: list[World] = []
    for name, table in numbers()["load"].items():
        at_a_time, speeds = published_speeds("load", name)
        found.append(
            TimedWorld(
                name=f"load-{name}",
                about=f"{table['source']}. {loads.__doc__}",
                mix=Mix(one_kind_a_task(tuple(speeds))),
                lanes=_published_lanes("load", name),
                at_a_time=at_a_time,
                tokens_per_s=speeds,
            )
        )
    return found


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


# --- Nasty ones, each the base world with one thing changed ---


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
        machine=_card("rtx-3090"),
    )


def never_pays() -> list[World]:
    """Drafting never pays: Qwen3.6-27B Q8_0 on an R9700, 20.1 tokens/s plain, 18.9 and 17.6 with 2 and 3 drafted,
    although .82 and .71 are accepted (ggml-org/llama.cpp #22673). Right is plain for every task; a few very
    predictable requests would gain a little."""
    drafting = {
        task: Drafting(shifted(acceptance_by_position("r9700-mtp"), shift)) for task, shift in task_shifts().items()
    }
    return [
        replace(
            base(),
            name="never-pays",
            about=never_pays.__doc__ or "",
            strategies=(Strategy(), *(Strategy("mtp", cap) for cap in (1, 2, 3))),
            mix=Mix(one_kind_a_task(tuple(drafting))),
            drafting={"mtp": drafting},
            machine=_card("r9700"),
        )
    ]


def cost_by_content() -> list[World]:
    """Verifying costs by content, as in mixtures of experts where other experts are needed for each token: by task the
    factors that follow from ggml-org/llama.cpp #22673, their logarithms doubled, and the jump of GLM-4.5-Air
    (ikawrakow/ik_llama.cpp #1630), which makes short drafts useless. Right is 6 or plain, by task."""
    run = "qwen36-35b-a3b-3060"
    factors = {task: factor**2 for task, factor in content_costs(run, run).items()}
    machine = replace(_card("glm-45-air"), content=factors)
    mild = replace(_card("rtx-3090"), content=factors)
    about = cost_by_content.__doc__ or ""
    milder = "The base world with the factors of cost-by-content, without its jump. Right is a length by task."
    return [
        replace(base(), name="cost-by-content", about=about, machine=machine),
        replace(base(), name="cost-by-content-ampere", about=milder, machine=mild),
    ]


def two_applications() -> list[World]:
    """Two programs under the same labels, in conversations of five turns: what one writes is as predictable as code
    gets (.94 of one token: ggml-org/llama.cpp #23274), of what the other writes a third of three is accepted (#24508). Right is a
    length by program, whatever the task."""
    shape = acceptance_by_position("qwen35-397b-mtp")
    kinds, drafting = [], {}
    for application, share in (("predictable", 0.94), ("unpredictable", 0.34)):
        for task, weight in (("code", 1.0), ("math", 1.0), ("create", 0.5), ("answer", 0.25)):
            name = f"{application}/{task}"
            kinds.append(Kind(name, Task(task), weight, application))
            drafting[name] = Drafting(with_share(shape, 1 if share > 0.9 else 3, share))
    return [
        replace(
            base(),
            name="two-applications",
            about=two_applications.__doc__ or "",
            mix=Mix(tuple(kinds), in_conversations=True),
            drafting={"mtp": drafting},
        )
    ]


def drift() -> list[World]:
    """Every 60 requests one task, at random, takes on another's acceptance. Right is to follow."""

    def drifting(requests: int, rng: np.random.Generator) -> Ints:
        kinds = len(base().mix.kinds)
        behaviours = np.tile(np.arange(kinds), (requests, 1))
        for since in range(DRIFTS_EVERY, requests, DRIFTS_EVERY):
            behaviours[since:, rng.integers(kinds)] = rng.integers(kinds)
        return behaviours

    return [replace(base(), name="drift", about=drift.__doc__ or "", behaves_as=drifting)]


def upside_down() -> list[World]:
    """From request 300 on one task's acceptance is turned upside down: math falls to what stories have, or stories rise
    to what math has. Right is that task's other length, within 30 of its requests."""
    kinds = [kind.name for kind in base().mix.kinds]
    found: list[World] = []
    for name, changed, source in (("falls", "math", "create"), ("rises", "create", "math")):
        found.append(
            replace(
                base(),
                name=name,
                about=upside_down.__doc__ or "",
                behaves_as=_turned(len(kinds), kinds.index(changed), kinds.index(source)),
                changes=(changed, TURNED_AT),
            )
        )
    for name, share in (("falls-to-nothing", 0.04), ("rises-from-nothing", 0.81)):
        changed = "math"
        curve = with_share(acceptance_by_position("qwen35-397b-mtp"), 4, share)
        other = with_share(acceptance_by_position("qwen35-397b-mtp"), 4, 0.04 if share > 0.5 else 0.81)
        drafting = {**base().drafting["mtp"], changed: Drafting(other), "changed": Drafting(curve)}
        mix = Mix((*base().mix.kinds, Kind("changed", Task.MATH, 0.0)))
        about = (
            "The base world where from request 300 on math is hardly ever accepted any more (.04: colibri #8), or was "
            "not before and then is (.81: ggml-org/llama.cpp #22673). Right is plain or 4; plain shows no drafts."
        )
        found.append(
            replace(
                base(),
                name=name,
                about=about,
                mix=mix,
                drafting={"mtp": drafting},
                behaves_as=_turned(len(kinds) + 1, kinds.index(changed), len(kinds)),
                changes=(changed, TURNED_AT),
            )
        )
    return found


def throttling() -> list[World]:
    """From request 300 on everything takes 1.6 times as long; from 600 to 900 verifying costs 0.75 plain steps more,
    too; then all is as at first. Right is the usual length while only the clock falls, and a shorter one from 600 to
    900. (A laptop's throttling; the extra is what separates an RTX 3090 from a V100 at 4 in published.toml.)"""

    def slower(requests: int, rng: np.random.Generator) -> Floats:
        number = np.arange(requests)
        return np.where((number >= 300) & (number < 900), 1.6, 1.0)

    def dearer(requests: int, rng: np.random.Generator) -> Floats:
        number = np.arange(requests)
        return np.where((number >= 600) & (number < 900), 0.75, 0.0)

    machine = replace(base().machine, slowdown=slower, extra_step_cost=dearer)
    return [replace(base(), name="throttling", about=throttling.__doc__ or "", machine=machine)]


def no_counts() -> list[World]:
    """The base world, whose engine tells times only. Right is what is right there."""
    return [replace(base(), name="no-counts", about=no_counts.__doc__ or "", tells_counts=False)]


def twelve_lanes() -> list[World]:
    """Twelve lanes, cold: MTP at six lengths beside lookup at five, whose acceptance and coverage by prompt are the
    embedded engine's (embedded.json). Right is mostly MTP 3, and a long lookup for what copies."""
    lookups = (2, 4, 8, 12, 16)
    tasks = tuple(base().drafting["mtp"])
    lookup = {task: Drafting(lookup_acceptance(max(lookups)), lookup_coverage(task)) for task in tasks}
    world = replace(
        base(),
        name="twelve-lanes",
        about=twelve_lanes.__doc__ or "",
        strategies=(
            Strategy(),
            *(Strategy("mtp", cap) for cap in CAPS),
            *(Strategy("ngram", cap) for cap in lookups),
        ),
        drafting={**base().drafting, "ngram": lookup},
        machine=replace(base().machine, costs=step_costs("rtx-3090", max(lookups))),
    )
    about = f"{world.about} Here the engine tells times only."
    return [world, replace(world, name="twelve-lanes-no-counts", about=about, tells_counts=False)]


def heavy_tails() -> list[World]:
    """The base world with answers of 20 tokens times a Pareto variable of exponent 0.9, 4 to 6,000: a handful of
    answers is most of the time. Right is what is right in the base world; for the shortest nothing can be learned."""
    mix = replace(base().mix, heavy_tailed=True)
    return [replace(base(), name="heavy-tails", about=heavy_tails.__doc__ or "", mix=mix)]


def one_task() -> list[World]:
    """The base world where 99 of 100 requests are stories. Right is one length for nearly all: who explores for ever
    loses to a static lane."""
    others = len(base().mix.kinds) - 1
    kinds = tuple(
        replace(kind, weight=0.99 if kind.task is Task.CREATE else 0.01 / others) for kind in base().mix.kinds
    )
    return [replace(base(), name="one-task", about=one_task.__doc__ or "", mix=replace(base().mix, kinds=kinds))]


def wrong_labels() -> list[World]:
    """The base world where 40 of 100 requests are told to be another task. Right is a length between the tasks'."""
    mix = replace(base().mix, mistold=0.4)
    return [replace(base(), name="wrong-labels", about=wrong_labels.__doc__ or "", mix=mix)]


def never_accepts() -> list[World]:
    """A drafter whose drafts are hardly ever accepted, 4 %, as an int4 head's (colibri #8), beside a working lookup.
    Right is lookup where it copies and plain elsewhere, and to leave the head alone after very few tries."""
    dead = Drafting(with_share(acceptance_by_position("qwen35-397b-mtp"), 4, numbers()["faults"]["accepted"]))
    tasks = tuple(base().drafting["mtp"])
    lookup = {task: Drafting(lookup_acceptance(8), lookup_coverage(task)) for task in tasks}
    return [
        replace(
            base(),
            name="never-accepts",
            about=never_accepts.__doc__ or "",
            strategies=(
                Strategy(),
                *(Strategy("mtp", cap) for cap in (1, 2, 4)),
                *(Strategy("ngram", cap) for cap in (4, 8)),
            ),
            drafting={"mtp": dict.fromkeys(tasks, dead), "ngram": lookup},
            machine=replace(_card("rtx-3090"), costs=step_costs("rtx-3090", 8)),
        )
    ]


def _turned(kinds: int, changed: int, source: int) -> Callable[[int, np.random.Generator], Ints]:
    def behaviours(requests: int, rng: np.random.Generator) -> Ints:
        table = np.tile(np.arange(kinds), (requests, 1))
        table[TURNED_AT:, changed] = source
        return table

    return behaviours


def _card(name: str) -> Machine:
    return Machine(plain_step_s(name), step_costs(name, max(CAPS)))


def _published_lanes(section: str, name: str) -> tuple[Lane, ...]:
    return tuple(
        Lane(lane, "engine", Strategy(*strategy)) for lane, strategy in numbers()[section][name]["lanes"].items()
    )


def _source(section: str, name: str) -> str:
    return str(numbers()[section][name]["source"])


_CURVES: tuple[Callable[[], list[World]], ...] = (curves, thinking)
_CARDS: tuple[Callable[[], list[World]], ...] = (cards, moe_laptop, lambda: [EmbeddedWorld()])
_SPEEDS: tuple[Callable[[], list[World]], ...] = (drafters, slow_plain)
_LOADS: tuple[Callable[[], list[World]], ...] = (loads, idle_drafter)
_NASTY: tuple[Callable[[], list[World]], ...] = (
    lambda: [base()],
    never_pays,
    cost_by_content,
    two_applications,
    drift,
    upside_down,
    throttling,
    no_counts,
    twelve_lanes,
    heavy_tails,
    one_task,
    wrong_labels,
    never_accepts,
)
