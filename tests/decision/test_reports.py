"""What is believed of an engine's report, and summed up."""

from random import Random

import pytest
from msgspec.structs import replace
from tests.machines import EDIT, LADDER, NGRAM, PLAIN, START_S, STORY

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.reports import Decoding, decoding
from paceline.types import DraftCounts, Measured, Observation, Outcome

GOOD = Observation(prompt_tokens=20, prefill_s=0.5, decode_tokens=40, decode_s=2.0, drafted=16, accepted=12)
LIES = [
    Observation(decode_tokens=100, decode_s=1e-6, drafted=0, accepted=0),
    Observation(decode_tokens=100, decode_s=0.01, drafted=90, accepted=80),
    Observation(decode_tokens=10**12, decode_s=5.0),
    Observation(decode_tokens=0, decode_s=5.0),
    Observation(decode_tokens=3, decode_s=0.1),
    Observation(decode_tokens=100, decode_s=float("nan")),
    Observation(decode_tokens=100, decode_s=float("inf")),
    Observation(decode_tokens=100, decode_s=-1.0),
    Observation(decode_tokens=100, decode_s=5000.0),
    Observation(decode_tokens=100),
    Observation(decode_s=5.0),
]


@pytest.mark.parametrize("lie", LIES)
def test_what_can_not_be_is_not_believed(lie: Observation) -> None:
    outcome = Outcome("mtp/8", 200, 6.0, observed=lie, at_s=START_S)
    assert decoding(outcome, drafts=True) is None
    knowledge = Knowledge()
    decision = decide(EDIT, LADDER, knowledge, Random(0), 0)
    learn(knowledge, EDIT, decision, outcome)
    assert predict(EDIT, LADDER, knowledge) == decision.predictions


def test_a_report_is_taken_as_it_is() -> None:
    seen = replace(GOOD, drafting_steps=5, accepted_by_position=(5, 4, 3))
    outcome = Outcome("mtp/8", 200, 3.0, observed=seen)
    assert decoding(outcome, drafts=True) == Decoding(40, 2.0, 12, 5, (5, 4, 3))
    assert decoding(outcome, drafts=False) == Decoding(40, 2.0), "a plain lane has no use for counts"


MTP = DraftCounts(4, 10, 9, (4, 3, 2), (4, 4, 2))
LOOKUP = DraftCounts(1, 6, 3, shadow=DraftCounts(2, 12, 1, (1,), (2,)))


def test_what_each_drafter_did_is_believed_where_it_adds_up() -> None:
    each = {"mtp": MTP, "ngram": LOOKUP}
    seen = replace(GOOD, drafting_steps=5, by_drafter=each)
    assert decoding(Outcome("all", 200, 3.0, observed=seen), drafts=True) == Decoding(40, 2.0, 12, 5, (), each)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mtp": replace(MTP, accepted=8, accepted_by_position=(4, 3, 1))},
        {"mtp": replace(MTP, steps=30, drafted=30)},
        {"mtp": replace(MTP, accepted_by_position=(3, 4, 2))},
        {"mtp": replace(MTP, accepted_by_position=(4, 3, 1))},
        {"mtp": replace(MTP, verified_by_position=(4, 2, 2))},
        {"mtp": replace(MTP, verified_by_position=(4, 4))},
        {"ngram": replace(LOOKUP, shadow=DraftCounts(2, 12, 3, (3,), (2,)))},
    ],
)
def test_counts_by_drafter_that_can_not_be_are_left_out(wrong: dict[str, DraftCounts]) -> None:
    seen = replace(GOOD, by_drafter={"mtp": MTP, "ngram": LOOKUP} | wrong)
    believed = decoding(Outcome("all", 200, 3.0, observed=seen), drafts=True)
    assert believed == Decoding(40, 2.0, 12)


@pytest.mark.parametrize(
    ("wrong", "believed"),
    [
        ({"drafted": None, "accepted": None}, Decoding(40, 2.0)),
        ({"accepted": 40, "drafted": 80}, Decoding(40, 2.0)),
        ({"drafted": 10**10}, Decoding(40, 2.0)),
        ({"drafting_steps": 0}, Decoding(40, 2.0, 12)),
        ({"drafting_steps": 29}, Decoding(40, 2.0, 12)),
        ({"drafted": 0, "accepted": 0, "drafting_steps": 7}, Decoding(40, 2.0, 0, 0)),
    ],
)
def test_counts_that_can_not_be_are_left_out(wrong: dict[str, int], believed: Decoding) -> None:
    assert decoding(Outcome("mtp/8", 200, 3.0, observed=replace(GOOD, **wrong)), drafts=True) == believed


@pytest.mark.parametrize("by_position", [(3, 4, 5), (5, 4, 2), (5, 4, 4), (29,), (12, 1, -1), ()])
def test_positions_that_can_not_be_are_left_out(by_position: tuple[int, ...]) -> None:
    """A later one is never accepted more often, and all together as often as was counted."""
    seen = replace(GOOD, accepted_by_position=by_position)
    believed = decoding(Outcome("mtp/8", 200, 3.0, observed=seen), drafts=True)
    assert believed == Decoding(40, 2.0, 12)


def test_waiting_for_a_turn_is_no_work() -> None:
    outcome = Outcome("mtp/8", 200, 100.0, observed=GOOD)
    assert decoding(outcome, drafts=True) is None, "it worked for 2.5 s of 100"
    assert decoding(replace(outcome, queue_s=97.0), drafts=True) is not None


# Sums


def measured(*some: Outcome) -> Measured:
    knowledge = Knowledge()
    for outcome in some:
        learn(knowledge, STORY, decide(STORY, [PLAIN, NGRAM], knowledge, Random(0), 0), outcome)
    return knowledge.measured["plain", "plain"]


def test_sums_are_weighted_by_tokens() -> None:
    slow = Observation(decode_tokens=10, decode_s=10.0)
    sums = measured(Outcome("plain", 200, 3.0, observed=GOOD), Outcome("plain", 200, 11.0, observed=slow))
    assert sums.tokens_per_s == 50 / 12
    assert sums.acceptance == 12 / 16
    assert sums.requests == 2


def test_what_was_not_reported_is_missing() -> None:
    sums = measured(Outcome("plain", 200, 1.0))
    assert (sums.requests, sums.tokens_per_s, sums.acceptance) == (1, None, None)


@pytest.mark.parametrize("lie", [lie for lie in LIES if lie.decode_s != 0.01])
def test_what_no_engine_can_do_is_not_summed_up(lie: Observation) -> None:
    sums = measured(Outcome("plain", 200, 6.0, observed=replace(lie, drafted=None, accepted=None)))
    assert (sums.requests, sums.decode_tokens, sums.decode_s) == (1, 0, 0.0)


def test_the_latest_moment_is_kept_whatever_comes_later() -> None:
    sums = measured(
        *(Outcome("plain", 200, 1.0, at_s=at_s) for at_s in (START_S, START_S - 9, float("nan"), float("inf")))
    )
    assert sums.at_s == START_S
