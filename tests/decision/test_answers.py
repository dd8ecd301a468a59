"""How long answers are, and what prompts take."""

from random import Random

import pytest
from msgspec.structs import replace
from tests.machines import EDIT, LADDER, START_S, STORY

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.answers import Mean, Means
from paceline.decision.tuning import ANSWER_TOKENS, PREFILL_S_PER_TOKEN
from paceline.types import Observation, Outcome, Signals, Task


def teach(knowledge: Knowledge, signals: Signals, observed: Observation, requests: int = 30) -> None:
    for number in range(requests):
        decision = decide(signals, LADDER, knowledge, Random(0), 0)
        learn(knowledge, signals, decision, Outcome("mtp/0", 200, 60.0, observed=observed, at_s=START_S + number))


def tokens(knowledge: Knowledge, signals: Signals) -> float:
    return predict(signals, LADDER, knowledge)["mtp/0"].tokens


def test_before_any_answer_the_task_tells_how_long_it_will_be() -> None:
    assert tokens(Knowledge(), STORY) == pytest.approx(ANSWER_TOKENS[Task.CREATE])
    assert tokens(Knowledge(), replace(STORY, max_tokens=16)) == 16
    assert tokens(Knowledge(), replace(STORY, max_tokens=0)) == 1


def test_answers_are_as_long_as_they_were_in_the_same_place() -> None:
    """By task, application, and what the answer follows."""
    knowledge = Knowledge()
    command, summary = (replace(EDIT, application="agent", turn=turn) for turn in ("read", "wrote"))
    teach(knowledge, command, Observation(completion_tokens=40))
    teach(knowledge, summary, Observation(completion_tokens=900))
    assert tokens(knowledge, command) == pytest.approx(40, rel=0.2)
    assert tokens(knowledge, summary) == pytest.approx(900, rel=0.2)
    assert 40 < tokens(knowledge, EDIT) < 900
    assert tokens(knowledge, STORY) == pytest.approx(ANSWER_TOKENS[Task.CREATE]), "another task"
    assert tokens(knowledge, replace(command, max_tokens=20)) == 20


@pytest.mark.parametrize("count", [0, 10**8])
def test_lengths_that_can_not_be_teach_nothing(count: int) -> None:
    knowledge = Knowledge()
    teach(knowledge, STORY, Observation(completion_tokens=count), 3)
    assert tokens(knowledge, STORY) == pytest.approx(ANSWER_TOKENS[Task.CREATE])


def test_prompts_take_what_they_took() -> None:
    knowledge, signals = Knowledge(), replace(STORY, prompt_chars=4000)
    before = predict(signals, LADDER, knowledge)["mtp/0"]
    assert before.prefill_s == pytest.approx(1000 * PREFILL_S_PER_TOKEN)
    teach(knowledge, signals, Observation(prompt_tokens=1000, prefill_s=20.0), 1)
    assert predict(signals, LADDER, knowledge)["mtp/0"].prefill_s == pytest.approx(20)


@pytest.mark.parametrize(("count", "seconds"), [(5, 0.1), (1000, 5000.0), (10**10, 1.0), (1000, 1e-9)])
def test_prefills_that_tell_nothing_teach_nothing(count: int, seconds: float) -> None:
    knowledge, signals = Knowledge(), replace(STORY, prompt_chars=4000)
    teach(knowledge, signals, Observation(prompt_tokens=count, prefill_s=seconds), 1)
    assert predict(signals, LADDER, knowledge)["mtp/0"].prefill_s == pytest.approx(1000 * PREFILL_S_PER_TOKEN)


def test_of_a_later_turn_only_what_is_new_is_processed() -> None:
    knowledge, first = Knowledge(), replace(STORY, prompt_chars=4000, conversation="c")
    teach(knowledge, first, Observation(), 1)
    later = replace(first, prompt_chars=4400, turns=2)
    assert predict(later, LADDER, knowledge)["mtp/0"].prefill_s == pytest.approx(100 * PREFILL_S_PER_TOKEN)
    another = replace(later, conversation="d")
    assert predict(another, LADDER, knowledge)["mtp/0"].prefill_s == pytest.approx(1100 * PREFILL_S_PER_TOKEN)


def test_means_of_two_add_up() -> None:
    one, other, both = Means(), Means(), Means()
    for means, values in ((one, (10.0, 20.0)), (other, (40.0,))):
        for value in values:
            means.learn([("a",)], value, START_S)
            both.learn([("a",)], value, START_S)
    one.merge(other)
    assert one.of([("a",)], 5.0) == pytest.approx(both.of([("a",)], 5.0), rel=0.05)
    assert one.sums["a",].at_s == START_S


def test_a_mean_that_can_not_have_been_learned_is_told() -> None:
    assert Mean(1.0, 12.0, 3.0).can_be
    for total, count in ((12.0, 0.0), (12.0, -3.0), (1e9, 3.0), (-1e9, 3.0)):
        assert not Mean(1.0, total, count).can_be
