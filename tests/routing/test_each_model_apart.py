"""What is known of one model, build or setting is never taken for another's: learned, told and compared apart."""

import json
import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace
from tests.conftest import RunningGateway, StartEngine, StartGateway, lane
from tests.decision_logs import NGRAM, PLAIN, REQUEST, outcome, predicted
from tests.entries import entries
from tests.fake_engine import REPORT, Received, Wire

from paceline.cli import main
from paceline.cli.lanes import rows_of
from paceline.cli.top import lanes_table, task_tables
from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.feeling import LaneId
from paceline.evidence.page import page
from paceline.evidence.report import report
from paceline.evidence.show import heading, text, verdict
from paceline.http.gain import Gain
from paceline.records.decision_log import DecisionLog
from paceline.records.kept import kept_record
from paceline.records.read import LogReader
from paceline.routing import store
from paceline.serving.model_identity import lasting_description
from paceline.text_table import shown_name
from paceline.types import Decision, Lane, LaneState, Measured, Observation, Outcome, Signals, Strategy, Task

CHAT = "/v1/chat/completions"
LANES = (Lane("plain", "e", Strategy(), "gpu"), Lane("ngram", "e", Strategy("ngram", 8), "gpu"))
STORY = Signals(tasks={Task.CREATE: 1.0}, prompt_chars=400)
NOW_S = 1.7e9


def of_model(name: str) -> list[LaneState]:
    return [LaneState(one, fingerprint=f"{name} as started", model=name) for one in LANES]


def seen(s_per_token: float, tokens: int = 100) -> Observation:
    return Observation(100, 0, tokens, 0.1, tokens, tokens * s_per_token, 0, 0)


def teach(
    knowledge: Knowledge,
    lanes: list[LaneState],
    times: dict[str, float],
    count: int,
    tokens: int = 100,
    at_s: float = NOW_S,
) -> None:
    rng = Random(count)
    for number in range(count):
        decision = decide(STORY, lanes, knowledge, rng, 0.1)
        took = seen(times[decision.lane], tokens)
        assert took.decode_s
        answer = Outcome(decision.lane, 200, took.decode_s + 0.2, observed=took, at_s=at_s + number)
        learn(knowledge, STORY, decision, answer)


# What is learned


def test_another_model_under_the_same_lanes_begins_anew() -> None:
    small, large = of_model("small"), of_model("large")
    knowledge = Knowledge()
    teach(knowledge, large, {"plain": 0.1, "ngram": 0.05}, 100, tokens=900)
    assert predict(STORY, small, knowledge) == predict(STORY, small, Knowledge())
    assert {fingerprint for fingerprint, _ in knowledge.measured} == {"large as started"}
    assert set(knowledge.models) == {"large"}
    of_large = knowledge.measured["large as started", "plain"], predict(STORY, large, knowledge)
    teach(knowledge, small, {"plain": 0.004, "ngram": 0.009}, 60)
    assert decide(STORY, small, knowledge, Random(0), 0).lane == "plain"
    assert decide(STORY, large, knowledge, Random(0), 0).lane == "ngram"
    assert knowledge.measured["small as started", "plain"].tokens_per_s == pytest.approx(250)
    assert (knowledge.measured["large as started", "plain"], predict(STORY, large, knowledge)) == of_large
    lane_s, taken_s = knowledge.models["small"].always[LaneId("small as started", "small", Strategy())]
    assert lane_s / taken_s == pytest.approx(1, abs=0.2)


def test_other_settings_of_an_engine_begin_anew() -> None:
    before = of_model("m")
    knowledge = Knowledge()
    teach(knowledge, before, {"plain": 0.1, "ngram": 0.05}, 50)
    after = [replace(one, fingerprint="m with another build") for one in before]
    teach(knowledge, after, {"plain": 0.02, "ngram": 0.08}, 50)
    assert knowledge.measured["m with another build", "plain"].tokens_per_s == pytest.approx(50)
    assert decide(STORY, after, knowledge, Random(0), 0).lane == "plain"


def test_sums_of_replicas_add_up_and_keep_the_latest_moment() -> None:
    sums = Measured(2, 1, at_s=5.0), Measured(3, at_s=9.0)
    for first, second in (sums, sums[::-1]):
        one, other = Knowledge(), Knowledge()
        one.measured["f", "plain"], other.measured["f", "plain"] = first, second
        one.merge(other)
        assert one.measured == {("f", "plain"): Measured(5, 1, at_s=9.0)}


