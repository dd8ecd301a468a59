"""Playing prompt lookup, and predicting how well it does."""

from math import log, pi

import pytest
from benchmarks.lookups.__main__ import held_out, in_order, online
from benchmarks.lookups.belief import Belief, Coefficient, Expected, Prior, Turn
from benchmarks.lookups.by_match import matches
from benchmarks.lookups.play import Draft, Played, drafts, play
from benchmarks.lookups.rows import Row
from benchmarks.lookups.tokens import Tokenizer
from benchmarks.lookups.turns import texts


def test_a_lookup_is_played_token_by_token() -> None:
    found = drafts(context=[1, 2, 3, 4, 5], answer=[1, 2, 3, 4, 9], n=2, longest=3)
    # Nothing follows (4, 5) and (5, 1); after (1, 2) stood 3, 4, 5.
    assert found[:3] == [Draft(0, 0), Draft(0, 0), Draft(3, 2, 2)]
    assert play(found, 3) == Played(tokens=5, steps=3, drafted=3, accepted=2, covered=3)
    assert play(found, 1) == Played(tokens=5, steps=4, drafted=2, accepted=1, covered=2)
    assert play(found, 0) == Played(tokens=5, steps=5, drafted=0, accepted=0, covered=0)


def test_the_most_recent_place_is_taken() -> None:
    assert drafts([1, 2, 3, 1, 2, 4, 0], [1, 2, 4], 2, 1)[2] == Draft(1, 1, 5)
    assert drafts([1, 2, 4, 1, 2, 3, 0], [1, 2, 4], 2, 1)[2] == Draft(1, 0, 5)


def test_the_answer_itself_is_looked_up_too() -> None:
    assert drafts([], [1, 2, 3, 1, 2, 3], 2, 4)[5] == Draft(3, 1, 2), "what is drafted ends where the text does"


def test_nothing_comes_after_the_end() -> None:
    played = play(drafts([1, 2, 3, 4], [1, 2, 3, 4], 2, 8), 8)
    assert (played.tokens, played.steps, played.accepted, played.covered) == (4, 3, 2, 2)
    assert (played.length, played.coverage) == (4 / 3, 1 / 2)


def test_rejected_drafts_cover_nothing() -> None:
    played = play(drafts([1, 2, 3, 0], [1, 2, 4], 2, 2), 2)
    assert (played.drafted, played.accepted, played.covered, played.length) == (2, 0, 0, 1.0)


def test_pairs_are_joined_by_rank() -> None:
    tokenizer = Tokenizer(["b c", "a b", "Ġ a"])
    assert len(tokenizer.tokens("abc")) == 2, "b and c are joined first"
    assert len(tokenizer.tokens("ab")) == 1
    assert len(tokenizer.tokens("12")) == 2, "digits stand alone"
    assert tokenizer.tokens(" a") * 2 == tokenizer.tokens(" a a")
    assert len(tokenizer.tokens("é")) == 2, "bytes are joined, not letters"
    assert len(tokenizer.tokens("<tool_call>")) == len(tokenizer.tokens("<|im_start|>")) == 1


def test_what_precedes_an_answer() -> None:
    call = {"function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "1 and?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2"},
    ]
    assert "".join(texts({"messages": messages})) == (
        "<|im_start|>user\n1 and?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def turn(kind: str = "", conversation: str = "", **statistics: float) -> Turn:
    return Turn({"task": kind, "conversation": conversation}, statistics, application="")


def test_one_value_moves_a_belief_half_way_to_it() -> None:
    belief = Belief(Prior(mean=0, mean_deviation=1, noise=1))
    expected = belief.expect(turn())
    assert expected.mean == 0
    assert expected.deviation == pytest.approx(2**0.5)
    belief.learn(turn(), 1.0)
    assert belief.expect(turn()).mean == pytest.approx(0.5)


def test_groups_and_statistics_are_told_apart() -> None:
    prior = Prior(noise=0.1, groups={"task": 0.3}, statistics={"repeats": Coefficient()})
    belief = Belief(prior)
    for number in range(200):
        repeats = number % 7 / 7 - 0.5
        kind = "code" if number % 2 else "create"
        belief.learn(turn(kind, repeats=repeats), 0.4 + (0.2 if kind == "code" else -0.2) + 0.5 * repeats)
    assert belief.expect(turn("code", repeats=0.0)).mean == pytest.approx(0.6, abs=0.01)
    assert belief.expect(turn("create", repeats=0.4)).mean == pytest.approx(0.4, abs=0.01)
    assert belief.coefficients()["repeats"].mean == pytest.approx(0.5, abs=0.02)
    unknown = belief.expect(turn("chat", repeats=0.0))
    assert unknown.mean == pytest.approx(0.4, abs=0.15)
    assert unknown.deviation > 0.3, "what a new task is like is not known"


def test_the_log_score_is_of_a_normal_distribution() -> None:
    assert Expected(1.0, 2.0).log_score(3.0) == pytest.approx(-0.5 - log(2 * (2 * pi) ** 0.5))


ROWS = [Row("", name, turn(conversation=name), {}) for name in "abcdefghijklmnopqrst" for _ in range(3)]


def test_a_conversation_is_not_predicted_from_itself() -> None:
    prior = Prior(groups={"conversation": 1.0})
    values = [0.5] * len(ROWS)
    others = [*[9.0] * 3, *values[3:]]
    assert held_out(ROWS, prior, values)[:3] == held_out(ROWS, prior, others)[:3]
    assert held_out(ROWS, prior, values)[3:] != held_out(ROWS, prior, others)[3:]


def test_online_a_turn_is_predicted_from_those_before_it() -> None:
    prior = Prior(groups={"conversation": 1.0})
    values = [float(number) for number in range(len(ROWS))]
    expected = online(Belief(prior), ROWS, values, in_order(ROWS, None))
    changed = online(Belief(prior), ROWS, [*values[:30], *[0.0] * 30], in_order(ROWS, None))
    assert expected[:31] == changed[:31]
    assert expected[31] != changed[31]
    assert expected[1].mean != expected[0].mean


def test_an_order_by_chance_keeps_conversations_together() -> None:
    order = in_order(ROWS, 1)
    assert sorted(order) == list(range(len(ROWS))) != order
    assert all(number % 3 == place % 3 for place, number in enumerate(order))


def test_matches_are_as_long_as_what_stood_before_is_alike() -> None:
    # (3, 4) stood before, and so did what precedes it, as far back as the text goes.
    assert list(matches([1, 2, 3, 4, 5, 9, 1, 2, 3, 4], [5, 6])) == [(4, 6, 1)]
    assert list(matches([8, 3, 4, 5, 9, 3, 4], [7])) == [(2, 4, 0)]
