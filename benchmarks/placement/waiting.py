"""A world with a queue and a deadline: how many requests are answered in time, and what does that cost?

One's own engine has four slots and decodes fast; who comes when they are taken waits. A provider has no queue, but
each answer begins late and comes slowly, as long answers notice. Requests come by chance, in rushes and lulls, from
six programs whose answers have lengths of their own: some seldom write more than a line, some write files. Numbers are
of the size that such engines have; what is compared is who uses them better.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import NamedTuple, Protocol

from msgspec import Struct

from paceline import Lane, LaneState, Observation, Outcome, Request, Router, RoutingSettings, Signals, Strategy, Task
from paceline.routing.placer import Placer
from paceline.settings import Configuration, Mode, PlacementSettings
from paceline.types import Api, Decision, Offer, Price, Tokens

SLOTS = 4
LOCAL_PREFILL_S, LOCAL_S_PER_TOKEN = 1 / 3000, 1 / 60
CLOUD_FIRST_S, CLOUD_PREFILL_S, CLOUD_S_PER_TOKEN = 1.2, 1 / 20_000, 1 / 35
CLOUD_SPREAD = 0.25
"""Deviation of the logarithm of a provider's times."""
DEADLINE_S = 15.0
PRICE = Price(3.0, 15.0, 0.3, 3.0)
RUSH, LULL = 1.3, 0.35
"""Requests in a second; a rush or a lull takes 90 s."""
PERIOD_S = 90.0
LENGTH_SPREAD = 0.35
"""Deviation of the logarithm of an answer's length within one program."""


class Program(NamedTuple):
    name: str
    task: Task
    share: float
    """Of all requests."""
    prompt_tokens: int
    answer_tokens: int
    """Median."""


PROGRAMS = (
    Program("titles", Task.SUMMARISE, 0.25, 800, 12),
    Program("extraction", Task.EXTRACT, 0.2, 4000, 80),
    Program("chat", Task.CHAT, 0.2, 1500, 180),
    Program("agent", Task.TOOL_CALL, 0.15, 12_000, 90),
    Program("editor", Task.EDIT, 0.12, 3000, 420),
    Program("writer", Task.CODE, 0.08, 2000, 620),
)


class Arrival(NamedTuple):
    """A request, and what it would take either way."""

    at_s: float
    program: Program
    answer_tokens: int
    cloud_s: float

    @property
    def local_s(self) -> float:
        """Once it has a slot."""
        return self.program.prompt_tokens * LOCAL_PREFILL_S + self.answer_tokens * LOCAL_S_PER_TOKEN


def arrivals(requests: int, seed: int) -> list[Arrival]:
    dice, at_s = Random(seed), 0.0
    drawn: list[Arrival] = []
    while len(drawn) < requests:
        rate = RUSH if int(at_s / PERIOD_S) % 2 else LULL
        at_s += dice.expovariate(rate)
        (program,) = dice.choices(PROGRAMS, [program.share for program in PROGRAMS])
        tokens = max(1, round(program.answer_tokens * dice.lognormvariate(0.0, LENGTH_SPREAD)))
        cloud_s = CLOUD_FIRST_S + program.prompt_tokens * CLOUD_PREFILL_S + tokens * CLOUD_S_PER_TOKEN
        drawn.append(Arrival(at_s, program, tokens, cloud_s * dice.lognormvariate(0.0, CLOUD_SPREAD)))
    return drawn


class Policy(Protocol):
    """Chooses a side for each request; of a side it sees how many requests are in flight there."""

    name: str

    def is_local(self, arrival: Arrival, in_flight: int, number: int) -> bool: ...

    def ended(self, number: int, arrival: Arrival, was_local: bool, waited_s: float, now_s: float) -> None: ...


class Fixed:
    """All on one side."""

    def __init__(self, local: bool) -> None:
        self.name = "local only" if local else "cloud only"
        self._local = local

    def is_local(self, arrival: Arrival, in_flight: int, number: int) -> bool:
        return self._local

    def ended(self, number: int, arrival: Arrival, was_local: bool, waited_s: float, now_s: float) -> None:
        return


class CountBased:
    """Own engine until so many requests are in flight there, as gateways have it that spill over by number."""

    def __init__(self, most: int) -> None:
        self.name = f"spill at {most}"
        self._most = most

    def is_local(self, arrival: Arrival, in_flight: int, number: int) -> bool:
        return in_flight < self._most

    def ended(self, number: int, arrival: Arrival, was_local: bool, waited_s: float, now_s: float) -> None:
        return


