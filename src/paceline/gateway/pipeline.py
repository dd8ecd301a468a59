"""The way of a request: receive -> inspect -> decide -> dispatch -> relay -> learn -> record."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from time import perf_counter

from msgspec.structs import replace

from paceline.decision import State, decide, learn, predict
from paceline.gateway.errors import ApiError
from paceline.gateway.exchange import Exchange
from paceline.gateway.fleet import Fleet, LaneHandle
from paceline.gateway.metrics import Metrics
from paceline.gateway.recent import Recent
from paceline.gateway.relay import Reply
from paceline.gateway.rules import described, fitting
from paceline.gateway.turns import QueueFull
from paceline.http.client import ConnectFailed, ConnectionLost, Headers
from paceline.inspection import inspect
from paceline.inspection.inspect import PROCESS_KEY
from paceline.records.kept import kept_model
from paceline.records.sinks import Sink, tell_each
from paceline.types import Decision, Outcome, Request, Signals

START_PATIENCE_S = 60.0
"""How long a request waits for an engine that is starting, when none of its lanes is up."""
SLOW_READER_S = 2.0
"""A client that keeps a piece waiting this long no longer keeps others from the device: the rest of its answer
waits in the engine for the client, not for the device."""
REFUSALS = (429, 503)
"""Statuses with which an engine says that it can't take a request now; another lane may."""
MOST_LOST = 2
"""A request on which this many engines were lost may be the cause; it is not tried on more."""

log = logging.getLogger("paceline.gateway")
Recorder = Callable[[Request, Signals, Decision, Outcome], None]


