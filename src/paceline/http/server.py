"""The gateway in this process: it listens, starts and stops the engines, and takes up a changed configuration."""

import asyncio
import logging
import socket
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from paceline.configuration import ConfigurationError
from paceline.http.access import Access
from paceline.http.answers import Answers
from paceline.http.application import Application
from paceline.inspection.task_model import task_model
from paceline.paths import DECISION_LOG, KNOWLEDGE
from paceline.processes import Health
from paceline.records.decision_log import DecisionLog, LogSettings
from paceline.records.record import Sink
from paceline.records.secret import conversation_key
from paceline.records.traces import NoTraces, Traces
from paceline.routing.router import Router
from paceline.routing.store import Memory
from paceline.serving.fleet import Fleet
from paceline.serving.handles import EngineHandle
from paceline.serving.pipeline import Pipeline
from paceline.settings import Configuration, ServerSettings
from paceline.wire.server import HttpServer, Limits

HOUSEKEEPING_INTERVAL_S = 0.5
"""Between two looks for turns that nobody uses; what is noticed of them takes seconds anyway."""
SAVE_EVERY = 20
"""Rounds of housekeeping between two savings of what was learned: a crash loses ten seconds of it."""
RETIRING_INTERVAL_S = 0.05
"""Between two looks whether an engine that is no longer configured has answered its last request."""
DRAIN_INTERVAL_S = 0.05
"""Between two looks whether a drain is cut short."""
BACKLOG = 2048
"""Connections that the system accepts before the gateway does, as uvicorn has it."""

log = logging.getLogger("paceline.http")


class _Phase(Enum):
    STOPPED = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()


class CannotListen(Exception):
    """The address is taken, or not ours."""


