"""Playing what decides how far is drafted over recorded answers."""

import numpy as np
import pytest
from benchmarks.control.offline import (
    COSTS,
    controlled,
    counts_of,
    learned,
    match_length,
    prompt_gate,
    static,
    ways,
)
from benchmarks.control.turns import LONGEST, MATCHES, Answer, Place
from benchmarks.lookups.play import drafts

from paceline.inside.draft_control import LOOKUP, Drafter

CHEAP = COSTS["GPU, 1 stream"]


def answer(context: list[int], tokens: list[int], repeats: float = 1.0, conversation: str = "c") -> Answer:
    by_match = {match: drafts(context, tokens, match, LONGEST) for match in MATCHES}
    places = []
    for at in range(len(tokens)):
        found = [(match, by_match[match][at]) for match in MATCHES if by_match[match][at].drafted]
        match, draft = found[-1] if found else (0, by_match[2][at])
        places.append(Place(match, draft.drafted, draft.right))
    return Answer("s", conversation, places, by_match, repeats)


COPY = answer([*range(40)], [*range(5, 35)])
NEW = answer([*range(40)], [*range(100, 130)])


def test_a_static_length_costs_what_its_steps_cost() -> None:
    # Four tokens until the lookup finds the place, then one step of 16 and one of 9, which end with one more token.
    assert static(COPY, 4, 16, CHEAP) == pytest.approx(4 + CHEAP[15] + CHEAP[15])
    assert static(COPY, 4, 0, CHEAP) == 30
    assert static(NEW, 4, 16, CHEAP) == 30


def test_the_gate_looks_at_the_prompt_and_then_at_what_is_accepted() -> None:
    assert prompt_gate(COPY, CHEAP) < 15
    assert prompt_gate(answer([*range(40)], [*range(5, 35)], repeats=0.001), CHEAP) == 30


def test_a_draft_is_as_long_as_its_match() -> None:
    assert match_length(NEW, CHEAP) == 30
    assert static(COPY, 4, 16, CHEAP) < match_length(COPY, CHEAP) < 15


def test_control_drafts_where_it_pays() -> None:
    drafter = Drafter(CHEAP, by_match=LOOKUP, is_watched=True)
    assert controlled(NEW, drafter) == 30
    assert controlled(COPY, drafter) < 10
    dear = Drafter(tuple(20.0 + n for n in range(LONGEST)), by_match=LOOKUP, is_watched=True)
    assert controlled(COPY, dear) == 30


def test_an_answer_counts_once_for_each_length_of_a_match() -> None:
    counts = counts_of(COPY)
    assert counts[:, 0, 0].max() == 1
    assert np.all(counts[:, :, 1] <= counts[:, :, 0])
    assert not counts_of(NEW).any()


def test_what_was_counted_moves_what_is_usual() -> None:
    nothing = np.zeros((len(MATCHES), LONGEST, 2))
    usual = learned(nothing, nothing, CHEAP)
    assert usual.by_match[2][:3] == pytest.approx((0.3, 0.45, 0.45))
    accepted = np.ones((len(MATCHES), LONGEST, 2)) * 1000
    assert min(learned(accepted, accepted, CHEAP).by_match[2]) > 0.95
    assert usual.by_match[2][0] < learned(accepted, nothing, CHEAP).by_match[2][0] < 0.95


def test_every_way_is_measured_against_the_oracle() -> None:
    every = [
        answer([*range(40)], [*range(5, 35)], conversation="a"),
        answer([*range(40)], [*range(100, 130)], conversation="b"),
    ]
    found = {way.name: sum(way.costs) for way in ways(every, every, CHEAP)}
    oracle = found["best longest draft by answer"]
    assert oracle == min(cost for name, cost in found.items() if name.startswith("best longest"))
    assert found["control with a prior"] < 45
