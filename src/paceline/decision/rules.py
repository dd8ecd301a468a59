"""The first policy: draft where the answer is likely to repeat what the prompt holds or a format dictates.

It learns nothing from outcomes; its interface is that of the policy that will.
"""

from collections.abc import Sequence
from random import Random

from paceline.decision.learn import State
from paceline.types import Decision, LaneState, Signals, Task


def decide(signals: Signals, lanes: Sequence[LaneState], state: State, rng: Random) -> Decision:
    """Choose one of ``lanes`` for a request.

    The lanes come in the operator's order, the default lane first; unhealthy ones are used only when no other
    is left. A lane on which the request would start at once goes before one where it would wait: a step that
    decodes two requests costs less than two steps.

    Raises:
        ValueError: ``lanes`` is empty.
    """
    if not lanes:
        raise ValueError("no lane to choose from")
    wants_draft = signals.task is not Task.OPEN_ENDED
    ranked = sorted(
        lanes,
        key=lambda s: (
            not s.healthy,
            not s.can_join,
            s.lane.strategy.drafts != wants_draft,
            s.running + s.waiting,
        ),
    )
    chosen = ranked[0]
    return Decision(
        lane=chosen.lane.name,
        reason=_reason(signals, chosen, ranked, wants_draft),
        alternatives=tuple(state.lane.name for state in ranked[1:]),
    )


def _reason(signals: Signals, chosen: LaneState, ranked: Sequence[LaneState], wants_draft: bool) -> str:
    told = f"{signals.task} ({signals.evidence})" if signals.evidence else str(signals.task)
    text = f"{told}, {signals.prompt_chars} chars -> {chosen.lane.strategy}"
    if len(ranked) == 1:
        return f"{text}: the only lane of this model"
    if chosen.lane.strategy.drafts != wants_draft:
        fitting = [state for state in ranked if state.lane.strategy.drafts == wants_draft]
        if not fitting:
            return f"{text}: no lane would {'draft' if wants_draft else 'do without drafts'}"
        better = fitting[0]
        if not better.healthy:
            return f"{text}: {better.lane.name} is down"
        return (
            f"{text}: starts at once, {better.lane.name} would wait"
            f" ({chosen.running} running here, {better.waiting} waiting there)"
        )
    return text
