"""Which groups a request belongs to."""

from msgspec.structs import replace

from paceline.decision.groups import asked_of, believed_lookups, believed_strength, changing_group, groups_of, leaf_of
from paceline.types import Signals, Task

CODE = Signals(tasks={Task.CODE: 0.8, Task.EDIT: 0.15, Task.CHAT: 0.05})


def keys(signals: Signals, *kinds: str) -> set[tuple[str, ...]]:
    return {group.key for group in groups_of(asked_of(signals), kinds)}


def test_a_request_belongs_to_its_likely_tasks_by_their_probability() -> None:
    groups = {group.key: group.share for group in groups_of(asked_of(CODE), ["mtp"])}
    assert groups == {("task", "code"): 0.8, ("task", "edit"): 0.15}


def test_who_asks_is_a_program_in_its_loop() -> None:
    program = replace(CODE, application="a", turn="wrote", language="de")
    assert keys(program, "mtp") - keys(CODE, "mtp") == {("application", "a", "wrote")}


def test_where_the_task_can_not_be_told_the_language_tells_something() -> None:
    unknown = Signals(tasks={Task.UNKNOWN: 0.7, Task.CODE: 0.3}, language="de")
    groups = {group.key: group.share for group in groups_of(asked_of(unknown), ["mtp"])}
    assert groups["language", "de"] == 0.7
    assert ("language", "de") not in keys(replace(CODE, language="de"), "mtp")
    assert ("language", "de") not in keys(replace(unknown, application="a"), "mtp")


def test_what_lookups_find_differs_by_program_and_by_how_much_is_repeated() -> None:
    signals = replace(CODE, application="a", turn="wrote", repeats=0.9)
    groups = {group.key: group for group in groups_of(asked_of(signals), ["mtp", "ngram"])}
    assert groups["drafter", "application", "a", "wrote", "ngram"].kind == "ngram"
    assert groups["repeats", "ngram"].share > 0
    assert not any("ngram" in key for key in keys(signals, "mtp"))


def test_whether_it_reasons_is_a_group_where_it_is_known() -> None:
    assert ("reasoning", "on") in keys(replace(CODE, reasoning=True), "mtp")
    assert ("reasoning", "off") in keys(replace(CODE, reasoning=False), "mtp")
    assert not any(key[0] == "reasoning" for key in keys(CODE, "mtp"))


def test_drafters_differ_by_task_where_there_are_several() -> None:
    assert not any(key[0] == "drafter" for key in keys(CODE, "mtp"))
    assert {("drafter", "code", "mtp"), ("drafter", "code", "ngram")} <= keys(CODE, "mtp", "ngram")


def test_lookups_differ_more_by_task_than_heads_do_and_tilt() -> None:
    groups = {group.key: group for group in groups_of(asked_of(CODE), ["mtp", "ngram"])}
    assert groups["drafter", "code", "ngram"].strength > groups["drafter", "code", "mtp"].strength
    assert groups["task", "code"].tilt > 0
    assert all(group.tilt == 0 for group in groups_of(asked_of(CODE), ["mtp"]))


def test_code_is_believed_to_be_more_predictable_than_stories() -> None:
    strengths = [
        believed_strength(asked_of(Signals(tasks={task: 1.0})))
        for task in (Task.EDIT, Task.CODE, Task.CHAT, Task.CREATE)
    ]
    assert strengths == sorted(strengths, reverse=True)
    mixed = Signals(tasks={Task.EDIT: 0.5, Task.CREATE: 0.5})
    assert strengths[0] > believed_strength(asked_of(mixed)) > strengths[-1]


def test_lookups_are_believed_to_find_more_in_edits_and_in_what_repeats() -> None:
    edit, story = (believed_lookups(asked_of(Signals(tasks={task: 1.0}))) for task in (Task.EDIT, Task.CREATE))
    assert edit > 0 > story
    repeating = Signals(tasks={Task.CREATE: 1.0}, repeats=0.9)
    assert believed_lookups(asked_of(repeating)) > story


def test_requests_whose_numbers_hardly_differ_are_the_same() -> None:
    assert asked_of(replace(CODE, tasks={Task.CODE: 0.81, Task.EDIT: 0.16})) == asked_of(CODE)
    assert asked_of(replace(CODE, tasks={Task.CODE: 0.6, Task.EDIT: 0.4})) != asked_of(CODE)


def test_requests_are_alike_at_about_the_same_load() -> None:
    leaves = [leaf_of(CODE, float(beside)).load for beside in (0, 1, 3, 7, 15)]
    assert leaves == [0, 1, 1, 2, 2]
    leaf = leaf_of(replace(CODE, application="a"), 0.0)
    assert changing_group(leaf) == ("application", "a", "")
    assert changing_group(leaf_of(CODE, 0.0)) == ("task", "code")
