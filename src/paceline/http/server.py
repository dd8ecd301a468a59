"""Runs the gateway in this process: listens, starts and stops the engines, takes up a changed configuration."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paceline.configuration import Configuration, ConfigurationError, ServerSettings
from paceline.http.access import Access
from paceline.http.application import Application
from paceline.inspection.task_model import task_model
from paceline.processes import Health
from paceline.records.decision_log import FILE, DecisionLog, LogSettings
from paceline.records.secret import conversation_key
from paceline.records.sinks import Sink, tell_each
from paceline.records.traces import NoTraces, Traces
from paceline.routing.router import Router
from paceline.routing.store import Memory
from paceline.serving.errors import ApiError
from paceline.serving.fleet import EngineHandle, Fleet
from paceline.serving.pipeline import Pipeline
from paceline.types import Decision, Outcome, Request, Signals
from paceline.wire.server import HttpServer, Limits

MEMORY_FILE = "learned.sqlite"

HOUSEKEEPING_INTERVAL_S = 0.5
SAVE_EVERY = 20
"""Rounds of housekeeping between two savings of what was learned."""

log = logging.getLogger("paceline")


class CannotListen(Exception):
    """The address is taken, or not ours."""


class Gateway:
    """The running gateway.

    Args:
        load: reads the configuration; called at start and at each reload.
        record: told of every outcome.
        say: told a line of each request that was passed through.
        on_stop: told when the gateway begins to stop how many answers still run, and how many seconds they have.
        state_directory: where what was learned and the decision log are kept, if the configuration wants that; ``None``
            keeps nothing.

    Raises:
        ConfigurationError: from ``load``.
    """

    def __init__(
        self,
        load: Callable[[], Configuration],
        log_directory: Path,
        record: Sink,
        state_directory: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        on_stop: Callable[[int, float], None] = lambda _running, _grace_s: None,
    ) -> None:
        self._load = load
        self._log_directory = log_directory
        self._configuration = load()
        self._record = record
        self._state_directory = state_directory
        self._memory: Memory | None = None
        self._log: DecisionLog | None = None
        self._traces = _traces(self._configuration)
        self._sinks: Mapping[str, Sink] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._retiring: set[EngineHandle] = set()
        """Engines that are no longer configured and not yet stopped."""
        self._say = say
        self._on_stop = on_stop
        self._access = Access(self._configuration)
        self._server: HttpServer
        self._application: Application
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        """One reload at a time, so that the configuration that was read last is the one in force."""
        self._drains = False
        self._is_stopping_now = False
        self.pipeline: Pipeline
        self.address = ""

    @property
    def fleet(self) -> Fleet:
        """The lanes of the configuration that is in force."""
        return self.pipeline.fleet

    async def run(self, on_start: Callable[["Gateway"], Any] = lambda _: None) -> None:
        """Serve until SIGINT or SIGTERM; ``on_start`` is called when requests are accepted.

        Raises:
            CannotListen: the address is not to be had.
        """
        task_model()  # reads its weights now, not in the first request's time
        listening = _listen(self._configuration)
        host, port = listening.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._memory = self._open_memory()
        learned = self._memory.load() if self._memory else None
        fleet = Fleet(self._configuration, self._log_directory)
        self._log = self._open_log()
        self._sinks = self._open_sinks()
        key = conversation_key(self._state_directory)
        router = Router(fleet.offered, knowledge=learned, conversation_key=key)
        self.pipeline = Pipeline(fleet, router, self._note)
        if self._traces:
            self.pipeline.looks_at_answers = True
            self._traces.address_of = self._address_of
        self.pipeline.say, self.pipeline.asks_for_keys = self._say, self._access.asks_for_keys
        self._application = Application(self.pipeline, self._access, self.reload, self._log)
        self._server = HttpServer(self._application, _limits(self._configuration.server))
        housekeeping = asyncio.create_task(self._keep_house())
        try:
            self._handle_signals()
            self.fleet.start()
            await self._server.start(listening)
            on_start(self)
            await self._stop.wait()
            await self._end_answers()
        finally:
            listening.close()
            housekeeping.cancel()
            for task in list(self._background):
                task.cancel()
            await asyncio.gather(housekeeping, *self._background, return_exceptions=True)
            # One that was being stopped may just have been asked to end: it must not outlive the gateway.
            await asyncio.gather(self.fleet.stop(), *(handle.supervisor.stop() for handle in self._retiring))
            if self._memory:
                await self._save()
                await asyncio.to_thread(self._memory.close)
            for kept in (self._log, self._traces):
                if kept:
                    await asyncio.to_thread(kept.close)

    def stop(self, drains: bool = False) -> None:
        """End :meth:`run`: at the first call when the running answers are out, or their grace is over, at the second at
        once.

        Args:
            drains: whether requests are still taken for ``server.drain_s``, while ``/readyz`` says 503.
        """
        if self._stop.is_set():
            self._is_stopping_now = True
            self._server.stop_now()
        self._drains = drains
        self._stop.set()

    async def _end_answers(self) -> None:
        """Let the running answers finish."""
        settings = self._configuration.server
        self._application.is_stopping = True
        if self._drains:
            deadline_s = asyncio.get_running_loop().time() + settings.drain_s
            while asyncio.get_running_loop().time() < deadline_s and not self._is_stopping_now:
                await asyncio.sleep(0.05)
        if (running := self._server.in_flight) and not self._is_stopping_now:
            self._on_stop(running, settings.shutdown_grace_s)
        await self._server.stop(0 if self._is_stopping_now else settings.shutdown_grace_s)

    async def reload(self) -> dict[str, Any]:
        """Take up the configuration as it is now; running answers and unchanged engines are left alone.

        Raises:
            ApiError: 422, the configuration has errors, and the old one stays in force.
        """
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> dict[str, Any]:
        try:
            configuration = await asyncio.to_thread(self._load)  # it looks at model files
            access = Access(configuration)
            fleet = Fleet(configuration, self._log_directory, self.fleet)
        except ConfigurationError as error:
            raise ApiError(422, str(error), "invalid_configuration") from error
        old, self._configuration = self._configuration, configuration
        self._access = self._application.access = access
        self.pipeline.fleet, self.pipeline.asks_for_keys = fleet, access.asks_for_keys
        self._server.limits = _limits(configuration.server)
        fleet.start()
        for engine in fleet.engines.values():
            if engine.supervisor.health is Health.FAILED:
                engine.supervisor.retry()
        for handle in fleet.retired:
            self._retiring.add(handle)
            self._in_background(self._retire(handle))
        fixed = [key for key in ("host", "port") if getattr(old.server, key) != getattr(configuration.server, key)]
        started = [supervisor.name for supervisor in fleet.added]
        needs_restart = [f"server.{key}" for key in fixed]
        if old.evidence != configuration.evidence:
            needs_restart.append("evidence")
        return {
            "started": started,
            "stopped": [handle.name for handle in fleet.retired],
            "unchanged": [name for name in fleet.engines if name not in started],
            "changed": [name for name in _changes(old, configuration) if name not in needs_restart],
            "needs_restart": needs_restart,
        }

    async def _retire(self, handle: EngineHandle) -> None:
        """Stop an engine that is no longer configured when its last answer is out, unless :meth:`run` has to before."""
        while handle.in_flight:
            await asyncio.sleep(0.05)
        await handle.supervisor.stop()
        self._retiring.discard(handle)

    async def _reload_on_signal(self) -> None:
        try:
            changes = await self.reload()
            log.info("configuration taken up: %s", changes)
        except ApiError as error:
            log.error("the configuration is not taken up, the old one stays in force:\n%s", error.message)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.stop)
        loop.add_signal_handler(signal.SIGTERM, lambda: self.stop(drains=True))
        loop.add_signal_handler(signal.SIGHUP, lambda: self._in_background(self._reload_on_signal()))

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the requests; it is cancelled when the gateway ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _open_memory(self) -> Memory | None:
        if self._state_directory is None or not self._configuration.routing.remember:
            return None
        return Memory(self._state_directory / MEMORY_FILE)

    def _open_log(self) -> DecisionLog | None:
        settings = self._configuration.evidence
        if self._state_directory is None or not settings.log:
            return None
        kept = LogSettings(settings.keep_days, settings.max_mb * 1_000_000, settings.keep_text)
        return DecisionLog(self._state_directory / FILE, kept)

    def _open_sinks(self) -> Mapping[str, Sink]:
        sinks: dict[str, Sink] = {}
        if self._log:
            sinks["log"] = self._log.add
        if self._traces:
            sinks["traces"] = self._traces.add
        return sinks | {"record": self._record}

    def _note(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> None:
        tell_each(self._sinks, self.pipeline.failures, request, signals, decision, outcome)

    def _address_of(self, lane: str) -> tuple[str, int] | None:
        """Of the engine behind a lane, if that is known."""
        handle = self.fleet.lanes.get(lane)
        url = urlsplit(handle.engine.supervisor.url or "") if handle else None
        return (url.hostname, url.port or 80) if url and url.hostname else None

    async def _save(self) -> None:
        """In a thread: a slow disk keeps no request waiting, a full one stops none."""
        if self._memory:
            await asyncio.to_thread(self._memory.save, self.pipeline.router.knowledge)

    async def _keep_house(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_S)
            self.pipeline.keep_house()
            rounds += 1
            if rounds % SAVE_EVERY == 0:
                await self._save()


def _traces(configuration: Configuration) -> Traces | None:
    try:
        return Traces(configuration.evidence.traces) if configuration.evidence.traces else None
    except NoTraces as error:
        raise ConfigurationError(str(error)) from error


def _listen(configuration: Configuration) -> socket.socket:
    host, port = configuration.server.host, configuration.server.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        raise CannotListen(
            f"can't listen on {host}:{port} (server.host, server.port): {error.strerror or error}"
        ) from error
    return listening


def _changes(old: Configuration, new: Configuration) -> list[str]:
    """What differs beside the engines, in a few words each."""
    found: list[str] = []
    for table in Configuration.__struct_fields__:
        before, now = getattr(old, table), getattr(new, table)
        if before == now or table in ("engine", "evidence"):
            continue
        if isinstance(now, tuple):
            found.append(f"{len(now)} {table}{'' if len(now) == 1 else 's'}")
        else:
            keys = now.__struct_fields__
            found += [f"{table}.{key}" for key in keys if getattr(before, key) != getattr(now, key)]
    return found


def _limits(server: ServerSettings) -> Limits:
    return Limits(
        max_header_bytes=server.max_header_bytes,
        max_buffered_bytes=server.max_buffered_bytes,
        max_connections=server.max_connections,
        header_timeout_s=server.header_timeout_s,
        body_timeout_s=server.body_timeout_s,
        reserved_paths=("/livez", "/readyz"),
    )
