"""The model of the logarithm of time: its terms, and what it takes from an outcome."""

from math import log
from random import Random

import numpy as np
import pytest
from msgspec.structs import replace
from tests.machines import CODE, EDIT, LADDER, NGRAM, PLAIN, STORY, Machine, forced, taught

from paceline.decision import Knowledge, decide
from paceline.decision.feeling import LaneId
from paceline.decision.knowledge import id_of
from paceline.decision.time_model import Counts, TimeModel
from paceline.decision.tuning import MACHINE_MEAN
from paceline.types import Signals, Strategy, Task

HEADS = [id_of(state) for state in LADDER]
PLAIN_LANE, THREE = HEADS[0], HEADS[3]
ALONE = [0.0] * len(HEADS)


def times(model: TimeModel, signals: Signals = CODE, beside: float = 0.0) -> list[float]:
    return model.expected(HEADS, signals, [beside] * len(HEADS)).times


def test_before_anything_is_known_the_terms_are_what_is_believed() -> None:
    story, code = (TimeModel().expected(HEADS, signals, ALONE) for signals in (STORY, CODE))
    assert set(story.machine) == {MACHINE_MEAN}
    assert story.cost[0] == story.length[0] == 0.0
    for terms in (code.cost, code.length):
        assert terms == sorted(terms), "longer drafts cost and yield more"
    assert story.length[3] < code.length[3], "stories are less predictable"
    assert story.cost[3] == code.cost[3]


