"""All worlds, by name."""

from collections.abc import Callable, Mapping
from functools import cache

from benchmarks.worlds import measured, nasty
from benchmarks.worlds.base import base
from benchmarks.worlds.embedded import EmbeddedWorld
from benchmarks.worlds.traffic import World

_MAKERS: tuple[Callable[[], list[World]], ...] = (
    measured.curves,
    measured.thinking,
    measured.cards,
    measured.moe_laptop,
    lambda: [EmbeddedWorld()],
    measured.drafters,
    measured.loads,
    measured.idle_drafter,
    lambda: [base()],
    nasty.never_pays,
    nasty.cost_by_content,
    nasty.two_applications,
    nasty.agents,
    nasty.repeats_but_is_not_copied,
    nasty.drift,
    nasty.upside_down,
    nasty.throttling,
    nasty.no_counts,
    nasty.twelve_lanes,
    nasty.controlled,
    nasty.heavy_tails,
    nasty.one_task,
    nasty.wrong_labels,
    nasty.never_accepts,
    nasty.slow_plain,
)


@cache
def worlds() -> Mapping[str, World]:
    return {world.name: world for make in _MAKERS for world in make()}
