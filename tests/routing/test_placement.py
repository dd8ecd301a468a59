"""Where requests may go, and where it is worth it."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from paceline.routing.placement import MAX_LATE, NoPlace, Timed, Wanted, rank, scored, strike
from paceline.settings import Mode, PlacementSettings
from paceline.types import Offer, Price, Task, Terms

LOCAL = Offer("gpu", quality=0.6, context_tokens=8_000)
CLOUD = Offer("cloud", is_cloud=True, leaves_machine=True, quality=0.9, price=Price(1.0, 10.0, 0.1, 1.0))
LAN = Offer("lan", leaves_machine=True)
WANTED = Wanted(task=Task.CODE, prompt_tokens=1_000, answer_tokens=100)


def left(offers: Sequence[Offer], **wanted: Any) -> list[str]:
    return [offer.engine for offer in strike(offers, replace(WANTED, **wanted))[0]]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, ["gpu", "lan", "cloud"]),
        ({"private": "why"}, ["gpu"]),
        ({"private": "why", "is_forced": True}, ["gpu"]),
        ({"engines": {"gpu", "cloud"}}, ["gpu", "cloud"]),
        ({"prompt_tokens": 9_000}, ["lan", "cloud"]),
        ({"signer": "cloud"}, ["cloud"]),
        ({"signer": "cloud", "private": "why"}, ["gpu"]),
    ],
)
def test_filters_leave_what_may_serve(wanted: dict[str, Any], expected: list[str]) -> None:
    assert left([LOCAL, LAN, CLOUD], **wanted) == expected


def test_what_an_engine_can_not_do_strikes_it() -> None:
    blind = replace(LOCAL, can=frozenset(("tools",)))
    assert left([blind, CLOUD], needs=frozenset(("tools",))) == ["gpu", "cloud"]
    assert left([blind, CLOUD], needs=frozenset(("images", "tools"))) == ["cloud"]
    with pytest.raises(NoPlace, match="gpu: can't do images") as error:
        left([blind], needs=frozenset(("images",)))
    assert error.value.filter_name == "needs"


def test_a_cloud_engine_that_nobody_declared_stands_in_for_none() -> None:
    undeclared = replace(CLOUD, is_declared=False)
    assert left([LOCAL, undeclared]) == ["gpu"]
    assert left([LOCAL, undeclared], is_forced=True) == ["gpu", "cloud"]


def test_a_private_request_has_no_place_where_all_engines_are_elsewhere() -> None:
    with pytest.raises(NoPlace, match=r"cloud: the request is private \(key legal\)") as error:
        left([CLOUD, LAN], private="key legal")
    assert error.value.filter_name == "private"


def test_an_estimate_of_the_context_strikes_nobody_alone() -> None:
    assert left([LOCAL], prompt_tokens=9_000) == ["gpu"]


def test_what_can_not_be_paid_is_struck_with_its_reason() -> None:
    offers, struck = strike([LOCAL, CLOUD], WANTED, lambda offer: "too dear" if offer.is_cloud else "")
    assert ([offer.engine for offer in offers], struck) == (["gpu"], {"cloud": "too dear"})
    with pytest.raises(NoPlace) as error:
        strike([CLOUD], WANTED, lambda _: "too dear")
    assert error.value.filter_name == "cost"


def terms(mode: Mode, local_s: float = 10.0, cloud_s: float = 2.0, **wanted: Any) -> dict[str, Terms]:
    times = {"gpu": Timed(local_s, 0.0, 0.2), "cloud": Timed(cloud_s, 0.0, 0.2)}
    settings = PlacementSettings(mode=mode, value_of_time_per_hour=36.0, cost_of_poor_answer=0.1)
    return scored([LOCAL, CLOUD], times, {"gpu": 0.0, "cloud": 0.05}, replace(WANTED, **wanted), settings)


def test_the_formula_by_hand() -> None:
    found = terms("balanced")
    assert found["gpu"].total == pytest.approx(10 * 0.01 + 0.0 + 0.4 * 0.1)
    assert found["cloud"].total == pytest.approx(2 * 0.01 + 0.05 + 0.1 * 0.1)
    assert found["gpu"].poor == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("mode", "local_s", "best"),
    [
        ("local-first", 1_000.0, "gpu"),
        ("fastest", 10.0, "cloud"),
        ("fastest", 1.9, "gpu"),
        ("cheapest", 1_000.0, "gpu"),
        ("best", 0.1, "cloud"),
        ("balanced", 10.0, "cloud"),
        ("balanced", 1.0, "gpu"),
    ],
)
def test_modes_are_weights_of_it(mode: Mode, local_s: float, best: str) -> None:
    found = terms(mode, local_s)
    assert min(found, key=lambda name: rank(found[name])) == best


def test_who_would_be_late_comes_last_in_each_mode() -> None:
    modes: tuple[Mode, ...] = ("local-first", "fastest", "cheapest", "best", "balanced")
    for mode in modes:
        found = terms(mode, local_s=30.0, cloud_s=2.0, deadline_s=10.0)
        assert found["gpu"].late is not None and found["gpu"].late > MAX_LATE
        assert min(found, key=lambda name: rank(found[name])) == "cloud"
        both = terms(mode, local_s=30.0, cloud_s=90.0, deadline_s=10.0)
        assert min(both, key=lambda name: rank(both[name])) == "gpu"  # the less late one


def test_waiting_is_certain_and_the_answer_is_not() -> None:
    settings = PlacementSettings()
    wanted = replace(WANTED, deadline_s=10.0)

    def late(timed: Timed) -> float:
        found = scored([LOCAL], {"gpu": timed}, {"gpu": 0.0}, wanted, settings)["gpu"].late
        assert found is not None
        return found

    assert late(Timed(12.0, 11.0)) == 1.0
    assert late(Timed(10.0, 5.0)) == pytest.approx(0.5)
    assert late(Timed(10.0, 8.0)) == pytest.approx(0.5)
    assert late(Timed(6.0, 5.0)) < 0.01 < late(Timed(6.0, 0.0))


def test_an_unknown_quality_is_no_lack_of_it() -> None:
    unknown = replace(LOCAL, quality=None)
    times, costs = {"gpu": Timed(1.0), "cloud": Timed(1.0)}, {"gpu": 0.0, "cloud": 0.0}
    found = scored([unknown, CLOUD], times, costs, WANTED, PlacementSettings())
    assert found["gpu"].poor == found["cloud"].poor


def test_quality_beyond_what_a_task_needs_is_worth_nothing() -> None:
    settings = PlacementSettings(mode="balanced", quality_needed_by_task={Task.CODE: 0.5})
    times, costs = {"gpu": Timed(1.0), "cloud": Timed(1.0)}, {"gpu": 0.0, "cloud": 0.01}
    found = scored([LOCAL, CLOUD], times, costs, WANTED, settings)
    assert found["gpu"].poor == found["cloud"].poor == 0.0
