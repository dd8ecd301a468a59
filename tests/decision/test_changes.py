"""Changes are told by misses, variances learned from squares, and both in bounded room."""

import pytest

from paceline.decision.changes import Changes, Recent, Variances
from paceline.decision.tuning import MAX_KEYS


def test_a_dictionary_keeps_what_was_written_last() -> None:
    recent: Recent[int] = Recent()
    for number in range(MAX_KEYS + 5):
        recent[number] = number
        recent[0] = number
    assert len(recent) == MAX_KEYS
    assert 0 in recent
    assert 1 not in recent


def test_a_change_is_told_by_repeated_misses_to_one_side() -> None:
    changes = Changes()
    assert not any(changes.has("noisy", 2.0 * (-1) ** number, 1.0) for number in range(100))
    alarms = [changes.has("task", -2.5, 1.0) for _ in range(6)]
    assert alarms == [False, False, False, True, False, False]
    assert not changes.has("another", 5.0, 1.0)
    assert changes.has("another", 900.0, 1.0)


def test_misses_count_by_what_was_expected_of_them() -> None:
    changes = Changes()
    assert not any(changes.has("unsure", 2.5, 36.0) for _ in range(100))


def test_a_change_is_suspected_before_it_is_told() -> None:
    changes = Changes()
    told = [changes.suspicion("task")]
    for _ in range(2):
        changes.has("task", -2.5, 1.0)
        told.append(changes.suspicion("task"))
    assert told == pytest.approx([0.0, 2 / 6, 4 / 6])


def test_a_variance_moves_from_what_is_believed_to_what_is_seen() -> None:
    variances = Variances()
    assert variances.of("a", 4.0) == 4.0
    told = []
    for _ in range(300):
        variances.learn("a", 1.0)
        told.append(variances.of("a", 4.0))
    assert told == sorted(told, reverse=True)
    assert told[9] == pytest.approx(2.5, abs=0.1), "ten squares count as much as what was believed"
    assert told[-1] == pytest.approx(1.3, abs=0.1)
    assert variances.of("b", 4.0) == 4.0
