"""What other ways to place the requests of a log would have taken and cost, in a world where that is known."""

from pathlib import Path
from random import Random

import pytest
from tests.decision_logs import REQUEST

from paceline.cli import main
from paceline.configuration import parse
from paceline.evidence.modes import AS_IT_WAS, MIN_REQUESTS, ways
from paceline.records.decision_log import DecisionLog
from paceline.records.kept import kept_record
from paceline.records.record import Record
from paceline.types import Decision, Observation, Outcome, Placed, Signals, Terms

CONFIGURATION = """
[placement]
value_of_time_per_hour = 36.0
cost_of_poor_answer = 0.05
[cost]
watts = 300
price_per_kwh = 0.3
[[engine]]
name = "gpu"
kind = "openai"
url = "http://127.0.0.1:1"
[[engine]]
name = "cloud"
kind = "openai"
cloud = true
url = "http://127.0.0.1:2"
"""
OFF = 1.5
"""By which the cloud engine's times are predicted too short."""


def world(count: int, seed: int = 1, cloud_share: float = 0.3) -> tuple[list[Record], dict[str, float]]:
    """Requests of which it is known what each engine takes; and the mean time of each for all."""
    dice, records, sums = Random(seed), list[Record](), {"gpu": 0.0, "cloud": 0.0}
    for number in range(count):
        size = dice.lognormvariate(0, 0.5)
        true_s = {"gpu": 6 * size * dice.lognormvariate(0, 0.1), "cloud": (1 + 2 * size) * dice.lognormvariate(0, 0.1)}
        for name in sums:
            sums[name] += true_s[name] / count
        terms = {
            "gpu": Terms(6 * size, 0.0, 0.0, 0.3, None),
            "cloud": Terms((1 + 2 * size) / OFF, 0.0, 0.02 * size, 0.0, None),
        }
        engine = "cloud" if dice.random() < cloud_share else "gpu"
        decision = Decision(engine, "because", placed=Placed(engine, "because", terms=terms))
        observed = Observation(prompt_tokens=100, completion_tokens=100)
        cost = 0.02 * size if engine == "cloud" else None
        outcome = Outcome(engine, 200, true_s[engine], observed=observed, at_s=1.8e9 + 60 * number, cost=cost)
        records.append(kept_record(REQUEST, Signals(), decision, outcome))
    return records, sums


def test_each_engine_for_all_is_estimated_right_although_predictions_are_off() -> None:
    inside = 0
    for seed in range(10):
        records, true_s = world(400, seed)
        found = {way.name: way for way in ways(records, parse(CONFIGURATION, here=False))}
        for engine in ("gpu", "cloud"):
            way = found[f"always {engine}"]
            assert way.time_s.mean == pytest.approx(true_s[engine], rel=0.08)
            assert way.is_corrected
            inside += way.time_s.low <= true_s[engine] <= way.time_s.high
        assert found["always gpu"].cost.mean == 0.0
        assert found["always cloud"].cost.mean == pytest.approx(0.02 * 1.13, rel=0.15)
        assert found["always gpu"].own_share == 1.0
        was = found[AS_IT_WAS]
        assert was.time_s.mean == pytest.approx(sum(record.outcome.total_s for record in records) / 400)
        assert was.own_share == pytest.approx(0.7, abs=0.08)
    assert inside >= 16, "intervals hold the truth nineteen times of twenty, and these are few"


def test_modes_are_what_their_names_say() -> None:
    found = {way.name: way for way in ways(world(400)[0], parse(CONFIGURATION, here=False))}
    assert found["local-first"].own_share == found["cheapest"].own_share == 1.0
    assert found["best"].own_share == 0.0
    assert found["fastest"].time_s.mean <= min(way.time_s.mean for way in found.values()) + 0.05
    assert 0.0 <= found["balanced"].own_share < 1.0


def test_an_engine_that_served_too_few_is_marked_and_few_requests_tell_nothing() -> None:
    records = [record for record in world(100, cloud_share=0.05)[0] if record.outcome.lane == "gpu"]
    found = {way.name: way for way in ways(records, parse(CONFIGURATION, here=False))}
    assert not found["always cloud"].is_corrected
    assert found["always gpu"].is_corrected
    assert not ways(records[: MIN_REQUESTS - 1], parse(CONFIGURATION, here=False))


def test_the_command_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = DecisionLog(tmp_path / "requests.sqlite")
    for record in world(100)[0]:
        log.record(record)
    log.close()
    (tmp_path / "paceline.toml").write_text(CONFIGURATION)
    command = ["cost", "--config", str(tmp_path / "paceline.toml"), "--log", str(tmp_path / "requests.sqlite")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "always cloud" in said
    assert "local-first" in said
