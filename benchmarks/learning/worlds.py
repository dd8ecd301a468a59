"""Simulated machines. Each draws outcomes from a measured table; which table, its docstring says."""

import json
from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace
from training.task_model.prompts import own_prompts

from paceline.decision.drafting import accepted_per_draft
from paceline.inspection import inspect
from paceline.types import Api, Lane, LaneState, Observation, Outcome, Request, Signals, Strategy, Task

NOISE = 0.05
"""Of a measured time, as standard deviation of its logarithm."""
DIFFERENCE = 0.05
"""By which requests of one task differ in what drafting does to their time, where a table has one row for a task; as
standard deviation of its logarithm."""
MISTOLD = 0.06
"""Share of requests whose signals are those of another task: the task model was trained on these prompts, so here it
errs as often as it did in cross-validation."""
MIN_ROUNDS = 6
MEASURED = Path(__file__).parent / "measured.json"
Row = dict[str, tuple[float, float | None, float | None]]


REQUEST = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", {})
"""Stands for all that are drawn, of which only the signals count."""


class Draw(NamedTuple):
    """A request, and what every lane would make of it."""

    task: Task
    """What it really asks for."""
    signals: Signals
    """As inspection finds them, now and then those of another task."""
    expected_s: dict[str, float]
    """Decode time by lane, known to the oracle alone."""
    observed: dict[str, Observation]

    def outcome(self, lane: str, at_s: float) -> Outcome:
        """What became of it on a lane, which it left at ``at_s``."""
        observed = self.observed[lane]
        return Outcome(lane, 200, (observed.decode_s or 0) + 0.1, observed=observed, at_s=at_s)


class World(Struct):
    """Lanes, and rows of what each makes of a request of a task: seconds per token, drafted and accepted per token
    (``None`` where the engine does not tell)."""

    name: str
    lanes: list[LaneState]
    rows: dict[Task, list[Row]]
    own_signals: dict[Task, list[Signals]] = {}
    """Of the very requests that the rows were measured on, in their order."""
    behaves_as: dict[Task, Task] = {}
    """Tasks whose acceptance has changed to another's."""

    def draw(self, signals: dict[Task, list[Signals]], rng: Random) -> Draw:
        task = rng.choice(list(self.rows))
        reported = rng.choice(list(self.rows)) if rng.random() < MISTOLD else task
        source = self.behaves_as.get(task, task)
        number = rng.randrange(len(self.rows[source]))
        row = self.rows[source][number]
        is_own = reported is task is source and task in self.own_signals
        its_signals = self.own_signals[task][number] if is_own else rng.choice(signals[reported])
        tokens = rng.choice((64, 128, 256))
        factor = exp(rng.gauss(0, DIFFERENCE if len(self.rows[source]) == 1 else 0.0))
        expected_s, observed = {}, {}
        for state in self.lanes:
            s_per_token, drafted, accepted = row[state.lane.name]
            drafts = state.lane.strategy.drafts
            expected_s[state.lane.name] = tokens * s_per_token * (factor if drafts else 1.0)
            took_s = expected_s[state.lane.name] * exp(rng.gauss(0, NOISE))
            counts = (
                None if drafted is None or accepted is None else (round(tokens * drafted), round(tokens * accepted))
            )
            observed[state.lane.name] = Observation(
                completion_tokens=tokens,
                decode_tokens=tokens,
                decode_s=took_s,
                drafted=counts[0] if counts and drafts else None,
                accepted=counts[1] if counts and drafts else None,
            )
        return Draw(task, its_signals, expected_s, observed)


def signals_by_task() -> dict[Task, list[Signals]]:
    """Signals of our own prompts, greedy."""
    by_task: dict[Task, list[Signals]] = {}
    for prompt in own_prompts():
        by_task.setdefault(Task(prompt.task), []).append(_signals(prompt.text))
    return by_task


