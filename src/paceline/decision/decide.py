"""Predictions -> a lane."""

from collections.abc import Collection, Sequence
from math import erf, exp, log, log1p, sqrt
from random import Random

from msgspec import Struct

from paceline.decision.drafting import accepted_per_draft
from paceline.decision.load import Load
from paceline.decision.predict import considered, draft_length, drafter_of, predict
from paceline.decision.state import State
from paceline.decision.tuning import (
    COMPARING_PART,
    EXPLORATION,
    FAR_WORSE,
    HEAD_START,
    HEAD_START_REQUESTS,
    MAX_CANDIDATES,
    MAX_COMPARED,
    MAX_CONCURRENT_TURNS,
    MAX_PROBED,
    MIN_SPREAD,
    NEARLY_BEST,
    PATIENCE,
)
from paceline.types import Decision, LaneState, Prediction, Signals


class Rank(Struct, frozen=True, order=True):
    """Lanes are taken in the order of the first level at which they differ; the lower, the better."""

    is_ill: bool
    """Engines that are down, or failed lately, come last."""
    is_crowded: bool
    """Where engines take turns and much goes on, lanes that draft come after plain ones, in which all meet."""
    must_wait: bool
    """Where engines take turns, a lane on which the request starts at once goes before one where it would wait, since
    one step that decodes two requests costs less than two steps."""
    lacks_turn: bool
    """Of those where it would wait, the engine that has the turn now goes first."""
    cost: float
    """As in :class:`Choice`."""
    in_flight: int
    """Of equals, the lane with the fewest requests."""


class Choice(Struct):
    """A lane that may be chosen."""

    state: LaneState
    prediction: Prediction
    cost: float
    """What is compared: seconds for the whole answer, or plain steps per token while no second is known."""
    rank: Rank
    chance: float = 0.0
    """With which it is taken instead of the best one, if the budget allows."""

    @property
    def name(self) -> str:
        """The lane's."""
        return self.state.lane.name

    @property
    def drafts(self) -> bool:
        return self.state.lane.strategy.drafts


def decide(
    signals: Signals, lanes: Sequence[LaneState], state: State, rng: Random, exploration: float = EXPLORATION
) -> Decision:
    """Choose one of ``lanes`` for a request.

    The lanes come in the operator's order, the default lane first; unhealthy ones are used only when no other is
    left. Among the healthy ones the predicted time decides; now and then another one is tried, as far as the budget
    allows, by its odds of being faster than the best (Thompson sampling of two), so that changes are noticed.

    Args:
        exploration: share of the decode time that may be spent exploring; 0 never explores.

    Raises:
        ValueError: ``lanes`` is empty.
    """
    if not lanes:
        raise ValueError("no lane to choose from")
    # 1. What each lane would take.
    load = Load(lanes)
    predictions = predict(signals, lanes, state, load)
    in_seconds = None not in [prediction.plain_step_s for prediction in predictions.values()]
    # 2. The best first.
    ranked = [_choice(lane, predictions[lane.lane.name], load, in_seconds) for lane in lanes]
    ranked.sort(key=_rank)
    # 3. Which others are worth a try, and with which probability.
    candidates = _candidates(ranked, state, exploration) if exploration > 0 else ranked[:1]
    probabilities = _probabilities(candidates, state, exploration, in_seconds)
    # 4. One of them.
    picked = _draw(probabilities, rng) if len(probabilities) > 1 else 0
    chosen = candidates[picked]
    return Decision(
        lane=chosen.state.lane.name,
        reason=_reason(signals, chosen, ranked, load, is_explored=picked > 0),
        propensity=probabilities[picked],
        propensities={
            choice.state.lane.name: share for choice, share in zip(candidates, probabilities, strict=True) if share > 0
        },
        alternatives=tuple([choice.state.lane.name for choice in ranked if choice is not chosen]),
        predictions=predictions,
        exploring_s=chosen.cost - candidates[0].cost if in_seconds else 0.0,
        signals=signals,
    )


# Ranking


def _choice(state: LaneState, prediction: Prediction, load: Load, in_seconds: bool) -> Choice:
    cost = prediction.relative
    concurrent = load.concurrent(state)
    if concurrent and prediction.acceptance is not None:
        cost *= _share_of_batch(prediction, concurrent)
    if in_seconds and prediction.plain_step_s is not None:
        cost = prediction.prefill_s + prediction.tokens * cost * prediction.plain_step_s
    takes_turns = load.takes_turns(state)
    is_crowded = takes_turns and load.in_flight(state) > MAX_CONCURRENT_TURNS
    rank = Rank(
        is_ill=not state.healthy,
        is_crowded=is_crowded and state.lane.strategy.drafts,
        must_wait=takes_turns and not state.can_join,
        lacks_turn=takes_turns and not state.has_turn,
        cost=cost,
        in_flight=state.running + state.waiting,
    )
    return Choice(state, prediction, cost, rank)


