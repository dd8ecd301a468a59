"""Predictions -> a lane."""

from collections.abc import Collection, Sequence
from math import erf, exp, log, log1p, sqrt
from random import Random

from msgspec import Struct

from paceline.decision.drafting import accepted_per_draft
from paceline.decision.load import Load
from paceline.decision.predict import considered, draft_length, drafter_of, predict
from paceline.decision.state import State
from paceline.types import Decision, LaneState, Prediction, Signals

EXPLORATION = 0.01
"""Share of decode time that may be spent on lanes that are not predicted to be the fastest."""
FAR_WORSE = 1.4
"""A lane that would take so many times the best one's time even if it were a standard deviation faster than predicted
is not explored."""
MAX_PROBED = 0.12
"""Probability, at most, with which a drafter that lost before is tried again to see whether it changed."""
HEAD_START = 0.5
"""Times the set share that may be spent on the first requests, when there is most to learn; it falls off with
:data:`HEAD_START_REQUESTS`."""
HEAD_START_REQUESTS = 40.0
COMPARED = 0.05
"""Probability, at most, with which a lane is picked that would be best if it had to serve all requests, as a fixed
setting: what it takes where another one is predicted to be faster is what shows whether choosing pays."""
COMPARING = 0.5
"""Part of the share for exploration that this may be expected to cost."""
NEARLY_BEST = 1.02
"""Lanes that would take so many times as long may be the best one as well."""
PATIENCE = 3.0
"""Times the present share that a single decision may be expected to cost."""
MAX_CANDIDATES = 4
MIN_SPREAD = 0.01
MAX_BESIDE_TURNS = 1
"""Where engines take turns: with more requests than this in flight all go plain and meet in one engine's turn, for a
turn that keeps changing costs more than drafts bring (docs/decisions/0003 has the measurement)."""


class Choice(Struct):
    """A lane that may be chosen."""

    one: LaneState
    prediction: Prediction
    cost: float
    """What is compared: seconds for the whole answer, or plain steps per token while no second is known."""
    rank: tuple[float, ...]
    """The lower, the better."""
    chance: float = 0.0
    """With which it is taken instead of the best one, if the budget allows."""


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
    load = Load(lanes)
    predictions = predict(signals, lanes, state, load)
    in_seconds = None not in [prediction.plain_step_s for prediction in predictions.values()]
    choices = [_choice(one, predictions[one.lane.name], load, in_seconds) for one in lanes]
    choices.sort(key=lambda choice: choice.rank)
    candidates = _candidates(choices, state, exploration) if exploration > 0 else choices[:1]
    probabilities = _probabilities(candidates, state, exploration, in_seconds)
    picked = _draw(probabilities, rng) if len(probabilities) > 1 else 0
    chosen = candidates[picked]
    return Decision(
        lane=chosen.one.lane.name,
        reason=_reason(signals, chosen, choices, load, is_explored=picked > 0),
        propensity=probabilities[picked],
        propensities={
            choice.one.lane.name: share for choice, share in zip(candidates, probabilities, strict=True) if share > 0
        },
        alternatives=tuple([choice.one.lane.name for choice in choices if choice is not chosen]),
        predictions=predictions,
        exploring_s=chosen.cost - candidates[0].cost if in_seconds else 0.0,
        signals=signals,
    )


def _choice(one: LaneState, prediction: Prediction, load: Load, in_seconds: bool) -> Choice:
    cost = prediction.relative
    beside = load.beside(one)
    if beside and prediction.acceptance is not None:
        cost *= _share_of_batch(prediction, beside)
    if in_seconds and prediction.plain_step_s is not None:
        cost = prediction.prefill_s + prediction.tokens * cost * prediction.plain_step_s
    rank: tuple[float, ...] = (not one.healthy, 0, 0, 0, cost, one.running + one.waiting)
    if load.takes_turns(one):
        # While little goes on, a lane on which the request starts at once goes before one where it would wait, since
        # one step that decodes two requests costs less than two steps.
        is_crowded = load.in_flight(one) > MAX_BESIDE_TURNS
        rank = (not one.healthy, is_crowded and one.lane.strategy.drafts, not one.can_join, not one.has_turn, *rank[4:])
    return Choice(one, prediction, cost, rank)


def _share_of_batch(prediction: Prediction, beside: int) -> float:
    """Beside others, a step that drafts keeps all of them waiting for the tokens of one: the time per token of the
    whole batch, in which the others gain one token a step, over that of the request alone."""
    covered = prediction.coverage or 0.0
    accepted = accepted_per_draft(prediction.acceptance or 0.0, draft_length(prediction.strategy))
    tokens_per_step = 1 / ((1 - covered) + covered / (1 + accepted))
    return tokens_per_step * (1 + beside) / (tokens_per_step + beside)


def _candidates(ranked: Sequence[Choice], state: State, exploration: float) -> list[Choice]:
    """The best choice first, then those that may be taken instead, where the request would start as soon."""
    best = ranked[0]
    if best.one.running:
        return [best]  # who joins others does not try things out on them
    others = [choice for choice in ranked[1:] if _starts_like(choice, best)]
    _explore(best, others, exploration)
    _compare(best, others, _contenders(ranked, state), exploration)
    return [best, *(choice for choice in others if choice.chance > 0)]


def _starts_like(choice: Choice, best: Choice) -> bool:
    one, other = choice.one, best.one
    is_alike = (one.healthy, one.can_join, one.has_turn) == (other.healthy, other.can_join, other.has_turn)
    return is_alike and not one.running and choice.cost >= best.cost