class Pipeline:
    """Takes requests down the lanes of a fleet.

    Args:
        record: told of every request that was served or failed; must not block.
        seed: of the decision's random numbers.
        state: what was learned before.
    """

    def __init__(
        self,
        fleet: Fleet,
        record: Recorder,
        seed: int | None = None,
        state: State | None = None,
        conversation_key: bytes = PROCESS_KEY,
    ) -> None:
        self.fleet = fleet
        self.state = state or State()
        self.failures: Counter[str] = Counter()
        """How often a part of routing failed and a request was served without it."""
        self.recent = Recent()
        self.metrics = Metrics()
        self._sinks: dict[str, Sink] = {"recent": self.recent.add, "metrics": self.metrics.add, "record": record}
        self._conversation_key = conversation_key
        self._random = Random(seed)
        self._exchanges: set[Exchange] = set()

    async def serve(self, request: Request, headers: Headers, reply: Reply) -> None:
        """Have one request answered.

        Raises:
            ApiError: it could not be; nothing has gone to the client.
        """
        exchange = Exchange(request, headers, reply, keep_key=not self.fleet.configuration.server.api_keys)
        self._exchanges.add(exchange)
        try:
            lanes = await self._candidates(request)
            began_s = perf_counter()
            exchange.signals = self._inspect(request)
            exchange.decision = self._decide(request, headers, exchange.signals, lanes)
            exchange.decision_s = perf_counter() - began_s
            await self._dispatch(exchange)
        except ApiError as error:
            exchange.fail(error.status, error.message)
            raise
        except asyncio.CancelledError:
            exchange.fail(499, "the client left")
            raise
        finally:
            self._exchanges.discard(exchange)
            exchange.close()
            self._learn(exchange)

    def release_slow_readers(self) -> None:
        """Let devices go on without the clients that don't take their answers; to be called now and then."""
        now_s = perf_counter()
        for exchange in self._exchanges:
            exchange.release_turn_if_reader_is_slower_than(SLOW_READER_S, now_s)

    @property
    def in_flight(self) -> int:
        return len(self._exchanges)

    def _inspect(self, request: Request) -> Signals:
        try:
            return inspect(request, self._conversation_key)
        except Exception:
            self._note_failure("inspection")
            return Signals()

    async def _candidates(self, request: Request) -> list[LaneHandle]:
        """The lanes that may serve; if none of them is up but one is coming up, it is waited for."""
        fleet, forced = self.fleet, request.forced_lane

        def find() -> list[LaneHandle]:
            return fleet.serving(request.model) if forced is None else fleet.forced(forced, request.model)

        lanes = find()
        if any(lane.is_up for lane in lanes):
            return lanes
        await fleet.wait_for_start(lanes, START_PATIENCE_S)
        return find()

    def _decide(self, request: Request, headers: Headers, signals: Signals, lanes: Sequence[LaneHandle]) -> Decision:
        forced = request.forced_lane
        if forced is None:
            return self.choose(request, headers, signals, lanes)
        return self._among(lanes, signals, "the request forces this lane", f"the request forces {forced}")

    def choose(self, request: Request, headers: Headers, signals: Signals, lanes: Sequence[LaneHandle]) -> Decision:
        """The operator's rule for a request, if one fits and its lane is up; else the predictions decide."""
        rule = fitting(self.fleet.configuration.rule, request, headers, signals)
        if rule is not None:
            named = self.fleet.named(rule.lane)
            wanted = [lane for lane in lanes if lane in named and lane.is_up]
            if wanted:
                others = tuple(lane.lane.name for lane in lanes if lane not in wanted)
                decision = self._among(wanted, signals, f"rule: {described(rule)}", f"rule: {described(rule)}")
                return replace(decision, alternatives=decision.alternatives + others)
        return self._predicted(lanes, signals)

    def _among(self, lanes: Sequence[LaneHandle], signals: Signals, only: str, several: str) -> Decision:
        """The only lane that may be used; or where it is an engine with several, the best of them. With the reason."""
        if len(lanes) == 1:
            return self._pinned(lanes, signals, only)
        decision = self._predicted(lanes, signals)
        return replace(decision, reason=f"{several}; {decision.reason}")

    def _predicted(self, lanes: Sequence[LaneHandle], signals: Signals) -> Decision:
        try:
            states = [lane.state() for lane in lanes]
            exploration = self.fleet.configuration.routing.exploration
            return decide(signals, states, self.state, self._random, exploration)
        except Exception:
            self._note_failure("decision")
            return self._pinned(lanes, signals, "the default lane: the decision failed")

    def _pinned(self, lanes: Sequence[LaneHandle], signals: Signals, reason: str) -> Decision:
        """The first lane, the others in reserve; with its prediction, so that its outcome is learned from."""
        first, *others = lanes
        try:
            predictions = predict(signals, [first.state()], self.state)
        except Exception:
            self._note_failure("prediction")
            predictions = {}
        names = tuple(lane.lane.name for lane in others)
        return Decision(first.lane.name, reason, alternatives=names, predictions=predictions)

    async def _dispatch(self, exchange: Exchange) -> None:
        """Send the request down the decided lane and relay the answer; while nothing has come back, try the next.

        A generation has no side effects, so one whose engine was lost before its first byte may be sent again.
        """
        decision = exchange.decision
        lanes = [self.fleet.lanes[name] for name in (decision.lane, *decision.alternatives) if name in self.fleet.lanes]
        by_engine: dict[str, LaneHandle] = {}
        for lane in lanes:
            by_engine.setdefault(lane.engine.name, lane)  # what one lane of an engine can't do, its others can't
        problems = [_problem(lane) for lane in by_engine.values() if not lane.is_up]
        lanes = [lane for lane in by_engine.values() if lane.is_up]
        lost = 0
        for lane in lanes:
            try:
                status = await exchange.send(lane)
                if status not in REFUSALS or lane is lanes[-1]:
                    return await exchange.relay()
                await exchange.set_refusal_aside()
            except QueueFull as error:
                problems.append(f"{lane.lane.name}: {error}")
            except ConnectFailed as error:
                lane.engine.supervisor.report_failure(str(error))
                problems.append(f"{lane.lane.name} can't be reached: {error}")
            except ConnectionLost as error:
                lane.engine.supervisor.report_failure(str(error))
                problems.append(f"{lane.lane.name} was lost: {error}")
                lost += 1
                if lost == MOST_LOST:
                    break
        if exchange.has_refusal:
            return await exchange.pass_refusal_on()
        status = 502 if lost else 503
        raise ApiError(
            status,
            f"no engine could serve this: {'; '.join(problems)}",
            "engine_unavailable",
            retry_after_s=2,
        )

    def _learn(self, exchange: Exchange) -> None:
        try:
            outcome = exchange.outcome()
        except Exception:
            self._note_failure("learning")
            return
        signals, decision = exchange.signals, exchange.decision
        try:
            if exchange.request.teaches and outcome.lane:
                self.state = learn(self.state, signals, decision, outcome)
        except Exception:
            self._note_failure("learning")
        request = replace(exchange.request, served_model=self._served_model(exchange.request.model))
        tell_each(self._sinks, self.failures, request, signals, decision, outcome)

    def _served_model(self, name: str | None) -> str | None:
        models = self.fleet.models()
        return kept_model(name, models) if name is not None else next(iter(models), None)

    def _note_failure(self, part: str) -> None:
        self.failures[part] += 1
        log.exception("%s failed; the request goes on without it", part)


def _problem(lane: LaneHandle) -> str:
    return f"{lane.lane.name} is {lane.engine.supervisor.health}: {lane.engine.supervisor.problem}"
