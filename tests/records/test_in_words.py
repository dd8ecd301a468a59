"""Reasons in sentences for people."""

from msgspec.structs import replace
from tests.decision_logs import REQUEST, decision, outcome, predicted

from paceline.records.in_words import in_words
from paceline.records.kept import NO_LANE, kept_record
from paceline.types import Decision, Placed, Signals, Strategy, Task

REASON = "code 0.92, accept 0.74 -> plain: 100.0 ms/token, 8 drafted 50.0"
CODE = Signals({Task.CODE: 0.92, Task.EDIT: 0.08})


def said(
    chosen: Decision, signals: Signals = CODE, lane: str | None = None, forced: bool = False, **more: object
) -> str:
    request = replace(REQUEST, forced_lane="plain" if forced else None)
    return in_words(kept_record(request, signals, chosen, replace(outcome(lane or chosen.lane), **more)))


def test_the_fastest_one_is_set_beside_the_next() -> None:
    chosen = replace(decision("ngram"), reason=REASON)
    assert said(chosen) == (
        "Taken for code (92% sure). ngram was expected to be the fastest: 50.0 ms a token, 50% less than plain."
    )


def test_what_is_tried_to_learn_says_so() -> None:
    chosen = replace(decision("plain"), reason=f"{REASON}; explored", exploring_s=0.4)
    assert said(chosen).endswith(
        "plain was tried to learn from it: expected to take 100.0 ms a token, where ngram would take 50.0 ms."
    )


def test_before_anything_was_measured_times_are_in_plain_steps() -> None:
    predictions = {name: replace(predicted(Strategy(), 0.1), plain_step_s=None) for name in ("plain", "ngram")}
    chosen = replace(decision("plain"), reason=f"{REASON}; the plain lane is measured first", predictions=predictions)
    assert said(chosen).endswith(
        "plain was expected to take 1.00 plain steps a token, ngram 1.00. The plain lane is measured first."
    )


def test_remarks_before_and_behind_the_predictions_stay() -> None:
    chosen = replace(decision("plain"), reason=f"there is no lane 'x'; {REASON}; ngram is down")
    words = said(chosen)
    assert "There is no lane 'x'." in words
    assert words.endswith("Ngram is down.")


def test_what_the_request_named_is_not_explained_away() -> None:
    chosen = replace(decision("plain"), reason="the request forces this lane")
    assert said(chosen, forced=True) == "Taken for code (92% sure). The request named plain."


def test_rules_and_the_only_lane_are_told_as_they_are() -> None:
    ruled = Decision("plain", 'rule: task is "code"', predictions={"plain": predicted(Strategy(), 0.1)})
    assert said(ruled).endswith('Rule: task is "code".')


def test_tasks_that_are_not_clear_are_no_claims() -> None:
    chosen = replace(decision("ngram"), reason=REASON)
    unsure = {Task.UNKNOWN: 0.4, Task.EDIT: 0.3, Task.CODE: 0.2, Task.MATH: 0.1}
    assert said(chosen, Signals(unsure)).startswith("What it asks for can't be told; it may be edit or code.")
    perhaps = {Task.EDIT: 0.4, Task.CODE: 0.3, Task.MATH: 0.3}
    assert said(chosen, Signals(perhaps)).startswith("Perhaps edit, code or math (edit is the likeliest, 40%).")


def test_who_failed_first_and_who_served_instead() -> None:
    chosen = replace(decision("plain"), reason="the request forces plain")
    words = said(chosen, lane="ngram", failed=(("plain", ""),))
    assert words.endswith("plain failed on it first. ngram answered in place of plain.")


def test_where_it_was_placed_comes_before_how_it_is_decoded() -> None:
    placed = Placed("gpu", "private, stays on this machine", why="private")
    chosen = replace(decision("ngram"), reason=f"{placed.reason}; {REASON}", placed=placed)
    assert said(chosen).count("rivate, stays on this machine") == 1
    assert "Private, stays on this machine. ngram was" in said(chosen)


def test_what_was_refused_was_not_decided() -> None:
    assert said(Decision(NO_LANE, "not decided")) == "It was refused before a lane was chosen."