def test_what_was_refused_before_a_decision_is_nobodys() -> None:
    knowledge = Knowledge()
    teach(knowledge, of_model("m"), {"plain": 0.1, "ngram": 0.05}, 5)
    before = entries(knowledge)
    refused = Outcome("", 404, 0.001, at_s=NOW_S, error="no lane serves the model")
    learn(knowledge, Signals(), Decision("", "not decided"), refused)
    assert entries(knowledge) == before


@pytest.mark.parametrize(
    ("status", "error", "failures"),
    [
        (200, None, 0),
        (200, "an error event", 1),
        (400, "the engine answered 400", 0),
        (404, "the engine answered 404", 0),
        (422, "the engine answered 422", 0),
        (429, "the engine answered 429", 1),
        (499, "the client left", 0),
        (500, "the engine answered 500", 1),
        (502, "lost", 1),
        (529, "overloaded", 1),
    ],
)
def test_a_failure_is_the_engines_own(status: int, error: str | None, failures: int) -> None:
    knowledge = Knowledge()
    decision = decide(STORY, of_model("m"), knowledge, Random(0), 0)
    learn(knowledge, STORY, decision, Outcome("plain", status, 1.0, observed=seen(0.005), error=error, at_s=NOW_S))
    sums = knowledge.measured["m as started", "plain"]
    assert (sums.requests, sums.failures) == (1, failures)
    assert bool(knowledge.models) == (error is None)
    assert bool(sums.decode_tokens) == (error is None)


def test_lanes_that_failed_before_another_served_are_counted() -> None:
    knowledge = Knowledge()
    decision = decide(STORY, of_model("m"), knowledge, Random(0), 0)
    answer = Outcome("ngram", 200, 1.0, observed=seen(0.005), at_s=NOW_S, failed=(("plain", "m as started"),))
    learn(knowledge, STORY, decision, answer)
    assert knowledge.measured["m as started", "plain"] == Measured(1, 1, at_s=NOW_S)
    of_second = knowledge.measured["m as started", "ngram"]
    assert (of_second.requests, of_second.failures) == (1, 0)


def test_an_engine_that_changed_after_the_decision_is_not_taken_for_what_was_predicted() -> None:
    knowledge = Knowledge()
    decision = decide(STORY, of_model("m"), knowledge, Random(0), 0)
    answer = Outcome("plain", 200, 1.0, observed=seen(0.005), at_s=NOW_S, fingerprint="another")
    learn(knowledge, STORY, decision, answer)
    assert not knowledge.models
    assert set(knowledge.measured) == {("another", "plain")}


def test_answers_of_one_token_do_not_inflate_speeds() -> None:
    """llama.cpp tells a microsecond for them."""
    knowledge, lanes = Knowledge(), of_model("m")
    for number, took in enumerate([seen(0.02), *[seen(1e-6, 1)] * 50, *[seen(5e-5, 2)] * 50]):
        decision = decide(STORY, lanes, knowledge, Random(0), 0)
        learn(knowledge, STORY, decision, Outcome("plain", 200, 3.0, observed=took, at_s=NOW_S + number))
    assert knowledge.measured["m as started", "plain"].tokens_per_s == pytest.approx(50)
    assert knowledge.measured["m as started", "plain"].requests == 101
    assert predict(STORY, lanes, knowledge)["plain"].s_per_token == pytest.approx(0.02, rel=0.01)


@pytest.mark.parametrize("its_format", [1, 2])
def test_of_an_older_file_what_still_means_the_same_is_kept(its_format: int, tmp_path: Path) -> None:
    """The first format kept the sums of lanes by their names alone; the second had cells of another model."""
    path, knowledge = tmp_path / "learned.sqlite", Knowledge()
    teach(knowledge, of_model("m"), {"plain": 0.1, "ngram": 0.05}, 5, at_s=time.time())
    store.save(path, knowledge)
    with closing(sqlite3.connect(path)) as connection, connection:
        (value,) = connection.execute("SELECT value FROM learned WHERE part = 'means' LIMIT 1").fetchone()
        connection.execute("INSERT INTO learned VALUES ('cells', '[\"step\",\"m\"]', ?)", (value,))
        connection.execute(f"PRAGMA user_version = {its_format}")
    kept = {place: entry for place, entry in entries(knowledge).items() if its_format == 2 or place[0] != "measured"}
    assert len(kept) > 3
    assert entries(store.load(path)) == kept
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert not connection.execute("SELECT * FROM learned WHERE part = 'cells'").fetchall()


