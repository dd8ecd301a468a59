"""Routers that share, at the level of what they know."""

from random import Random

import msgspec

from paceline.decision import Knowledge, decide, learn, predict
from paceline.decision.sharing import Delta
from paceline.types import Lane, LaneState, Observation, Outcome, Signals, Strategy, Task

LANES = [
    LaneState(Lane(f"mtp/{cap}", "engine", Strategy("mtp", cap), "gpu"), model="m", fingerprint="engine")
    for cap in (0, 2, 4, 8)
]
CODE, STORY = Signals(tasks={Task.CODE: 1.0}), Signals(tasks={Task.CREATE: 1.0}, conversation="c")


def serve(knowledge: Knowledge, signals: Signals, count: int, seed: int, slower: float = 1.0) -> None:
    rng = Random(seed)
    for number in range(count):
        decision = decide(signals, LANES, knowledge, rng)
        drafts = decision.predictions[decision.lane].strategy.drafts
        seen = Observation(decode_tokens=100, decode_s=slower * (1.0 + 0.05 * rng.random()))
        if drafts:
            seen = Observation(
                decode_tokens=100,
                decode_s=slower * (0.5 + 0.05 * rng.random()),
                drafted=120,
                accepted=50 + rng.randrange(20),
            )
        outcome = Outcome(decision.lane, 200, 2.0 * slower, observed=seen, at_s=1.7e9 + number)
        learn(knowledge, signals, decision, outcome)


def times(knowledge: Knowledge, signals: Signals) -> list[float]:
    return [one.relative * (one.plain_step_s or 0.0) for one in predict(signals, LANES, knowledge).values()]


def over_the_wire(delta: Delta) -> Delta:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(delta), type=Delta)
