"""A request that is on its way: to an endpoint that was decided on, or to one that it was passed to undecided."""

from contextlib import ExitStack
from time import perf_counter, time
from typing import Protocol

from paceline.engines import Observer
from paceline.engines.body import with_model
from paceline.engines.usage import FIELD as USAGE
from paceline.serving.answering import ERROR_INSIDE, Failed, refused
from paceline.serving.attempt import BUSY, NOT_ITS_FAULT
from paceline.serving.failure import Failure
from paceline.serving.handles import EngineHandle, LaneHandle
from paceline.serving.pipeline import Pipeline
from paceline.serving.plan import Plan
from paceline.serving.turns import Turn
from paceline.types import CLIENT_LEFT, Observation, Outcome
from paceline.wire.headers import Headers

MAX_WHOLE_BYTES = 1024 * 1024
"""Of an answer that is no stream, that are held beside what passes by, to see whether it is one. The gateway holds as
much."""
NOT_WHOLE = "it ended before its answer was whole"
NOT_BEGUN = "it ended before its answer had begun"


class OnItsWay(Protocol):
    """A request between the picker's word and the end of its answer."""

    def answer_begins(self, status: int, headers: Headers, served_by: EngineHandle | None) -> Headers:
        """The answer's head has come. Returns headers to be put into it.

        Args:
            served_by: the engine that answers, where that is told.
        """

    def feed(self, data: bytes, ends: bool) -> bytes:
        """A piece of the answer's body has come. Returns what the client is to get of it."""

    def end(self) -> None:
        """It is over, whatever became of it. May be called twice."""


class Passed:
    """A request that was passed on undecided, so that nothing is learned of it."""

    def __init__(self, pipeline: Pipeline, engine: EngineHandle) -> None:
        self._pipeline, self._engine = pipeline, engine
        self._status = 0
        self._counted = ExitStack()
        self._counted.enter_context(engine.passes_one())
        self._is_over = False

    def answer_begins(self, status: int, headers: Headers, served_by: EngineHandle | None) -> Headers:
        self._status = status
        return ()

    def feed(self, data: bytes, ends: bool) -> bytes:
        return data

    def end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._counted.close()
        self._pipeline.metrics.passed_through(self._engine.lanes()[0].lane.name, self._status or CLIENT_LEFT)
        if self._status in BUSY or not self._status:
            self._engine.supervisor.suspect(NOT_BEGUN)


