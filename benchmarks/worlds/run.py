"""One policy through one world's requests, and what it took beside what could have been taken."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.worlds.policies import DEFAULT_LENGTH, MakePolicy, default_drafter
from benchmarks.worlds.published import Floats
from benchmarks.worlds.traffic import Ints, Traffic
from paceline import Api, Request

GATED_BELOW = 0.5
"""Accepted share of drafts below which a gate inside the engine stops drafting for the rest of a request."""
GATED_AFTER = 16
"""Tokens after which it knows."""
REQUEST = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", {})
"""Policies look at its signals."""


def run(traffic: Traffic, make: MakePolicy, seed: int) -> Floats:
    """The expected seconds of the lanes that a policy chose, by request."""
    policy = make(seed)
    numbers = {lane.name: number for number, lane in enumerate(traffic.lanes)}
    states = {beside: traffic.lane_states(beside) for beside in set(traffic.beside.tolist())}
    beside, at_s = traffic.beside.tolist(), traffic.at_s.tolist()
    chosen: Ints = np.empty(len(traffic), np.int64)
    for request, signals in enumerate(traffic.signals):
        decision = policy.choose(REQUEST, signals, states[beside[request]])
        lane = numbers[decision.lane]
        chosen[request] = lane
        policy.observe(decision, traffic.outcome(request, lane, at_s[request]))
    return taken(traffic, chosen)


def taken(traffic: Traffic, chosen: Ints) -> Floats:
    result: Floats = traffic.expected_s[np.arange(len(traffic)), chosen]
    return result


def hindsight(traffic: Traffic) -> Mapping[str, Floats]:
    """What can be said without learning: seconds by request of each static lane; of who knows from the start how the
    told tasks fare on average, or what the requests truly are, at any load and after any change; and of a gate inside
    the engine."""
    seconds = {f"always {lane.name}": traffic.expected_s[:, number] for number, lane in enumerate(traffic.lanes)}
    seconds["knows the tasks"] = _best_of_groups(traffic, [signals.task for signals in traffic.signals])
    seconds["knows the kinds"] = _best_of_groups(traffic, traffic.kinds)
    gated = _gated(traffic)
    if gated is not None:
        seconds["acceptance gate (imp)"] = gated
    return seconds


def _best_of_groups(traffic: Traffic, names: Sequence[str]) -> Floats:
    """Of the requests of one name, load and epoch the lane that is the best for all of them."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for request, key in enumerate(zip(names, traffic.beside, traffic.epochs, strict=True)):
        groups[key].append(request)
    chosen: Ints = np.empty(len(traffic), np.int64)
    for requests in groups.values():
        chosen[requests] = traffic.expected_s[requests].sum(axis=0).argmin()
    return taken(traffic, chosen)


def _gated(traffic: Traffic) -> Floats | None:
    """Drafting always on, with a gate inside the engine (kekzl/imp #2035): where too few drafts are accepted it stops
    for the rest of the answer, which then costs what plain decoding costs; ``None`` where it is not known what would be
    accepted, or there is no plain lane."""
    lengths = default_drafter(traffic.lane_states(0))
    plain = [number for number, lane in enumerate(traffic.lanes) if not lane.strategy.drafts]
    if traffic.accepted is None or traffic.drafted is None or not lengths or not plain:
        return None
    name = lengths[min(lengths, key=lambda length: abs(length - DEFAULT_LENGTH))]
    lane = [candidate.name for candidate in traffic.lanes].index(name)
    accepted = traffic.accepted[:, lane] / np.maximum(1, traffic.drafted[:, lane])
    tried = np.minimum(1.0, GATED_AFTER / traffic.tokens[:, lane])
    drafting, stopped = traffic.expected_s[:, lane], traffic.expected_s[:, plain[0]]
    result: Floats = np.where(accepted < GATED_BELOW, tried * drafting + (1 - tried) * stopped, drafting)
    return result
