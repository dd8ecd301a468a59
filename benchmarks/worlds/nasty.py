"""Nasty worlds: the base world with one thing changed, or another one turned against a policy."""

from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from benchmarks.worlds.base import CAPS, base, card
from benchmarks.worlds.counted import CountedWorld, Drafting, Machine
from benchmarks.worlds.embedded import lookup_acceptance, lookup_coverage
from benchmarks.worlds.published import (
    Floats,
    acceptance_by_position,
    content_costs,
    numbers,
    plain_step_s,
    shifted,
    step_costs,
    task_shifts,
    with_share,
)
from benchmarks.worlds.requests import Kind, Mix, one_kind_a_task
from benchmarks.worlds.timed import TimedWorld, published_lanes, published_speeds
from benchmarks.worlds.traffic import Ints, World
from paceline.types import ALL, Strategy, Task

TURNED_AT = 300
"""Request from which on a task's acceptance is turned upside down."""
DRIFTS_EVERY = 60
"""Requests."""


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
            machine=card("r9700"),
        )
    ]


def cost_by_content() -> list[World]:
    """Verifying costs by content, as in mixtures of experts where other experts are needed for each token: by task the
    factors that follow from ggml-org/llama.cpp #22673, their logarithms doubled, and the jump of GLM-4.5-Air
    (ikawrakow/ik_llama.cpp #1630), which makes short drafts useless. Right is 6 or plain, by task."""
    run = "qwen36-35b-a3b-3060"
    factors = {task: factor**2 for task, factor in content_costs(run, run).items()}
    machine = replace(card("glm-45-air"), content=factors)
    mild = replace(card("rtx-3090"), content=factors)
    about = cost_by_content.__doc__ or ""
    milder = "The base world with the factors of cost-by-content, without its jump. Right is a length by task."
    return [
        replace(base(), name="cost-by-content", about=about, machine=machine),
        replace(base(), name="cost-by-content-ampere", about=milder, machine=mild),
    ]


def two_applications() -> list[World]:
    """Two programs under the same labels, in conversations of five turns: what one writes is as predictable as code
    gets (.94 of one token is accepted: ggml-org/llama.cpp #23274), of what the other writes a third of three tokens
    (#24508). Right is a length by program, whatever the task; the told tasks alone reach 0.94."""
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


def agents() -> list[World]:
    """Three agents whose every turn is told to be a tool call, in conversations of five turns; what they write is as
    predictable as math, explaining and stories are (ggml-org/llama.cpp #22673). Right is a length by program; the task
    tells nothing."""
    by_task = base().drafting["mtp"]
    alike = {"coding agent": "math", "support agent": "answer", "writing agent": "create"}
    return [
        replace(
            base(),
            name="agents",
            about=agents.__doc__ or "",
            mix=Mix(tuple(Kind(name, Task.TOOL_CALL, application=name) for name in alike), in_conversations=True),
            drafting={"mtp": {name: by_task[task] for name, task in alike.items()}},
        )
    ]


def repeats_but_is_not_copied() -> list[World]:
    """Prompts full of text to copy whose answers copy nothing: edits, extracts and summaries by what they look like, of
    which lookup covers what it does of stories (measured.json), as two captures looked alike to a prompt gate and were
    not (ddalcu/mlx-serve #98). Right is plain, or the shortest lookup."""
    tasks = ("edit", "extract", "summarise")
    lookup = {task: Drafting(lookup_acceptance(12), lookup_coverage("create")) for task in tasks}
    return [
        replace(
            base(),
            name="repeats-but-is-not-copied",
            about=repeats_but_is_not_copied.__doc__ or "",
            mix=Mix(one_kind_a_task(tasks)),
            strategies=(Strategy(), *(Strategy("ngram", cap) for cap in (4, 8, 12))),
            drafting={"ngram": lookup},
            machine=Machine(plain_step_s("v100"), step_costs("v100", 12)),
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
    worlds: list[World] = []
    for name, changed, source in (("falls", "math", "create"), ("rises", "create", "math")):
        worlds.append(
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
        worlds.append(
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
    return worlds


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
    embedded engine's (measured.json). Right is mostly MTP 3, and a long lookup for what copies."""
    world = replace(_many_drafters(), name="twelve-lanes", about=twelve_lanes.__doc__ or "")
    about = f"{world.about} Here the engine tells times only."
    return [world, replace(world, name="twelve-lanes-no-counts", about=about, tells_counts=False)]


def _many_drafters() -> CountedWorld:
    """A head beside a lookup, each at many lengths."""
    lookups = (2, 4, 8, 12, 16)
    tasks = tuple(base().drafting["mtp"])
    lookup = {task: Drafting(lookup_acceptance(max(lookups)), lookup_coverage(task)) for task in tasks}
    return replace(
        base(),
        strategies=(
            Strategy(),
            *(Strategy("mtp", cap) for cap in CAPS),
            *(Strategy("ngram", cap) for cap in lookups),
        ),
        drafting={**base().drafting, "ngram": lookup},
        machine=replace(base().machine, costs=step_costs("rtx-3090", max(lookups))),
    )


def controlled() -> list[World]:
    """The drafters of twelve-lanes in an engine that decides at each step whether to draft, by which and how far, from
    the mean of what they do for all requests. Right is all of them together, or the head alone: a control that may use
    a lookup tries it, too, where it brings nothing."""
    head, lookup = Strategy("mtp", 6), Strategy("ngram", 16)
    each = (Strategy("mtp", among=(head,)), Strategy("ngram", among=(lookup,)))
    together = Strategy(ALL, among=(head, lookup))
    about = controlled.__doc__ or ""
    return [replace(_many_drafters(), name="controlled", about=about, strategies=(Strategy(), *each, together))]


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
    Right is a short lookup, and to leave the head alone after very few tries."""
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
            machine=replace(card("rtx-3090"), costs=step_costs("rtx-3090", 8)),
        )
    ]


def slow_plain() -> list[World]:
    """The Spec-Bench table with a plain lane at a third of its speed, as an engine without its fast kernels has.
    Right is never plain; each try of it costs as much as three to eight good answers."""
    loads, speeds = published_speeds("speeds", "spec-bench")
    slower = {task: table * np.array([1 / 3, 1.0, 1.0, 1.0]) for task, table in speeds.items()}
    lanes = published_lanes("speeds", "spec-bench")
    mix = Mix(one_kind_a_task(tuple(speeds)))
    return [TimedWorld("slow-plain", slow_plain.__doc__ or "", mix, lanes, loads, slower)]


def _turned(kinds: int, changed: int, source: int) -> Callable[[int, np.random.Generator], Ints]:
    def behaviours(requests: int, rng: np.random.Generator) -> Ints:
        table = np.tile(np.arange(kinds), (requests, 1))
        table[TURNED_AT:, changed] = source
        return table

    return behaviours
