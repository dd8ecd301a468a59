"""What a control chooses among, and what its counts tell of that."""

from math import exp, log

import pytest
from msgspec.structs import replace
from tests.controlled_machine import HEAD, LOOKUP

from paceline.decision.controlled import (
    StepShare,
    batch_shares,
    drafting,
    hazard_counts,
    head_lanes,
    parts,
    reached,
    step_shares,
    step_time,
    verification_cost,
    wide,
)
from paceline.decision.feeling import LaneId
from paceline.types import ALL, DraftCounts, Strategy

BOTH = LaneId("gpu", "m", Strategy(ALL, among=(HEAD, LOOKUP)))
PLAIN, CAPPED = replace(BOTH, strategy=Strategy()), replace(BOTH, strategy=Strategy("mtp", 2))


def test_a_control_chooses_among_plain_and_each_drafter_up_to_its_longest_draft() -> None:
    strategies = [(part.strategy.kind, part.strategy.n_max) for part in parts(BOTH)]
    assert strategies[0] == ("autoregressive", None)
    assert strategies[1:5] == [("mtp", 1), ("mtp", 2), ("mtp", 3), ("mtp", 4)]
    assert strategies[5:] == [("ngram", 2), ("ngram", 4), ("ngram", 8)]
    assert parts(CAPPED) == (CAPPED,)
    assert drafting(PLAIN) == ()


def test_lanes_that_have_parts_in_common_have_them_once() -> None:
    mtp = replace(BOTH, strategy=Strategy("mtp", among=(HEAD,)))
    spread = wide((PLAIN, mtp, BOTH, CAPPED))
    assert len(spread.ids) == len(set(spread.ids)) == 8
    assert [spread.ids[place] for place in spread.places[1]] == list(parts(mtp))
    assert spread.places[0] == (0,)
    assert spread.ids[spread.places[3][0]] == CAPPED
    assert spread.origins[spread.places[3][0]] == 3  # its own load counts, not that of the lane it is a part of


def test_drafts_that_were_cut_count_as_far_as_enough_of_them_went() -> None:
    always = DraftCounts(10, 30, 15, (8, 4, 3), (10, 8, 4))
    assert reached(always, 3).steps == 10
    assert reached(always, 3).by_position == pytest.approx([8, 4, 3])
    stopped = DraftCounts(10, 14, 10, (8, 2, 0), (10, 4, 0))
    cut = reached(stopped, 3)
    assert cut.steps == pytest.approx(5)  # half of those that could have drafted a second token did
    assert cut.by_position == pytest.approx([4, 2])
    assert len(reached(DraftCounts(10, 11, 9, (8, 1), (10, 1)), 3).by_position) == 1
    assert reached(DraftCounts(4, 4, 0, (0,), (4,)), 3).by_position == [0, 0, 0]
    assert reached(DraftCounts(10, 30, 15, (8, 4, 3)), 3) == reached(always, 3)


def test_steps_between_two_lengths_are_part_of_both() -> None:
    counts = {"mtp": DraftCounts(10, 25, 12), "ngram": DraftCounts(5, 40, 30), "other": DraftCounts(1, 1, 0)}
    shares = step_shares(BOTH, counts, 50)
    assert [one.lane.strategy.name for one in shares] == ["mtp-2", "mtp-3", "ngram-8"]
    assert [one.share for one in shares] == pytest.approx([0.1, 0.1, 0.1])
    assert step_shares(BOTH, {}, 50) == []


def test_a_batch_drafts_as_if_it_were_of_known_lengths() -> None:
    two, four = (replace(BOTH, strategy=Strategy("mtp", length)) for length in (2, 4))
    for drafted, expected in ((0.0, {}), (1.0, {2: 0.5}), (2.0, {2: 1.0}), (3.5, {2: 0.25, 4: 0.75}), (9.0, {4: 1.0})):
        shares = batch_shares([two, four], drafted)
        assert {one.lane.strategy.n_max: one.share for one in shares} == expected


def test_heads_are_those_of_the_same_engine() -> None:
    lookup, elsewhere = replace(BOTH, strategy=LOOKUP), replace(CAPPED, fingerprint="another")
    one, two, other = (replace(BOTH, strategy=Strategy(*each)) for each in (("mtp", 1), ("mtp", 2), ("eagle3", 2)))
    ids = [lookup, elsewhere, two, BOTH, one, other]
    assert head_lanes(replace(BOTH, strategy=Strategy()), ids) == [one, two]
    assert head_lanes(other, ids) == [other]
    assert head_lanes(BOTH, ids) == [one, two]
    assert head_lanes(BOTH, [lookup]) == []


def test_the_mean_of_steps_times_and_how_it_changes() -> None:
    shares = [StepShare(CAPPED, 0.5), StepShare(replace(BOTH, strategy=LOOKUP), 0.1)]
    over = [log(1.6), log(1.3)]
    time, slopes = step_time(-3.0, over, shares)
    mean = 0.4 + 0.5 * 1.6 + 0.1 * verification_cost(1.3, "ngram")
    assert exp(time + 3.0) == pytest.approx(mean)
    small = 1e-5
    for number in range(2):
        moved = [value + small * (place == number) for place, value in enumerate(over)]
        assert (step_time(-3.0, moved, shares)[0] - time) / small == pytest.approx(slopes[number], rel=1e-3)


def test_drafters_are_held_to_what_is_believed_of_them() -> None:
    counts = DraftCounts(1000, 2000, 0, (720, 569), (1000, 720))
    as_believed = hazard_counts(counts, (0.72, 0.79))
    assert as_believed["first"] == pytest.approx((280, 280), rel=0.01)
    assert as_believed["later"] == pytest.approx((151, 151), rel=0.01)
    rejected, believed = hazard_counts(counts, (0.9,))["first"]
    assert believed < 0.5 * rejected
    rejected, believed = hazard_counts(counts, (0.4,))["later"]
    assert believed > 1.4 * rejected
    twice = replace(counts, shadow=counts)
    assert hazard_counts(twice, (0.72, 0.79))["first"][0] == 560
