"""A world of questions that a local and a cloud model answered, rightly or not: who should be asked, at what cost?

A file has a question in each line: ``subject``, ``prompt_chars``, ``local_right``, ``cloud_right``. Without one,
questions are made of ``subjects.csv``: how many questions of MMLU's subjects Mixtral-8x7B-Instruct (as the local model)
and GPT-4 (as the cloud model) answered rightly, and the mean length of their prompts, summed up from the responses that
were published with RouteLLM (https://github.com/lm-sys/RouteLLM, Apache-2.0). Each subject is taken for a program of
its own. The router learns from each answer that was given whether it was right, and never sees
what the other model would have said. At equal spend it is compared with choosing by chance, with the best that a label
of the subject alone can do in hindsight, and with the oracle, which knows for each question who answers rightly.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from msgspec import Struct

from paceline import Lane, LaneState, Observation, Outcome, Request, Router, RoutingSettings, Signals, Strategy, Task
from paceline.routing.placer import Placer
from paceline.settings import Configuration, PlacementSettings
from paceline.types import Api, Offer, Price, Tokens

SUMS = Path(__file__).with_name("subjects.csv")
OUTCOMES = (("both", True, True), ("cloud_only", False, True), ("local_only", True, False), ("neither", False, False))
PRICE = Price(3.0, 15.0, 3.0, 3.0)
ANSWER_TOKENS = 5.0
CHARS_PER_TOKEN = 4.0
DECLARED = (0.65, 0.8)
"""Quality of the local and the cloud model over all questions, as an operator might say it; what the subjects are like,
the router has to learn."""
SEARCHES = 7
"""Settings of the cost of a poor answer that are tried to come to a given spend."""


class Question(NamedTuple):
    subject: str
    prompt_chars: int
    local_right: bool
    cloud_right: bool

    @property
    def price(self) -> float:
        """At the cloud model."""
        return PRICE.of(Tokens(fresh=self.prompt_chars / CHARS_PER_TOKEN, generated=ANSWER_TOKENS))


class Result(Struct, frozen=True):
    policy: str
    spend: float
    """Share of what it would cost to ask the cloud model everything."""
    right: float
    """Share of the questions."""
    closed: float
    """Of the gap between asking only the local and only the cloud model, as a share."""


def questions(path: Path | None, seed: int) -> list[Question]:
    """Those of a file, or of the sums, in an order by chance."""
    with (path or SUMS).open(newline="") as lines:
        rows = [
            question for row in csv.DictReader(lines) for question in (_of_sums(row) if path is None else [_of(row)])
        ]
    Random(seed).shuffle(rows)
    return rows


def _of(row: Mapping[str, str]) -> Question:
    return Question(row["subject"], int(row["prompt_chars"]), row["local_right"] == "1", row["cloud_right"] == "1")


def _of_sums(row: Mapping[str, str]) -> Iterator[Question]:
    for name, local, cloud in OUTCOMES:
        for _ in range(int(row[name])):
            yield Question(row["subject"], int(row["mean_chars"]), local, cloud)


def result(policy: str, asked: Sequence[Question], at_cloud: Iterable[bool]) -> Result:
    chosen = list(at_cloud)
    pairs = list(zip(asked, chosen, strict=True))
    right = sum(one.cloud_right if cloud else one.local_right for one, cloud in pairs)
    local, cloud = sum(one.local_right for one in asked), sum(one.cloud_right for one in asked)
    spend = sum(one.price for one, at in pairs if at) / sum(one.price for one in asked)
    return Result(policy, spend, right / len(asked), (right - local) / (cloud - local))


def by_chance(asked: Sequence[Question], spend: float) -> Result:
    """The expectation, of which there is no spread: each question goes to the cloud with the same probability."""
    local, cloud = sum(one.local_right for one in asked), sum(one.cloud_right for one in asked)
    return Result("by chance", spend, (local + spend * (cloud - local)) / len(asked), spend)


def by_label(asked: Sequence[Question], spend: float) -> Result:
    """Whole subjects, in hindsight: those first that gain most for their price, as far as the money goes; the last one
    in part, by chance."""
    gains: defaultdict[str, float] = defaultdict(float)
    prices: defaultdict[str, float] = defaultdict(float)
    for one in asked:
        gains[one.subject] += one.cloud_right - one.local_right
        prices[one.subject] += one.price
    return _greedy("subject label, hindsight", asked, spend, [(gains[name], prices[name]) for name in gains])


def oracle(asked: Sequence[Question], spend: float) -> Result:
    """Only questions that the cloud model alone answers rightly, the cheap ones first."""
    gains = [(float(one.cloud_right) - float(one.local_right), one.price) for one in asked]
    return _greedy("oracle", asked, spend, gains)


def _greedy(name: str, asked: Sequence[Question], spend: float, gains: Sequence[tuple[float, float]]) -> Result:
    total = sum(one.price for one in asked)
    left, gained = spend * total, 0.0
    for gain, price in sorted(gains, key=lambda pair: -pair[0] / pair[1]):
        if gain <= 0 or left <= 0:
            break
        share = min(1.0, left / price)
        left -= share * price
        gained += share * gain
    local, cloud = sum(one.local_right for one in asked), sum(one.cloud_right for one in asked)
    return Result(name, spend - left / total, (local + gained) / len(asked), gained / (cloud - local))


def routed(asked: Sequence[Question], cost_of_poor_answer: float) -> list[bool]:
    """Which of the questions Paceline's own router sends to the cloud, learning from each answer."""
    lanes = [Lane("gpu", "gpu", Strategy()), Lane("cloud", "cloud", Strategy())]
    settings = PlacementSettings(mode="balanced", value_of_time_per_hour=0.0, cost_of_poor_answer=cost_of_poor_answer)
    placer = Placer(Configuration(placement=settings))
    router = Router(lanes, RoutingSettings(exploration=0), seed=1, placer=placer)
    offers = [
        Offer("gpu", model="local", quality=DECLARED[0]),
        Offer("cloud", True, True, model="cloud", quality=DECLARED[1], price=PRICE),
    ]
    states = [
        LaneState(lane, fingerprint=lane.name, model=lane.name, offer=offer)
        for lane, offer in zip(lanes, offers, strict=True)
    ]
    seen = Observation(prompt_tokens=100, completion_tokens=int(ANSWER_TOKENS))
    at_cloud = []
    for number, one in enumerate(asked):
        signals = Signals({Task.ANSWER: 1.0}, prompt_chars=one.prompt_chars, application=one.subject, max_tokens=5)
        request = Request(Api.OPENAI_CHAT, "", b"", {}, id=str(number))
        decision = router.choose(request, signals, states)
        is_cloud = decision.lane == "cloud"
        outcome = Outcome(decision.lane, 200, 1.0, observed=seen, at_s=1e9 + number, fingerprint=decision.lane)
        router.observe(decision, outcome)
        placer.feedback(str(number), one.cloud_right if is_cloud else one.local_right)
        at_cloud.append(is_cloud)
    return at_cloud


def routed_at(asked: Sequence[Question], spend: float) -> Result:
    """The router with the cost of a poor answer at which it spends about as much, found by halving."""
    low, high = 1e-6, 1.0
    best: Result | None = None
    for _ in range(SEARCHES):
        middle = (low * high) ** 0.5
        found = result("paceline balanced", asked, routed(asked, middle))
        if best is None or abs(found.spend - spend) < abs(best.spend - spend):
            best = found
        low, high = (middle, high) if found.spend < spend else (low, middle)
    assert best is not None
    return best


def compared(asked: Sequence[Question], spend: float) -> list[Result]:
    """All at what the router came to spend."""
    own = routed_at(asked, spend)
    others: list[Callable[[Sequence[Question], float], Result]] = [by_chance, by_label, oracle]
    return [*(other(asked, own.spend) for other in others), own]
