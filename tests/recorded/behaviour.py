"""What today's code makes of a decision log, as JSON can hold it.

All that knows the code's interfaces stands here. When they change, this module is to be adapted, and what is expected
must stay as it is.
"""

import io
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from paceline.cli import main
from paceline.decision import EXPLORATION, Knowledge, Row, decide, learn
from paceline.decision.saved import SavedModel
from paceline.evidence.estimate import Estimate
from paceline.evidence.replay import replay
from paceline.evidence.report import report
from paceline.records.read import LogReader
from paceline.routing import store
from paceline.settings import Configuration
from paceline.types import Decision, Lane, LaneState, Outcome, Prediction, Signals

SEED = 7
SITUATIONS = ("alone", "busy", "taking turns", "first lane down")
"""In which each request is decided on. No log tells how busy a machine was: all but the first are made up."""
RULES_AND_PRICES = """
[[engine]]
name = "plain"
kind = "openai"
url = "http://127.0.0.1:9001"

[[engine]]
name = "ngram"
kind = "openai"
url = "http://127.0.0.1:9002"
strategy = "ngram"

[[rule]]
task = "edit"
lane = "ngram"

[[rule]]
task = "create"
lane = "plain"

[cost]
watts = 350
price_per_kwh = 0.30
currency = "EUR"

[[cloud]]
name = "elsewhere"
input_price = 0.25
cached_input_price = 0.03
output_price = 2.00
"""


class Entry(Struct, frozen=True):
    """Of a log, as far as deciding and learning need it."""

    signals: Signals
    decision: Decision
    outcome: Outcome


def behaviour_of(log: Path, folder: Path) -> dict[str, Any]:
    """
    Args:
        folder: for files on the way.
    """
    decisions, knowledge = decisions_of(log)
    configuration = folder / "paceline.toml"
    configuration.write_text(RULES_AND_PRICES)
    return {
        "decisions": decisions,
        "learned": stored(knowledge, folder),
        "estimates": estimates_of(log),
        "report": printed("report", "--log", str(log)),
        "report with rules and prices": printed("report", "--log", str(log), "--config", str(configuration)),
        "replay": printed("replay", "--log", str(log)),
        "replay with more exploring": printed("replay", "--log", str(log), "--exploration", "0.1"),
        "replay of two lanes": printed("replay", "--log", str(log), "--lanes", "plain,ngram"),
        "replay with rules": printed("replay", "--log", str(log), "--config", str(configuration)),
        "page": page_of(log, folder),
        "export": export_of(log, folder),
    }


def decisions_of(log: Path) -> tuple[list[Any], Knowledge]:
    """What is decided for each request in each situation, and what is known in the end. What is learned is the logged
    decision's outcome, so that it does not depend on what is decided here."""
    knowledge = Knowledge()
    draws = {situation: Random(SEED) for situation in SITUATIONS}
    found: list[Any] = []
    for number, entry in enumerate(entries_of(log)):
        if not entry.decision.predictions:
            found.append(None)  # it was refused before a decision
            continue
        found.append(
            {
                situation: told(decide(entry.signals, lanes_of(entry, situation, number), knowledge, draws[situation]))
                for situation in SITUATIONS
            }
        )
        learn(knowledge, entry.signals, entry.decision, entry.outcome)
    return found, knowledge


def entries_of(log: Path) -> list[Entry]:
    with closing(sqlite3.connect(log)) as connection:
        rows = connection.execute("SELECT entry FROM entries ORDER BY number").fetchall()
    return [msgspec.json.decode(row[0], type=Entry) for row in rows]


def lanes_of(entry: Entry, situation: str, number: int) -> list[LaneState]:
    """The lanes that a request had to choose from, as they are in a situation."""
    predictions = entry.decision.predictions.items()
    return [
        _lane(name, prediction, situation, place, number, len(predictions))
        for place, (name, prediction) in enumerate(predictions)
    ]


