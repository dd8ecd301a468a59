"""Predictions -> a lane."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import log
from operator import attrgetter
from random import Random

from paceline.decision.choice import Choice, Rank
from paceline.decision.exploring import Other, explored
from paceline.decision.knowledge import Knowledge
from paceline.decision.load import Load
from paceline.decision.predict import Foreseen, foresee
from paceline.decision.reason import reason
from paceline.decision.tuning import (
    COMPARING_PART,
    EXPLORATION,
    HEAD_START,
    HORIZON,
    MAX_BEHIND,
    MAX_COMPARED,
    MAX_CONCURRENT_TURNS,
    MEASURED_FIRST,
    NEARLY_BEST,
)
from paceline.types import Decision, LaneState, Signals


def decide(
    signals: Signals,
    lanes: Sequence[LaneState],
    knowledge: Knowledge,
    rng: Random,
    exploration: float = EXPLORATION,
    routers: int = 1,
) -> Decision:
    """Choose one of ``lanes`` for a request.

    The lanes come in the operator's order, the default lane first; unhealthy ones are used only when no other is
    left. Among the healthy ones the predicted time decides; another one is tried where what that teaches is worth more
    than it costs, as far as the budget allows.

    Args:
        exploration: share of the decode time that may be spent exploring; 0 never explores.
        routers: how many decide by the same knowledge now and can't know yet what the others try; each tries as much
            less.

    Raises:
        ValueError: ``lanes`` is empty.
    """
    if not lanes:
        raise ValueError("no lane to choose from")
    # 1. What each lane would take; the best first.
    load = Load(lanes)
    foreseen = foresee(signals, lanes, knowledge, load)
    ranked = _ranked(lanes, foreseen, load)
    # 2. Which others are worth a try, and with which probability.
    best, note = ranked[0], ""
    shares: dict[str, float] = {}
    if exploration > 0 and len(ranked) > 1:
        others = _others(ranked, load)
        if (plain := _unmeasured(ranked, others, foreseen)) is not None:
            shares, note = {plain.name: 1.0}, "the plain lane is measured first"
        elif others:
            shares = _worth_a_try(best, others, foreseen, knowledge, exploration)
            shares = {name: share / routers for name, share in shares.items()}
    # 3. One of them.
    propensities = {best.name: max(0.0, 1.0 - sum(shares.values()))} | shares
    chosen = _drawn(ranked, propensities, rng) if shares else best
    propensities = {name: share for name, share in propensities.items() if share > 0}
    is_explored = chosen is not best and not note
    return Decision(
        lane=chosen.name,
        reason=reason(signals, chosen, ranked, load, "explored" if is_explored else note),
        propensity=propensities[chosen.name],
        propensities=propensities,
        alternatives=tuple([choice.name for choice in ranked if choice is not chosen]),
        predictions=foreseen.predictions,
        exploring_s=max(0.0, chosen.cost - best.cost) if foreseen.model.seen and shares else 0.0,
        control=foreseen.control(chosen.number, signals),
        signals=signals,
    )


def _ranked(lanes: Sequence[LaneState], foreseen: Foreseen, load: Load) -> list[Choice]:
    choices = []
    for number, (state, shape) in enumerate(zip(lanes, foreseen.expected.shapes, strict=True)):
        prediction = foreseen.predictions[state.lane.name]
        plain_step_s = prediction.plain_step_s or 1.0
        cost = prediction.prefill_s + prediction.tokens * prediction.relative * plain_step_s
        takes_turns = load.takes_turns(state)
        rank = Rank(
            is_ill=not state.healthy,
            is_crowded=takes_turns and shape.drafts and load.in_flight(state) > MAX_CONCURRENT_TURNS,
            must_wait=takes_turns and not state.can_join,
            lacks_turn=takes_turns and not state.has_turn,
            is_apart=number in foreseen.apart,
            cost=cost,
            in_flight=state.running + state.waiting,
        )
        choices.append(Choice(state, state.lane.name, shape.drafts, prediction, number, cost, rank))
    choices.sort(key=_rank)
    return choices


_rank = attrgetter("rank")


# Trying others


def _others(ranked: Sequence[Choice], load: Load) -> list[Choice]:
    """Those that may be taken instead of the best one, since the request would start as soon there. Where engines take
    turns, who joins others does not try things out on them."""
    best = ranked[0].state
    if best.running and load.takes_turns(best):
        return []
    start = _start(best)
    return [choice for choice in ranked[1:] if _start(choice.state) == start and not choice.rank.is_apart]


_start = attrgetter("healthy", "can_join", "has_turn")
"""Where it is the same, a request starts as soon."""


def _unmeasured(ranked: Sequence[Choice], others: Sequence[Choice], foreseen: Foreseen) -> Choice | None:
    """The plain lane, where it is to be measured before all else: every other lane's cost is told over its."""
    model = foreseen.model
    if model.seen >= MEASURED_FIRST or any(not lane.strategy.drafts for lane in model.lanes if model.lanes[lane]):
        return None
    return next((choice for choice in (ranked[0], *others) if not choice.drafts), None)