def test_the_terms_add_up_to_the_time() -> None:
    machine = Machine({Task.CODE: 0.85, Task.CREATE: 0.6}, per_drafted=0.15, noise=0.0)
    knowledge = Knowledge()
    for number in range(84):
        signals = replace((CODE, STORY)[number % 2], conversation=f"{number % 2}")
        forced(knowledge, machine, LADDER, signals, LADDER[number // 2 % 7].lane.name)
    model = knowledge.models["m"]
    for signals in (replace(CODE, conversation="0"), STORY):
        expected = model.expected(HEADS, signals, ALONE)
        for number, lane in enumerate(HEADS):
            residual = model.residuals.get((expected.leaves[number].alike, lane), (0.0, 0.0))[0]
            total = expected.machine[number] + expected.cost[number] - expected.length[number] + residual
            assert expected.times[number] == pytest.approx(total + expected.spreads[number] / 2)
            truth = log(machine.s_per_token(signals.task, HEADS[number].strategy))
            assert expected.times[number] == pytest.approx(truth, abs=0.15)


def test_expecting_changes_nothing() -> None:
    model = taught(Machine({Task.CODE: 0.8}, 0.1), LADDER, [CODE] * 10).models["m"]
    before = dict(model.belief.numbers), times(model)
    model.expected(HEADS, Signals(application="new", conversation="new", reasoning=True), [3.0] * len(HEADS))
    model.expected([id_of(PLAIN), id_of(NGRAM)], EDIT, [0.0, 0.0])
    assert (dict(model.belief.numbers), times(model)) == before


def test_what_is_known_has_a_covariance() -> None:
    knowledge = taught(Machine({Task.CODE: 0.8}, 0.1), LADDER, [CODE] * 5)
    expected = knowledge.models["m"].expected(HEADS, CODE, ALONE)
    covariance = np.array(expected.covariance)
    assert covariance == pytest.approx(covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    new = np.array(TimeModel().expected(HEADS, CODE, ALONE).covariance)
    assert (covariance.diagonal() < new.diagonal()).all()


def test_a_plain_step_tells_of_the_machine_and_nothing_of_drafts() -> None:
    model = TimeModel()
    before = model.expected(HEADS, CODE, ALONE)
    model.learn(PLAIN_LANE, HEADS, CODE, 0.0, 0.5, None)
    after = model.expected(HEADS, CODE, ALONE)
    assert after.times[0] == pytest.approx(log(0.5), abs=0.02)
    for first, second in zip(before.times, after.times, strict=True):
        assert second - after.times[0] == pytest.approx(first - before.times[0], abs=0.05)
    assert after.variances[3] == pytest.approx(before.variances[3], rel=0.1)


def test_a_lane_tells_of_its_neighbours_more_than_of_others() -> None:
    model = TimeModel()
    model.learn(PLAIN_LANE, HEADS, CODE, 0.0, 0.02, None)
    before = model.expected(HEADS, CODE, ALONE).variances
    for _ in range(5):
        model.learn(THREE, HEADS, CODE, 0.0, 0.012, None)
    after = model.expected(HEADS, CODE, ALONE).variances
    left = [second / first for first, second in zip(before, after, strict=True)]
    assert left[3] < left[4] < left[6]
    assert left[3] < left[2] < left[1]
    assert left[3] < 0.2


def test_counts_tell_the_length_from_the_cost() -> None:
    """Twice as many tokens a step in twice the time are another length and another cost."""
    model = TimeModel()
    model.learn(PLAIN_LANE, HEADS, CODE, 0.0, 0.02, None)
    for _ in range(20):
        model.learn(
            THREE, HEADS, CODE, 0.0, 0.02, Counts(tokens=350, steps=100, verification_steps=100, by_position=())
        )
    expected = model.expected(HEADS, CODE, ALONE)
    assert expected.length[3] == pytest.approx(log(3.5), abs=0.05)
    assert expected.cost[3] == pytest.approx(log(3.5), abs=0.1)


def test_of_a_lookup_its_steps_tell_how_often_it_drafts() -> None:
    model, lookup = TimeModel(), id_of(NGRAM)
    lanes = [id_of(PLAIN), lookup]
    assert model.expected(lanes, EDIT, [0.0, 0.0]).rates[0] == 1.0
    for _ in range(60):
        model.learn(
            lookup, lanes, EDIT, 0.0, 0.02, Counts(tokens=150, steps=100, verification_steps=10, by_position=())
        )
    assert model.expected(lanes, EDIT, [0.0, 0.0]).rates[1] == pytest.approx(0.1, abs=0.05)


def test_load_is_learned_apart_and_foretold_between() -> None:
    model = TimeModel()
    for _ in range(30):
        model.learn(PLAIN_LANE, HEADS, CODE, 0.0, 0.02, None)
        model.learn(PLAIN_LANE, HEADS, CODE, 7.0, 0.06, None)
    alone, three, seven = (times(model, beside=beside)[0] for beside in (0.0, 3.0, 7.0))
    assert alone == pytest.approx(log(0.02), abs=0.1)
    assert seven == pytest.approx(log(0.06), abs=0.1)
    assert alone < three < seven


def in_a_batch(tells: bool, plain_step_s: float = 0.08, token: float = 0.1, beside: float = 7.0) -> TimeModel:
    """Batches of eight of which some draft three tokens a step, two of each accepted; each drafted token of the batch
    adds a part of a plain step, as on a machine that computes all it can."""
    model = TimeModel()
    for number in range(40):
        others = 3 * (number // 2 % 4)
        lane, own = ((PLAIN_LANE, 0), (THREE, 3))[number % 2]
        step_s = plain_step_s * (1 + token * (own + others))
        counts = Counts(60, 20, 20, (20, 20, 0)) if own else None
        mean_draft = (own + others) / (1 + beside) if tells else None
        model.learn(lane, HEADS, CODE, beside, step_s / (3 if own else 1), counts, None, mean_draft)
    return model


def test_a_batch_that_drafts_in_part_shows_what_it_would_take_if_all_of_it_did() -> None:
    plain, three = (times(in_a_batch(tells=True), beside=7.0)[place] for place in (0, 3))
    assert plain == pytest.approx(log(0.08), abs=0.1)
    assert three == pytest.approx(log(0.08 * (1 + 0.1 * 24) / 3), abs=0.15)
    assert three > plain, "three tokens for 3.4 steps of all"
    fooled = in_a_batch(tells=False)
    assert times(fooled, beside=7.0)[3] < times(fooled, beside=7.0)[0], "each for himself, drafting seems to pay"


def test_where_all_draft_alike_a_batch_shows_nothing_else() -> None:
    alike, unknown = TimeModel(), TimeModel()
    for model, mean_draft in ((alike, 3.0), (unknown, None)):
        for _ in range(10):
            model.learn(THREE, HEADS, CODE, 7.0, 0.05, Counts(60, 20, 20, (20, 20, 0)), None, mean_draft)
    assert times(alike, beside=7.0) == pytest.approx(times(unknown, beside=7.0))


def test_what_nothing_else_explains_is_a_lanes_own_at_one_kind_of_requests() -> None:
    model = TimeModel()
    for _ in range(60):
        model.learn(PLAIN_LANE, HEADS, CODE, 0.0, 0.02, None)
        for lane in HEADS[1:]:
            model.learn(lane, HEADS, CODE, 0.0, 0.012 if lane == THREE else 0.015, None)
    residuals = {lane: value for (_, lane), (value, _) in model.residuals.items()}
    assert set(residuals) == set(HEADS[1:])
    assert min(residuals, key=residuals.__getitem__) == THREE
    assert residuals[THREE] < 0


def test_conversations_differ_and_one_that_is_new_does_not() -> None:
    knowledge = Knowledge()
    machine = Machine({Task.CODE: 0.9}, per_drafted=0.15)
    for number in range(40):
        machine.acceptance[Task.CODE] = (0.9, 0.5)[number % 2]
        signals = replace(CODE, conversation=("easy", "hard")[number % 2])
        forced(knowledge, machine, LADDER, signals, LADDER[number // 2 % 7].lane.name)
    easy, hard, new = (
        times(knowledge.models["m"], replace(CODE, conversation=name))[3] for name in ("easy", "hard", "new")
    )
    assert easy < new < hard


def test_a_lane_is_known_by_its_fingerprint_model_and_strategy() -> None:
    assert id_of(LADDER[3]) == LaneId("engine", "m", Strategy("mtp", 3))
    assert id_of(PLAIN) == LaneId("plain", "m", Strategy())
    assert id_of(replace(PLAIN, model="", fingerprint="f")) == LaneId("f", "f", Strategy())


def test_what_static_policies_would_have_taken_fades() -> None:
    model = TimeModel()
    for _ in range(3000):
        model.compared({PLAIN_LANE: 0.02, THREE: 0.01}, THREE, 100)
    (plain_s, taken_s), (three_s, _) = model.always[PLAIN_LANE], model.always[THREE]
    assert plain_s / taken_s == pytest.approx(2)
    assert three_s / taken_s == pytest.approx(1)
    assert taken_s == pytest.approx(1000, rel=0.1)


def test_what_a_card_makes_a_step_cost_is_believed_until_it_was_measured() -> None:
    firsts = []
    for cost in (0.1, 0.16, None, 0.5, 0.98):
        lanes = [replace(lane, drafted_token_cost=cost) for lane in LADDER]
        firsts.append(decide(CODE, lanes, Knowledge(), Random(0), exploration=0).lane)
    assert firsts == ["mtp/4", "mtp/3", "mtp/2", "mtp/1", "mtp/0"]
