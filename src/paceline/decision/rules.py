"""The first policy: draft where the answer is likely to repeat what the prompt holds or a format dictates.

It learns nothing from outcomes; its interface is that of the policy that will.
"""

from collections.abc import Sequence
from random import Random

from paceline.decision.learn import State
from paceline.types import Decision, LaneState, Signals, Task

MOST_BESIDE_DRAFTING = 1
"""With more requests than this on a device already, verifying drafts costs more than it brings
(docs/decisions/0003 has the measurement): all go plain."""


def decide(signals: Signals, lanes: Sequence[LaneState], state: State, rng: Random) -> Decision:
    """Choose one of ``lanes`` for a request.

    The lanes come in the operator's order, the default lane first; unhealthy ones are used only when no other
    is left. While little goes on, a lane on which the request would start at once goes before one where it would
    wait, since one step that decodes two requests costs less than two steps; under load the plain lane goes
    before all, and everybody meets there.

    Raises:
        ValueError: ``lanes`` is empty.
    """
    if not lanes:
        raise ValueError("no lane to choose from")
    would_copy = signals.task is not Task.OPEN_ENDED

    def rank(one: LaneState) -> tuple[bool | int, ...]:
        is_busy = _in_flight_beside(one, lanes) > MOST_BESIDE_DRAFTING
        misfits = one.lane.strategy.drafts != (would_copy and not is_busy)
        waits = (not one.can_join, not one.has_turn)
        return (not one.healthy, *((misfits, *waits) if is_busy else (*waits, misfits)), one.running + one.waiting)

    ranked = sorted(lanes, key=rank)
    return Decision(
        lane=ranked[0].lane.name,
        reason=_reason(signals, ranked, would_copy),
        alternatives=tuple(state.lane.name for state in ranked[1:]),
    )


def _in_flight_beside(one: LaneState, lanes: Sequence[LaneState]) -> int:
    """Requests that run or wait on the lane's device."""
    device = one.lane.device
    sharing = [one] if device is None else [other for other in lanes if other.lane.device == device]
    return sum(other.running + other.waiting for other in sharing)


def _reason(signals: Signals, ranked: Sequence[LaneState], would_copy: bool) -> str:
    chosen = ranked[0]
    told = f"{signals.task} ({signals.evidence})" if signals.evidence else str(signals.task)
    text = f"{told}, {signals.prompt_chars} chars -> {chosen.lane.strategy}"
    beside = _in_flight_beside(chosen, ranked)
    if len(ranked) == 1:
        return f"{text}: the only lane of this model"
    if would_copy and not chosen.lane.strategy.drafts and beside > MOST_BESIDE_DRAFTING:
        return f"{text}: {beside} others in flight, drafts would slow all down"
    if chosen.lane.strategy.drafts == would_copy:
        return text
    better = next((one for one in ranked if one.lane.strategy.drafts == would_copy), None)
    if better is None:
        return f"{text}: no lane would {'draft' if would_copy else 'do without drafts'}"
    if not better.healthy:
        return f"{text}: {better.lane.name} is down"
    return f"{text}: joins {chosen.running} running here, {better.lane.name} would wait for its turn"