def _rank(choice: Choice) -> Rank:
    return choice.rank


def _share_of_batch(prediction: Prediction, concurrent: int) -> float:
    """What a lane's time per token counts for in a batch. A step that drafts keeps the ``concurrent`` others waiting
    for the tokens of one: it is the time per token of the whole batch, in which the others gain one token a step, over
    that of the request alone."""
    covered = prediction.coverage or 0.0
    accepted = accepted_per_draft(prediction.acceptance or 0.0, draft_length(prediction.strategy))
    tokens_per_step = 1 / ((1 - covered) + covered / (1 + accepted))
    return tokens_per_step * (1 + concurrent) / (tokens_per_step + concurrent)


# Trying others


def _candidates(ranked: Sequence[Choice], state: State, exploration: float) -> list[Choice]:
    """The best choice first, then those that may be taken instead, where the request would start as soon."""
    best = ranked[0]
    if best.state.running:
        return [best]  # who joins others does not try things out on them
    start = _start(best.state)
    others = [
        choice
        for choice in ranked[1:]
        if not choice.state.running and choice.cost >= best.cost and _start(choice.state) == start
    ]
    _explore(best, others, exploration)
    _compare(best, others, _contenders(ranked, state), exploration)
    return [best, *[choice for choice in others if choice.chance > 0]]


def _start(state: LaneState) -> tuple[bool, bool, bool]:
    """Where it is the same, a request starts as soon."""
    return state.healthy, state.can_join, state.has_turn


def _explore(best: Choice, others: Sequence[Choice], exploration: float) -> None:
    """Give a chance to those that may be about as fast: their probability of being faster after all, and to another
    drafter a little more, as far as the budget allows."""
    taught_about, worth_a_try = {_teaches_about(best)}, []
    far = FAR_WORSE * best.cost
    for choice in others:
        if len(taught_about) == MAX_CANDIDATES:
            break
        is_near = choice.prediction.is_unseen or choice.cost <= far * exp(choice.prediction.spread)
        if is_near and (about := _teaches_about(choice)) not in taught_about:
            taught_about.add(about)
            worth_a_try.append(choice)
    if not worth_a_try:
        return
    times = [(log(choice.cost), max(MIN_SPREAD, choice.prediction.spread)) for choice in (best, *worth_a_try)]
    for choice, odds in zip(worth_a_try, faster_than_first(times)[1:], strict=True):
        min_chance = 0.0
        if choice.prediction.is_unseen:
            min_chance = MAX_PROBED
        elif choice.drafts:
            min_chance = min(MAX_PROBED, _affordable(best, choice, exploration))
        choice.chance = max(odds, min_chance)


def _compare(best: Choice, others: Sequence[Choice], contenders: Collection[str], exploration: float) -> None:
    """Give a chance to the lanes that may be the best static policy."""
    for choice in others if contenders else ():
        if choice.state.lane.name in contenders:
            min_chance = min(MAX_COMPARED, COMPARING_PART * _affordable(best, choice, exploration))
            choice.chance = max(choice.chance, min_chance)


def _affordable(best: Choice, choice: Choice, exploration: float) -> float:
    """The probability at which a choice would cost the share that may be spent."""
    extra = choice.cost - best.cost
    return exploration * best.cost / extra if extra > 0 else 1.0


def _contenders(choices: Sequence[Choice], state: State) -> list[str]:
    """The lanes that may be the best one if it had to serve all requests; none before something is known of that."""
    ratios, always = {}, state.always
    for choice in choices:
        name = choice.state.lane.name
        if (sums := always.get((choice.prediction.fingerprint, name))) is not None:
            ratios[name] = sums.ratio
    least = min(ratios.values(), default=0.0)
    return [name for name, ratio in ratios.items() if ratio <= NEARLY_BEST * least]


def _teaches_about(choice: Choice) -> tuple[str, ...]:
    """What a try of the lane teaches about: a drafter, whichever cap shows its acceptance; or the lane, where only
    times teach, or where its own cap must show what it costs."""
    lane = choice.state.lane
    if choice.prediction.is_blind or choice.prediction.is_untried:
        return (lane.name,)
    return choice.prediction.model, drafter_of(lane.strategy)


