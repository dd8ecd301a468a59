"""One request in flight: what has been decided, sent and seen for it so far."""

from time import perf_counter, time

from msgspec import Struct

from paceline.engines import Observer
from paceline.gateway.fleet import LaneHandle
from paceline.gateway.headers import printable, to_client, to_engine
from paceline.gateway.relay import Relay, Reply
from paceline.gateway.turns import Turn
from paceline.http.client import Answer, Headers
from paceline.types import Decision, Observation, Outcome, Request, Signals

LEAST_GAIN = 0.7
"""Of the tokens that a drafting step must bring beyond one to be as fast as plain steps."""


class _SetAside(Struct, frozen=True):
    """An engine's refusal, kept in case no other lane serves."""

    lane: str
    status: int
    headers: Headers
    body: bytes


class Exchange:
    """Created when a request has arrived; :meth:`close` it in the end, whatever happened.

    Args:
        keep_key: whether the client's API key is meant for the engine.
    """

    def __init__(self, request: Request, headers: Headers, reply: Reply, keep_key: bool) -> None:
        self.request = request
        self.signals = Signals()
        self.decision = Decision("", "not decided")
        self.status = 0
        self.error: str | None = None
        self._headers = headers
        self._keep_key = keep_key
        self._reply = reply
        self._arrived_s = perf_counter()
        self._queue_s = 0.0
        self.decision_s = 0.0
        self._lane: LaneHandle | None = None
        self._turn: Turn | None = None
        self._answer: Answer | None = None
        self._observer: Observer | None = None
        self._relay: Relay | None = None
        self._sent_s = 0.0
        self._request_s_before = 0.0
        self._beside = 0.0
        self._set_aside: _SetAside | None = None

    async def send(self, lane: LaneHandle) -> int:
        """Wait for the lane's turn, send the request, and return the status of the engine's answer.

        Raises:
            QueueFull, ConnectFailed, ConnectionLost: as their sources do; nothing is left behind.
        """
        self._lane, engine = lane, lane.engine
        lane.waiting += 1
        try:
            self._turn = await engine.device.acquire(engine.name, engine.slots)
        finally:
            lane.waiting -= 1
        lane.running += 1
        self._queue_s += self._turn.queued_s
        strategy, supervisor = lane.lane.strategy, engine.supervisor
        self._observer = supervisor.engine.observe(self.request, strategy)
        headers = to_engine(self._headers, api_key=engine.api_key, keep_key=self._keep_key, plain=True)
        body = supervisor.engine.prepare(self.request, strategy, supervisor.abilities, self._least_yield(lane))
        self._request_s_before = engine.device.request_s()
        self._sent_s = perf_counter()
        try:
            self._answer = await engine.client.send("POST", self.request.path, headers, body)
        except Exception:
            self._leave_lane()
            raise
        return self._answer.status

    async def set_refusal_aside(self) -> None:
        """Keep the engine's refusal and free its lane.

        Raises:
            ConnectionLost: it did not come whole.
        """
        assert self._answer is not None and self._lane is not None
        try:
            body = await self._answer.read_all()
            self._set_aside = _SetAside(self._lane.lane.name, self._answer.status, self._answer.headers, body)
        finally:
            self._leave_lane()

    @property
    def has_refusal(self) -> bool:
        return self._set_aside is not None

    async def pass_refusal_on(self) -> None:
        """Answer with the refusal that was set aside."""
        kept = self._set_aside
        assert kept is not None
        self.status, self.error = kept.status, f"{kept.lane} refused"
        await self._reply.start(kept.status, [*self._own_headers(kept.lane), *to_client(kept.headers)])
        await self._reply.end(kept.body)

    async def relay(self) -> None:
        """Relay the answer to the client.

        Raises:
            ApiError: the engine was lost before anything went to the client.
        """
        assert self._answer is not None and self._observer is not None and self._lane is not None
        own_headers = self._own_headers(self._lane.lane.name)
        self._relay = Relay(self._answer, self._observer, self._reply, self._sent_s, own_headers)
        self.status = self._answer.status
        broken = await self._relay.run(self.request.api)
        if broken is not None:
            self.error = broken.message
        elif self.status >= 400:
            self.error = f"the engine answered {self.status}"

    def fail(self, status: int, error: str) -> None:
        self.status, self.error = status, error

    def release_turn_if_reader_is_slower_than(self, limit_s: float, now_s: float) -> None:
        since_s = self._relay.sending_since_s if self._relay else None
        if self._turn and since_s is not None and now_s - since_s > limit_s:
            self._turn.release()

    def close(self) -> None:
        """End what still runs for it: closes the connection to the engine if the answer did not come whole."""
        self._leave_lane()

    def outcome(self) -> Outcome:
        """What became of it."""
        observed = self._observer.observation() if self._observer and self.error is None else Observation()
        return Outcome(
            lane=self._lane.lane.name if self._lane else self.decision.lane,
            status=self.status,
            total_s=perf_counter() - self._arrived_s,
            queue_s=self._queue_s,
            decision_s=self.decision_s,
            first_byte_s=self._relay.first_byte_s if self._relay else None,
            observed=observed,
            beside=self._beside,
            at_s=time(),
            error=self.error,
            answered=self._observer.answered() if self._observer and self.error is None else None,
        )

    def _least_yield(self, lane: LaneHandle) -> float:
        """Tokens per drafting step below which the engine shall pause drafting: a part of what is needed to gain, since
        a few steps may be unlucky. Who asks for this very lane has it as it is."""
        if self.request.forced_lane == lane.lane.name:
            return 0.0
        prediction = self.decision.predictions.get(lane.lane.name)
        break_even = prediction.break_even if prediction else None
        return 1 + LEAST_GAIN * (break_even - 1) if break_even and break_even > 1 else 0.0

    def _own_headers(self, lane: str) -> list[tuple[bytes, bytes]]:
        reason = self.decision.reason
        if lane != self.decision.lane:
            reason = f"{reason}; {self.decision.lane} could not serve"
        return [(b"x-paceline-lane", lane.encode()), (b"x-paceline-reason", printable(reason))]

    def _leave_lane(self) -> None:
        if self._answer:
            self._answer.close()
            self._answer = None
        if self._turn and self._lane:
            took_s = perf_counter() - self._sent_s
            if took_s > 0:
                run_s = self._lane.engine.device.request_s() - self._request_s_before
                self._beside = max(0.0, run_s / took_s - 1)
            self._turn.release()
            self._turn = None
            self._lane.running -= 1
