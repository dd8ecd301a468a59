"""Why a lane was chosen, in one line for people: ``edit 0.94, accept 0.81 -> 8 drafted: 6.1 ms/token, plain 9.4``."""

from collections.abc import Mapping, Sequence

from paceline.decision.choice import Choice
from paceline.decision.load import Load
from paceline.decision.tuning import MIN_TASK
from paceline.types import Prediction, Signals, Task


def reason(signals: Signals, chosen: Choice, ranked: Sequence[Choice], load: Load, note: str) -> str:
    """
    Args:
        ranked: all lanes, the best first.
        note: why it is not the best one; empty where it is.
    """
    # 1. What was found in the request.
    text = ", ".join([f"{task} {share:.2f}" for task, share in _likely(signals.tasks).items()])
    if signals.evidence:
        text += f" ({signals.evidence})"
    if len(ranked) == 1:
        return f"{text} -> {_short_name(chosen)}: the only lane of this model"
    # 2. What is expected of the drafter.
    drafting = chosen if chosen.drafts else _first(ranked, drafts=True)
    if drafting and drafting.prediction.acceptance is not None:
        text += f", accept {drafting.prediction.acceptance:.2f}"
        if drafting.prediction.coverage is not None and drafting.prediction.coverage < 0.995:
            text += f" of {drafting.prediction.coverage:.2f}"
    # 3. What the lane would take, and what the best of the other kind, or else the next one.
    other = _first(ranked, drafts=not chosen.drafts) or ranked[1 if ranked[0] is chosen else 0]
    own_time, other_time = _times(chosen.prediction, other.prediction)
    text += f" -> {_short_name(chosen)}: {own_time}, {_short_name(other)} {other_time}"
    # 4. Why it is not the faster one, if it is not.
    if note:
        return f"{text}; {note}"
    if not other.state.healthy:
        return f"{text}; {other.name} is down"
    if other.prediction.relative < chosen.prediction.relative and load.in_flight(other.state):
        return f"{text}; with {load.in_flight(other.state)} in flight, {other.name} would wait or slow all down"
    return text


def _likely(tasks: Mapping[Task, float]) -> Mapping[Task, float]:
    return {task: share for task, share in tasks.items() if share >= MIN_TASK} or {next(iter(tasks)): 1.0}


def _first(ranked: Sequence[Choice], drafts: bool) -> Choice | None:
    for choice in ranked:
        if choice.drafts == drafts:
            return choice
    return None


def _short_name(choice: Choice) -> str:
    strategy = choice.state.lane.strategy
    if not strategy.drafts:
        return "plain"
    if strategy.among:
        return f"{strategy.kind} by step"
    return f"{strategy.n_max} drafted" if strategy.n_max else f"{strategy.kind} drafts"


def _times(chosen: Prediction, other: Prediction) -> tuple[str, str]:
    """Both lanes' times per token: in seconds where both are known."""
    own_s, other_s = chosen.s_per_token, other.s_per_token
    if own_s is None or other_s is None:
        return f"{chosen.relative:.2f} plain steps/token", f"{other.relative:.2f}"
    return f"{1000 * own_s:.1f} ms/token", f"{1000 * other_s:.1f}"
