"""One request in flight: what has been decided, sent and seen for it so far."""

import asyncio
from time import perf_counter, time

from msgspec import Struct

from paceline.configuration import ServerSettings
from paceline.engines import Observer
from paceline.engines.body import with_model
from paceline.records.kept import NO_LANE
from paceline.serving.errors import ApiError
from paceline.serving.fleet import LaneHandle
from paceline.serving.headers import header_value, to_client, to_engine
from paceline.serving.illness import Failure
from paceline.serving.names import Served
from paceline.serving.patience import MIN_STALLED_S, MIN_SUSPICIOUS_S, TIMES_EXPECTED, expected_s, first_byte_limit_s
from paceline.serving.relay import EngineSilent, Relay, Reply
from paceline.serving.turns import QueueFull, Turn
from paceline.types import REFUSALS, Decision, Observation, Outcome, Request, Signals
from paceline.wire.client import Answer, AnswerTooLarge, ConnectFailed, ConnectionLost
from paceline.wire.headers import Headers

MIN_GAIN_SHARE = 0.7
"""Of the tokens that a drafting step must bring beyond one to be as fast as plain steps."""
BUSY = (*REFUSALS, 503, 529)
"""Statuses with which an engine says that it can't take a request now; another lane may. 409 is said where slots are
taken, 529 by Anthropic's API; 408 and 425 are those that clients repeat a request after, too."""
WRONG_KEY = (401, 407)
"""Which are the engine's or its configuration's fault where it was not the client's key that was sent."""
NOT_ITS_FAULT = (501, 505)
"""Statuses from 500 on that tell of the request, not of the engine."""
ERROR_INSIDE = "the engine's answer was an error"
"""What is kept of an error that came as a success: an engine's own words may quote the prompt."""
MAX_SET_ASIDE_BYTES = 1024 * 1024
"""Of a refusal that is kept in case no other lane serves."""


class _SetAside(Struct, frozen=True):
    """An engine's refusal."""

    lane: LaneHandle
    fingerprint: str
    status: int
    headers: Headers
    body: bytes
    error: str
    """What is kept of it."""


class Attempted(Struct, frozen=True):
    """How an attempt failed."""

    kind: Failure
    problem: str
    """In words for people."""
    is_clients: bool = False
    """Whether the engine says that the client is at fault."""


