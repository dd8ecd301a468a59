"""The way of a request: receive -> name -> inspect -> decide -> dispatch -> relay -> learn -> record."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from time import perf_counter

from msgspec.structs import replace

from paceline.records.kept import NO_LANE, kept_record
from paceline.records.metrics import Metrics
from paceline.records.recent import Recent
from paceline.records.sinks import Sinks
from paceline.routing.placement import NoPlace
from paceline.routing.router import Router
from paceline.serving.answering import Answering, Failed, Refusal
from paceline.serving.attempts import MAX_PAUSE_S, Attempts
from paceline.serving.errors import ClientLeft, NoLane, NotPlaced, ServingError, Stopping, TookTooLong
from paceline.serving.exchange import Exchange
from paceline.serving.failure import Failure
from paceline.serving.fleet import Fleet
from paceline.serving.handles import EngineHandle, LaneHandle
from paceline.serving.in_flight import InFlight
from paceline.serving.judge import Judge
from paceline.serving.plan import Plan
from paceline.serving.reply import ClientReply
from paceline.serving.resolver import Resolver
from paceline.serving.speaking import spoken
from paceline.settings import ServerSettings
from paceline.types import Api, Decision, Outcome, Request, Signals


class Pipeline:
    """Takes requests down the lanes of a fleet.

    Args:
        router: chooses among them; its settings, rules and lanes are kept to be the fleet's.
    """

    def __init__(self, fleet: Fleet, router: Router) -> None:
        self._router = router
        self.recent = Recent()
        self.metrics = Metrics([str(kind) for kind in Failure if kind.was_delivered or kind is Failure.ACCOUNT])
        self.sinks = Sinks(self.failures)
        """Given the record of every request that was served or failed."""
        self.sinks.add("recent", self.recent)
        self.sinks.add("metrics", self.metrics)
        self.asks_for_keys = False
        """Whether clients' keys are the gateway's, and so nothing for engines."""
        self.say: Callable[[str], None] = lambda _: None
        """Told a line of each request that was passed through."""
        self.resolver = Resolver(fleet)
        self.in_flight = InFlight()
        self._judge = Judge(fleet, self.in_flight, self.metrics)
        self.fleet = fleet

    @property
    def fleet(self) -> Fleet:
        """The one that is in force."""
        return self._fleet

    @fleet.setter
    def fleet(self, fleet: Fleet) -> None:
        self._fleet = self.resolver.fleet = self._judge.fleet = fleet
        for engine in fleet.engines.values():
            engine.supervisor.expected_silence_s = partial(self.in_flight.expected_silence_s, engine)
        self._router.settings, self._router.rules = fleet.configuration.routing, fleet.configuration.rule
        self._router.placer.take_up(fleet.configuration)

    @property
    def router(self) -> Router:
        """Chooses among the fleet's lanes, which change with what engines are seen to do."""
        self._router.lanes = self.fleet.offered
        return self._router

    @property
    def failures(self) -> Counter[str]:
        """How often a part of routing failed and a request was served without it."""
        return self._router.failures

    @property
    def server(self) -> ServerSettings:
        """The limits in force."""
        return self.fleet.configuration.server

    async def serve(self, request: Request, reply: ClientReply) -> None:
        """Have one request answered. The steps have the numbers that they have in docs/how-it-works.md.

        Raises:
            ServingError: it could not be, or its answer broke in a way that can't be said within it.
        """
        # 1. Receive: from here on it is in flight, and its time runs.
        exchange = Exchange(request=request, reply=reply, server=self.server, keep_key=not self.asks_for_keys)
        self.in_flight.exchanges.add(exchange)
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in one
        expiry = asyncio.get_running_loop().call_later(self.server.total_timeout_s, _expire, exchange, task)
        try:
            plan = await self.plan(request)  # 2. Name, 3. inspect, 4. decide.
            exchange.planned(plan)
            answer = await self._dispatch(exchange, plan)  # 5. Dispatch.
            await self._relay(exchange, answer)  # 6. Relay.
        except ServingError as error:
            exchange.fails(error)
            raise
        except asyncio.CancelledError:
            if not exchange.is_late:
                self._note_cancelled(exchange, reply)
                raise
            task.uncancel()
            self._judge.note_silence(exchange, "silent until the request's time was over")
            late = TookTooLong()
            exchange.fails(late)
            raise late from None
        finally:
            expiry.cancel()
            self.in_flight.exchanges.discard(exchange)
            exchange.close()
            outcome = exchange.outcome(with_answered=self.sinks.want_parameters)
            if exchange.decision is not None:
                outcome = self._router.billed(exchange.decision, outcome)
            self._learn(exchange, outcome)  # 7. Learn.
            self._record(exchange.request, exchange.signals, exchange.decision, outcome)  # 8. Record.

    async def plan(self, request: Request, may_serve: Callable[[EngineHandle], bool] | None = None) -> Plan:
        """Find out what serves a request, what it asks for, and decide. Nothing is sent.

        Args:
            may_serve: whether an engine comes into question at all. Default: all do.

        Raises:
            ServingError: nothing serves it.
        """
        # 2. Whether it may leave this machine, and what its model's name stands for.
        began_s = perf_counter()
        rules = self._router.placer.privacy if self.fleet.may_leave else None
        if self.fleet.may_leave and (private := self._router.placer.why_private(request)):
            request = replace(request, private=private)
        request = replace(request, cleared_by=rules)
        served = await self.resolver.served(request, self._router.placer.why_private)
        if may_serve is not None:
            served = replace(served, lanes=tuple(lane for lane in served.lanes if may_serve(lane.engine)))
            if not served.lanes:
                raise NoLane("no engine that serves this model comes into question")
        how = await spoken(request, served)
        served = how.served
        start_patience_s = self.resolver.start_patience_s(began_s)
        request = replace(request, served_model=served.name)
        # 3. What it is about.
        began_s = perf_counter()
        router = self.router
        signals = router.inspect(request)
        # 4. Which lane it goes down.
        try:
            decision = router.choose(request, signals, self.fleet.states(served))
        except NoPlace as error:
            raise NotPlaced(str(error), error.filter_name) from error
        return Plan(
            request=request,
            served=served,
            spoken=how,
            signals=signals,
            decision=decision,
            decision_s=perf_counter() - began_s,
            start_patience_s=start_patience_s,
            control_instead=partial(router.control, signals),
            why_private=router.placer.why_private,
        )

    def order(self, plan: Plan) -> list[LaneHandle]:
        """The lanes to which a request that was planned may be sent now, one of each engine, the best first."""
        return _untried(self._decided(plan), Attempts())

    def carried(self, plan: Plan, lane: LaneHandle, outcome: Outcome, failed: Failed | None) -> None:
        """A request that somebody else has carried to an engine is over: judge the engine, learn, and record.

        Args:
            lane: that served it, or failed to.
            failed: how the engine failed, if it did.
        """
        self._judge.answer_ended(lane.engine, plan.request, outcome.status, failed)
        outcome = self._router.billed(plan.decision, outcome)
        self.router.observe(plan.decision, outcome)
        self._record(plan.request, plan.signals, plan.decision, outcome)

    async def _dispatch(self, exchange: Exchange, plan: Plan) -> Answering | Refusal:
        """Send the request down the decided lane, and while nothing has gone to the client, the next one, as far as
        ``Attempts`` allows. Returns the answer that has begun, or the last refusal if there is no other answer.

        Raises:
            ServingError: no engine could serve it.
        """
        attempts = Attempts()
        refusal: Refusal | None = None
        while lanes := await self._left_to_try(plan, attempts, refusal):
            if refused := await self._unpaid(plan, lanes[0].engine.name, exchange.may_be_billed):
                attempts.failed(lanes[0].engine.name, Failure.BUDGET, f"{lanes[0].lane.name}: {refused}")
                continue
            for lane, begun in await self._tried(exchange, plan, lanes, attempts):
                engine = lane.engine
                if isinstance(begun, Answering):
                    self._judge.blame(exchange.request, attempts, served_by=engine)
                    return begun
                refusal = begun.refusal or refusal
                attempts.failed(engine.name, begun.kind, f"{lane.lane.name} {begun.problem}")
                self._judge.attempt_failed(engine, begun)
        self._judge.blame(exchange.request, attempts, served_by=None)
        if refusal is not None:
            return refusal
        unreached = [lane for lane in self._decided(plan) if lane.engine.name not in attempts.problems]
        problems = [*attempts.problems.values(), *dict.fromkeys([lane.problem for lane in unreached])]
        limits_s = [left_s for lane in self._decided(plan) if (left_s := lane.engine.limits.left_s()) > 0]
        raise attempts.error("; ".join(problems) or "there is none any more", min(limits_s, default=None))

    async def _tried(
        self, exchange: Exchange, plan: Plan, lanes: Sequence[LaneHandle], attempts: Attempts
    ) -> Sequence[tuple[LaneHandle, Answering | Failed]]:
        """Try the first lane; or where hedging is turned on, and this takes longer to begin than most streams, the
        second as well. Returns what came of them, in that order, up to the first answer."""
        first = lanes[0]
        first.engine.illness.takes()
        second = next((lane for lane in lanes[1:] if lane.engine.device is not first.engine.device), None)
        after_s = first.engine.pace.hedge_after_s
        is_hedged = self.fleet.configuration.routing.hedging and exchange.request.stream
        if (
            not is_hedged
            or second is None
            or not second.engine.is_well
            or after_s is None
            or await self._unpaid(plan, second.engine.name, {first.engine.name} | exchange.may_be_billed)
        ):
            is_last = len(lanes) == 1 and not (first.engine.settings.is_cloud and attempts.has_another)
            return [(first, await exchange.attempt(plan, first, is_last))]
        return await exchange.race(plan, first, second, after_s)

    async def _unpaid(self, plan: Plan, engine: str, beside: Collection[str]) -> str:
        """Why a request may not be sent to an engine, since that can't be paid; empty where it may."""
        placer = self._router.placer
        return placer.admits(plan.decision, engine, beside) or await placer.agreed(plan.decision, engine)

    async def _left_to_try(self, plan: Plan, attempts: Attempts, refusal: Refusal | None) -> Sequence[LaneHandle]:
        """The lanes that are left to try, the next one first: of the engines that were not tried, in the decision's
        order but those that are ejected last; else, after a pause, a provider that may take it by then; else, unless
        there is a refusal to answer with, an engine that was lost or out of reach, and has come up again."""
        if not attempts.may_go_on:
            return ()
        lanes = self._decided(plan)
        if untried := _untried(lanes, attempts):
            return untried
        if (provider := _soonest(lanes, attempts)) is not None:
            await asyncio.sleep(max(provider.engine.limits.left_s(), attempts.pause_s))
            name = provider.engine.name
            attempts.returns(name)
            return [lane for lane in self._decided(plan) if lane.engine.name == name]  # a reload may have changed it
        lost = [lane for lane in lanes if attempts.may_return(lane.engine.name)]
        for lane in lost:
            await lane.engine.supervisor.look_again(0.0)
        awaited = {lane.lane.name for lane in lanes if lane in lost or attempts.may_try(lane.engine.name)}
        if refusal is not None or not awaited:
            return ()
        await self.resolver.wait_for_start(
            lambda: [lane for lane in self.fleet.lanes.values() if lane.lane.name in awaited],
            plan.start_patience_s,
        )
        lanes = self._decided(plan)
        for lane in lanes:
            if lane.is_up and lane.lane.name in awaited:
                attempts.returns(lane.engine.name)
                return [lane, *(other for other in _untried(lanes, attempts) if other is not lane)]
        return ()

    def _decided(self, plan: Plan) -> list[LaneHandle]:
        """The decision's lanes in their order, as they are now, as far as the request may still go there; one of each
        engine, for what one lane of an engine can't do, its others can't."""
        by_engine: dict[str, LaneHandle] = {}
        for name in (plan.decision.lane, *plan.decision.alternatives):
            if (lane := self.fleet.lanes.get(name)) is not None and plan.may_go_to(lane.engine):
                by_engine.setdefault(lane.engine.name, lane)
        return list(by_engine.values())

    async def _relay(self, exchange: Exchange, answer: Answering | Refusal) -> None:
        """Pass the answer on, and judge its engine by how it ended."""
        if isinstance(answer, Refusal):
            await exchange.pass_on(answer)
            return
        engine, request = answer.lane.engine, exchange.request
        try:
            broken = await exchange.relay(answer)
        except ServingError as error:
            self._judge.answer_ended(engine, request, answer.status, Failed(Failure.LOST, str(error)))
            raise
        self._judge.answer_ended(engine, request, answer.status, broken)
        is_stored = request.api is Api.OPENAI_RESPONSES and request.api in engine.settings.speaks
        if broken is None and answer.status < 400 and is_stored:
            self.resolver.stored_ids.note(answer.head, engine.name)

    def _note_cancelled(self, exchange: Exchange, reply: ClientReply) -> None:
        """The client left, or the gateway stops."""
        if not reply.client_left:
            exchange.fails(Stopping())
            return
        exchange.fails(ClientLeft())
        self._judge.note_silence(exchange, "silent until the client left")

    def _learn(self, exchange: Exchange, outcome: Outcome) -> None:
        if exchange.decision is not None:
            self.router.observe(exchange.decision, outcome)

    def _record(self, request: Request, signals: Signals, decision: Decision | None, outcome: Outcome) -> None:
        try:
            record = kept_record(
                request,
                signals,
                decision or Decision(NO_LANE, "not decided"),
                outcome,
                with_text=self.sinks.want_text,
                with_parameters=self.sinks.want_parameters,
            )
        except Exception:
            self.sinks.note_failure("record")
            return
        self.sinks.record(record)

    def keep_house(self) -> None:
        """To be called now and then: devices go on without the clients that don't take their answers and the engines
        that stay silent, and engines that were ejected are tried again."""
        now_s = perf_counter()
        self.in_flight.release_idle_turns(now_s)
        own = (engine for engine in self.fleet.engines.values() if not engine.settings.is_cloud)
        self._router.placer.power_meter.look(any(engine.in_flight for engine in own), now_s)
        self._judge.note_silences()
        self._judge.try_ejected()

    async def close(self) -> None:
        """End what runs beside the requests."""
        await self._judge.close()


