"""The way of a request: receive -> inspect -> decide -> dispatch -> relay -> learn -> record."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Protocol

from msgspec.structs import replace

from paceline.configuration import ServerSettings
from paceline.records.kept import NO_LANE
from paceline.records.metrics import Metrics
from paceline.records.recent import Recent
from paceline.records.sinks import Sink, tell_each
from paceline.routing.router import Router
from paceline.serving.attempts import Attempts
from paceline.serving.errors import CLIENT_LEFT, ApiError
from paceline.serving.exchange import Attempted, Exchange
from paceline.serving.fleet import EngineHandle, Fleet, LaneHandle
from paceline.serving.illness import Failure, passes_trial
from paceline.serving.names import Served
from paceline.serving.relay import Reply
from paceline.serving.stored import StoredIds, stored_before
from paceline.serving.turns import HeldTurn
from paceline.types import Api, Decision, Request

START_PATIENCE_S = 60.0
"""How long a request waits for an engine that is starting, when none of its lanes is up."""
SLOW_READER_S = 2.0
"""A client that keeps a piece waiting this long no longer keeps others from the device: the rest of its answer
waits in the engine for the client, not for the device."""
TOOK_TOO_LONG = "it took longer than server.total_timeout_s"

log = logging.getLogger("paceline.gateway")


class ClientReply(Reply, Protocol):
    """A reply that knows whether somebody waits for it."""

    @property
    def client_left(self) -> bool: ...
    @property
    def has_begun(self) -> bool: ...


class Pipeline:
    """Takes requests down the lanes of a fleet.

    Args:
        router: chooses among them; its settings, rules and lanes are kept to be the fleet's.
        record: told of every request that was served or failed; must not block.
    """

    def __init__(self, fleet: Fleet, router: Router, record: Sink) -> None:
        self.router = router
        self.fleet = fleet
        self.recent = Recent()
        self.metrics = Metrics()
        self.stored_ids = StoredIds()
        self.asks_for_keys = False
        """Whether clients' keys are the gateway's, and so nothing for engines."""
        self.say: Callable[[str], None] = lambda _: None
        """Told a line of each request that was passed through."""
        self._sinks: dict[str, Sink] = {"recent": self.recent.add, "metrics": self.metrics.add, "record": record}
        self.looks_at_answers = False
        """Whether records want what answers say of themselves."""
        self.held_turns: set[HeldTurn] = set()
        """Of requests that are passed through."""
        self._exchanges: set[Exchange] = set()
        self._trials: set[asyncio.Task[None]] = set()

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    @fleet.setter
    def fleet(self, fleet: Fleet) -> None:
        self._fleet = fleet
        for engine in fleet.engines.values():
            engine.supervisor.expected_silence_s = partial(self._expected_silence_s, engine)
        self.router.settings, self.router.rules = fleet.configuration.routing, fleet.configuration.rule

    @property
    def failures(self) -> Counter[str]:
        """How often a part of routing failed and a request was served without it."""
        return self.router.failures

    @property
    def server(self) -> ServerSettings:
        """The limits in force."""
        return self.fleet.configuration.server

    async def serve(self, request: Request, reply: ClientReply) -> None:
        """Have one request answered.

        Raises:
            ApiError: it could not be, or its answer broke in a way that can't be said within it.
        """
        exchange = Exchange(request, reply, self.server, keep_key=not self.asks_for_keys)
        self._exchanges.add(exchange)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        expiry = loop.call_later(self.server.total_timeout_s, self._expire, exchange, task)
        try:
            await self._prepare(exchange)
            await self._dispatch(exchange)
        except ApiError as error:
            exchange.fail(error.status, error.message)
            raise
        except asyncio.CancelledError:
            if not exchange.is_late:
                self._note_cancelled(exchange, reply)
                raise
            if task:
                task.uncancel()
            self._note_silence(exchange, "silent until the request's time was over")
            exchange.fail(504, TOOK_TOO_LONG)
            raise ApiError(504, TOOK_TOO_LONG, "timeout") from None
        finally:
            expiry.cancel()
            self._exchanges.discard(exchange)
            exchange.close()
            self._learn(exchange)

    @staticmethod
    def _expire(exchange: Exchange, task: "asyncio.Task[None] | None") -> None:
        """A request's time is over: end its answer, if that has begun; else whatever it waits for."""
        if not exchange.end_answer(TOOK_TOO_LONG) and task:
            exchange.is_late = True
            task.cancel()

    async def _prepare(self, exchange: Exchange) -> None:
        """Find out what serves a request, what it asks for, and decide."""
        began_s = perf_counter()
        served = await self._served(exchange.request)
        exchange.start_patience_s = START_PATIENCE_S - (perf_counter() - began_s)
        exchange.request = replace(exchange.request, served_model=served.name)
        exchange.served = served
        began_s = perf_counter()
        exchange.signals = self.router.inspect(exchange.request)
        self.router.lanes = self.fleet.offered  # which change with what engines are seen to do
        exchange.decision = self.router.choose(exchange.request, exchange.signals, self.fleet.states(served))
        exchange.decision_s = perf_counter() - began_s

    def keep_house(self) -> None:
        """To be called now and then: devices go on without the clients that don't take their answers and the engines
        that stay silent, and engines that were ejected are tried again."""
        now_s = perf_counter()
        for exchange in self._exchanges:
            exchange.release_turn_if_idle(SLOW_READER_S, now_s)
            self._note_silence(exchange, "silent for far longer than it takes as a rule")
        for held in self.held_turns:
            held.release_if_idle(SLOW_READER_S, now_s)
        for engine in self.fleet.engines.values():
            if engine.is_up and engine.illness.is_due_for_trial():
                trial = asyncio.get_running_loop().create_task(self._try(engine))
                self._trials.add(trial)
                trial.add_done_callback(self._trials.discard)

    def note_passed(
        self, method: str, path: str, lane: LaneHandle | None, status: int, took_s: float, error: str | None
    ) -> None:
        """A request that was not decided on was passed through."""
        name = lane.lane.name if lane else NO_LANE
        self.metrics.passed_through(name, status)
        if self.server.log_requests:
            self.say(f"{status} {method} {path[:100]} {name} {took_s:.2f} s | {error or 'passed through'}")

    @property
    def in_flight(self) -> int:
        return len(self._exchanges)

    # Which lanes

    async def _served(self, request: Request) -> Served:
        """What serves the request: the lanes that its model's name stands for, without those that would change what it
        means. If none of them is up but one is coming up, it is waited for."""
        served = self._known(request)
        if served is None:  # a name that nobody knows: the engines are asked once more
            await self.fleet.look_again()
            served = self._named(request)
        if self.fleet.is_coming(served.lanes):
            await self.wait_for_start(lambda: self._named(request).lanes, START_PATIENCE_S)
            served = self._known(request) or self.fleet.for_unknown(request.model or "", has_waited=True)
        if request.api is Api.OPENAI_RESPONSES and (stored := stored_before(request)) is not None:
            engines = list({lane.engine.name: lane.engine for lane in served.lanes}.values())
            keeper = await self.stored_ids.find(stored, engines)
            lanes = tuple(lane for lane in served.lanes if lane.engine.name == keeper)
            served = replace(served, lanes=lanes or served.lanes)
        return served

    def _known(self, request: Request) -> Served | None:
        """What a request's model stands for; ``None`` where nobody knows it."""
        if request.forced_lane is not None:
            return self.fleet.forced(request.forced_lane, request.model)
        return self.fleet.find(request.model)

    def _named(self, request: Request) -> Served:
        """The same, with what serves unknown names."""
        return self._known(request) or self.fleet.for_unknown(request.model or "")

    async def wait_for_start(self, lanes: Callable[[], Sequence[LaneHandle]], timeout_s: float) -> None:
        """Wait until one of the lanes is up, or none is coming any more, at most ``timeout_s`` seconds; also over a
        reload, which may bring others."""

        def settled() -> bool:
            return not self.fleet.is_coming(lanes())

        try:
            async with asyncio.timeout(min(timeout_s, self.server.queue_timeout_s)), self.fleet.changed:
                await self.fleet.changed.wait_for(settled)
        except TimeoutError:
            return

    # Having it served

    async def _dispatch(self, exchange: Exchange) -> None:
        """Send the request down the decided lane and relay the answer; while nothing has gone to the client, try the
        next one, as far as ``Attempts`` allows."""
        attempts = Attempts()
        while (lane := await self._next_lane(exchange, attempts)) is not None:
            engine = lane.engine
            is_last = all(other is lane for other in _untried(self._decided(exchange), attempts))
            failed = await exchange.attempt(lane, is_last)
            if failed is None:
                self._blame(exchange.request, attempts, served_by=engine)
                return await self._relay(exchange, engine)
            attempts.failed(engine.name, failed.kind, f"{lane.lane.name} {failed.problem}")
            self._note_attempt(engine, failed)
        self._blame(exchange.request, attempts, served_by=None)
        if exchange.has_refusal:
            return await exchange.pass_refusal_on()
        unreached = [_problem(lane) for lane in self._decided(exchange) if lane.engine.name not in attempts.problems]
        problems = [*attempts.problems.values(), *dict.fromkeys(unreached)]
        status, code = attempts.status_and_code
        message = f"no engine could serve this: {'; '.join(problems) or 'there is none any more'}"
        raise ApiError(status, message, code, retry_after_s=2)

    async def _next_lane(self, exchange: Exchange, attempts: Attempts) -> LaneHandle | None:
        """The next lane to try: of the engines that were not, in the decision's order but those that are ejected last;
        else one that was lost or out of reach, and has come up again."""
        if not attempts.may_go_on:
            return None
        lanes = self._decided(exchange)
        if untried := _untried(lanes, attempts):
            return min(untried, key=lambda lane: lane.engine.illness.is_ejected)
        lost = [lane for lane in lanes if attempts.may_return(lane.engine.name)]
        for lane in lost:
            await lane.engine.supervisor.look_again(0.0)
        awaited = {lane.lane.name for lane in lanes if lane in lost or attempts.may_try(lane.engine.name)}
        if exchange.has_refusal or not awaited:
            return None
        await self.wait_for_start(
            lambda: [lane for lane in self.fleet.lanes.values() if lane.lane.name in awaited],
            exchange.start_patience_s,
        )
        for lane in self._decided(exchange):
            if lane.is_up and lane.lane.name in awaited:
                attempts.returns(lane.engine.name)
                return lane
        return None

    async def _relay(self, exchange: Exchange, engine: EngineHandle) -> None:
        try:
            broken = await exchange.relay()
        except ApiError as error:
            self._judge(exchange, engine, Attempted(Failure.LOST, error.message))
            raise
        self._judge(exchange, engine, broken)

    def _decided(self, exchange: Exchange) -> list[LaneHandle]:
        """The decision's lanes in their order, as they are now; one of each engine, for what one lane of an engine
        can't do, its others can't."""
        decision = exchange.decision
        assert decision is not None
        by_engine: dict[str, LaneHandle] = {}
        for name in (decision.lane, *decision.alternatives):
            if (lane := self.fleet.lanes.get(name)) is not None:
                by_engine.setdefault(lane.engine.name, lane)
        return list(by_engine.values())

    def _note_attempt(self, engine: EngineHandle, failed: Attempted) -> None:
        """Have the engine looked at, where there is reason to."""
        if failed.kind is Failure.UNREACHABLE:
            engine.supervisor.report_failure(failed.problem)
        elif failed.kind in (Failure.LOST, Failure.SILENT):
            engine.supervisor.suspect(failed.problem)

    def _blame(self, request: Request, attempts: Attempts, served_by: EngineHandle | None) -> None:
        """Whose fault failed attempts were: the engines', if another one could serve, or if there was only one; if
        several failed alike, it may well be the request's, until that happens with one request after another."""
        at_fault = [name for name, kind in attempts.failures.items() if kind.was_delivered]
        may_be_its_own = served_by is None and len(at_fault) > 1
        for name in at_fault:
            if (engine := self.fleet.engines.get(name)) is None or (
                may_be_its_own and not engine.illness.is_in_doubt(request)
            ):
                continue
            self._fell_ill(engine, request, attempts.failures[name], attempts.problems[name])

    def _judge(self, exchange: Exchange, engine: EngineHandle, broken: Attempted | None) -> None:
        """What an answer that has begun tells of its engine."""
        if broken is None:
            if exchange.status < 400:
                engine.illness.served(exchange.request)
                if exchange.request.api is Api.OPENAI_RESPONSES:
                    self.stored_ids.note(exchange.answer_head, engine.name)
        elif not broken.is_clients:
            self._note_attempt(engine, broken)
            self._fell_ill(engine, exchange.request, broken.kind, broken.problem)

    def _note_cancelled(self, exchange: Exchange, reply: ClientReply) -> None:
        """The client left, or the gateway stops."""
        if not reply.client_left:
            exchange.fail(503, "the gateway was stopped")
            return
        exchange.fail(CLIENT_LEFT, "the client left")
        self._note_silence(exchange, "silent until the client left")

    def _note_silence(self, exchange: Exchange, problem: str) -> None:
        """A request waits for its engine, or waited until it ended. If that is silent for far too long, and for others,
        too, this tells something about it; once."""
        lane, now_s = exchange.lane, perf_counter()
        if lane is None or exchange.silence_was_noted or not exchange.silence_is_suspicious(now_s):
            return
        others = (
            other
            for other in self._exchanges
            if other is not exchange and other.lane and other.lane.engine is lane.engine
        )
        if not any(other.was_heard_lately(now_s) for other in others):
            exchange.silence_was_noted = True
            self._fell_ill(lane.engine, exchange.request, Failure.SILENT, problem)
            lane.engine.supervisor.suspect(problem)

    def _fell_ill(self, engine: EngineHandle, request: Request, kind: Failure, problem: str) -> None:
        self.metrics.engine_failure(engine.name, str(kind))
        served = self.fleet.find(request.served_model)
        model = served.own_name(engine.name) if served else request.served_model
        if engine.illness.failed(request, kind, problem, model):
            log.warning("%s is left out for a while: %s", engine.name, engine.illness.problem)

    async def _try(self, engine: EngineHandle) -> None:
        """Let an engine that was ejected in again, if it answers a tiny request."""
        failed = engine.illness.failed_model
        model = failed if failed in engine.models else next(iter(engine.models), None)
        if await passes_trial(engine.supervisor, engine.illness, model, engine.key_headers):
            log.warning("%s is used again", engine.name)
            engine.illness.let_in()

    def _expected_silence_s(self, engine: EngineHandle) -> float:
        running = [exchange for exchange in self._exchanges if exchange.lane and exchange.lane.engine is engine]
        return max((exchange.expected_silence_s for exchange in running), default=0.0)

    # Learning

    def _learn(self, exchange: Exchange) -> None:
        outcome = exchange.outcome(self.looks_at_answers)
        decision = exchange.decision or Decision(NO_LANE, "not decided")
        if exchange.decision is not None:
            self.router.observe(decision, outcome)
        tell_each(self._sinks, self.failures, exchange.request, exchange.signals, decision, outcome)


def _untried(lanes: Sequence[LaneHandle], attempts: Attempts) -> list[LaneHandle]:
    """Those that are up, and whose engine the request was not sent to."""
    return [lane for lane in lanes if lane.is_up and attempts.may_try(lane.engine.name)]


def _problem(lane: LaneHandle) -> str:
    return f"{lane.lane.name} is {lane.engine.supervisor.health}: {lane.engine.supervisor.problem}"
