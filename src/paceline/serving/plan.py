"""What was found out and decided about a request before anything was sent."""

from collections.abc import Callable

from msgspec import Struct

from paceline.serving.handles import EngineHandle, LaneHandle
from paceline.serving.headers import header_value
from paceline.serving.names import Served
from paceline.serving.speaking import Spoken
from paceline.types import NO_CONTROL, Decision, DraftControl, LaneState, Prediction, Request, Signals

MIN_GAIN_SHARE = 0.7
"""Of the tokens that a verification step must bring beyond one to be as fast as plain steps. A guess: lower lets an
engine draft through a few unlucky steps, higher makes it pause sooner."""


class Plan(Struct, frozen=True, kw_only=True):
    """How one request is to be served."""

    request: Request
    """As it arrived, with the name under which its model is served."""
    served: Served
    """What the client's name for the model stands for."""
    spoken: Spoken
    """In which API each engine is asked."""
    signals: Signals
    decision: Decision
    decision_s: float
    """How long inspection and decision took."""
    start_patience_s: float
    """How long it may still wait for an engine that starts."""
    control_instead: Callable[[LaneState], DraftControl | None]
    """What the control of drafts starts from on a lane that serves in the place of the decided one; ``None`` where that
    lane has none."""
    why_private: Callable[[Request], str]
    """Why a request may not leave this machine, by the rules that are in force when it is asked; empty where it
    may."""

    def may_go_to(self, engine: EngineHandle) -> bool:
        """Whether the request may be sent to an engine, as far as that it is private speaks against it."""
        return not (engine.settings.leaves_machine and (self.request.private or self.why_private(self.request)))

    def prediction(self, lane: LaneHandle) -> Prediction | None:
        """What was predicted for a lane, if anything was."""
        return self.decision.predictions.get(lane.lane.name)

    def headers(self, lane: LaneHandle) -> list[tuple[bytes, bytes]]:
        """The gateway's own headers of an answer that comes from a lane."""
        name, reason = lane.lane.name, self.decision.reason
        if name != self.decision.lane:
            reason = f"{reason}; {self.decision.lane} could not serve"
        reason += self.spoken.note(lane.engine.name)
        return [(b"x-paceline-lane", name.encode()), (b"x-paceline-reason", header_value(reason))]

    def control(self, lane: LaneHandle) -> DraftControl:
        """What the engine's control of drafts starts from: what was decided, where it decides at each step. Else
        drafting pauses where it yields less than a part of what is needed to gain, since a few steps may be unlucky;
        who asks for this very lane has it as it is."""
        if lane.lane.strategy.among:
            if lane.lane.name == self.decision.lane:
                return self.decision.control or NO_CONTROL
            return self.control_instead(lane.state(self.served.own_name(lane.engine.name))) or NO_CONTROL
        if self.request.forced_lane == lane.lane.name:
            return NO_CONTROL
        prediction = self.prediction(lane)
        break_even = prediction.break_even if prediction else None
        if not prediction or not break_even or break_even <= 1:
            return NO_CONTROL
        if prediction.concurrent and lane.engine.supervisor.abilities.decodes_apart:
            return NO_CONTROL  # a pause of one request alone makes all of its batch wait
        return DraftControl(min_yield=1 + MIN_GAIN_SHARE * (break_even - 1))
