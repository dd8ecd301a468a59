"""Decision logs that tests write."""

import random
import time
from pathlib import Path

from paceline.records.decision_log import DecisionLog, LogSettings
from paceline.records.kept import kept_record
from paceline.types import Api, Decision, Observation, Outcome, Prediction, Request, Signals, Strategy, Task

BODY = b'{"messages": [{"role": "user", "content": "a secret"}]}'
REQUEST = Request(Api.OPENAI_CHAT, "/v1/chat/completions", BODY, {}, model="m", id="mine", served_model="m")
PLAIN, NGRAM = Strategy(), Strategy("ngram", 8)


def predicted(strategy: Strategy, s_per_token: float) -> Prediction:
    return Prediction("engine", "model", strategy, s_per_token / 0.1, spread=0.05, plain_step_s=0.1)


def decision(lane: str = "plain", share: float = 0.9) -> Decision:
    predictions = {"plain": predicted(PLAIN, 0.1), "ngram": predicted(NGRAM, 0.05)}
    other = "ngram" if lane == "plain" else "plain"
    return Decision(lane, "because", share, {lane: share, other: 1 - share}, predictions=predictions)


def outcome(lane: str = "plain", at_s: float | None = None, s_per_token: float = 0.1) -> Outcome:
    seen = Observation(completion_tokens=51, decode_tokens=50, decode_s=50 * s_per_token, drafted=8, accepted=3)
    return Outcome(lane, 200, 1.5, observed=seen, at_s=time.time() if at_s is None else at_s)


def written(
    path: Path,
    count: int,
    settings: LogSettings = LogSettings(),  # noqa: B008 - it is frozen
    with_text: bool = False,
) -> DecisionLog:
    log = DecisionLog(path, settings)
    for _ in range(count):
        log.record(kept_record(REQUEST, Signals(conversation="c"), decision(), outcome(), with_text=with_text))
    log.close()
    return log


def log_of(
    path: Path, speeds: dict[str, float], count: int = 200, tasks: tuple[Task, ...] = (Task.ANSWER,), model: str = ""
) -> Path:
    """A log of a policy that takes ``plain`` nine times of ten; added to what is there.

    Args:
        model: goes before the lanes' names.
    """
    rng = random.Random(3)
    log = DecisionLog(path)
    for number in range(count):
        lane = "plain" if rng.random() < 0.9 else "ngram"
        took = speeds[lane] * rng.lognormvariate(0, 0.1)
        chosen = Decision(
            model + lane,
            "because",
            0.9 if lane == "plain" else 0.1,
            {f"{model}plain": 0.9, f"{model}ngram": 0.1},
            predictions={
                model + name: predicted(PLAIN if name == "plain" else NGRAM, speed) for name, speed in speeds.items()
            },
        )
        signals = Signals({tasks[number % len(tasks)]: 1.0})
        log.record(kept_record(REQUEST, signals, chosen, outcome(model + lane, s_per_token=took)))
    log.close()
    return path