# What a model is


def test_a_model_is_what_its_entry_says_for_good() -> None:
    entry = {"id": "m", "object": "model", "created": 1, "meta": {"n_params": 7, "size": 4, "loaded_at": 1}}
    same = entry | {"created": 2, "status": {"value": "loaded"}, "meta": {"n_params": 7, "size": 4, "loaded_at": 9}}
    assert lasting_description(entry, None) == lasting_description(same, None) == ["m", {"n_params": 7, "size": 4}]
    assert lasting_description(entry | {"meta": {"n_params": 8, "size": 4}}, None) != lasting_description(entry, None)
    assert lasting_description(entry | {"root": "other-weights"}, None) != lasting_description(entry, None)


@pytest.mark.parametrize(
    "field", ["created_at", "size_vram", "last_used", "Status", "expires_at", "is-loaded", "n_slots"]
)
def test_what_changes_of_itself_is_no_part_of_a_model(field: str) -> None:
    told = [
        lasting_description({"id": "m", "meta": {"n_params": 7, "more": {field: value}}}, None) for value in (1, "two")
    ]
    assert told[0] == told[1] == ["m", {"n_params": 7, "more": {}}]


def test_a_model_that_is_described_only_while_it_is_loaded_stays_the_same() -> None:
    loaded = lasting_description({"id": "m", "meta": {"n_params": 7}}, None)
    assert lasting_description({"id": "m"}, loaded) == loaded


def test_any_meta_can_be_hashed() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = {"x": [deep]}
    for meta in (deep, [1, [2]], "text", 3.5, True, {"a": [1, {"created": 2}]}):
        json.dumps(lasting_description({"id": "m", "meta": meta}, None))


async def two_models(start_engine: StartEngine, start_gateway: StartGateway, **options: Any) -> RunningGateway:
    engine = await start_engine(by_model, models=("small", "large"), **options)
    return await start_gateway(lane("only", engine.url))


async def by_model(received: Received, wire: Wire) -> None:
    """The small model takes 0.1 ms a token, the large one 0.4."""
    asked = json.loads(received.body)["model"]
    told = {"prompt_n": 20, "prompt_ms": 1.0, "predicted_n": 41, "predicted_ms": {"small": 4.1, "large": 16.4}[asked]}
    await wire.json(json.dumps(REPORT | {"timings": told}).encode())


