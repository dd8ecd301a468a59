"""The decision as a policy, in worlds made of published measurements: good where it is easy to tell."""

from functools import partial

import pytest
from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.policies import paceline
from benchmarks.worlds.run import hindsight, run

pytestmark = pytest.mark.slow

SEED = 1000


@pytest.mark.parametrize("name", ["card-m3-ultra", "two-applications", "load-mi355x"])
def test_it_is_no_worse_than_the_best_static_lane(name: str) -> None:
    traffic = worlds()[name].traffic(400, SEED)
    seconds = run(traffic, paceline, SEED)
    static = min(taken[100:].sum() for label, taken in hindsight(traffic).items() if label.startswith("always "))
    assert seconds[100:].sum() <= 1.005 * static


def test_exploring_pays_where_a_drafter_is_misjudged() -> None:
    traffic = worlds()["drafters-xinfer"].traffic(400, SEED)
    exploring = run(traffic, paceline, SEED)[100:].sum()
    never = run(traffic, partial(paceline, exploration=0), SEED)[100:].sum()
    assert exploring < 0.99 * never


def test_a_task_that_changes_is_followed() -> None:
    traffic = worlds()["falls"].traffic(600, SEED)
    seconds, changed = run(traffic, paceline, SEED), [n for n in range(300, 600) if traffic.kinds[n] == "math"]
    assert traffic.expected_s[changed].min(axis=1).sum() / seconds[changed].sum() > 0.95


def test_drafting_that_never_pays_is_left_off() -> None:
    traffic = worlds()["never-pays"].traffic(400, SEED)
    plain = hindsight(traffic)["always plain"][100:].sum()
    assert run(traffic, paceline, SEED)[100:].sum() <= 1.01 * plain


def test_where_the_engine_controls_its_drafts_routing_is_no_worse_than_where_it_does_not() -> None:
    controlled, capped = (worlds()[name].traffic(400, SEED) for name in ("controlled", "twelve-lanes"))
    assert (controlled.expected_s[:, 0] == capped.expected_s[:, 0]).all()  # the same requests
    with_it, without = (run(traffic, paceline, SEED) for traffic in (controlled, capped))
    assert with_it.sum() <= without.sum()
    assert with_it[:50].sum() <= 0.985 * without[:50].sum()  # there are fewer lanes to try
