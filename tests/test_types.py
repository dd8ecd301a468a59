"""The nouns check themselves."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from paceline.types import DraftCounts, Lane, Observation, Outcome, Prediction, Strategy

COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "decode_tokens", "drafted", "accepted")
GOOD = Observation(completion_tokens=40, decode_tokens=39, decode_s=2.0, drafted=16, accepted=12)


@pytest.mark.parametrize(
    "report",
    [{name: -1} for name in COUNTS]
    + [{name: value} for name in ("prefill_s", "decode_s") for value in (-0.1, float("nan"), float("inf"))],
)
def test_a_number_that_cannot_be_true_counts_as_not_reported(report: dict[str, Any]) -> None:
    (name,) = report
    assert getattr(Observation(**report), name) is None
    assert replace(GOOD, **report) == replace(GOOD, **dict.fromkeys(report))


def test_more_accepted_than_drafted_cannot_be_true() -> None:
    impossible = replace(GOOD, accepted=17)
    assert (impossible.drafted, impossible.accepted, impossible.decode_tokens) == (None, None, 39)
    assert replace(GOOD, accepted=16).accepted == 16


@pytest.mark.parametrize("counts", [(3, -1), (float("inf"),), (2, float("nan"))])
def test_counts_by_position_that_cannot_be_true_count_as_not_reported(counts: Any) -> None:
    assert Observation(accepted_by_position=(5, 3)).accepted_by_position == (5, 3)
    assert Observation(accepted_by_position=counts) == Observation()


@given(st.fixed_dictionaries({name: st.none() | st.integers() for name in COUNTS}))
def test_no_report_raises(report: dict[str, Any]) -> None:
    observed = Observation(**report)
    assert all(value in (None, (), {}) or value >= 0 for value in msgspec.structs.astuple(observed))
    assert observed.accepted is None or observed.drafted is None or observed.accepted <= observed.drafted


def test_a_log_with_an_impossible_report_stays_readable() -> None:
    entry = msgspec.json.encode({"lane": "a", "status": 200, "total_s": 1.0, "observed": {"drafted": 2, "accepted": 9}})
    assert msgspec.json.decode(entry, type=Outcome).observed == Observation()


def test_a_lane_has_a_name_and_an_engine() -> None:
    for name, engine in (("", "e"), ("a", "")):
        with pytest.raises(ValueError, match="a lane needs a name"):
            Lane(name, engine, Strategy())


def test_what_older_logs_told_of_a_prediction_is_passed_over() -> None:
    old = {"fingerprint": "f", "model": "m", "strategy": {}, "plain_steps_per_token": 0.7, "correction": 1.1}
    entry = msgspec.json.encode(old | {"step_cost": [0.1, 0.2], "is_blind": True, "acceptance_spread": 0.1})
    read = msgspec.json.decode(entry, type=Prediction)
    assert read.relative == pytest.approx(0.77)
    assert (read.s_per_token, read.break_even) == (None, None)


def test_logs_keep_the_names_they_had() -> None:
    assert msgspec.to_builtins(Outcome("a", 200, 1.0, concurrent=2.5))["beside"] == 2.5


@pytest.mark.parametrize("counts", [(1, 3, 4), (4, 3, 1), (1, 3, -1)])
def test_a_drafter_accepts_no_more_than_it_drafts(counts: tuple[int, int, int]) -> None:
    assert DraftCounts(2, 3, 1).accepted == 1
    with pytest.raises(ValueError, match="accepts no more"):
        DraftCounts(*counts)


def test_a_strategy_of_an_older_log_is_read() -> None:
    old = msgspec.json.decode(b'{"kind": "mtp", "n_max": 3}', type=Strategy)
    assert old == Strategy("mtp", 3)
    controlled = Strategy("all", among=(old, Strategy("ngram", 8)))
    assert msgspec.json.decode(msgspec.json.encode(controlled), type=Strategy) == controlled
    assert (controlled.name, controlled.drafts) == ("all", True)
