"""What requests tell of the engines that serve them: which is to be looked at, and which is left out for a while."""

import asyncio
import logging
from time import perf_counter

from paceline.records.metrics import Metrics
from paceline.serving.answering import Failed
from paceline.serving.attempts import Attempts
from paceline.serving.exchange import Exchange
from paceline.serving.failure import Failure
from paceline.serving.fleet import Fleet
from paceline.serving.handles import EngineHandle
from paceline.serving.in_flight import InFlight
from paceline.serving.trial import passes_trial
from paceline.types import Request

log = logging.getLogger("paceline.serving")


class Judge:
    """Judges engines by how their attempts, their answers and their silence end. What it finds stands in the engines'
    :class:`~paceline.serving.illness.Illness`.

    Args:
        fleet: may be replaced.
    """

    def __init__(self, fleet: Fleet, in_flight: InFlight, metrics: Metrics) -> None:
        self.fleet = fleet
        self._in_flight = in_flight
        self._metrics = metrics
        self._trials: set[asyncio.Task[None]] = set()

    def attempt_failed(self, engine: EngineHandle, failed: Failed) -> None:
        """Have the engine looked at, where there is reason to; a provider's never is."""
        if engine.settings.is_cloud:
            return
        if failed.kind is Failure.UNREACHABLE:
            engine.supervisor.report_failure(failed.problem)
        elif failed.kind in (Failure.LOST, Failure.SILENT):
            engine.supervisor.suspect(failed.problem)

    def blame(self, request: Request, attempts: Attempts, served_by: EngineHandle | None) -> None:
        """Whose fault failed attempts were: the engines', if another one could serve, or if there was only one; if
        several failed alike, it may well be the request's, until that happens with one request after another."""
        at_fault = [name for name, kind in attempts.failures.items() if kind.was_delivered]
        for name, kind in attempts.failures.items():
            engine = self.fleet.engines.get(name)
            passes_by = kind not in (Failure.UNREACHABLE, Failure.ACCOUNT)
            if not passes_by and engine is not None and engine.settings.is_cloud:
                self._failed(engine, request, kind, attempts.problems[name])
        may_be_its_own = served_by is None and len(at_fault) > 1
        for name in at_fault:
            if (engine := self.fleet.engines.get(name)) is None or (
                may_be_its_own and not engine.illness.is_in_doubt(request)
            ):
                continue
            self._failed(engine, request, attempts.failures[name], attempts.problems[name])

    def answer_ended(self, engine: EngineHandle, request: Request, status: int, broken: Failed | None) -> None:
        """An answer that had begun is over.

        Args:
            broken: how it broke, if it did.
        """
        if broken is None:
            if status < 400:
                engine.illness.served(request)
        elif not broken.is_clients:
            self.attempt_failed(engine, broken)
            self._failed(engine, request, broken.kind, broken.problem)

    def note_silences(self) -> None:
        """Look at all requests in flight for engines that are silent for too long."""
        for exchange in self._in_flight.exchanges:
            self.note_silence(exchange, "silent for far longer than it takes as a rule")

    def note_silence(self, exchange: Exchange, problem: str) -> None:
        """A request waits for its engine, or waited until it ended. If that is silent for far too long, and for others,
        too, this tells something about it; once."""
        attempt, now_s = exchange.last_attempt, perf_counter()
        if attempt is None or attempt.silence_was_noted or not attempt.silence_is_suspicious(now_s):
            return
        engine = attempt.lane.engine
        others = (other for other in self._in_flight.attempts_on(engine) if other is not attempt)
        if not any(other.was_heard_lately(now_s) for other in others):
            attempt.silence_was_noted = True
            self._failed(engine, exchange.request, Failure.SILENT, problem)
            engine.supervisor.suspect(problem)

    def try_ejected(self) -> None:
        """Begin the trials that are due of engines that are left out."""
        for engine in self.fleet.engines.values():
            if not engine.is_up or not engine.illness.is_due_for_trial():
                continue
            if engine.settings.is_cloud:
                engine.illness.half_open()
            else:
                trial = asyncio.get_running_loop().create_task(self._try(engine))
                self._trials.add(trial)
                trial.add_done_callback(self._trials.discard)

    async def close(self) -> None:
        """End the trials that run."""
        for trial in self._trials:
            trial.cancel()
        await asyncio.gather(*self._trials, return_exceptions=True)

    def _failed(self, engine: EngineHandle, request: Request, kind: Failure, problem: str) -> None:
        self._metrics.engine_failure(engine.name, str(kind))
        served = self.fleet.find(request.served_model)
        model = served.own_name(engine.name) if served else request.served_model
        if engine.illness.failed(request, kind, problem, model):
            log.warning("%s is left out for a while: %s", engine.name, engine.illness.problem)

    async def _try(self, engine: EngineHandle) -> None:
        """Let an engine that was ejected in again, if it answers a tiny request."""
        failed = engine.illness.failed_model
        model = failed if failed in engine.models else next(iter(engine.models), None)
        if await passes_trial(engine, model):
            log.warning("%s is used again", engine.name)
            engine.illness.let_in()
