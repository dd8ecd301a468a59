"""Whether the machine pays: a week of traffic, and a table by hand that agrees to the cent."""

from pathlib import Path

import pytest
from tests.decision_logs import REQUEST, decision

from paceline.cli import main
from paceline.configuration import parse
from paceline.evidence.worth import DAY_S, NothingToPrice, text, worth
from paceline.records.decision_log import DecisionLog
from paceline.records.kept import kept_record
from paceline.records.record import Record
from paceline.types import Observation, Outcome, Signals

BEGAN_S = 1_800_000_000.0
CONFIGURATION = """
[cost]
watts = 600
idle_watts = 100
price_per_kwh = 0.30
hardware_price = 3652.5
hardware_months = 12
operations_per_month = 30.4375
currency = "EUR"
[[cloud]]
name = "frontier"
input_price = 5.0
cached_input_price = 0.5
output_price = 25.0
[[cloud]]
name = "same open model"
input_price = 0.1
output_price = 0.2
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


def answer(lane: str, at_s: float, took_s: float, cost: float | None = None, told: bool = True) -> Record:
    observed = (
        Observation(prompt_tokens=1_000, cached_tokens=19_000, completion_tokens=1_000) if told else Observation()
    )
    outcome = Outcome(lane, 200, took_s, observed=observed, at_s=at_s, cost=cost)
    return kept_record(REQUEST, Signals(), decision(), outcome)


def a_week() -> list[Record]:
    """Every hour 30 answers of a minute each, two at a time, so that the machine is busy for a quarter of it: 5,040
    answers. Each day one goes to the cloud for 0.04, and one does not tell its tokens."""
    records = [answer("gpu", BEGAN_S + 60, 60.0)]
    for hour in range(168):
        for number in range(30):
            at_s = BEGAN_S + 3600 * hour + 60 * (number // 2 + 1)
            if (hour, number) != (0, 0):
                records.append(answer("gpu", at_s, 60.0))
        if hour % 24 == 12:
            records.append(answer("cloud", BEGAN_S + 3600 * hour, 5.0, cost=0.04))
            records.append(answer("gpu", BEGAN_S + 3600 * hour + 60, 60.0, told=False))
    return records


def test_a_table_by_hand_agrees_to_the_cent() -> None:
    found = worth(a_week(), parse(CONFIGURATION, here=False), span_s=7 * DAY_S)
    # By hand: 7 days of 365.25 / 12 days a month.
    assert found.requests == 5040
    assert found.untold == 7
    assert found.busy_s == pytest.approx(168 * 900)
    assert found.busy_share == pytest.approx(0.25)
    assert found.hardware == pytest.approx(3652.5 * 7 / 365.25)  # 70.00
    assert round(found.hardware, 2) == 70.00
    assert round(found.operations, 2) == 7.00
    assert round(found.idle, 2) == 5.04  # 0.1 kW * 168 h * 0.30
    assert round(found.work, 2) == 6.30  # 0.5 kW * 42 h * 0.30
    assert round(found.total, 2) == 88.34
    assert (found.paid_requests, round(found.paid, 2), found.unpriced) == (7, 0.28, 0)
    frontier, same = found.instead
    # 5,040 answers of 1,000 * 5.0 + 19,000 * 0.5 + 1,000 * 25.0 = 39,500 per million.
    assert round(frontier.total, 2) == 199.08
    assert round(same.total, 2) == 11.09  # 5,040 * (20,000 * 0.1 + 1,000 * 0.2) / 1e6
    # 82.04 whether it works or not, in 604,800 s; a second of work saves (199.08 - 6.30) / 151,200.
    assert frontier.break_even_share == pytest.approx((82.04 / 604_800) / ((199.08 - 6.30) / 151_200), abs=1e-4)
    assert frontier.break_even_factor == pytest.approx(88.34 / 199.08, abs=1e-4)
    assert same.break_even_share == pytest.approx((82.04 / 604_800) / ((11.088 - 6.30) / 151_200), abs=1e-3)


def test_the_command_says_in_one_sentence_whether_it_paid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = DecisionLog(tmp_path / "requests.sqlite")
    for record in a_week():
        log.record(record)
    log.close()
    (tmp_path / "paceline.toml").write_text(CONFIGURATION)
    command = ["cost", "--config", str(tmp_path / "paceline.toml"), "--log", str(tmp_path / "requests.sqlite")]
    assert main([*command, "--on-days", "7"]) == 0
    said = capsys.readouterr().out
    assert said.rstrip().splitlines()[-1] == (
        "It paid: the machine cost 88.34 EUR and frontier would have cost 199.08 for the same answers; it was busy for "
        "25.0% of the time, where 10.6% pays."
    )
    rows = {line.split("  ")[0]: line.split()[-2:] for line in said.splitlines()}
    assert rows["this machine"] == ["88.34", "17.53"]
    assert rows["frontier"] == ["199.08", "39.50"] or "frontier" in said
    assert "Cloud engines gave 7 answers for 0.28 EUR." in said
    assert main([*command, "--on-days", "7", "--against", "same open model"]) == 0
    said = capsys.readouterr().out
    assert said.rstrip().splitlines()[-1].startswith("It did not pay: the machine cost 88.34 EUR and same open model")
    assert main([*command, "--against", "nobody sells this"]) == 0
    assert "no price of nobody sells this is known" in capsys.readouterr().err


def test_a_model_that_is_cheaper_than_the_power_never_pays() -> None:
    cheap = CONFIGURATION.replace("input_price = 5.0", "input_price = 0.001").replace(
        "output_price = 25.0", "output_price = 0.001"
    )
    found = worth(a_week(), parse(cheap.replace("cached_input_price = 0.5", ""), here=False))
    assert found.instead[0].break_even_share is None
    assert "less than the power of the work alone" in text(found)


def test_without_a_price_of_the_machine_nothing_is_claimed() -> None:
    plain = "\n".join(
        line for line in CONFIGURATION.splitlines() if "watts" not in line and "hardware_price" not in line
    )
    plain = plain.replace("operations_per_month = 30.4375", "")
    assert "can't be told whether it paid" in text(worth(a_week(), parse(plain, here=False)))


def test_nothing_to_price() -> None:
    with pytest.raises(NothingToPrice):
        worth([answer("cloud", BEGAN_S, 1.0, 0.1)], parse(CONFIGURATION, here=False))