def _lane(name: str, one: Prediction, situation: str, place: int, number: int, lanes: int) -> LaneState:
    takes_turns = situation == "taking turns"
    has_turn = not takes_turns or place == number % lanes
    running = {"busy": (number + 2 * place) % 4, "taking turns": number // 2 % 3 if has_turn else 0}
    return LaneState(
        Lane(name, name.split("/")[0], one.strategy, device="cpu" if takes_turns else None),
        healthy=situation != "first lane down" or place > 0,
        running=running.get(situation, 0),
        waiting=(number // 3 + place) % 2 if takes_turns and not has_turn else 0,
        fingerprint=one.fingerprint,
        model=one.model,
        can_join=has_turn,
        has_turn=has_turn,
    )


def told(decision: Decision) -> dict[str, Any]:
    return {
        "lane": decision.lane,
        "reason": decision.reason,
        "propensity": decision.propensity,
        "propensities": dict(decision.propensities),
        "alternatives": list(decision.alternatives),
        "exploring_s": decision.exploring_s,
        "predictions": {lane: _prediction(one) for lane, one in decision.predictions.items()},
    }


def _prediction(one: Prediction) -> dict[str, Any]:
    return {
        "fingerprint": one.fingerprint,
        "model": one.model,
        "strategy": str(one.strategy),
        "plain_steps_per_token": one.plain_steps_per_token,
        "correction": one.correction,
        "spread": one.spread,
        "request_spread": one.request_spread,
        "plain_step_s": one.plain_step_s,
        "acceptance": one.acceptance,
        "coverage": one.coverage,
        "tokens": one.tokens,
        "prefill_s": one.prefill_s,
        "break_even": one.break_even,
        "s_per_token": one.s_per_token,
        "relative": one.relative,
    }


def stored(knowledge: Knowledge, folder: Path) -> dict[str, Any]:
    """What stands in the file in which a gateway keeps what it knows, by part and key."""
    path = folder / "learned.sqlite"
    store.save(path, knowledge)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT part, key, value FROM learned WHERE part <> 'opened'").fetchall()
    return {
        f"{part} {key}".strip(): _model(value) if part == "models" else msgspec.msgpack.decode(value)
        for part, key, value in sorted(rows)
    }


def _model(value: bytes) -> Any:
    """With what is believed of each unknown, its mean and its deviation, in place of the arrays."""
    entry = msgspec.msgpack.decode(value, type=SavedModel)
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(entry))
    for name in ("names", "prior", "mean", "covariance"):
        del fields[name]
    belief = Knowledge.from_rows([Row("models", ("m",), entry)]).models["m"].belief
    means, deviations = belief.mean.tolist(), np.sqrt(belief.covariance.diagonal()).tolist()
    return fields | {"belief": {" ".join(name): [means[n], deviations[n]] for name, n in belief.numbers.items()}}


def printed(*words: str) -> list[str]:
    """The lines that a command prints as its answer."""
    out = io.StringIO()
    with _in_utc(), redirect_stdout(out), redirect_stderr(io.StringIO()):
        status = main(list(words))
    assert status == 0, words
    return out.getvalue().splitlines()


def estimates_of(log: Path) -> dict[str, Any]:
    """What the report and the replay round."""
    found = report(LogReader(log))
    replayed = replay(LogReader(log), Configuration(), EXPLORATION)
    parts: list[Any] = [
        {
            "lanes": list(one.lanes),
            "requests": one.requests,
            "tokens": one.tokens,
            "seconds": one.seconds,
            "exploring_s": one.exploring_s,
            "fixed": {lane: _estimate(fixed) for lane, fixed in one.fixed.items()},
            "hindsight": _estimate(one.hindsight),
        }
        for one in found.comparisons
    ]
    tasks = [[one.task, dict(one.before), dict(one.after), one.ratio] for one in replayed.tasks]
    return {"report": parts, "replay": _estimate(replayed.whole), "tasks of the replay": tasks}


def _estimate(one: Estimate) -> list[float]:
    return [one.ratio, one.low, one.high, one.inverse_propensity, one.self_normalised, one.on_predictions, one.lasting]


def page_of(log: Path, folder: Path) -> list[str]:
    """The lines of the report as a page, but its footer, which tells the time."""
    path = folder / "report.html"
    printed("report", "--log", str(log), "--html", str(path))
    return [line for line in path.read_text("utf-8").splitlines() if not line.startswith("<footer>")]


def export_of(log: Path, folder: Path) -> dict[str, Any]:
    """The beginning and the end of the log as a table, and a hash of all of it. Its numbers are the log's own or
    products of them, which are the same on all platforms."""
    path = folder / "requests.csv"
    printed("export", str(path), "--log", str(log))
    lines = path.read_text("utf-8").splitlines()
    return {
        "lines": len(lines),
        "first": lines[:2],
        "last": lines[-1],
        "hash": sha256(path.read_bytes()).hexdigest(),
    }


@contextmanager
def _in_utc() -> Iterator[None]:
    """A report tells until when settings were used by the local clock."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        del os.environ["TZ"]
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()
