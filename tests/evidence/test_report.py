"""What is told about a log: reports, pages, costs, replays."""

import random
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from msgspec.structs import replace
from tests.decision_logs import NGRAM, PLAIN, REQUEST, log_of, outcome, predicted, written

from paceline.cli import main
from paceline.configuration import parse
from paceline.evidence.calibration import calibration
from paceline.evidence.cost import cost
from paceline.evidence.estimate import Sample
from paceline.evidence.page import page
from paceline.evidence.policies import MIN_REQUESTS_OF_A_TASK, best_of_each_task
from paceline.evidence.replay import CannotReplay, replay
from paceline.evidence.report import TooLittle, report
from paceline.evidence.show import text
from paceline.evidence.usable import usable
from paceline.records.decision_log import DecisionLog
from paceline.records.kept import kept_record
from paceline.records.read import LogReader
from paceline.records.record import Record
from paceline.settings import CloudModel, Configuration, CostSettings
from paceline.types import Decision, Observation, Outcome, Signals, Strategy, Task

BOTH = {"plain": PLAIN, "ngram": NGRAM}
RULES = """
[cost]
watts = 100
price_per_kwh = 0.36
currency = "EUR"
[[cloud]]
name = "cloud"
input_price = 1
output_price = 10
[[rule]]
task = "code"
lane = "ngram"
[[rule]]
header = "x-team: a"
lane = "ngram"
[[engine]]
name = "plain"
kind = "openai"
url = "http://127.0.0.1:1"
[[engine]]
name = "ngram"
kind = "openai"
url = "http://127.0.0.1:2"
"""


def test_a_report_says_when_routing_does_not_pay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.05})
    found = report(LogReader(path)).comparisons[0]
    lane, ratio = found.best
    assert (lane, found.pays) == ("ngram", False)
    assert ratio.ratio == pytest.approx(0.5 / 0.95, abs=0.08)
    assert main(["report", "--log", str(path)]) == 0
    said = capsys.readouterr().out
    assert "Routing does not pay here: always ngram" in said
    assert "Use ngram." in said


def test_a_report_tells_of_a_drafter_that_does_not_work(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.1})
    assert not report(LogReader(path)).comparisons[0].faults
    log = DecisionLog(path := tmp_path / "other.sqlite")
    head = {"plain": predicted(PLAIN, 0.1), "mtp": predicted(Strategy("mtp", 4), 0.1)}
    for _ in range(40):
        chosen = Decision("mtp", "because", 0.5, {"plain": 0.5, "mtp": 0.5}, predictions=head)
        seen = replace(outcome("mtp"), observed=replace(outcome("mtp").observed, drafted=40, accepted=1))
        log.record(kept_record(REQUEST, Signals(), chosen, seen))
    log.close()
    told = report(LogReader(path))
    assert "Drafts by mtp are hardly ever accepted (2% of 1600 tokens)" in text(told)
    assert "quantized" in page(told)


def test_a_report_says_when_it_cannot_tell(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.1})
    told = report(LogReader(path))
    (found,) = told.comparisons
    assert found.pays is None
    assert "Routing and always ngram are about as fast here" in text(told)
    assert "Use " not in text(told)
    assert found.tasks[0].task == "answer"
    assert found.tasks[0].drafting == pytest.approx(0.1, abs=0.06)


def test_too_little_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "requests.sqlite"
    written(path, 3)
    with pytest.raises(TooLittle, match="3 requests"):
        report(LogReader(path))
    assert main(["report", "--log", str(path)]) == 1


def test_models_with_lanes_of_their_own_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.05}, model="small-")
    log_of(path, {"plain": 0.3, "ngram": 0.9}, model="large-")
    log_of(path, {"plain": 0.3, "ngram": 0.9}, model="new-", count=29)
    found = report(LogReader(path))
    assert [one.best[0] for one in found.comparisons] == ["large-plain", "small-ngram"]
    assert (found.requests, found.left_out) == (429, 29)
    assert main(["report", "--log", str(path), "--html", str(tmp_path / "report.html")]) == 0
    said, made = capsys.readouterr().out, (tmp_path / "report.html").read_text("utf-8")
    for heading in ("chose among large-plain, large-ngram", "chose among small-plain, small-ngram"):
        assert heading in said
        assert heading in made
    assert "29 had other lanes to choose from" in said