class Gateway:
    """A gateway that runs in the event loop that starts it, beside whatever else runs there, in any thread:

        async with Gateway(configuration) as gateway:
            print(gateway.url)
            await gateway.serve_forever()

    It handles no signals; who wants Ctrl-C to end it calls :meth:`ask_to_stop`. All of its methods are to be called in
    its event loop. A gateway that was stopped may be started again.

    Args:
        configuration: or what reads it: then it is read now, and again at each reload.
        log_directory: for what engines print that it starts; ``None`` is a folder that ends with the gateway.
        state_directory: where what was learned and the decision log are kept, if the configuration wants that; ``None``
            keeps nothing.
        sink: given the record of every request that was served or failed.
        say: told a line of each request that was passed through.
        on_stop: told when the gateway begins to stop how many answers still run, and how many seconds they have.

    Raises:
        ConfigurationError: it can't be read, or names a variable for a key that is not set.
    """

    def __init__(
        self,
        configuration: Configuration | Callable[[], Configuration],
        *,
        log_directory: Path | None = None,
        state_directory: Path | None = None,
        sink: Sink | None = None,
        say: Callable[[str], None] = lambda _: None,
        on_stop: Callable[[int, float], None] = lambda _running, _grace_s: None,
    ) -> None:
        self._load = configuration if callable(configuration) else lambda: configuration
        self._configuration = self._load()
        Access(self._configuration)  # so that a key that is not set is said before anything is started
        self._log_directory = log_directory
        self._state_directory = state_directory
        self._sink = sink
        self._say = say
        self._on_stop = on_stop
        self._memory: Memory | None = None
        self._log: DecisionLog | None = None
        self._traces: Traces | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._retiring: set[EngineHandle] = set()
        """Engines that are no longer configured and not yet stopped."""
        # From the start on:
        self.pipeline: Pipeline
        self.url: str
        """Where it listens: ``http://127.0.0.1:8080``."""
        self._engine_logs: Path
        self._application: Application
        self._answers: Answers
        self._reloading: asyncio.Lock
        """One reload at a time, so that the configuration that was read last is the one in force."""
        self._server: HttpServer | None = None
        self._asked_to_stop = asyncio.Event()
        self._drains = self._is_stopping_now = self._engines_are_stopped = False
        self._phase = _Phase.STOPPED
        self._opened = AsyncExitStack()
        """What is to be closed."""
        self._closing: asyncio.Task[None] | None = None

    @property
    def fleet(self) -> Fleet:
        """The lanes of the configuration that is in force."""
        return self.pipeline.fleet

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Accept requests, and begin to start the engines; returns when requests are accepted. Where that fails,
        nothing is left of it.

        Raises:
            CannotListen: the address is not to be had.
            ConfigurationError: what the configuration wants is not installed.
            RuntimeError: it runs already.
        """
        if self._phase is not _Phase.STOPPED:
            raise RuntimeError(f"the gateway is {self._phase.name.lower()} already; one that is stopped can be started")
        self._phase = _Phase.STARTING
        self._asked_to_stop, self._reloading = asyncio.Event(), asyncio.Lock()
        self._drains = self._is_stopping_now = self._engines_are_stopped = False
        try:
            async with AsyncExitStack() as opened:
                await self._open(opened)
                self._opened = opened.pop_all()
        except BaseException:
            self._phase, self._server = _Phase.STOPPED, None
            raise
        self._phase = _Phase.RUNNING

    async def serve_forever(self) -> None:
        """Serve until :meth:`ask_to_stop` is called or this is cancelled, and stop. Starts the gateway if it does not
        run.

        Raises:
            CannotListen, ConfigurationError: as :meth:`start`.
        """
        if self._phase is _Phase.STOPPED:
            await self.start()
        try:
            await self._asked_to_stop.wait()
        finally:
            await self.stop()

    def ask_to_stop(self, drains: bool = False) -> None:
        """End :meth:`serve_forever`: at the first call when the running answers are out, or their grace is over, at the
        second at once.

        Args:
            drains: whether requests are still taken for ``server.drain_s``, while ``/readyz`` says 503.
        """
        if self._asked_to_stop.is_set():
            self._is_stopping_now = True
            if self._server is not None:
                self._server.stop_now()
        self._drains = drains
        self._asked_to_stop.set()

    async def stop(self) -> None:
        """Let the running answers finish, for ``server.shutdown_grace_s`` at most, and stop the engines. May be called
        again, also meanwhile; one that is cancelled goes on."""
        if self._phase is _Phase.RUNNING:
            self._phase = _Phase.STOPPING
            self._asked_to_stop.set()
            self._closing = asyncio.get_running_loop().create_task(self._close())
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def _open(self, opened: AsyncExitStack) -> None:
        """What is opened is closed in the opposite order."""
        # 1. The address.
        listening = _listen(self._configuration)
        opened.callback(listening.close)
        self.url = _url(listening)
        # 2. What is kept.
        opened.push_async_callback(self._close_kept)
        self._memory = self._open_memory()
        learned = await asyncio.to_thread(self._memory.load) if self._memory else None
        self._traces = _traces(self._configuration)
        self._log = self._open_log()
        key = conversation_key(self._state_directory)
        # 3. The way of requests.
        await asyncio.to_thread(task_model)  # which reads its weights now, not in the first request's time
        self._engine_logs = self._log_directory or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        access = Access(self._configuration)
        fleet = Fleet(self._configuration, self._engine_logs)
        router = Router(fleet.offered, knowledge=learned, conversation_key=key)
        self.pipeline = Pipeline(fleet, router)
        self._add_sinks()
        opened.push_async_callback(self._save)
        opened.push_async_callback(self._stop_engines)
        if self._traces:
            self._traces.address_of = self._address_of
        self.pipeline.say, self.pipeline.asks_for_keys = self._say, access.asks_for_keys
        self._answers = Answers(self.pipeline, self.reload, self._log)
        self._application = Application(access, self._answers, self.pipeline.metrics)
        self._server = server = HttpServer(self._application, _limits(self._configuration.server))
        # 4. Go.
        self._in_background(self._keep_house())
        opened.push_async_callback(self._end_background)
        self.fleet.start()
        opened.push_async_callback(server.stop, 0)
        await server.start(listening)

    async def _end_answers(self, server: HttpServer) -> None:
        """Let the running answers finish."""
        settings = self._configuration.server
        self._answers.is_stopping = True
        if self._drains:
            deadline_s = asyncio.get_running_loop().time() + settings.drain_s
            while asyncio.get_running_loop().time() < deadline_s and not self._is_stopping_now:
                await asyncio.sleep(DRAIN_INTERVAL_S)
        if (running := server.in_flight) and not self._is_stopping_now:
            self._on_stop(running, settings.shutdown_grace_s)
        await server.stop(0 if self._is_stopping_now else settings.shutdown_grace_s)

    async def reload(self) -> dict[str, Any]:
        """Take up the configuration as it is now; running answers and unchanged engines are left alone.

        Returns:
            What changed: names of engines and keys, in lists.

        Raises:
            ConfigurationError: the configuration has errors, and the old one stays in force.
            RuntimeError: the gateway does not run.
        """
        async with self._reloading:
            if self._phase is _Phase.STOPPED or self._engines_are_stopped:
                raise RuntimeError("the gateway does not run")
            return await self._reload()

    async def _reload(self) -> dict[str, Any]:
        configuration = await asyncio.to_thread(self._load)  # it looks at model files
        access = Access(configuration)
        fleet = Fleet(configuration, self._engine_logs, self.fleet)
        old, self._configuration = self._configuration, configuration
        self._application.access = access
        self.pipeline.fleet, self.pipeline.asks_for_keys = fleet, access.asks_for_keys
        if self._server is not None:
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
        """Stop an engine that is no longer configured when its last answer is out, unless the gateway ends before."""
        while handle.in_flight:
            await asyncio.sleep(RETIRING_INTERVAL_S)
        await handle.supervisor.stop()
        self._retiring.discard(handle)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the requests; it is cancelled when the gateway ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _open_memory(self) -> Memory | None:
        if self._state_directory is None or not self._configuration.routing.remember:
            return None
        return Memory(self._state_directory / KNOWLEDGE)

    def _open_log(self) -> DecisionLog | None:
        settings = self._configuration.evidence
        if self._state_directory is None or not settings.log:
            return None
        limits = LogSettings(keep_days=settings.keep_days, max_bytes=settings.max_mb * 1_000_000)
        return DecisionLog(self._state_directory / DECISION_LOG, limits)

    def _add_sinks(self) -> None:
        sinks = self.pipeline.sinks
        if self._log:
            sinks.add("log", self._log, gets_text=self._configuration.evidence.keep_text)
        if self._traces:
            sinks.add("traces", self._traces, gets_parameters=True)
        if self._sink:
            sinks.add("record", self._sink)

    def _address_of(self, lane: str) -> tuple[str, int] | None:
        """Of the engine behind a lane, if that is known."""
        handle = self.fleet.lanes.get(lane)
        url = urlsplit(handle.engine.supervisor.url or "") if handle else None
        return (url.hostname, url.port or 80) if url and url.hostname else None

    async def _save(self) -> None:
        """In a thread: a slow disk keeps no request waiting, a full one stops none."""
        if self._memory:
            await asyncio.to_thread(self._memory.save, self.pipeline.router.knowledge)

    async def _close(self) -> None:
        try:
            if self._server is not None:
                await self._end_answers(self._server)
        finally:
            try:
                await self._opened.aclose()
            finally:
                self._phase, self._closing, self._server = _Phase.STOPPED, None, None

    async def _end_background(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _stop_engines(self) -> None:
        """Those that are on their way out, too: one may just have been asked to end, and must not outlive the
        gateway."""
        async with self._reloading:  # whose new engines are to be stopped, too
            self._engines_are_stopped = True
            await self.pipeline.close()
            await asyncio.gather(self.fleet.stop(), *(handle.supervisor.stop() for handle in self._retiring))
            self._retiring.clear()

    async def _close_kept(self) -> None:
        for kept in (self._memory, self._log, self._traces):
            if kept:
                await asyncio.to_thread(kept.close)
        self._memory = self._log = self._traces = None

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
    """
    Raises:
        CannotListen: the address is not to be had.
    """
    host, port = configuration.server.host, configuration.server.port
    listening: socket.socket | None = None
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise CannotListen(
            f"can't listen on {host}:{port} (server.host, server.port): {error.strerror or error}"
        ) from error
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _changes(old: Configuration, new: Configuration) -> list[str]:
    """What differs beside the engines, in a few words each."""
    changes: list[str] = []
    for table in Configuration.__struct_fields__:
        before, now = getattr(old, table), getattr(new, table)
        if before == now or table in ("engine", "evidence"):
            continue
        if isinstance(now, tuple):
            changes.append(f"{len(now)} {table}{'' if len(now) == 1 else 's'}")
        else:
            keys = now.__struct_fields__
            changes += [f"{table}.{key}" for key in keys if getattr(before, key) != getattr(now, key)]
    return changes


def _limits(server: ServerSettings) -> Limits:
    return Limits(
        max_header_bytes=server.max_header_bytes,
        max_buffered_bytes=server.max_buffered_bytes,
        max_connections=server.max_connections,
        header_timeout_s=server.header_timeout_s,
        body_timeout_s=server.body_timeout_s,
        reserved_paths=("/livez", "/readyz"),
    )