def _expire(exchange: Exchange, task: "asyncio.Task[None]") -> None:
    """A request's time is over: end its answer, if one is being relayed; else whatever it waits for."""
    if not exchange.expire(TookTooLong()):
        task.cancel()


def _untried(lanes: Sequence[LaneHandle], attempts: Attempts) -> list[LaneHandle]:
    """Those that are up, and whose engine the request was not sent to; those of ejected engines last."""
    untried = [lane for lane in lanes if lane.is_up and attempts.may_try(lane.engine.name)]
    if len(untried) > 1:
        untried.sort(key=lambda lane: lane.engine.illness.is_ejected)
    return untried


def _soonest(lanes: Sequence[LaneHandle], attempts: Attempts) -> LaneHandle | None:
    """The provider that may take a request the soonest, if one may within the time that is waited for that; those that
    have failed on it last."""
    providers = [
        lane
        for lane in lanes
        if lane.engine.settings.is_cloud
        and lane.engine.is_well
        and attempts.may_repeat(lane.engine.name)
        and lane.engine.limits.left_s() <= MAX_PAUSE_S
    ]

    def order(lane: LaneHandle) -> tuple[bool, float]:
        failure = attempts.failures.get(lane.engine.name)
        return failure is not None and failure.was_delivered, lane.engine.limits.left_s()

    return min(providers, key=order, default=None)