def _probabilities(candidates: Sequence[Choice], state: State, exploration: float, in_seconds: bool) -> list[float]:
    """With which each candidate is picked: its chance, as far as the budget allows."""
    best, *others = candidates
    # 1. What trying as wished is expected to cost. Chances sum to 1 at most.
    expected = sum([choice.chance * (choice.cost - best.cost) for choice in others])
    share = 1 / max(1.0, sum([choice.chance for choice in others]))
    if expected > 0:
        # 2. What may be spent: the set share of all time so far, with a head start, less what was spent.
        past_s, spent_s = (state.decode_s, state.exploring_s) if in_seconds else (0.0, 0.0)
        age = past_s / best.cost / HEAD_START_REQUESTS  # in requests like this one
        budget = exploration * (age + HEAD_START * log1p(age)) * HEAD_START_REQUESTS * best.cost - spent_s
        # 3. Of it, a single decision may spend a few times its own share.
        now = PATIENCE * exploration * (1 + HEAD_START / (1 + age)) * best.cost
        share = max(0.0, min(share, (budget + now) / expected, now / expected))
    shares = [share * choice.chance for choice in others]
    return [max(0.0, 1 - sum(shares)), *shares]


def faster_than_first(times: Sequence[tuple[float, float]]) -> list[float]:
    """Odds of each of some independent normal (mean, deviation) to be smaller than the first, as shares of their sum:
    of two, exactly the probability of being the smaller one; of several equal ones, the same for all."""
    (first, its_deviation), *others = times
    odds = [1.0]
    for mean, deviation in others:
        larger = (1 + erf((mean - first) / sqrt(2 * (its_deviation * its_deviation + deviation * deviation)))) / 2
        odds.append(1 / larger - 1)
    total = sum(odds)
    return [each / total for each in odds]


def _draw(probabilities: Sequence[float], rng: Random) -> int:
    left = rng.random()
    for number, share in enumerate(probabilities):
        left -= share
        if left < 0:
            return number
    return 0


# The reason


def _reason(signals: Signals, chosen: Choice, ranked: Sequence[Choice], load: Load, is_explored: bool) -> str:
    """Like ``edit 0.94, accept 0.81+-0.03 -> 8 drafted: 6.1 ms/token, plain 9.4``."""
    # 1. What was found in the request.
    text = ", ".join([f"{task} {signals.tasks.get(task, 1):.2f}" for task in considered(signals.tasks)])
    if signals.evidence:
        text += f" ({signals.evidence})"
    if len(ranked) == 1:
        return f"{text} -> {_short_name(chosen)}: the only lane of this model"
    # 2. What is expected of the drafter.
    chosen_drafts = chosen.drafts
    drafting = chosen if chosen_drafts else _first(ranked, drafts=True)
    if drafting:
        prediction = drafting.prediction
        text += f", accept {prediction.acceptance:.2f}+-{prediction.acceptance_spread:.2f}"
        if prediction.coverage is not None and prediction.coverage < 1:
            text += f" of {prediction.coverage:.2f}"
    # 3. What the lane would take, and what the best of the other kind, or else the next one.
    other = _first(ranked, drafts=not chosen_drafts) or ranked[1 if ranked[0] is chosen else 0]
    own_time, other_time = _times(chosen.prediction, other.prediction)
    text += f" -> {_short_name(chosen)}: {own_time}, {_short_name(other)} {other_time}"
    # 4. Why it is not the faster one, if it is not.
    if is_explored:
        return f"{text}; explored"
    if not other.state.healthy:
        return f"{text}; {other.name} is down"
    if other.prediction.relative < chosen.prediction.relative and load.in_flight(other.state):
        return f"{text}; with {load.in_flight(other.state)} in flight, {other.name} would wait or slow all down"
    return text


def _first(ranked: Sequence[Choice], drafts: bool) -> Choice | None:
    for choice in ranked:
        if choice.state.lane.strategy.drafts == drafts:
            return choice
    return None


def _short_name(choice: Choice) -> str:
    strategy = choice.state.lane.strategy
    if not strategy.drafts:
        return "plain"
    return f"{strategy.n_max} drafted" if strategy.n_max else f"{strategy.kind} drafts"


def _times(chosen: Prediction, other: Prediction) -> tuple[str, str]:
    """Both lanes' times per token: in seconds where both are known."""
    own_s, other_s = chosen.s_per_token, other.s_per_token
    if own_s is None or other_s is None:
        return f"{chosen.relative:.2f} plain steps/token", f"{other.relative:.2f}"
    return f"{1000 * own_s:.1f} ms/token", f"{1000 * other_s:.1f}"