def test_too_few_for_each_choice_of_lanes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    for model in ("small-", "large-"):
        log_of(path, {"plain": 0.1, "ngram": 0.05}, count=25, model=model)
    with pytest.raises(TooLittle, match="50 of them can be compared, at most 25 of them of one model"):
        report(LogReader(path))


def test_rules_and_costs_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.05}, tasks=(Task.CODE, Task.CREATE))
    (tmp_path / "paceline.toml").write_text(RULES)
    (found,) = report(LogReader(path), parse(RULES)).comparisons
    assert found.rules
    assert found.rules.ratio == pytest.approx((0.5 * 0.05 + 0.5 * 0.1) / 0.095, abs=0.06)
    assert (found.plain, found.on) == ("plain", "ngram")
    assert found.hindsight.ratio == pytest.approx(found.best[1].ratio, abs=0.01)
    assert found.regret_s > 0
    words = ["report", "--log", str(path), "--config", str(tmp_path / "paceline.toml")]
    assert main([*words, "--html", str(tmp_path / "report.html")]) == 0
    said = capsys.readouterr()
    assert "your rules alone" in said.out
    assert "per million generated tokens, EUR" in said.out
    assert "a rule for ngram looks at a header" in said.err


def record_of(at_s: float, observed: Observation, total_s: float = 1000.0, error: str | None = None) -> Record:
    ended = Outcome("plain", 200, total_s, observed=observed, at_s=at_s, error=error)
    return kept_record(REQUEST, Signals(), Decision("plain", "because"), ended)


def test_costs_count_time_in_company_once() -> None:
    observed = Observation(completion_tokens=500_000, prompt_tokens=1_000_000, cached_tokens=0)
    told = [record_of(at_s=1000.0, observed=observed), record_of(at_s=1500.0, observed=observed)]
    failed = record_of(at_s=9000.0, total_s=5000.0, observed=observed, error="lost")
    settings = CostSettings(watts=1200, price_per_kwh=0.5)
    clouds = [
        CloudModel(name="dear", input_price=2, output_price=20),
        CloudModel(name="cheap", input_price=1, output_price=10, cached_input_price=0.1),
    ]
    found = cost([*told, failed], settings, clouds)
    assert found
    assert found.busy_s == 1500
    assert found.kwh == pytest.approx(0.5)
    assert found.total == pytest.approx(0.25)
    assert found.per_million == pytest.approx(0.25)
    assert [(one.name, one.total) for one in found.elsewhere] == [("cheap", 12), ("dear", 24)]
    from_cache = structs.replace(observed, prompt_tokens=0, cached_tokens=10**6)
    cached = cost([record_of(at_s=1.0, total_s=1.0, observed=from_cache)], settings, clouds)
    assert cached
    assert cached.elsewhere[0].total == pytest.approx(0.1 + 5)
    assert cost(told, CostSettings(), clouds) is None
    elsewhere = structs.replace(told[0], outcome=structs.replace(told[0].outcome, cost=0.25))
    with_paid = cost([*told, elsewhere], settings, clouds)
    assert with_paid
    assert (with_paid.paid, with_paid.paid_requests) == (0.25, 1)
    assert structs.replace(with_paid, paid=0, paid_requests=0) == found


def test_calibration_puts_like_predictions_together(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.05})
    found = calibration(usable(LogReader(path)))
    assert found.bias == pytest.approx(1, abs=0.03)
    assert sum(group.requests for group in found.times) == 200
    fast, slow = found.times[0], found.times[-1]
    assert fast.predicted == pytest.approx(0.05, rel=0.4)
    assert slow.predicted == pytest.approx(0.1)
    assert slow.actual == pytest.approx(0.1, rel=0.1)


def test_before_any_second_is_known_no_times_are_judged(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    log = DecisionLog(path)
    guess = {name: structs.replace(predicted(strategy, 0.1), plain_step_s=None) for name, strategy in BOTH.items()}
    for _ in range(40):
        chosen = Decision("plain", "because", 0.9, {"plain": 0.9, "ngram": 0.1}, predictions=guess)
        log.record(kept_record(REQUEST, Signals({Task.ANSWER: 1.0}), chosen, outcome("plain", s_per_token=0.1)))
    log.close()
    told = report(LogReader(path))
    assert told.comparisons[0].calibration.error is None
    assert "no times were predicted" in text(told)
    assert "no times were predicted" in page(told)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "line", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.05})
    made = page(report(LogReader(path), parse(RULES)))
    tags = _Tags()
    tags.feed(made)
    assert tags.open == []
    assert {"svg", "table", "figure"} <= tags.seen
    assert "script" not in tags.seen
    assert tags.addresses == []
    assert "Routing does not pay here: always ngram" in made
    assert "nan" not in re.sub("<style>.*?</style>", "", made, flags=re.DOTALL).lower().split()