def _worth_a_try(
    best: Choice, others: Sequence[Choice], foreseen: Foreseen, knowledge: Knowledge, exploration: float
) -> dict[str, float]:
    """Probabilities of the lanes that are tried instead of the best one, as far as the budget allows."""
    # 1. Because of what it teaches; or because of what it shows of the best static lane.
    shares = explored(_candidates(best, others, foreseen))
    contenders = _contenders(foreseen)
    for choice in others if contenders else ():
        if choice.number in contenders and choice.cost > best.cost:
            affordable = COMPARING_PART * exploration * best.cost / (choice.cost - best.cost)
            shares[choice.name] = max(shares.get(choice.name, 0.0), min(MAX_COMPARED, affordable))
    # 2. As much as may be spent: the set share of all time so far, with a head start, less what was spent.
    expected = sum([shares[choice.name] * (choice.cost - best.cost) for choice in others if choice.name in shares])
    totals = knowledge.totals
    budget = exploration * (totals.decode_s + HEAD_START * best.cost) - totals.exploring_s
    if expected > budget and foreseen.model.is_measured:
        shares = {name: share * max(0.0, budget) / expected for name, share in shares.items()}
    total = sum(shares.values())
    return {name: share / max(1.0, total) for name, share in shares.items()}


def _worth_of_change(best: Choice, foreseen: Foreseen) -> float:
    """What it is worth, in requests, to see drafts again where only plain is taken."""
    model, expected = foreseen.model, foreseen.expected
    alike = model.alike.get(expected.leaves[best.number], 0)
    return HORIZON.of_change(alike, model.seen) * model.unseen_gain(expected, best.number)


def _candidates(best: Choice, others: Sequence[Choice], foreseen: Foreseen) -> Iterator[Other]:
    """What trying other lanes would teach, and cost; without those that are far behind."""
    model, expected, second = foreseen.model, foreseen.expected, best.number
    covariance, with_best = expected.covariance, expected.covariance[second]
    change = _worth_of_change(best, foreseen)
    of_drafter, of_lane = HORIZON.of_drafter(model.seen), HORIZON.of_lane(model.seen)
    leaf, of_group = None, 0.0
    for choice in others:
        first = choice.number
        behind = log(choice.cost / best.cost)
        decoding = 1 - choice.prediction.prefill_s / choice.cost  # only that is uncertain
        variance = (covariance[first][first] + with_best[second] - 2 * with_best[first]) * decoding * decoding
        more = change if choice.drafts else 0.0
        if variance <= 0.0 or (behind * behind > MAX_BEHIND**2 * variance and not more):
            continue
        if expected.leaves[first] is not leaf:  # most often, all have one
            leaf = expected.leaves[first]
            of_group = HORIZON.of_group(model.alike.get(leaf, 0), model.seen)
        lane = foreseen.ids[first]
        drafter_tries = model.tries.get((lane.fingerprint, expected.shapes[first].kind), 0)
        lane_tries = model.lanes.get(lane.kin, 0)
        horizon = of_group + of_drafter / (1 + drafter_tries**2) + of_lane / (1 + lane_tries**2)
        yield Other(choice.name, behind, variance, expected.noise + expected.spreads[first], horizon, more)


def _contenders(foreseen: Foreseen) -> Collection[int]:
    """Numbers of the lanes that may be the best one if it had to serve all requests; none before something is known of
    that."""
    ratios: dict[int, float] = {}
    for number, lane in enumerate(foreseen.ids):
        lane_s, taken_s = foreseen.model.always.get(lane.kin, (0.0, 0.0))
        if taken_s > 0:
            ratios[number] = lane_s / taken_s
    least = min(ratios.values(), default=0.0)
    return [number for number, ratio in ratios.items() if ratio <= NEARLY_BEST * least]


def _drawn(ranked: Sequence[Choice], propensities: Mapping[str, float], rng: Random) -> Choice:
    left = rng.random()
    for choice in ranked:
        left -= propensities.get(choice.name, 0.0)
        if left < 0:
            return choice
    return max(ranked, key=lambda choice: propensities.get(choice.name, 0.0))