def _explore(best: Choice, others: Sequence[Choice], exploration: float) -> None:
    """Give a chance to those that may be about as fast: their probability of being faster after all, and to another
    drafter a little more, as far as the budget allows."""
    seen, found = {_drafter(best)}, []
    for choice in others:
        is_near = choice.prediction.is_unseen or choice.cost <= FAR_WORSE * best.cost * exp(choice.prediction.spread)
        if is_near and (drafter := _drafter(choice)) not in seen and len(seen) < MAX_CANDIDATES:
            seen.add(drafter)
            found.append(choice)
    if not found:
        return
    times = [(log(choice.cost), max(MIN_SPREAD, choice.prediction.spread)) for choice in (best, *found)]
    for choice, odds in zip(found, faster_than_first(times)[1:], strict=True):
        least = 0.0
        if choice.prediction.is_unseen:
            least = MAX_PROBED
        elif choice.one.lane.strategy.drafts:
            least = min(MAX_PROBED, _affordable(best, choice, exploration))
        choice.chance = max(odds, least)


def _compare(best: Choice, others: Sequence[Choice], contenders: Collection[str], exploration: float) -> None:
    """Give a chance to the lanes that may be the best fixed one."""
    for choice in others:
        if choice.one.lane.name in contenders:
            least = min(COMPARED, COMPARING * _affordable(best, choice, exploration))
            choice.chance = max(choice.chance, least)


def _affordable(best: Choice, choice: Choice, exploration: float) -> float:
    """The probability at which it would cost the share that may be spent."""
    extra = choice.cost - best.cost
    return exploration * best.cost / extra if extra > 0 else 1.0


def _contenders(choices: Sequence[Choice], state: State) -> list[str]:
    """The lanes that may be the best one if it had to serve all requests; none before something is known of that."""
    ratios = {}
    for choice in choices:
        name = choice.one.lane.name
        if (sums := state.always.get((choice.prediction.fingerprint, name))) is not None:
            ratios[name] = sums.ratio
    least = min(ratios.values(), default=0.0)
    return [name for name, ratio in ratios.items() if ratio <= NEARLY_BEST * least]


def _drafter(choice: Choice) -> tuple[str, ...]:
    """What a try of the lane teaches about: a drafter, whichever cap shows its acceptance; or the lane, where only
    times teach, or where its own cap must show what it costs."""
    lane = choice.one.lane
    if choice.prediction.is_blind or choice.prediction.is_untried:
        return (lane.name,)
    return choice.prediction.model, drafter_of(lane.strategy)


def _probabilities(candidates: Sequence[Choice], state: State, exploration: float, in_seconds: bool) -> list[float]:
    """With which each candidate is picked: its chance, as far as the budget allows."""
    best, *others = candidates
    expected = sum([choice.chance * (choice.cost - best.cost) for choice in others])
    share = 1 / max(1.0, sum([choice.chance for choice in others]))
    if expected > 0:
        past_s, spent_s = (state.decode_s, state.exploring_s) if in_seconds else (0.0, 0.0)
        age = past_s / best.cost / HEAD_START_REQUESTS  # in requests like this one
        budget = exploration * (age + HEAD_START * log1p(age)) * HEAD_START_REQUESTS * best.cost - spent_s
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
    return [one / total for one in odds]


def _draw(probabilities: Sequence[float], rng: Random) -> int:
    left = rng.random()
    for number, share in enumerate(probabilities):
        left -= share
        if left < 0:
            return number
    return 0


def _reason(signals: Signals, chosen: Choice, ranked: Sequence[Choice], load: Load, is_explored: bool) -> str:
    """Like ``edit 0.94, accept 0.81+-0.03 -> 8 drafted: 6.1 ms/token, plain 9.4``."""
    told = ", ".join([f"{task} {signals.tasks.get(task, 1):.2f}" for task in considered(signals.tasks)])
    if signals.evidence:
        told += f" ({signals.evidence})"
    if len(ranked) == 1:
        return f"{told} -> {_name(chosen)}: the only lane of this model"
    drafting = chosen if chosen.one.lane.strategy.drafts else _first(ranked, drafts=True)
    if drafting:
        prediction = drafting.prediction
        told += f", accept {prediction.acceptance:.2f}+-{prediction.acceptance_spread:.2f}"
        if prediction.coverage is not None and prediction.coverage < 1:
            told += f" of {prediction.coverage:.2f}"
    drafts = chosen.one.lane.strategy.drafts
    other = _first(ranked, drafts=not drafts) or ranked[1 if ranked[0] is chosen else 0]
    own, others = _times(chosen.prediction, other.prediction)
    text = f"{told} -> {_name(chosen)}: {own}, {_name(other)} {others}"
    if is_explored:
        return f"{text}; explored"
    if not other.one.healthy:
        return f"{text}; {other.one.lane.name} is down"
    if other.prediction.relative < chosen.prediction.relative and load.in_flight(other.one):
        return f"{text}; with {load.in_flight(other.one)} in flight, {other.one.lane.name} would wait or slow all down"
    return text


def _first(ranked: Sequence[Choice], drafts: bool) -> Choice | None:
    return next((choice for choice in ranked if choice.one.lane.strategy.drafts == drafts), None)


def _name(choice: Choice) -> str:
    strategy = choice.one.lane.strategy
    if not strategy.drafts:
        return "plain"
    return f"{strategy.n_max} drafted" if strategy.n_max else f"{strategy.kind} drafts"


def _times(chosen: Prediction, other: Prediction) -> tuple[str, str]:
    """Both lanes' times per token: in seconds where both are known."""
    if chosen.s_per_token is None or other.s_per_token is None:
        return f"{chosen.relative:.2f} plain steps/token", f"{other.relative:.2f}"
    return f"{1000 * chosen.s_per_token:.1f} ms/token", f"{1000 * other.s_per_token:.1f}"