def _signals(text: str) -> Signals:
    """Without the conversation: no prompt comes twice in life."""
    fields = {"messages": [{"role": "user", "content": text}], "temperature": 0}
    return replace(inspect(Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", fields)), conversation="")


def lanes(strategies: Sequence[Strategy]) -> list[LaneState]:
    """One engine that can switch per request."""
    return [
        LaneState(Lane(_name(strategy), "engine", strategy), fingerprint="engine", model="model")
        for strategy in strategies
    ]


def embedded() -> World:
    """SmolLM2-135M Q8_0 on two CPU cores, n-gram lookup at three caps: ``python -m benchmarks.learning.measure``.

    What each prompt drafts and accepts at each cap is as measured. Its times are one run each on a shared machine, so
    the machine's side is their median: a plain step's, and by cap a verification step's.
    """
    measured = json.loads(MEASURED.read_text())
    plain_s = median(row["decode_s"] / row["tokens"] for row in measured if not row["cap"])
    caps = sorted({row["cap"] for row in measured} - {0})
    step_cost = {cap: _drafting_step(measured, cap, plain_s) for cap in caps}
    rows: dict[Task, dict[str, Row]] = {}
    for row in measured:
        cap, tokens, drafted, accepted = (row[key] for key in ("cap", "tokens", "drafted", "accepted"))
        rounds = drafted / cap if cap else 0.0
        steps = tokens - accepted - rounds + rounds * step_cost.get(cap, 0.0)
        name = f"ngram-{cap}" if cap else "plain"
        lane = (plain_s * steps / tokens, drafted / tokens, accepted / tokens)
        rows.setdefault(Task(row["task"]), {}).setdefault(row["prompt"], {})[name] = lane
    return World(
        "SmolLM2-135M Q8_0, 2 CPU cores, n-gram",
        lanes([Strategy(), *(Strategy("ngram", cap) for cap in caps)]),
        {task: list(prompts.values()) for task, prompts in rows.items()},
        {task: [_signals(text) for text in prompts] for task, prompts in rows.items()},
    )


def _drafting_step(measured: list[dict[str, float]], cap: int, plain_s: float) -> float:
    """What a step that verifies a draft takes, in plain steps: the median over the prompts that drafted often."""
    costs = []
    for row in measured:
        if row["cap"] == cap and row["drafted"] >= MIN_ROUNDS * cap:
            rounds = row["drafted"] / cap
            costs.append((row["decode_s"] / plain_s - (row["tokens"] - row["accepted"] - rounds)) / rounds)
    return median(costs)


def f16() -> World:
    """SmolLM2-135M F16 on two CPU cores, ngram-simple 3/16, tokens/s by cap, one run each; no counts are known."""
    table = {
        Task.EDIT: (95, 105, 122, 121, 110),
        Task.EXTRACT: (102, 106, 123, 121, 103),
        Task.SUMMARISE: (93, 93, 111, 105, 96),
        Task.CODE: (104, 102, 97, 90, 86),
        Task.CREATE: (103, 99, 101, 107, 105),
    }
    strategies = [Strategy(), *(Strategy("ngram", cap) for cap in (2, 4, 8, 16))]
    return _by_speed("SmolLM2-135M F16, 2 CPU cores, n-gram, no counts", strategies, table)


def m2_ultra() -> World:
    """Qwen3.6-27B on an M2 Ultra, tokens/s, its MTP head with 5 drafted and a 0.8B draft model with 20 (llama.cpp issue
    23052: code, technical prose, creative writing); the engine tells no counts."""
    prose = (22.3, 24.1, 22.9)
    table = {
        Task.CODE: (22.5, 30.3, 32.1),
        Task.ANSWER: prose,
        Task.SUMMARISE: prose,
        Task.CREATE: (22.3, 20.4, 19.6),
    }
    return _by_speed("Qwen3.6-27B, M2 Ultra, no counts", [Strategy(), Strategy("mtp", 5), Strategy("draft", 20)], table)


def spec_bench() -> World:
    """Vicuna-7B on an RTX 3090, speed-up over plain (Spec-Bench leaderboard: EAGLE-2, draft model, prompt lookup); no
    counts."""
    table = {
        Task.CHAT: (1.0, 2.56, 1.94, 1.64),
        Task.TRANSLATE: (1.0, 1.78, 1.37, 1.15),
        Task.SUMMARISE: (1.0, 2.09, 1.96, 2.46),
        Task.ANSWER: (1.0, 2.07, 1.86, 1.28),
        Task.MATH: (1.0, 2.66, 1.81, 1.72),
        Task.RETRIEVE: (1.0, 1.86, 1.83, 1.71),
    }
    strategies = [Strategy(), Strategy("eagle3", 5), Strategy("draft", 5), Strategy("ngram", 10)]
    scaled = {task: tuple(40 * value for value in values) for task, values in table.items()}
    return _by_speed("Vicuna-7B, RTX 3090, Spec-Bench, no counts", strategies, scaled)


def mtp_counts() -> World:
    """Qwen3.6-27B with its MTP head: acceptance from published drafted/accepted counts at 3 drafted (python, explain,
    summarise, factual, translate, creative, math), step costs from an RX 7900 XTX (32 t/s plain; 72 at 3 and 82 at 6
    drafted on math, 50 and under 40 on creative writing)."""
    acceptance = {
        Task.CODE: 0.955,
        Task.ANSWER: 0.80,
        Task.SUMMARISE: 0.86,
        Task.RETRIEVE: 0.82,
        Task.TRANSLATE: 0.71,
        Task.CREATE: 0.62,
        Task.MATH: 0.88,
    }
    plain_s = 1 / 32
    caps = (1, 2, 3, 4, 6)
    rows: dict[Task, list[Row]] = {}
    for task, alpha in acceptance.items():
        row: Row = {"plain": (plain_s, None, None)}
        for cap in caps:
            accepted = accepted_per_draft(alpha, cap)
            step = 1 + 0.15 + 0.22 * cap
            row[f"mtp-{cap}"] = (plain_s * step / (1 + accepted), cap / (1 + accepted), accepted / (1 + accepted))
        rows[task] = [row]
    return World("Qwen3.6-27B, RX 7900 XTX, MTP", lanes([Strategy(), *(Strategy("mtp", cap) for cap in caps)]), rows)


def worlds() -> list[World]:
    return [embedded(), mtp_counts(), f16(), m2_ultra(), spec_bench()]


def _by_speed(name: str, strategies: Sequence[Strategy], table: Mapping[Task, tuple[float, ...]]) -> World:
    rows: dict[Task, list[Row]] = {
        task: [{_name(strategy): (1 / speed, None, None) for strategy, speed in zip(strategies, speeds, strict=True)}]
        for task, speeds in table.items()
    }
    return World(name, lanes(strategies), rows)


def _name(strategy: Strategy) -> str:
    return f"{strategy.kind}-{strategy.n_max}" if strategy.drafts else "plain"