def test_names_are_no_markup(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.05})
    configuration = parse(RULES.replace('name = "cloud"', 'name = "<script>alert(1)</script>"'))
    assert "<script>" not in page(report(LogReader(path), configuration))


def learning_log(path: Path, count: int = 300) -> Path:
    """Code is twice as fast by n-gram, stories are slower by it; who wrote the log tossed a coin for each."""
    rng = random.Random(5)
    log = DecisionLog(path)
    for number in range(count):
        task = (Task.CODE, Task.CREATE)[number % 2]
        lane = rng.choice(("plain", "ngram"))
        s_per_token = {"plain": 0.1, "ngram": 0.05 if task is Task.CODE else 0.14}[lane] * rng.lognormvariate(0, 0.05)
        guess = {"plain": predicted(PLAIN, 0.1), "ngram": predicted(NGRAM, 0.1)}
        chosen = Decision(lane, "a coin", 0.5, {"plain": 0.5, "ngram": 0.5}, predictions=guess)
        seen = outcome(lane, time.time() - 86_400 + 10 * number, s_per_token)
        drafts: dict[str, Any] = {"drafted": 0, "accepted": 0, "drafting_steps": 0}
        if lane == "ngram" and task is Task.CODE:
            drafts = {"drafted": 40, "accepted": 32, "drafting_steps": 5}
        elif lane == "ngram":
            drafts = {"drafted": 160, "accepted": 2, "drafting_steps": 20}
        seen = structs.replace(seen, total_s=50 * s_per_token + 0.2, observed=structs.replace(seen.observed, **drafts))
        log.record(kept_record(REQUEST, Signals({task: 1.0}), chosen, seen))
    log.close()
    return path


def test_a_replay_learns_from_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = learning_log(tmp_path / "requests.sqlite")
    found = replay(LogReader(path), Configuration(), 0.01)
    after = {one.task: one.after for one in found.tasks}
    assert found.requests == 300
    assert after["code"]["ngram"] > 0.8
    assert after["create"]["plain"] > 0.8
    coin = (0.1 + 0.05 + 0.1 + 0.14) / 4
    assert found.whole.low < (0.05 + 0.1) / 2 / coin < found.whole.high
    assert found.whole.high < 0.9
    assert main(["replay", "--log", str(path), "--exploration", "0"]) == 0
    assert "300 requests replayed: 0." in capsys.readouterr().out


def test_a_replay_can_leave_lanes_out_or_follow_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = learning_log(tmp_path / "requests.sqlite")
    only = replay(LogReader(path), Configuration(), 0.01, ["plain"])
    assert [one.after for one in only.tasks] == [{"plain": pytest.approx(1)}] * 2
    assert only.whole.low < 0.1 / 0.0975 < only.whole.high
    ruled = replay(LogReader(path), parse(RULES), 0.0)
    assert next(one for one in ruled.tasks if one.task == "code").after == {"ngram": pytest.approx(1)}
    with pytest.raises(CannotReplay, match="no lane gone; it has: ngram, plain"):
        replay(LogReader(path), Configuration(), 0.0, ["gone"])
    assert main(["replay", "--log", str(path), "--exploration", "2"]) == 1
    assert "--exploration: is 2, not a share" in capsys.readouterr().err


def test_of_lanes_that_are_equal_the_first_is_the_best() -> None:
    """Not the one that comes first in a set, which differs from process to process."""
    lanes = [f"lane {number}" for number in range(20)]
    samples = [
        Sample(
            task="code",
            lane=lanes[7],
            tokens=100,
            s_per_token=0.1,
            propensities={lanes[7]: 1.0},
            predicted=dict.fromkeys(lanes, 0.1),
            spread=dict.fromkeys(lanes, 0.1),
        )
        for _ in range(MIN_REQUESTS_OF_A_TASK)
    ]
    assert best_of_each_task(samples, lanes[3])(samples[0]) == {lanes[0]: 1.0}
