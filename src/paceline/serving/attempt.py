"""One request down one lane: it waits for its turn, is sent, and its answer begins, or the attempt fails."""

import asyncio
from math import inf
from time import perf_counter

from paceline.engines import Observer
from paceline.engines.body import with_model
from paceline.serving.answering import ERROR_INSIDE, Answering, Failed, Refusal, refused
from paceline.serving.errors import EngineRefused, NotPlaced
from paceline.serving.failure import Failure
from paceline.serving.handles import LaneHandle
from paceline.serving.headers import from_cloud, to_client, to_cloud, to_engine
from paceline.serving.patience import MIN_STALLED_S, MIN_SUSPICIOUS_S, TIMES_EXPECTED, expected_s, first_byte_limit_s
from paceline.serving.plan import Plan
from paceline.serving.relay import MAX_PING_HELD_S, EngineSilent, Relay
from paceline.serving.reply import Reply
from paceline.serving.turns import Beside, QueueFull, Turn
from paceline.settings import CloudEngineSettings, ServerSettings
from paceline.types import REFUSALS, Request
from paceline.wire.client import Answer, AnswerTooLarge, ConnectFailed, ConnectionLost
from paceline.wire.headers import Headers

BUSY = (*REFUSALS, 503, 529)
"""Statuses with which an engine says that it can't take a request now; another lane may. 409 is said where slots are
taken, 529 by Anthropic's API; 408 and 425 are those that clients repeat a request after, too."""
NO_ACCOUNT = (401, 402, 403, 407)
"""With which a provider says that the operator's key or account is not good for it; 402 is to be paid first."""
WRONG_KEY = (401, 407)
"""Which are the engine's or its configuration's fault where it was not the client's key that was sent."""
NOT_ITS_FAULT = (501, 505)
"""Statuses from 500 on that tell of the request, not of the engine."""
MAX_SET_ASIDE_BYTES = 1024 * 1024
"""Of a refusal that is kept in case no other lane serves. Errors are a few hundred bytes; some quote the request."""


class _Sent:
    """What has gone to an engine, and what has come back so far."""

    def __init__(self, *, observer: Observer) -> None:
        self.at_s = perf_counter()
        self.observer = observer
        self.answer: Answer | None = None
        """From when its head has come, until the lane is left."""
        self.relay: Relay | None = None
        """From when its body is awaited."""

    @property
    def heard_s(self) -> float | None:
        """When the engine sent some of the answer's body last, by :func:`time.perf_counter`."""
        return self.relay.last_byte_s if self.relay else None

    @property
    def waits_for_client_since_s(self) -> float | None:
        """Since when the client is to take a piece; ``None`` while the engine is waited for."""
        return self.relay.sending_since_s if self.relay else None