class Exchange:
    """Created when a request has arrived; :meth:`close` it in the end, whatever happened.

    Args:
        server: the limits of time.
        keep_key: whether the client's API key is meant for the engine.
    """

    def __init__(self, request: Request, reply: Reply, server: ServerSettings, keep_key: bool) -> None:
        self.request = request
        self.served = Served(None, ())
        """What the client's name for the model stands for."""
        self.signals = Signals()
        self.decision: Decision | None = None
        self.decision_s = 0.0
        self.status = 0
        self.error: str | None = None
        self.reply = reply
        self.lane: LaneHandle | None = None
        """Down which it was sent last."""
        self.start_patience_s = 0.0
        """How long it may still wait for an engine that starts."""
        self.is_late = False
        """Whether its time was over before an answer had begun."""
        self.silence_was_noted = False
        """Whether the present lane's silence was counted against its engine."""
        self._server = server
        self._keep_key = keep_key
        self._arrived_s = perf_counter()
        self._queue_s = 0.0
        self._fingerprint = ""
        self._failed: list[tuple[str, str]] = []
        self._turn: Turn | None = None
        self._answer: Answer | None = None
        self._observer: Observer | None = None
        self._relay: Relay | None = None
        self._sent_s = 0.0
        self._request_s_before = 0.0
        self._concurrency = 0.0
        self._is_relaying = False
        self._set_aside: _SetAside | None = None

    async def attempt(self, lane: LaneHandle, is_last: bool) -> Attempted | None:
        """Wait for the lane's turn and send the request down it. Returns how that failed, or ``None`` once an answer
        has begun that :meth:`relay` may pass on; until then nothing has gone to the client.

        Args:
            is_last: whether there is no other lane, so that an error that came as a success may as well be passed on.
        """
        try:
            await self._take_turn(lane)
        except QueueFull as error:
            return Attempted(Failure.QUEUE, str(error))
        except TimeoutError:
            return Attempted(
                Failure.QUEUE, f"no turn within {self._server.queue_timeout_s:g} s (server.queue_timeout_s)"
            )
        failed: Attempted | None = None
        try:
            failed = await self._send(lane, is_last)
        except ConnectFailed as error:
            failed = Attempted(Failure.UNREACHABLE, f"can't be reached: {error}")
        except EngineSilent as error:
            failed = Attempted(Failure.SILENT, str(error))
        except ConnectionLost as error:
            failed = Attempted(Failure.LOST, f"was lost: {error}")
        except TimeoutError:
            failed = Attempted(
                Failure.SILENT, f"sent nothing within {self._limit_s(lane):.0f} s (server.first_byte_timeout_s)"
            )
        finally:
            if failed is not None or self._relay is None:
                self._leave_lane()
        if failed is not None and self._relay is not None and self._relay.began:
            return None  # it is for :meth:`relay` to say, for the client has the beginning
        if failed is not None:
            self._sent_s = 0.0  # from now on it waits for another engine, if for any
        if failed is not None and failed.kind is not Failure.BUSY:
            self._failed.append((lane.lane.name, self._fingerprint))
        return failed

    async def relay(self) -> Attempted | None:
        """Relay the answer that has begun to its end. Returns how it broke, if it did.

        Raises:
            ApiError: it broke in a way that can't be said within the answer.
        """
        assert self._relay is not None and self._observer is not None
        self._is_relaying = True
        broken = await self._relay.run(self.request.api)
        if broken is not None:
            self.error = broken.message
            return Attempted(Failure.LOST, broken.message)
        if self.status >= 400:
            self.error = _refusal(self.status)
        elif self._observer.error is not None:
            self.error = ERROR_INSIDE
            return Attempted(Failure.ERROR, ERROR_INSIDE, self._observer.error_is_clients)
        return None

    @property
    def has_refusal(self) -> bool:
        return self._set_aside is not None

    async def pass_refusal_on(self) -> None:
        """Answer with the refusal that was set aside."""
        kept = self._set_aside
        assert kept is not None
        self.lane, self._fingerprint = kept.lane, kept.fingerprint
        self.status, self.error = kept.status, kept.error
        headers = [header for header in to_client(kept.headers) if header[0].lower() != b"content-length"]
        length = (b"content-length", b"%d" % len(kept.body))
        await self.reply.start(kept.status, [*self._own_headers(kept.lane), *headers, length])
        await self.reply.end(kept.body)

    def fail(self, status: int, error: str) -> None:
        self.status, self.error = status, error

    def release_turn_if_idle(self, reader_limit_s: float, now_s: float) -> None:
        """Let others have the device's turn where it is not used: the client takes its answer too slowly, or the engine
        has been silent for far longer than expected."""
        if self._turn is None:
            return
        since_s = self._relay.sending_since_s if self._relay else None
        if (since_s is not None and now_s - since_s > reader_limit_s) or self.silence_is_suspicious(
            now_s, MIN_STALLED_S
        ):
            self._turn.release()

    def silence_is_suspicious(self, now_s: float, min_s: float = MIN_SUSPICIOUS_S) -> bool:
        """Whether an engine has sent nothing for far longer than it takes as a rule, and for ``min_s`` at least."""
        if self.lane is None or not self._sent_s or self.decision is None:
            return False
        if self._relay and self._relay.sending_since_s is not None:
            return False  # it is the client that is waited for
        has_begun = self._relay is not None and self._relay.first_byte_s is not None
        limit_s = expected_s(self.decision.predictions.get(self.lane.lane.name), self.request, self.signals, has_begun)
        return now_s - self._heard_s > max(min_s, limit_s)

    def was_heard_lately(self, now_s: float) -> bool:
        """Whether its engine sent something for it a moment ago."""
        heard_s = self._relay.last_byte_s if self._relay else None
        return heard_s is not None and now_s - heard_s < MIN_SUSPICIOUS_S

    @property
    def expected_silence_s(self) -> float:
        """How long its engine may have to be silent for it."""
        if self.lane is None or not self._sent_s or self.decision is None:
            return 0.0
        prediction = self.decision.predictions.get(self.lane.lane.name)
        return TIMES_EXPECTED * prediction.prefill_s if prediction else 0.0

    def end_answer(self, why: str) -> bool:
        """End an answer that has begun to be relayed. Returns whether there is one."""
        if not self._is_relaying or self._relay is None:
            return False
        self._relay.give_up(why)
        return True

    def close(self) -> None:
        """End what still runs for it: closes the connection to the engine if the answer did not come whole."""
        self._leave_lane()

    @property
    def answer_head(self) -> bytes:
        """The beginning of the answer's body."""
        return self._observer.head if self._observer else b""

    def outcome(self, with_answered: bool = False) -> Outcome:
        """What became of it.

        Args:
            with_answered: whether to look at what the answer says of itself.
        """
        observed = self._observer.observation() if self._observer and self.error is None else Observation()
        lane = self.lane.lane.name if self.lane else self.decision.lane if self.decision else NO_LANE
        return Outcome(
            lane=lane,
            status=self.status,
            total_s=perf_counter() - self._arrived_s,
            queue_s=self._queue_s,
            decision_s=self.decision_s,
            first_byte_s=self._relay.first_byte_s if self._relay else None,
            observed=observed,
            concurrent=self._concurrency,
            at_s=time(),
            error=self.error,
            fingerprint=self._fingerprint,
            failed=tuple(one for one in self._failed if one != (lane, self._fingerprint)),
            answered=self._observer.answered() if with_answered and self._observer and self.error is None else None,
        )

    async def _take_turn(self, lane: LaneHandle) -> None:
        self.lane, self._relay, self._observer, engine = lane, None, None, lane.engine
        self.silence_was_noted = False
        self._sent_s = 0.0
        self._fingerprint, _ = engine.identity(self.served.own_name(engine.name))
        lane.waiting += 1
        try:
            self._turn = engine.device.take(engine.name, engine.slots)
            if self._turn is None:
                async with asyncio.timeout(self._server.queue_timeout_s):
                    self._turn = await engine.device.acquire(engine.name, engine.slots)
        finally:
            lane.waiting -= 1
        lane.running += 1
        self._queue_s += self._turn.queued_s

    async def _send(self, lane: LaneHandle, is_last: bool) -> Attempted | None:
        engine, strategy, supervisor = lane.engine, lane.lane.strategy, lane.engine.supervisor
        own_name = self.served.engine_names.get(engine.name)
        request = with_model(self.request, own_name) if own_name not in (None, self.request.model) else self.request
        self._observer = supervisor.engine.observe(request, strategy)
        headers = to_engine(
            request.headers,
            api_key=engine.api_key,
            keep_key=self._keep_key,
            plain=True,
            client=request.address,
            is_unpacked=True,
        )
        body = supervisor.engine.prepare(request, strategy, supervisor.abilities, self._min_yield(lane))
        self._request_s_before = engine.device.request_s()
        self._sent_s = perf_counter()
        limit_s = self._limit_s(lane)
        async with asyncio.timeout(limit_s):
            self._answer = await engine.client.send("POST", request.path, headers, body)
        self.status = self._answer.status
        is_our_key = engine.api_key is not None or not self._keep_key
        is_ill = self.status >= 500 and self.status not in NOT_ITS_FAULT
        if self.status in BUSY or is_ill or (is_our_key and self.status in WRONG_KEY):
            await self._set_refusal_aside(lane)
            kind = Failure.BUSY if self.status in BUSY else Failure.ERROR
            return Attempted(kind, f"answered {self.status}")
        relay = Relay(
            self._answer,
            self._observer,
            self.reply,
            self._sent_s,
            self._own_headers(lane),
            first_byte_timeout_s=limit_s,
            idle_timeout_s=self._server.idle_timeout_s,
            engine_url=supervisor.url,
        )
        self._relay = relay
        if await relay.begin() is not None:
            if is_last or relay.began or self._observer.error_is_clients or self.status >= 400:
                return None  # it is the client's to read
            self._keep_refusal(lane, self._answer.headers, relay.held, ERROR_INSIDE)
            return Attempted(Failure.ERROR, ERROR_INSIDE)
        return None

    async def _set_refusal_aside(self, lane: LaneHandle) -> None:
        assert self._answer is not None
        status, headers, idle_s = self._answer.status, self._answer.headers, self._server.idle_timeout_s
        try:
            async with asyncio.timeout(idle_s):
                body = await self._answer.read_all(MAX_SET_ASIDE_BYTES)
        except TimeoutError as error:
            raise EngineSilent(f"its refusal was not whole within {idle_s:g} s (server.idle_timeout_s)") from error
        except AnswerTooLarge:  # as one that quotes the whole request: its status is what counts
            message = f"the engine answered {status}, with more than {MAX_SET_ASIDE_BYTES:,} bytes"
            headers = [(b"content-type", b"application/json")]
            body = ApiError(status, message, "engine_error").body(self.request.api)
        self._keep_refusal(lane, headers, body, _refusal(status))

    def _keep_refusal(self, lane: LaneHandle, headers: Headers, body: bytes, error: str) -> None:
        assert self._answer is not None
        self._set_aside = _SetAside(lane, self._fingerprint, self._answer.status, headers, body, error)

    def _limit_s(self, lane: LaneHandle) -> float:
        prediction = self.decision.predictions.get(lane.lane.name) if self.decision else None
        return first_byte_limit_s(self._server, prediction, self.request, self.signals)

    @property
    def _heard_s(self) -> float:
        """When the engine sent something last, or was sent the request."""
        heard_s = self._relay.last_byte_s if self._relay else None
        return heard_s if heard_s is not None else self._sent_s

    def _min_yield(self, lane: LaneHandle) -> float:
        """Tokens per drafting step below which the engine shall pause drafting: a part of what is needed to gain, since
        a few steps may be unlucky. Who asks for this very lane has it as it is."""
        if self.request.forced_lane == lane.lane.name or self.decision is None:
            return 0.0
        prediction = self.decision.predictions.get(lane.lane.name)
        break_even = prediction.break_even if prediction else None
        return 1 + MIN_GAIN_SHARE * (break_even - 1) if break_even and break_even > 1 else 0.0

    def _own_headers(self, lane: LaneHandle) -> list[tuple[bytes, bytes]]:
        name = lane.lane.name
        reason = self.decision.reason if self.decision else ""
        if self.decision and name != self.decision.lane:
            reason = f"{reason}; {self.decision.lane} could not serve"
        return [(b"x-paceline-lane", name.encode()), (b"x-paceline-reason", header_value(reason))]

    def _leave_lane(self) -> None:
        if self._answer:
            self._answer.close()
            self._answer = None
        if self._turn and self.lane:
            took_s = perf_counter() - self._sent_s
            if self._sent_s and took_s > 0:
                run_s = self.lane.engine.device.request_s() - self._request_s_before
                self._concurrency = max(0.0, run_s / took_s - 1)
            self._turn.release()
            self._turn = None
            self.lane.running -= 1


def _refusal(status: int) -> str:
    """What is kept of an answer that is an error by its status."""
    return f"the engine answered {status}"
