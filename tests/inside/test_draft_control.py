"""Draft control as a rule: what it may lose, what it reaches, and how soon it notices a change."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from paceline.inside.draft_control import (
    DEFAULT_WEIGHT,
    FIRST_LOSSES,
    LOSS_SHARE,
    PLAIN,
    Choice,
    DraftControl,
    Drafter,
    Offer,
    drafters_of,
)

COSTS = (1.25, 1.4, 1.6, 1.8, 2.1, 2.4, 2.8, 3.2)

Accepts = Callable[[int, int], bool]
"""At which token of the answer, and which position of the draft -> whether it is accepted."""


def decode(control: DraftControl, drafters: dict[str, Drafter], tokens: int, accepts: Accepts) -> float:
    """Plain steps that an answer takes; all drafters can always draft."""
    offers = {name: Offer(len(drafter.costs), 4) for name, drafter in drafters.items()}
    done, cost = 0, 0.0
    while done < tokens:
        choice = control.choose(offers)
        if choice.drafter is None:
            control.decoded()
            done, cost = done + 1, cost + 1
            continue
        accepted = 0
        while accepted < choice.length and accepts(done + accepted, accepted + 1):
            accepted += 1
        control.verified(choice.drafter, choice.length, accepted, 4)
        done, cost = done + accepted + 1, cost + drafters[choice.drafter].costs[choice.length - 1]
    return cost


def static_cost(costs: tuple[float, ...], length: int, tokens: int, acceptance: float) -> float:
    """Plain steps that an answer takes with drafts of one length, on average."""
    expected = sum(acceptance**position for position in range(length + 1))
    return tokens / expected * (costs[length - 1] if length else 1)


def by_chance(acceptance: float, seed: int) -> Accepts:
    random = Random(seed)
    return lambda _, __: random.random() < acceptance


probabilities = some.lists(some.floats(0, 1), min_size=1, max_size=6)
costs_of_drafts = some.lists(some.floats(0.5, 6), min_size=1, max_size=6)


@some.composite
def drafters(draw: Any) -> Drafter:
    by_match = draw(some.dictionaries(some.integers(1, 12), probabilities, max_size=3))
    acceptance = draw(probabilities if not by_match else some.one_of(some.just([]), probabilities))
    return Drafter(draw(costs_of_drafts), acceptance, by_match, draw(some.floats(0, 100)), draw(some.booleans()))


@given(some.dictionaries(some.sampled_from("abc"), drafters(), min_size=1), some.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_whatever_happens_a_draft_is_one_that_may_be(given_drafters: dict[str, Drafter], random: Random) -> None:
    n_max = random.choice([None, 0, 1, 3])
    control = DraftControl(given_drafters, n_max)
    for _ in range(60):
        offers = {name: Offer(random.randint(0, 8), random.randint(0, 16)) for name in "abcd" if random.random() < 0.7}
        choice = control.choose(offers)
        assert control.rate >= 1
        if choice == PLAIN:
            control.decoded(random.randint(1, 3))
            continue
        assert choice.drafter in given_drafters
        drafter, offer = given_drafters[choice.drafter], offers[choice.drafter]
        limit = min(len(drafter.costs), offer.tokens, len(drafter.costs) if n_max is None else n_max)
        assert 1 <= choice.length <= choice.longest <= limit
        assert all(0 <= control.acceptance(choice.drafter, position, offer.match) <= 1 for position in (1, 2, 9))
        control.verified(choice.drafter, choice.length, random.randint(0, choice.length), offer.match)
        for name in offers.keys() & given_drafters.keys() - {choice.drafter}:
            control.watched(name, 2, random.randint(0, 2), offers[name].match)


@given(some.dictionaries(some.sampled_from("ab"), drafters(), min_size=1))
@settings(max_examples=40, deadline=None)
def test_text_that_never_accepts_has_a_bounded_price(given_drafters: dict[str, Drafter]) -> None:
    cost = decode(DraftControl(given_drafters), given_drafters, 600, lambda _, __: False)
    first = sum(max(0.0, max(drafter.costs) - 1) for drafter in given_drafters.values())
    assert cost - 600 <= FIRST_LOSSES * first + LOSS_SHARE * cost + 1e-6


@pytest.mark.parametrize("acceptance", [0.15, 0.5, 0.7, 0.85, 0.95])
@pytest.mark.parametrize("believed", ["rightly", "not at all", "wrongly"])
def test_it_reaches_the_best_static_length(acceptance: float, believed: str) -> None:
    """Also from a prior that is wrong, or weighs nothing; of text that is the same throughout."""
    prior = acceptance if believed == "rightly" else 0.85 if acceptance < 0.6 else 0.4
    weight = {"rightly": 24.0, "not at all": 1.0, "wrongly": DEFAULT_WEIGHT}[believed]
    drafter = {"mtp": Drafter(COSTS, (prior,), weight=weight)}
    tokens, answers = 1500, 6
    best = min(static_cost(COSTS, length, tokens, acceptance) for length in range(len(COSTS) + 1))
    costs = [decode(DraftControl(drafter), drafter, tokens, by_chance(acceptance, seed)) for seed in range(answers)]
    assert best / (sum(costs) / answers) > (0.98 if believed == "rightly" else 0.92)


def test_it_notices_that_text_has_changed() -> None:
    """From all to nothing at once, and from nothing to all within some hundred tokens."""
    drafter = {"mtp": Drafter(COSTS, (0.7,))}
    control = DraftControl(drafter)
    assert decode(control, drafter, 400, lambda _, __: True) < 400 / 2.4
    assert decode(control, drafter, 400, lambda _, __: False) < 400 * 1.06
    assert decode(control, drafter, 800, lambda _, __: True) < 800 / 1.9


def test_the_better_of_two_drafters_takes_over_within_an_answer() -> None:
    """A lookup that is right from the middle of the answer on, seen while another one drafts."""
    both = {
        "mtp": Drafter((1.25, 1.4), (0.6, 0.5)),
        "ngram": Drafter((1.1, 1.2, 1.3, 1.4), by_match={2: (0.3,), 4: (0.5, 0.6)}, is_watched=True),
    }
    control = DraftControl(both)
    offers = {"mtp": Offer(2), "ngram": Offer(4, match=4)}
    chosen = []
    random = Random(7)
    for number in range(300):
        copies = number >= 150
        choice = control.choose(offers)
        chosen.append(choice.drafter)
        assert choice.drafter
        accepted = int(random.random() < 0.6) if choice.drafter == "mtp" else choice.length if copies else 0
        control.verified(choice.drafter, choice.length, accepted, 4)
        if choice.drafter != "ngram":
            control.watched("ngram", 4, 4 if copies else 0, 4)
    assert chosen[10:150].count("mtp") > 120
    assert chosen[-100:].count("ngram") > 90


def test_what_confirms_the_belief_does_not_move_it() -> None:
    """Over many drafts that are accepted as often as the prior says, however sure it is of rejections."""
    for acceptance in (0.1, 0.5, 0.9):
        control = DraftControl({"mtp": Drafter((1.2, 1.4), (acceptance,), weight=50)})
        accepts = by_chance(acceptance, 3)
        believed = []
        for _ in range(4000):
            accepted = next((n for n in range(2) if not accepts(0, n)), 2)
            control.watched("mtp", 2, accepted)
            believed.append(control.acceptance("mtp", 1))
        assert sum(believed) / len(believed) == pytest.approx(acceptance, abs=0.02)


def test_a_paused_drafter_is_forgotten_to_its_prior() -> None:
    control = DraftControl({"mtp": Drafter((1.3, 1.5), (0.8,))})
    for _ in range(20):
        control.watched("mtp", 2, 0)
    assert control.acceptance("mtp", 1) < 0.45
    for _ in range(3000):
        control.decoded()
    assert control.acceptance("mtp", 1) == pytest.approx(0.8, abs=0.01)


def test_a_match_tells_more_the_longer_it_is() -> None:
    control = DraftControl({"ngram": Drafter((1.5, 1.6, 1.7, 1.8), by_match={2: (0.2,), 6: (0.9,)})})
    assert control.choose({"ngram": Offer(4, match=1)}) == PLAIN
    assert control.choose({"ngram": Offer(4, match=3)}) == PLAIN
    assert control.choose({"ngram": Offer(4, match=9)}) == Choice("ngram", 4, 4)
    assert control.choose({"ngram": Offer(2, match=9)}) == Choice("ngram", 2, 2)
    assert control.choose({"other": Offer(2, match=9)}) == PLAIN


def test_a_confident_drafter_goes_on_and_a_doubtful_one_stops() -> None:
    control = DraftControl({"mtp": Drafter((1.2, 1.35, 1.5, 1.65), (0.7, 0.6, 0.5, 0.4))})
    choice = Choice("mtp", 2, 4)
    assert control.goes_on(choice, [0.01])
    assert control.goes_on(choice, [0.99, 0.99, 0.99, 0.99])
    assert not control.goes_on(choice, [0.99, 0.02])
    assert not control.goes_on(choice, [0.99] * 5)
    assert not control.goes_on(PLAIN, [0.99])


def wrong() -> Iterator[Any]:
    yield []
    yield {"a": []}
    yield {"a": {"costs": [1.2]}}
    yield {"a": {"acceptance": [0.5]}}
    yield {"a": {"costs": [0], "acceptance": [0.5]}}
    yield {"a": {"costs": [True], "acceptance": [0.5]}}
    yield {"a": {"costs": [1.2], "acceptance": [1.5]}}
    yield {"a": {"costs": [1.2], "acceptance": [0.5], "weight": -1}}
    yield {"a": {"costs": [1.2], "acceptance": [0.5], "weight": "1"}}
    yield {"a": {"costs": [1.2], "acceptance": [0.5], "wait": 1}}
    yield {"a": {"costs": [1.2], "by_match": {"long": [0.5]}}}
    yield {"a": {"costs": [1.2], "by_match": {"2": []}}}
    yield {"a": {"costs": [1e999], "acceptance": [0.5]}}


@pytest.mark.parametrize("given_control", list(wrong()), ids=str)
def test_what_makes_no_sense_is_said(given_control: Any) -> None:
    with pytest.raises(ValueError, match=r"has to|have to"):
        drafters_of(given_control)


def test_a_request_s_field_is_read() -> None:
    given_control = {
        "draft-mtp": {"costs": [1.25, 1.4], "acceptance": [0.85]},
        "ngram-simple": {"costs": [1.5], "by_match": {"2": [0.3], "4": [0.6, 0.7]}, "weight": 3},
    }
    assert drafters_of(given_control) == {
        "draft-mtp": Drafter((1.25, 1.4), (0.85,)),
        "ngram-simple": Drafter((1.5,), (), {2: (0.3,), 4: (0.6, 0.7)}, 3),
    }


def test_nothing_is_lost_on_a_drafter_that_the_prior_gives_no_chance() -> None:
    """But for its share of the cost; where the prior knows little, first drafts may show that it errs."""
    costs, tokens = (1.8, 2.0), 150
    for weight, lost in ((40.0, 0.0), (1.0, (costs[1] - 1) * FIRST_LOSSES)):
        drafter = {"draft": Drafter(costs, (0.2,), weight=weight)}
        cost = decode(DraftControl(drafter), drafter, tokens, lambda _, __: False)
        assert cost - tokens == pytest.approx(lost, abs=LOSS_SHARE * tokens)
    promising = {"draft": Drafter(costs, (0.9,), weight=40)}
    assert decode(DraftControl(promising), promising, tokens, lambda _, __: False) > tokens + costs[1] - 1
