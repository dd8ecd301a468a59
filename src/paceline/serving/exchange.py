"""One request in flight, from its arrival to what is recorded of it."""

import asyncio
from collections.abc import Sequence
from time import perf_counter, time

from msgspec import Struct

from paceline.records.kept import NO_LANE
from paceline.serving.answering import Answering, Failed, Refusal
from paceline.serving.attempt import Attempt
from paceline.serving.errors import ServingError
from paceline.serving.failure import Failure
from paceline.serving.handles import LaneHandle
from paceline.serving.plan import Plan
from paceline.serving.reply import ClientReply
from paceline.settings import ServerSettings
from paceline.types import Decision, Observation, Outcome, Request, Signals, engine_of


class _End(Struct, frozen=True):
    """How an exchange ended for the client."""

    status: int
    error: str | None


class _Running(Struct, frozen=True, eq=False):
    """An attempt that has not begun to answer."""

    attempt: Attempt
    task: "asyncio.Task[Answering | Failed]"


class Exchange:
    """A request in flight. It arrives; it is :meth:`planned`; it is sent with :meth:`attempt`, until an answer has
    begun that is passed on with :meth:`relay`, or it :meth:`fails`. It is to be closed, whatever has happened.

    Args:
        server: the limits of time.
        keep_key: whether the client's API key is meant for engines.
    """

    def __init__(self, *, request: Request, reply: ClientReply, server: ServerSettings, keep_key: bool) -> None:
        self._reply = reply
        self.is_late = False
        """Whether its time was over before an answer had begun to be relayed."""
        self._arrived_s = perf_counter()
        self._request = request
        self._server = server
        self._keep_key = keep_key
        self._plan: Plan | None = None
        self._attempt: Attempt | None = None
        self._attempts: list[Attempt] = []
        """All of them."""
        self._earlier_queue_s = 0.0
        """How long earlier attempts waited for their turns."""
        self._failed_lanes: list[tuple[str, str]] = []
        """Lane and fingerprint of each attempt that failed without a refusal."""
        self._cancelled_lanes: list[tuple[str, str]] = []
        """The same of each that was sent, and cancelled since another one was quicker, or nobody waited any more."""
        self._abandoned_lanes: list[tuple[str, str]] = []
        """The same of each that gave no answer, and may have worked on it all the same."""
        self._answer: Answering | Refusal | None = None
        """What the client gets, once that is known."""
        self._end: _End | None = None

    @property
    def age_s(self) -> float:
        """How long ago it arrived, in seconds."""
        return perf_counter() - self._arrived_s

    @property
    def request(self) -> Request:
        """As it arrived; once it is planned, with the name under which its model is served."""
        return self._plan.request if self._plan else self._request

    @property
    def signals(self) -> Signals:
        """What inspection found; nothing before that."""
        return self._plan.signals if self._plan else Signals()

    @property
    def decision(self) -> Decision | None:
        """What was decided, once that is so."""
        return self._plan.decision if self._plan else None

    @property
    def last_attempt(self) -> Attempt | None:
        """The one that is running, or else the one before."""
        return self._attempt

    @property
    def may_be_billed(self) -> frozenset[str]:
        """Engines that were sent it and gave no answer, and may bill what they did until then."""
        return frozenset(engine_of(lane) for lane, _ in (*self._cancelled_lanes, *self._abandoned_lanes))

    def planned(self, plan: Plan) -> None:
        """It is known what serves it, and what is decided."""
        self._plan = plan

    async def attempt(self, plan: Plan, lane: LaneHandle, is_last: bool) -> Answering | Failed:
        """Try to have it served by a lane. Nothing but pings has gone to the client when this returns.

        Args:
            is_last: whether there is no other lane, so that an error that came as a success may as well be passed on.
        """
        self._leave_behind()
        attempt = self._new_attempt(plan, lane)
        try:
            begun = await attempt.begin(is_last)
        except asyncio.CancelledError:
            if lane.engine.settings.is_cloud:  # which may bill what it has done
                self._note_cancelled(attempt)
            raise
        if isinstance(begun, Failed):
            self._note_failed(attempt, begun)
        return begun

    async def race(
        self, plan: Plan, first: LaneHandle, second: LaneHandle, after_s: float
    ) -> Sequence[tuple[LaneHandle, Answering | Failed]]:
        """Try to have it served by a lane, and if that has not begun to answer after a while, by another one, too. The
        one that begins first serves it, and the other one is cancelled. Returns what came of them, up to the answer.

        Args:
            after_s: when the second one is tried, in seconds.
        """
        self._leave_behind()
        begun: list[tuple[LaneHandle, Answering | Failed]] = []
        running = {self._begins(plan, first)}
        try:
            await asyncio.wait([one.task for one in running], timeout=after_s)
            if not any(one.task.done() for one in running):
                second.engine.illness.takes()
                running.add(self._begins(plan, second))
            while running:
                await asyncio.wait([one.task for one in running], return_when=asyncio.FIRST_COMPLETED)
                for one in [one for one in running if one.task.done()]:
                    running.discard(one)
                    self._attempt, came = one.attempt, one.task.result()
                    begun.append((one.attempt.lane, came))
                    if isinstance(came, Answering):
                        return begun
                    self._note_failed(one.attempt, came)
            return begun
        finally:
            for one in running:
                await self._cancel(one)

    def _begins(self, plan: Plan, lane: LaneHandle) -> "_Running":
        attempt = self._new_attempt(plan, lane, is_raced=True)
        return _Running(attempt, asyncio.get_running_loop().create_task(attempt.begin(is_last=False)))

    async def _cancel(self, one: "_Running") -> None:
        """Give up an attempt, since another one answers, or nobody waits any more."""
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
        one.attempt.note_pace(is_whole=False)
        one.attempt.leave()
        self._note_cancelled(one.attempt)

    def _new_attempt(self, plan: Plan, lane: LaneHandle, is_raced: bool = False) -> Attempt:
        attempt = Attempt(
            lane=lane,
            plan=plan,
            reply=self._reply,
            server=self._server,
            keep_key=self._keep_key,
            is_raced=is_raced,
        )
        self._attempt = attempt
        self._attempts.append(attempt)
        return attempt

    def _leave_behind(self) -> None:
        """The attempt before is over; the time that it waited counts on."""
        if self._attempt is not None:
            self._earlier_queue_s += self._attempt.queue_s

    def _note_cancelled(self, attempt: Attempt) -> None:
        if attempt.was_delivered:
            self._cancelled_lanes.append((attempt.lane.lane.name, attempt.fingerprint))

    def _note_failed(self, attempt: Attempt, failed: Failed) -> None:
        lane = attempt.lane.lane.name, attempt.fingerprint
        if failed.kind is not Failure.BUSY:
            self._failed_lanes.append(lane)
        broke_off = failed.kind is Failure.LOST and attempt.status > 0  # behind the head of its answer
        if attempt.status < 400 and (failed.kind is Failure.SILENT or broke_off):
            self._abandoned_lanes.append(lane)

    async def relay(self, answer: Answering) -> Failed | None:
        """Relay an answer that has begun to its end. Returns how it broke, if it did.

        Raises:
            ServingError: it broke in a way that can't be said within the answer.
        """
        self._answer = answer
        broken = await answer.relay()
        if broken is None and self._attempt is not None:
            self._attempt.note_pace(is_whole=True)
        self._end = _End(answer.status, answer.error)
        return broken

    async def pass_on(self, refusal: Refusal) -> None:
        """Answer with a refusal that was set aside."""
        self._answer, self._end = refusal, _End(refusal.status, refusal.error)
        if isinstance(refusal.body, ServingError):
            await self._reply.refuse(refusal.body, refusal.headers)
            return
        length = (b"content-length", b"%d" % len(refusal.body))
        await self._reply.start(refusal.status, [*refusal.headers, length])
        await self._reply.end(refusal.body)

    def fails(self, error: ServingError) -> None:
        """It ends with an error of the gateway's own."""
        self._end = _End(error.status, str(error))

    def expire(self, error: ServingError) -> bool:
        """Its time is over. Returns whether its answer was ended, as one can be that is being relayed; else what it
        waits for is to be ended."""
        if isinstance(self._answer, Answering):
            self._answer.give_up(str(error))
            return True
        self.is_late = True
        return False

    def close(self) -> None:
        """End what still runs for it."""
        if self._attempt is not None:
            self._attempt.leave()

    def outcome(self, with_answered: bool = False) -> Outcome:
        """What became of it.

        Args:
            with_answered: whether to look at what the answer says of itself.
        """
        attempt = self._attempt
        end = self._end or _End(attempt.status if attempt else 0, None)
        lane, fingerprint = self._served_by()
        answer = self._answer if isinstance(self._answer, Answering) and end.error is None else None
        return Outcome(
            lane=lane,
            status=end.status,
            total_s=self.age_s,
            queue_s=self._earlier_queue_s + (attempt.queue_s if attempt else 0.0),
            decision_s=self._plan.decision_s if self._plan else 0.0,
            first_byte_s=attempt.first_byte_s if attempt and self._answer else None,
            observed=answer.observation() if answer else Observation(),
            concurrent=attempt.beside.requests if attempt else 0.0,
            drafted_beside=attempt.beside.drafted if attempt else None,
            at_s=time(),
            error=end.error,
            fingerprint=fingerprint,
            failed=tuple(failed for failed in self._failed_lanes if failed != (lane, fingerprint)),
            deliveries=sum(tried.was_delivered for tried in self._attempts),
            cancelled=tuple(self._cancelled_lanes),
            abandoned=tuple(self._abandoned_lanes),
            answered=answer.answered() if answer and with_answered else None,
        )

    def _served_by(self) -> tuple[str, str]:
        """Lane and fingerprint of what has answered, or was tried last, or was decided."""
        if isinstance(self._answer, Refusal):
            return self._answer.lane.lane.name, self._answer.fingerprint
        if self._attempt is not None:
            return self._attempt.lane.lane.name, self._attempt.fingerprint
        return (self._plan.decision.lane if self._plan else NO_LANE), ""
