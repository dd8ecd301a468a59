"""Logs that Paceline makes of its own requests in worlds where the truth is known."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from benchmarks.worlds.catalogue import worlds
from benchmarks.worlds.policies import paceline
from paceline import Api, Request
from paceline.evidence.usable import LoggedRequest, usable
from paceline.records.kept import kept_record

_REQUEST = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", {})
"""Of all that are drawn; only the signals count."""


class Logged(Struct, frozen=True):
    """A request of which estimates can use the record, and what is true of it."""

    request: LoggedRequest
    expected_s: Mapping[str, float]
    """By lane: what it can be expected to take."""


def log_of(world: str, requests: int, seed: int, exploration: float | None = None) -> list[Logged]:
    """What Paceline logs of a world's requests, exploring as usual.

    Args:
        world: by its name in the catalogue.
        exploration: share of the time that may be spent exploring; by default, as Paceline ships.
    """
    traffic = worlds()[world].traffic(requests, seed)
    router = paceline(seed, exploration)
    numbers = {lane.name: number for number, lane in enumerate(traffic.lanes)}
    states = {beside: traffic.lane_states(beside) for beside in set(traffic.beside.tolist())}
    logged = []
    for number, signals in enumerate(traffic.signals):
        decision = router.choose(_REQUEST, signals, states[int(traffic.beside[number])])
        outcome = traffic.outcome(number, numbers[decision.lane], float(traffic.at_s[number]))
        router.observe(decision, outcome)
        for request in usable([kept_record(_REQUEST, signals, decision, outcome)]):
            # An answer is a little longer or shorter than expected; it would have been on any lane.
            longer = request.sample.tokens / float(traffic.tokens[number, 0])
            row = traffic.expected_s[number].tolist()
            logged.append(Logged(request, {lane: longer * row[column] for lane, column in numbers.items()}))
    return logged


def truth(logged: Sequence[Logged]) -> dict[str, float]:
    """By lane: what always taking it can be expected to take, over what was taken."""
    taken_s = sum(each.request.sample.seconds for each in logged)
    return {lane: sum(each.expected_s[lane] for each in logged) / taken_s for lane in logged[0].expected_s}