class Carried:
    """A request that was decided on; its answer is learned from. To be made with :meth:`begin`.

    Args:
        observes: whether the answer's body passes by.
    """

    def __init__(self, pipeline: Pipeline, plan: Plan, lane: LaneHandle, turn: Turn, *, observes: bool) -> None:
        self.lane = lane
        engine = lane.engine
        supervisor, strategy = engine.supervisor, lane.lane.strategy
        request = plan.spoken.request(engine.name, plan.request)
        own_name = plan.served.engine_names.get(engine.name)
        if own_name not in (None, request.model):
            request = with_model(request, own_name)
        self._observer: Observer = supervisor.engine.observe(request, strategy)
        self.body = request.body
        """As it goes to the engine."""
        if observes or not (request.stream and USAGE in supervisor.engine.written_fields):
            self.body = supervisor.engine.prepare(request, strategy, supervisor.abilities, plan.control(lane))
        self._pipeline, self._plan, self._turn = pipeline, plan, turn
        self._fingerprint, _ = engine.identity(plan.served.own_name(engine.name))
        self._began_s = perf_counter()
        self._observes = observes
        self._status = 0
        self._first_byte_s: float | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._is_whole = self._is_over = False
        self._failed_before: tuple[tuple[str, str], ...] = ()
        self._is_strangers = False
        """Whether an engine answers that has no such lane, so that nothing of it is known or learned."""

    @classmethod
    async def begin(cls, pipeline: Pipeline, plan: Plan, lane: LaneHandle, *, observes: bool) -> "Carried":
        """Count it as running on its lane.

        Raises:
            QueueFull, TimeoutError: its device takes turns, and none was to be had.
        """
        turn = await lane.take_turn(pipeline.server.queue_timeout_s)
        try:
            if (expected := plan.prediction(lane)) is not None:
                turn.drafts(expected.drafted_per_step)
            return cls(pipeline, plan, lane, turn, observes=observes)
        except BaseException:
            lane.leave(turn)
            raise

    @property
    def is_changed(self) -> bool:
        """Whether the body is another than the client's."""
        return self.body is not self._plan.request.body

    def answer_begins(self, status: int, headers: Headers, served_by: EngineHandle | None) -> Headers:
        self._status = status
        self._is_whole = not self._observes  # its end can't be seen
        if served_by is not None and served_by is not self.lane.engine:
            self._was_served_elsewhere(served_by)
        fields = dict(headers)
        self._observer.is_stream = fields.get(b"content-type", b"").lower().startswith(b"text/event-stream")
        if fields.get(b"content-encoding", b"identity").lower() != b"identity":
            self._observes = False
        return () if self._is_strangers else self._plan.headers(self.lane)

    def feed(self, data: bytes, ends: bool) -> bytes:
        at_s = perf_counter() - self._began_s
        if self._first_byte_s is None and data:
            self._first_byte_s = at_s
        self._is_whole = self._is_whole or ends
        if not self._observes:
            return data
        shown = self._observer.feed(data, at_s) if data else b""
        if not self._observer.is_stream:
            if self._held_bytes <= MAX_WHOLE_BYTES:
                self._held.append(data)
                self._held_bytes += len(data)
            if ends and self._held_bytes <= MAX_WHOLE_BYTES:
                self._observer.read_whole(b"".join(self._held))
            return data
        return shown + self._observer.end(at_s) if ends else shown

    def end(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        took_s = perf_counter() - self._began_s
        beside = self._turn.beside()
        self.lane.leave(self._turn)
        error, failed = (NOT_BEGUN, None) if self._is_strangers else self._error()
        outcome = Outcome(
            lane=self.lane.lane.name,
            status=CLIENT_LEFT if error in (NOT_WHOLE, NOT_BEGUN) else self._status,
            total_s=took_s + self._plan.decision_s,
            decision_s=self._plan.decision_s,
            first_byte_s=None if self._is_strangers else self._first_byte_s,
            observed=self._observer.observation() if error is None and self._observes else Observation(),
            concurrent=beside.requests,
            drafted_beside=beside.drafted,
            at_s=time(),
            error=error,
            fingerprint=self._fingerprint,
            failed=self._failed_before,
            deliveries=1 + len(self._failed_before),
        )
        self._pipeline.carried(self._plan, self.lane, outcome, failed)

    def _error(self) -> tuple[str | None, Failed | None]:
        """What is recorded of how it went wrong, and how its engine failed."""
        supervisor = self.lane.engine.supervisor
        if not self._is_whole:  # the client left, or the engine was lost: the gateway does not say which
            problem = NOT_WHOLE if self._status else NOT_BEGUN
            supervisor.suspect(problem)
            return problem, None
        if self._status in BUSY:  # or out of the gateway's reach
            supervisor.suspect(refused(self._status))
            return refused(self._status), None
        if self._status >= 500 and self._status not in NOT_ITS_FAULT:
            return refused(self._status), Failed(Failure.ERROR, refused(self._status))
        if self._status >= 400:
            return refused(self._status), None
        if self._observer.error is not None:
            return ERROR_INSIDE, Failed(Failure.ERROR, ERROR_INSIDE, self._observer.error_is_clients)
        return None, None

    def _was_served_elsewhere(self, engine: EngineHandle) -> None:
        """The gateway could not reach the endpoint, and took the next one: what is learned, is learned of that."""
        self.lane.engine.supervisor.suspect("the gateway could not reach it")
        strategy = self.lane.lane.strategy
        other = next((lane for lane in engine.lanes() if lane.lane.strategy == strategy), None)
        if other is None:
            # What it did with the fields meant for another engine is not known, and tells nothing of that one.
            self._is_strangers, self._observes, self._status = True, False, 0
            return
        self._failed_before = ((self.lane.lane.name, self._fingerprint),)
        self.lane.running -= 1
        device = other.engine.device
        if device is not self.lane.engine.device and (turn := device.take(engine.name, engine.slots)) is not None:
            self._turn.release()
            self._turn = turn  # it runs there from now on
            if (expected := self._plan.prediction(other)) is not None:
                turn.drafts(expected.drafted_per_step)
        self.lane = other
        other.running += 1
        self._fingerprint, _ = engine.identity(self._plan.served.own_name(engine.name))
