"""Drafters at work: what their drafts cost and yield, position by position, and whether that pays."""

from collections.abc import Iterable, Iterator, Sequence
from math import log, sqrt
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from paceline.http.drafts import DraftSums, together
from paceline.records.record import Record
from paceline.routing.router import Router
from paceline.serving.handles import LaneHandle
from paceline.serving.pipeline import Pipeline
from paceline.types import Lane, LaneState, Signals, Strategy

LENGTHS = (1, 2, 4, 8, 16, 32)
"""Of drafts, whose steps' costs are asked for; between them the cost is taken to rise evenly."""
SURE = 1.96
"""Standard deviations that a gain has to be away from none before it is called one: 95 %."""


class _Drafter(Struct, frozen=True):
    """One kind of drafts of one engine for one model."""

    handle: LaneHandle
    state: LaneState
    """Of one of its lanes."""
    model: str | None
    strategy: Strategy
    lanes: Sequence[str]


def drafting(pipeline: Pipeline, of_processes: Iterable[Sequence[DraftSums]]) -> dict[str, Any]:
    """Of ``/paceline/drafting``: each drafter of each engine and model, with what is believed of its steps' costs and
    what its drafts yielded with the settings that the engine has now.

    Args:
        of_processes: what each process of the gateway has counted.
    """
    sums = {(each.fingerprint, each.kind): each for each in together(of_processes)}
    records, router = pipeline.recent.records, pipeline.router
    return {"drafters": [_document(one, sums, records, router) for one in _drafters(pipeline)]}


def _drafters(pipeline: Pipeline) -> Iterator[_Drafter]:
    """Each once, with its longest drafts."""
    for engine in pipeline.fleet.engines.values():
        names: Sequence[str | None] = list(engine.models) or [None]
        lanes = [handle for handle in pipeline.fleet.lanes.values() if handle.engine is engine]
        for model in names:
            longest: dict[str, tuple[LaneHandle, Strategy]] = {}
            used: dict[str, list[str]] = {}
            for handle in lanes:
                for strategy in handle.lane.strategy.among or (handle.lane.strategy,):
                    if not strategy.drafts:
                        continue
                    used.setdefault(strategy.kind, []).append(handle.lane.name)
                    if (strategy.n_max or 0) >= (longest.get(strategy.kind, (handle, Strategy()))[1].n_max or 0):
                        longest[strategy.kind] = handle, strategy
            for kind, (handle, strategy) in longest.items():
                yield _Drafter(handle, handle.state(model), model, strategy, used[kind])


def _document(
    drafter: _Drafter, sums: dict[tuple[str, str], DraftSums], records: Sequence[Record], router: Router
) -> dict[str, Any]:
    known = drafter.state.fingerprint, drafter.strategy.kind
    seen = sums.get(known) or DraftSums(*known)
    costs, spread = _step_costs(router, drafter)
    told = _told(drafter, records)
    if told is not None:
        costs = list(told[0])
    worth, sure = worth_of(seen, costs, spread)
    return {
        "engine": drafter.handle.engine.name,
        "model": drafter.model,
        "kind": drafter.strategy.kind,
        "n_max": drafter.strategy.n_max,
        "lanes": list(drafter.lanes),
        "is_controlled": told is not None,
        "requests": seen.requests,
        "steps": seen.steps,
        "drafted": seen.drafted,
        "accepted": seen.accepted,
        "tokens_of_drafts": seen.accepted / seen.tokens if seen.tokens else None,
        "mean_draft": seen.drafted / seen.steps if seen.steps else None,
        "acceptance_length": 1 + seen.accepted / seen.steps if seen.steps else None,
        "shadow_drafted": seen.shadow_drafted,
        "shadow_accepted": seen.shadow_accepted,
        "step_costs": costs,
        "positions": positions_of(seen, costs),
        "expected": None if told is None else _products(told[1]),
        "worth": worth,
        "is_sure": sure,
    }


def positions_of(seen: DraftSums, costs: Sequence[float]) -> list[dict[str, Any]]:
    """By position from 1 on: the share of drafts that were accepted so far, and what the token adds to a step's cost in
    plain steps, which is the share from which on drafting it is no slower than plain decoding."""
    positions = []
    reached, before = 1.0, 1.0
    for position in range(max(len(costs), len(seen.verified))):
        tried = seen.verified[position] if position < len(seen.verified) else 0
        reached *= seen.at[position] / tried if tried else 0.0
        cost = costs[position] if position < len(costs) else None
        positions.append(
            {
                "accepted": reached if tried else None,
                "verified": tried,
                "adds": None if cost is None else max(0.0, cost - before),
            }
        )
        before = before if cost is None else cost
    return positions


def _products(shares: Sequence[float]) -> list[float]:
    return [float(product) for product in np.cumprod(shares)]


def _told(drafter: _Drafter, records: Sequence[Record]) -> tuple[Sequence[float], Sequence[float]] | None:
    """What the engine's control of the drafts was told last to start from: costs, and acceptance by position; ``None``
    where it controls none."""
    if not drafter.handle.lane.strategy.among:
        return None
    for record in reversed(records):
        control = record.decision.control
        fingerprint = record.outcome.fingerprint
        if control is not None and fingerprint == drafter.state.fingerprint:
            told = control.drafters.get(drafter.strategy.kind)
            if told is not None:
                return told.costs, told.acceptance
    return None


def _step_costs(router: Router, drafter: _Drafter) -> tuple[list[float], float]:
    """What a step that verifies 1, 2 ... drafted tokens is believed to take for a short prompt, in plain steps, and the
    standard deviation of the longest one's logarithm. Empty where the drafts' length is the engine's own matter."""
    n_max, kind = drafter.strategy.n_max, drafter.strategy.kind
    if n_max is None:
        return [], 0.0
    lengths = sorted({length for length in LENGTHS if length < n_max} | {n_max})
    engine = drafter.handle.engine.name
    strategies = [Strategy(), *(Strategy(kind, length) for length in lengths)]
    lanes = [replace(drafter.state, lane=Lane(each.name, engine, each)) for each in strategies]
    predictions = router.predict(Signals(), lanes)
    costs = [predictions[lane.lane.name].break_even for lane in lanes[1:]]
    every = np.interp(range(1, n_max + 1), [0, *lengths], [1.0, *(1.0 if cost is None else cost for cost in costs)])
    return [float(cost) for cost in np.maximum(every, 1.0)], predictions[lanes[-1].lane.name].spread


def worth_of(seen: DraftSums, costs: Sequence[float], spread: float) -> tuple[float | None, bool]:
    """By which factor decoding was faster in the steps that verified drafts than in plain ones, and whether that is
    surely more, or surely less, than 1."""
    if not seen.steps or not costs:
        return None, False
    length = 1 + seen.accepted / seen.steps
    mean_draft = seen.drafted / seen.steps
    cost = float(np.interp(mean_draft, range(len(costs) + 1), [1.0, *costs]))
    worth = length / cost
    accepted = length - 1
    variance = max(accepted * max(mean_draft - accepted, 0.0), 0.25) / seen.steps / length**2 + spread**2
    return worth, abs(log(worth)) > SURE * sqrt(variance)
