"""Why a lane was chosen, in words."""

from random import Random

from msgspec.structs import replace
from tests.machines import CODE, EDIT, LADDER, NGRAM, PLAIN, STORY, Machine, taught

from paceline.decision import Knowledge, decide
from paceline.types import Lane, LaneState, Signals, Strategy, Task


def reason(signals: Signals, *lanes: LaneState, knowledge: Knowledge | None = None) -> str:
    return decide(signals, lanes, knowledge or Knowledge(), Random(0), exploration=0).reason


def test_before_anything_is_measured_times_are_in_plain_steps() -> None:
    text = reason(EDIT, PLAIN, NGRAM)
    assert text.startswith("edit 0.94, accept 0.")
    assert "-> 8 drafted: 0." in text
    assert text.endswith(" plain steps/token, plain 1.00")


def test_after_that_they_are_in_milliseconds() -> None:
    knowledge = taught(Machine({Task.EDIT: 0.9}, per_drafted=0.05, noise=0.0), LADDER, [EDIT] * 30)
    text = reason(EDIT, *LADDER, knowledge=knowledge)
    assert "accept 0.9" in text or "accept 0.8" in text
    assert "-> 8 drafted: " in text
    assert text.endswith(" ms/token, plain 20.0")
    assert text.isascii()


def test_the_only_lane_has_nothing_to_be_compared_with() -> None:
    assert reason(STORY, NGRAM) == "create 1.00 -> 8 drafted: the only lane of this model"


def test_lookups_tell_how_much_they_cover() -> None:
    assert " of 0." in reason(EDIT, PLAIN, NGRAM)
    assert " of " not in reason(CODE, *LADDER)


def test_why_it_is_not_the_faster_one() -> None:
    assert reason(EDIT, PLAIN, replace(NGRAM, healthy=False)).endswith("; ngram is down")
    waiting = replace(PLAIN, can_join=False, has_turn=False)
    head = LaneState(Lane("mtp", "mtp", Strategy("mtp", 3), "cpu"), model="m", running=2)
    assert reason(EDIT, waiting, head).endswith("; with 2 in flight, mtp would wait or slow all down")
    for seed in range(50):
        decision = decide(CODE, LADDER, Knowledge(), Random(seed))
        assert decision.reason.endswith("; the plain lane is measured first")


def test_what_else_told_the_task_is_said_and_unlikely_tasks_are_not() -> None:
    text = reason(Signals(tasks={Task.EXTRACT: 0.95, Task.CHAT: 0.05}, evidence="json_schema"), PLAIN, NGRAM)
    assert text.startswith("extract 0.95 (json_schema), accept ")


def test_a_lane_whose_engine_decides_says_so() -> None:
    controlled = LaneState(Lane("gpu/mtp", "gpu", Strategy("mtp", among=(Strategy("mtp", 4),))), model="m")
    assert "-> mtp by step: " in reason(CODE, replace(PLAIN, fingerprint="gpu"), controlled)