class Attempt:
    """One attempt to have a request served; to be left with :meth:`leave`, whatever becomes of it.

    Args:
        keep_key: whether the client's API key is meant for the engine.
        is_raced: whether another lane may be tried at the same time, so that nothing may go to the client before it is
            known which one serves it.
    """

    def __init__(
        self,
        *,
        lane: LaneHandle,
        plan: Plan,
        reply: Reply,
        server: ServerSettings,
        keep_key: bool,
        is_raced: bool = False,
    ) -> None:
        self.lane = lane
        self.fingerprint, _ = lane.engine.identity(plan.served.own_name(lane.engine.name))
        """Of the engine with the model, as it is at the beginning."""
        self.queue_s = 0.0
        """How long it waited for the device's turn."""
        self.beside = Beside()
        """What ran on the device beside it, once it was left."""
        self.status = 0
        """Of the engine's answer; 0 before there is one."""
        self.silence_was_noted = False
        """Whether its silence was counted against its engine."""
        self._plan = plan
        self._reply = reply
        self._server = server
        self._keep_key = keep_key
        self._is_raced = is_raced
        self._turn: Turn | None = None
        """While it is on the lane."""
        self._sent: _Sent | None = None
        """From when it was sent."""
        self._has_left = self._was_unreachable = False

    async def begin(self, is_last: bool) -> Answering | Failed:
        """Wait for the lane's turn, send the request down it, and wait until its answer has begun. Until then nothing
        has gone to the client.

        Args:
            is_last: whether there is no other lane, so that an error that came as a success may as well be passed on.
        """
        # 1. Wait for the device's turn.
        try:
            self._turn = turn = await self.lane.take_turn(self._server.queue_timeout_s)
        except QueueFull as error:
            return Failed(Failure.QUEUE, str(error))
        except TimeoutError:
            limit_s = self._server.queue_timeout_s
            return Failed(Failure.QUEUE, f"no turn within {limit_s:g} s (server.queue_timeout_s)")
        self.queue_s = turn.queued_s
        if (expected := self._plan.prediction(self.lane)) is not None:
            turn.drafts(expected.drafted_per_step)
        # 2. Send it, and wait for the answer's beginning.
        begun: Answering | Failed
        try:
            begun = await self._send(is_last)
        except ConnectFailed as error:
            self._was_unreachable = True
            begun = Failed(Failure.UNREACHABLE, f"can't be reached: {error}")
        except EngineSilent as error:
            begun = Failed(Failure.SILENT, str(error))
        except ConnectionLost as error:
            begun = Failed(Failure.LOST, f"was lost: {error}")
        except TimeoutError:
            begun = Failed(Failure.SILENT, f"sent nothing within {self._limit_s:.0f} s (server.first_byte_timeout_s)")
        # 3. A failed one leaves the lane. If the client has the answer's beginning, relaying the rest says what broke.
        if isinstance(begun, Failed):
            self.leave()
            if self._sent and self._sent.relay and self._sent.relay.began:
                return Answering(
                    lane=self.lane, relay=self._sent.relay, observer=self._sent.observer, status=self.status
                )
        return begun

    def leave(self) -> None:
        """Give the turn back, and close the connection to the engine if the answer has not come whole. May be called
        twice."""
        sent, turn = self._sent, self._turn
        if sent is not None and sent.answer is not None:
            sent.answer.close()
            sent.answer = None
        if turn is not None:
            if sent is not None:
                self.beside = turn.beside()
            self._turn = None
            self.lane.leave(turn)
        self._has_left = True

    @property
    def first_byte_s(self) -> float | None:
        """From sending the request to the first byte of the answer's body, if that has come."""
        return self._sent.relay.first_byte_s if self._sent and self._sent.relay else None

    def note_pace(self, is_whole: bool) -> None:
        """Have its engine's pace know how this went: one that has not begun did not within this time.

        Args:
            is_whole: whether its answer came whole.
        """
        if self._sent is None or not self._plan.request.stream:
            return
        relay = self._sent.relay
        if is_whole and relay is not None:
            self.lane.engine.pace.ended(relay.longest_pause_s)
        elif relay is None or relay.first_byte_s is None:
            self.lane.engine.pace.begun(perf_counter() - self._sent.at_s)

    @property
    def was_delivered(self) -> bool:
        """Whether the engine has got it, so that it may have worked on it."""
        return self._sent is not None and not self._was_unreachable

    def release_turn_if_idle(self, reader_limit_s: float, now_s: float) -> None:
        """Let others have the device's turn where it is not used: the client takes its answer too slowly, or the engine
        has been silent for far longer than expected."""
        if self._turn is None:
            return
        since_s = self._sent.waits_for_client_since_s if self._sent else None
        is_read_slowly = since_s is not None and now_s - since_s > reader_limit_s
        if is_read_slowly or self.silence_is_suspicious(now_s, MIN_STALLED_S):
            self._turn.release()

    def silence_is_suspicious(self, now_s: float, min_s: float = MIN_SUSPICIOUS_S) -> bool:
        """Whether the engine has sent nothing for far longer than it takes as a rule, and for ``min_s`` at least."""
        sent = self._sent
        if sent is None or self._has_left or sent.waits_for_client_since_s is not None:
            return False
        has_begun = sent.relay is not None and sent.relay.first_byte_s is not None
        limit_s = expected_s(self._plan.prediction(self.lane), self._plan.request, self._plan.signals, has_begun)
        heard_s = sent.heard_s if sent.heard_s is not None else sent.at_s
        return now_s - heard_s > max(min_s, limit_s)

    def was_heard_lately(self, now_s: float) -> bool:
        """Whether the engine sent something for it a moment ago."""
        heard_s = self._sent.heard_s if self._sent else None
        return heard_s is not None and now_s - heard_s < MIN_SUSPICIOUS_S

    @property
    def expected_silence_s(self) -> float:
        """How long the engine may have to be silent for it."""
        if self._sent is None or self._has_left:
            return 0.0
        prediction = self._plan.prediction(self.lane)
        return TIMES_EXPECTED * prediction.prefill_s if prediction else 0.0

    async def _send(self, is_last: bool) -> Answering | Failed:
        # 1. What the engine gets: the request with the engine's own name for the model and the lane's strategy.
        engine, strategy, supervisor = self.lane.engine, self.lane.lane.strategy, self.lane.engine.supervisor
        request = self._plan.spoken.request(engine.name, self._plan.request)
        own_name = self._plan.served.engine_names.get(engine.name)
        if own_name not in (None, request.model):
            request = with_model(request, own_name)
        observer = supervisor.engine.observe(request, strategy)
        body = supervisor.engine.prepare(request, strategy, supervisor.abilities, self._plan.control(self.lane))
        # 2. Send it, if it still may be, and wait for the answer's head.
        if not self._plan.may_go_to(engine):
            raise NotPlaced(
                f"the request is private and stays on this machine, and {engine.name} is not there", "private"
            )
        sent = self._sent = _Sent(observer=observer)
        limit_s = self._limit_s
        path, headers = engine.settings.path(request.path), self._headers(request)
        answer = sent.answer = await engine.client.send("POST", path, headers, body, within_s=limit_s)
        self.status = answer.status
        if engine.settings.is_cloud:
            engine.limits.note(answer.status, answer.headers)
        # 3. A refusal is set aside.
        if (kind := self._refuses(answer.status)) is not None:
            refusal: Refusal | None = await self._refusal(answer)
            if kind is Failure.ACCOUNT:
                refusal = None  # its words are for whoever has the account
            return Failed(kind, f"answered {answer.status}", refusal=refusal)
        # 4. Wait until it can be told whether the answer is one; an error in its place is set aside, too.
        relay = sent.relay = Relay(
            answer=answer,
            observer=observer,
            reply=self._reply,
            sent_s=sent.at_s,
            extra_headers=self._plan.headers(self.lane),
            first_byte_timeout_s=limit_s,
            idle_timeout_s=engine.stall_limit_s(self._server.idle_timeout_s),
            engine_url=supervisor.url,
            translated=self._plan.spoken.translations.get(engine.name),
            is_cloud=engine.settings.is_cloud,
            max_ping_held_s=inf if self._is_raced else MAX_PING_HELD_S,
        )
        is_error = await relay.begin() is not None
        if request.stream and not is_error:
            engine.pace.begun(perf_counter() - sent.at_s)
        is_clients_to_read = is_last or relay.began or observer.error_is_clients or answer.status >= 400
        if is_error and not is_clients_to_read:
            refusal = self._set_aside(answer.status, answer.headers, relay.held, ERROR_INSIDE)
            return Failed(Failure.ERROR, ERROR_INSIDE, refusal=refusal)
        return Answering(lane=self.lane, relay=relay, observer=observer, status=answer.status)

    def _headers(self, request: Request) -> Headers:
        """What goes with the request."""
        engine = self.lane.engine
        if isinstance(settings := engine.settings, CloudEngineSettings):
            return to_cloud(
                request.headers,
                passed=settings.passed_headers,
                own=engine.key_headers,
                configured=engine.configured_headers,
            )
        return to_engine(
            request.headers,
            api_key=engine.api_key,
            keep_key=self._keep_key,
            plain=True,
            client=request.address,
            is_unpacked=True,
        )

    def _refuses(self, status: int) -> Failure | None:
        """What an answer's status says of the engine, if it is worth to ask another one."""
        if status in BUSY:
            return Failure.BUSY
        if self.lane.engine.settings.is_cloud and status in NO_ACCOUNT:
            return Failure.ACCOUNT
        is_our_key = self.lane.engine.api_key is not None or not self._keep_key
        is_ill = status >= 500 and status not in NOT_ITS_FAULT
        return Failure.ERROR if is_ill or (is_our_key and status in WRONG_KEY) else None

    async def _refusal(self, answer: Answer) -> Refusal:
        """The refusal, to be set aside.

        Raises:
            EngineSilent: it does not end.
        """
        status, idle_s = answer.status, self._server.idle_timeout_s
        try:
            async with asyncio.timeout(idle_s):
                body = await answer.read_all(MAX_SET_ASIDE_BYTES)
        except TimeoutError as error:
            raise EngineSilent(f"its refusal was not whole within {idle_s:g} s (server.idle_timeout_s)") from error
        except AnswerTooLarge:  # as one that quotes the whole request: its status is what counts
            too_long = EngineRefused(status=status, max_bytes=MAX_SET_ASIDE_BYTES)
            return self._set_aside(status, [], too_long, refused(status))
        if (translated := self._plan.spoken.translations.get(self.lane.engine.name)) is not None:
            body = translated.whole(status, body)
        return self._set_aside(status, answer.headers, body, refused(status))

    def _set_aside(self, status: int, headers: Headers, body: bytes | EngineRefused, error: str) -> Refusal:
        engine = self.lane.engine
        passed = from_cloud(headers) if engine.settings.is_cloud else to_client(headers)
        engines = [header for header in passed if header[0].lower() != b"content-length"]
        return Refusal(
            lane=self.lane,
            fingerprint=self.fingerprint,
            status=status,
            headers=[*self._plan.headers(self.lane), *engines],
            body=body,
            error=error,
        )

    @property
    def _limit_s(self) -> float:
        """How long the answer's first byte may take."""
        settings = self.lane.engine.settings
        if isinstance(settings, CloudEngineSettings) and settings.first_byte_timeout_s and self._plan.request.stream:
            return settings.first_byte_timeout_s
        prediction = self._plan.prediction(self.lane)
        return first_byte_limit_s(self._server, prediction, self._plan.request, self._plan.signals)
