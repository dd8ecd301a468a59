"""Which lane a request goes down: the forced one, that of the operator's rule, or the predicted one."""

import logging
from collections import Counter
from collections.abc import Sequence
from random import Random

from msgspec.structs import replace

from paceline.decision import State, decide, predict
from paceline.engines import meaning
from paceline.routing.rules import fitting, in_words
from paceline.serving.fleet import Fleet, LaneHandle
from paceline.serving.names import Served
from paceline.types import Decision, LaneState, Request, Signals

log = logging.getLogger("paceline.routing")


class Decider:
    """Decides by what is known now. Whatever fails over it, there is a decision.

    Args:
        rng: drawn from where another lane than the best is tried.
        failures: counts how often a part failed and was done without.
    """

    def __init__(self, fleet: Fleet, state: State, rng: Random, failures: Counter[str]) -> None:
        self._fleet, self._state, self._random, self._failures = fleet, state, rng, failures

    def decide(self, request: Request, signals: Signals, served: Served) -> Decision:
        """The lane that the request forces, or the one that is chosen."""
        forced = request.forced_lane
        if forced is None:
            return self.choose(request, signals, served)
        lanes, changed = _keeping(served.lanes, meaning.asked(request))
        note = ""
        if lanes:
            served = replace(served, lanes=lanes)
        else:
            note = f"{', '.join(changed)} changed by its drafts; "
        return self._among(served, signals, f"{note}the request forces this lane", f"{note}the request forces {forced}")

    def choose(self, request: Request, signals: Signals, served: Served) -> Decision:
        """The operator's rule for a request, if one fits and its lane is up; else the predictions decide. Lanes that
        would change what the request means are in reserve, unless no other is well."""
        lanes, note = served.lanes, ""
        reserve: tuple[str, ...] = ()
        kept, changed = _keeping(lanes, meaning.asked(request))
        if changed and any(lane.engine.is_well for lane in kept):
            note = f"{', '.join(changed)} kept by plain decoding alone; "
            reserve = tuple(lane.lane.name for lane in lanes if lane not in kept)
            lanes = kept
        elif changed:
            note = f"no lane is well that keeps {', '.join(changed)}; "
        decision = self._ruled(request, signals, replace(served, lanes=lanes), note)
        return replace(decision, alternatives=decision.alternatives + reserve) if reserve else decision

    def _ruled(self, request: Request, signals: Signals, served: Served, note: str) -> Decision:
        """By the operator's rule, or by the predictions.

        Args:
            note: begins the reason.
        """
        lanes = served.lanes
        rule = fitting(self._fleet.configuration.rule, request, signals)
        if rule is not None:
            named = self._fleet.named(rule.lane)
            wanted = tuple(lane for lane in lanes if lane in named and lane.is_up)
            if wanted:
                others = tuple(lane.lane.name for lane in lanes if lane not in wanted)
                why = f"{note}rule: {in_words(rule)}"
                decision = self._among(replace(served, lanes=wanted), signals, why, why)
                return replace(decision, alternatives=decision.alternatives + others)
        decision = self._predicted(served, signals)
        return replace(decision, reason=note + decision.reason) if note else decision

    def _among(self, served: Served, signals: Signals, only: str, several: str) -> Decision:
        """The only lane that may be used; or where it is an engine with several, the best of them. With the reason."""
        if len(served.lanes) == 1:
            return self._pinned(served, signals, only)
        decision = self._predicted(served, signals)
        return replace(decision, reason=f"{several}; {decision.reason}")

    def _predicted(self, served: Served, signals: Signals) -> Decision:
        try:
            states = [_lane_state(lane, served) for lane in served.lanes]
            exploration = self._fleet.configuration.routing.exploration
            return decide(signals, states, self._state, self._random, exploration)
        except Exception:
            note_failure(self._failures, "decision")
            return self._pinned(served, signals, "the default lane: the decision failed")

    def _pinned(self, served: Served, signals: Signals, reason: str) -> Decision:
        """The first lane, the others in reserve; with its prediction, so that its outcome is learned from."""
        first, *others = served.lanes
        try:
            predictions = predict(signals, [_lane_state(first, served)], self._state)
        except Exception:
            note_failure(self._failures, "prediction")
            predictions = {}
        names = tuple(lane.lane.name for lane in others)
        return Decision(first.lane.name, reason, alternatives=names, predictions=predictions)


def note_failure(failures: Counter[str], part: str) -> None:
    """To be called where an exception is handled: a part of routing failed."""
    failures[part] += 1
    log.exception("%s failed; the request goes on without it", part)


def _keeping(lanes: Sequence[LaneHandle], asked: frozenset[str]) -> tuple[tuple[LaneHandle, ...], list[str]]:
    """The lanes that keep what a request means, and what the others would change."""
    if not asked:
        return tuple(lanes), []
    kept = tuple(lane for lane in lanes if not _changes_meaning(lane, asked))
    return kept, sorted({name for lane in lanes for name in _changes_meaning(lane, asked)})


def _changes_meaning(lane: LaneHandle, asked: frozenset[str]) -> frozenset[str]:
    """What a request asks for that drafting on this lane would change."""
    return asked & lane.engine.supervisor.abilities.not_when_drafting if lane.lane.strategy.drafts else frozenset()


def _lane_state(lane: LaneHandle, served: Served) -> LaneState:
    return lane.state(served.own_name(lane.engine.name))
