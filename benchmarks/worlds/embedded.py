"""The embedded engine's own counts: SmolLM2-135M Q8_0 on two CPU cores, ngram-simple at three lengths.

``measured.json`` holds what ``python -m benchmarks.worlds.measure`` measured: prompts of every task down every lane.
Its counts are exact; its times are one run each on a shared machine, so the machine's side is their median.
"""

import json
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
from msgspec import Struct

from benchmarks.worlds.published import Floats, time_noise
from benchmarks.worlds.requests import LENGTHS, MISTOLD, signals_by_task, signals_of
from benchmarks.worlds.traffic import Ints, Traffic
from paceline.types import Lane, Signals, Strategy, Task

FILE = Path(__file__).parent / "measured.json"
CAPS = (4, 8, 12)
MIN_DRAFTS = 6
"""Of a prompt whose time shows what a verification step takes."""


class Measured(Struct, frozen=True):
    """What a lane made of a prompt."""

    task: str
    prompt: str
    cap: int
    tokens: int
    decode_s: float
    drafted: int
    accepted: int
    prompt_tokens: int
    prefill_s: float

    @property
    def drafts(self) -> float:
        return self.drafted / self.cap if self.cap else 0.0


@cache
def measured() -> tuple[Measured, ...]:
    return tuple(Measured(**row) for row in json.loads(FILE.read_text()))


def plain_step_s() -> float:
    return median(row.decode_s / row.tokens for row in measured() if not row.cap)


@cache
def step_cost(cap: int) -> float:
    """What a step that verifies a draft takes, in plain steps: the median over the prompts that drafted often."""
    return median(
        (row.decode_s / plain_step_s() - (row.tokens - row.accepted - row.drafts)) / row.drafts
        for row in measured()
        if row.cap == cap and row.drafts >= MIN_DRAFTS
    )


@cache
def lookup_acceptance(longest: int) -> Floats:
    """By position, over all prompts: constant between the lengths that were measured, and beyond."""
    acceptance: list[float] = []
    for cap, shorter in zip(CAPS, (0, *CAPS), strict=False):
        rows = [row for row in measured() if row.cap == cap]
        accepted = sum(row.accepted for row in rows) / sum(row.drafts for row in rows)
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            made = np.cumprod([*acceptance, *[middle] * (cap - shorter)]).sum()
            low, high = (middle, high) if made < accepted else (low, middle)
        acceptance += [low] * (cap - shorter)
    return np.array((acceptance + acceptance[-1:] * longest)[:longest])


@cache
def lookup_coverage(task: str) -> Floats:
    """By prompt of the task: the share of its tokens that come out of verification steps."""
    rows = [row for row in measured() if row.task == task and row.cap == CAPS[1]]
    return np.array([min(0.98, (row.drafts + row.accepted) / row.tokens) for row in rows])


class EmbeddedWorld(Struct, frozen=True):
    """Each request is one of the measured prompts, with its own signals unless they are mistold."""

    name: str = "embedded"
    about: str = (
        "The embedded engine as measured: SmolLM2-135M Q8_0, two CPU cores, n-gram lookup at 4, 8 and 12 "
        "(measured.json). Prompts of one task differ more than tasks do, and drafting steps cost three to six plain "
        "ones: right is 8 or 12 for what copies, and plain for what does not."
    )
    changes: tuple[str, int] | None = None

    def traffic(self, requests: int, seed: int) -> Traffic:
        rng = np.random.default_rng(seed)
        prompts, table = _table()
        chosen = rng.integers(len(prompts), size=requests)
        tokens = rng.choice(np.array(LENGTHS, float), requests)[:, None]
        s_per_token, drafted_share, accepted_share, steps_share = (part[chosen] for part in table)
        expected_s = tokens * s_per_token
        tasks = list(dict.fromkeys(task for task, _ in prompts))
        signals: list[Signals] = []
        for number in chosen:
            text = prompts[number][1]
            if rng.random() < MISTOLD:
                bank = signals_by_task()[Task(tasks[rng.integers(len(tasks))])]
                signals.append(bank[rng.integers(len(bank))])
            else:
                signals.append(_signals_of(text))
        lanes = len(CAPS) + 1

        def counted(share: Floats) -> Ints:
            return np.round(tokens * share).astype(np.int64)

        return Traffic(
            lanes=[Lane(strategy.name, "engine", strategy) for strategy in _strategies()],
            signals=signals,
            kinds=[prompts[number][0] for number in chosen],
            expected_s=expected_s,
            observed_s=expected_s * np.exp(rng.normal(0, time_noise(), expected_s.shape)),
            tokens=np.repeat(tokens.astype(np.int64), lanes, axis=1),
            drafted=counted(drafted_share),
            accepted=counted(accepted_share),
            steps=counted(steps_share),
            by_position=[None] * lanes,
            by_drafter=[None] * lanes,
            beside=np.zeros(requests, np.int64),
            epochs=np.zeros(requests, np.int64),
        )


def _strategies() -> list[Strategy]:
    return [Strategy(), *(Strategy("ngram", cap) for cap in CAPS)]


@cache
def _signals_of(text: str) -> Signals:
    return signals_of(text)


@cache
def _table() -> tuple[list[tuple[str, str]], tuple[Floats, Floats, Floats, Floats]]:
    """The prompts with their tasks; by prompt and lane seconds, drafted, accepted and verification steps per token."""
    prompts = list(dict.fromkeys((row.task, row.prompt) for row in measured()))
    parts = tuple(np.zeros((len(prompts), len(CAPS) + 1)) for _ in range(4))
    for row in measured():
        at = prompts.index((row.task, row.prompt)), (0, *CAPS).index(row.cap)
        steps = row.tokens - row.accepted - row.drafts
        if row.cap:
            steps += row.drafts * step_cost(row.cap)
        values = (plain_step_s() * steps, row.drafted, row.accepted, row.drafts)
        for part, value in zip(parts, values, strict=True):
            part[at] = value / row.tokens
    return prompts, (parts[0], parts[1], parts[2], parts[3])