async def test_an_engines_models_are_told_apart(
    start_engine: StartEngine, start_gateway: StartGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    running = await two_models(start_engine, start_gateway)
    for model in ("small", "large", "large"):
        answer = await running.http.post(CHAT, json={"model": model, "messages": []})
        assert answer.status_code == 200
    one = (await running.http.get("/paceline/lanes")).json()["lanes"][0]
    assert [(some["model"], some["measured"]["requests"]) for some in one["by_model"]] == [("small", 1), ("large", 2)]
    speeds = [some["measured"]["tokens_per_s"] for some in one["by_model"]]
    assert speeds[0] > 2 * speeds[1]
    assert (one["measured"]["requests"], one["measured"]["tokens_per_s"], one["model"]) == (3, None, None)
    steps = [some["step"]["plain_ms"] for some in one["by_model"]]
    assert steps[0] < steps[1] / 2


async def test_a_model_more_changes_nothing_for_the_others(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running = await two_models(start_engine, start_gateway)
    engine = running.gateway.fleet.engines["only"]
    before = {name: engine.identity(name) for name in ("small", "large")}
    facts = engine.supervisor.facts
    assert facts
    more = {"a-new-one": {"id": "a-new-one"}, **facts.models}
    engine.supervisor.facts = replace(facts, models={**facts.models, **more})
    assert {name: engine.identity(name) for name in before} == before
    assert len({*before.values(), engine.identity("a-new-one")}) == 3
    assert engine.identity("nobody knows it") == engine.identity(None) == before["small"]
    engine.supervisor.facts = replace(facts, build="another")
    assert engine.identity("small")[0] != before["small"][0]
    assert engine.identity("small")[1] == before["small"][1]


def test_top_and_lanes_show_a_row_for_each_model() -> None:
    def known(model: str, requests: int, speed: float) -> dict[str, Any]:
        measured = {"requests": requests, "tokens_per_s": speed, "acceptance": None}
        return {"model": model, "measured": measured, "step": {"break_even_acceptance": None}}

    engine: dict[str, Any] = {"kind": "ollama", "build": None, "drafters": [], "slots": None, "context_tokens": None}
    one = {"lane": "only", "health": "up", "running": 0, "waiting": 0, "engine": engine}
    one |= {"strategy": {"kind": "autoregressive", "n_max": None}}
    one |= {"by_model": [known("small", 1, 250.0), known("large", 2, 10.0)]}
    assert [row.split() for row in lanes_table([one]).splitlines()[1:]] == [
        ["only", "up", "small", "0", "0", "1", "250.0", "-", "-"],
        ["large", "2", "10.0", "-", "-"],
    ]
    assert [row[7:11] for row in rows_of(one)] == [("small", "1", "-", "250.0"), ("large", "2", "-", "10.0")]


def test_top_puts_together_what_is_of_one_model_as_it_runs_now() -> None:
    def request(model: str, fingerprint: str, tokens: int) -> dict[str, Any]:
        told = {"decode_tokens": tokens, "decode_s": 1.0, "drafted": None, "accepted": None}
        about = {"model": model, "lane": "only", "fingerprint": fingerprint, "task": "code", "observed": told}
        return about | {"error": None, "drafts": False, "break_even_share": None}

    tables = task_tables([request("small", "old", 1), request("small", "new", 200), request("large", "large", 10)])
    assert [[line.split()[:3] for line in table.splitlines() if "code" in line] for table in tables] == [
        [["code", "1", "200.0"]],
        [["code", "1", "10.0"]],
    ]
    assert [table.splitlines()[0] for table in tables] == ["small:", "large:"]


async def test_an_engine_that_was_lost_before_another_served_has_failed(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def breaks(received: Received, wire: Wire) -> None:
        raise ConnectionResetError

    first, second = await start_engine(breaks), await start_engine()
    running = await start_gateway(lane("first", first.url) + lane("second", second.url))
    assert (await running.http.post(CHAT, json={"model": "m", "messages": []})).headers["x-paceline-lane"] == "second"
    sums = {name: one for (_, name), one in running.gateway.pipeline.router.knowledge.measured.items()}
    assert [(sums[name].requests, sums[name].failures) for name in ("first", "second")] == [(1, 1), (1, 0)]


# What is told of a log


def log_of(
    path: Path,
    fingerprint: str,
    speeds: dict[str, float],
    count: int = 60,
    model: str | None = "m",
    noise: float = 0.05,
) -> Path:
    """Of a policy that tosses a coin; added to what is there."""
    rng = random.Random(3)
    log = DecisionLog(path)
    guesses = {
        name: replace(predicted(strategy, speeds[name]), fingerprint=fingerprint, spread=noise)
        for name, strategy in (("plain", PLAIN), ("ngram", NGRAM))
    }
    for _ in range(count):
        name = rng.choice(("plain", "ngram"))
        chosen = Decision(name, "a coin", 0.5, {"plain": 0.5, "ngram": 0.5}, predictions=guesses)
        took = outcome(name, s_per_token=speeds[name] * rng.lognormvariate(0, noise))
        log.record(
            kept_record(replace(REQUEST, model=model, served_model=model), Signals({Task.ANSWER: 1.0}), chosen, took)
        )
    log.close()
    return path


async def test_different_settings_are_never_compared_as_one(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", "old", {"plain": 0.1, "ngram": 0.3}, count=90)
    log_of(path, "new", {"plain": 0.1, "ngram": 0.05})
    found = report(LogReader(path))
    assert [(one.requests, one.is_current, one.best[0]) for one in found.comparisons] == [
        (60, True, "ngram"),
        (90, False, "plain"),
    ]
    assert heading(found.comparisons[0]) == "m: 60 requests that chose among plain, ngram"
    assert "with settings that were last seen on" in heading(found.comparisons[1])
    for made in (text(found), page(found)):
        assert made.index("m: 60 requests") < made.index("m: 90 requests")
    document = await Gain(path).document()
    assert [(one["model"], one["is_current"]) for one in document["comparisons"]] == [("m", True), ("m", False)]


def test_models_of_a_log_that_gave_them_one_fingerprint_are_told_apart_by_name(tmp_path: Path) -> None:
    path = tmp_path / "requests.sqlite"
    for _ in range(4):  # in turn
        log_of(path, "all", {"plain": 0.1, "ngram": 0.3}, model="large", count=20)
        log_of(path, "all", {"plain": 0.02, "ngram": 0.01}, model="small", count=20)
    found = report(LogReader(path)).comparisons
    assert [(one.model, one.best[0], one.requests) for one in found] == [("large", "plain", 80), ("small", "ngram", 80)]
    assert all(one.is_current for one in found)


def test_requests_that_name_no_model_are_of_the_one_that_serves(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", "one", {"plain": 0.1, "ngram": 0.3}, model="m", count=20)
    log_of(path, "one", {"plain": 0.1, "ngram": 0.3}, model=None, count=20)
    (found,) = report(LogReader(path)).comparisons
    assert (found.model, found.requests, found.is_current) == ("m", 40, True)


async def test_present_settings_that_are_too_new_to_judge_are_said(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", "old", {"plain": 0.1, "ngram": 0.3})
    log_of(path, "new", {"plain": 0.1, "ngram": 0.05}, count=7)
    assert "m: 7 requests so far that chose among plain, ngram as they are now" in text(report(LogReader(path)))
    assert "m: 7 requests so far" in (await Gain(path).document())["verdict"]


def test_a_replay_tells_models_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = log_of(tmp_path / "requests.sqlite", "f-large", {"plain": 0.1, "ngram": 0.3}, model="large")
    log_of(path, "f-small", {"plain": 0.02, "ngram": 0.01}, model="small")
    assert main(["replay", "--log", str(path), "--exploration", "0"]) == 0
    said = capsys.readouterr().out
    assert said.index("large on plain, ngram:") < said.index("small on plain, ngram:") < said.index("120 requests")


# Verdicts


def test_a_verdict_from_noise_is_no_order(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", "f", {"plain": 0.1, "ngram": 0.094}, count=40, noise=0.6)
    (found,) = report(LogReader(path)).comparisons
    assert found.best[1].low < 0.95 < 1.05 < found.best[1].high
    said = verdict(found)
    assert said.startswith("It can't be told yet whether routing pays here")
    assert "Use " not in said
    assert "does not pay" not in said


def test_how_many_more_requests_would_tell_is_foretold(tmp_path: Path) -> None:
    """If the difference stays what it seems: here the same requests come again."""
    path = tmp_path / "requests.sqlite"
    log_of(path, "f", {"plain": 0.1, "ngram": 0.09}, count=30, noise=0.4)
    (found,) = report(LogReader(path)).comparisons
    assert found.pays is None
    assert found.more_needed == pytest.approx(28, abs=5)
    assert "about 30 more requests would tell" in verdict(found)
    for _ in range(2):
        log_of(path, "f", {"plain": 0.1, "ngram": 0.09}, count=30, noise=0.4)
    (found,) = report(LogReader(path)).comparisons
    assert found.pays is False
    assert verdict(found).endswith("Use ngram.")


def test_what_more_requests_can_not_tell_is_not_foretold(tmp_path: Path) -> None:
    same = log_of(tmp_path / "requests.sqlite", "f", {"plain": 0.1, "ngram": 0.0999}, count=30, noise=0.4)
    (found,) = report(LogReader(same)).comparisons
    unsure = replace(found.best[1], ratio=0.99, low=0.8, high=1.18)
    assert replace(found, fixed={"ngram": unsure}).more_needed is None
    assert "can't be foreseen" in verdict(replace(found, fixed={"ngram": unsure}))
    by_predictions = replace(unsure, ratio=0.9, low=0.7, high=1.1, lasting=0.15)
    assert replace(found, fixed={"ngram": by_predictions}).more_needed is None


def test_names_of_others_can_do_nothing_to_a_terminal(tmp_path: Path) -> None:
    path = log_of(
        tmp_path / "requests.sqlite", "f", {"plain": 0.1, "ngram": 0.3}, model="\x1b]0;x\x07\u202e<b>" + "y" * 500
    )
    found = report(LogReader(path))
    assert all(line.isprintable() for line in text(found).split("\n"))
    assert "<b>" not in page(found)
    assert len(shown_name("y" * 500)) == 80