class ByPrediction:
    """Paceline's own router, with the deadline."""

    def __init__(self, seed: int, mode: Mode) -> None:
        self.name = f"paceline {mode}"
        self._now_s = 0.0
        lanes = [Lane("gpu", "gpu", Strategy()), Lane("cloud", "cloud", Strategy())]
        settings = Configuration(placement=PlacementSettings(mode=mode))
        placer = Placer(settings, clock=lambda: self._now_s)
        self._router = Router(lanes, RoutingSettings(exploration=0), seed=seed, placer=placer)
        own = Offer("gpu", slots=SLOTS)
        cloud = Offer("cloud", is_cloud=True, leaves_machine=True, model="m", price=PRICE)
        self._lanes = [(lanes[0], own), (lanes[1], cloud)]
        self._decisions: dict[int, Decision] = {}

    def is_local(self, arrival: Arrival, in_flight: int, number: int) -> bool:
        self._now_s = arrival.at_s
        program = arrival.program
        signals = Signals({program.task: 1.0}, prompt_chars=4 * program.prompt_tokens, application=program.name)
        request = Request(Api.OPENAI_CHAT, "", b"", {}, deadline_s=DEADLINE_S)
        (gpu, own), (cloud, offer) = self._lanes
        states = [
            LaneState(gpu, running=min(SLOTS, in_flight), fingerprint="gpu", model="gpu", offer=own),
            LaneState(cloud, fingerprint="cloud", model="cloud", offer=offer),
        ]
        decision = self._decisions[number] = self._router.choose(request, signals, states)
        return decision.lane == "gpu"

    def ended(self, number: int, arrival: Arrival, was_local: bool, waited_s: float, now_s: float) -> None:
        self._now_s = now_s
        program, tokens = arrival.program, arrival.answer_tokens
        took_s = arrival.local_s if was_local else arrival.cloud_s
        decode_s = tokens * LOCAL_S_PER_TOKEN if was_local else took_s - min(took_s, CLOUD_FIRST_S)
        observed = Observation(
            prompt_tokens=program.prompt_tokens,
            completion_tokens=tokens,
            decode_tokens=tokens,
            prefill_s=took_s - decode_s,
            decode_s=decode_s,
        )
        outcome = Outcome(
            "gpu" if was_local else "cloud",
            200,
            waited_s + took_s,
            queue_s=waited_s,
            first_byte_s=took_s - decode_s,
            observed=observed,
            at_s=1e9 + now_s,
            fingerprint="gpu" if was_local else "cloud",
        )
        self._router.observe(self._decisions.pop(number), outcome)


class Result(Struct, frozen=True):
    policy: str
    on_time: float
    """Share of the requests."""
    local: float
    """Share of the requests."""
    cost: float
    """Of a thousand requests, in the prices' currency."""


def played(drawn: Sequence[Arrival], policy: Policy) -> Result:
    """The requests in their order; one's own engine serves in the order of arrival."""
    ends: list[tuple[float, int, int, bool, float]] = []
    """Of what is in flight: when it ends, a number to tell equal ones, the request's, the side, how long it waited."""
    slots = [0.0] * SLOTS
    tie, on_time, local, cost, in_flight = count(), 0, 0, 0.0, 0

    def end_until(now_s: float) -> None:
        nonlocal in_flight
        while ends and ends[0][0] <= now_s:
            end_s, _, number, was_local, waited_s = heappop(ends)
            in_flight -= was_local
            policy.ended(number, drawn[number], was_local, waited_s, end_s)

    for number, arrival in enumerate(drawn):
        end_until(arrival.at_s)
        if policy.is_local(arrival, in_flight, number):
            begun_s = max(arrival.at_s, heappop(slots))
            end_s = begun_s + arrival.local_s
            heappush(slots, end_s)
            heappush(ends, (end_s, next(tie), number, True, begun_s - arrival.at_s))
            local, in_flight = local + 1, in_flight + 1
        else:
            end_s = arrival.at_s + arrival.cloud_s
            heappush(ends, (end_s, next(tie), number, False, 0.0))
            cost += PRICE.of(Tokens(fresh=arrival.program.prompt_tokens, generated=arrival.answer_tokens))
        on_time += end_s - arrival.at_s <= DEADLINE_S
    end_until(float("inf"))
    total = len(drawn)
    return Result(policy.name, on_time / total, local / total, 1000 * cost / total)


def policies(seed: int) -> list[Callable[[], Policy]]:
    """Makes of each a fresh one."""
    return [
        lambda: Fixed(True),
        lambda: Fixed(False),
        *((lambda most=most: CountBased(most)) for most in (2, 4, 6, 8, 12, 16)),
        lambda: ByPrediction(seed, "local-first"),
        lambda: ByPrediction(seed, "balanced"),
    ]


def compared(requests: int, seeds: Sequence[int]) -> list[Result]:
    """Means over the seeds, each with the same requests for all."""
    by_policy: dict[str, list[Result]] = {}
    for seed in seeds:
        drawn = arrivals(requests, seed)
        for make in policies(seed):
            result = played(drawn, make())
            by_policy.setdefault(result.policy, []).append(result)
    return [
        Result(
            name,
            sum(one.on_time for one in results) / len(results),
            sum(one.local for one in results) / len(results),
            sum(one.cost for one in results) / len(results),
        )
        for name, results in by_policy.items()
    ]
