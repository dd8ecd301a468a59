"""Runs the gateway in this process: listens, starts and stops the engines, takes up a changed configuration."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from paceline.configuration import Configuration, ConfigurationError
from paceline.evidence.log import FILE, DecisionLog, LogSettings
from paceline.evidence.traces import NoTraces, Traces
from paceline.gateway.application import Application
from paceline.gateway.errors import ApiError
from paceline.gateway.fleet import EngineHandle, Fleet
from paceline.gateway.pipeline import Pipeline, Recorder
from paceline.inspection.task_model import task_model
from paceline.memory import Memory
from paceline.records.secret import conversation_key
from paceline.types import Decision, Outcome, Request, Signals

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
        state_directory: where what was learned and the decision log are kept, if the configuration wants that; ``None``
            keeps nothing.

    Raises:
        ConfigurationError: from ``load``.
    """

    def __init__(
        self,
        load: Callable[[], Configuration],
        log_directory: Path,
        record: Recorder,
        state_directory: Path | None = None,
    ) -> None:
        self._load = load
        self._log_directory = log_directory
        self._configuration = load()
        self._record = record
        self._state_directory = state_directory
        self._memory: Memory | None = None
        self._log: DecisionLog | None = None
        self._traces = _traces(self._configuration)
        self._background: set[asyncio.Task[None]] = set()
        self._server: uvicorn.Server | None = None
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
        self.pipeline = Pipeline(
            fleet, self._note, state=learned, conversation_key=conversation_key(self._state_directory)
        )
        if self._traces:
            self._traces.address_of = self._address_of
        application = Application(self.pipeline, self.reload, self._log)
        server = _Server(_uvicorn_settings(application, self._configuration))
        self._server = server
        self._handle_signals()
        self.fleet.start()
        housekeeping = asyncio.create_task(self._keep_house())
        on_start(self)
        try:
            await server.serve([listening])
        finally:
            housekeeping.cancel()
            for task in list(self._background):
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            await self.fleet.stop()
            if self._memory:
                await self._save()
                self._memory.close()
            for kept in (self._log, self._traces):
                if kept:
                    await asyncio.to_thread(kept.close)

    def stop(self) -> None:
        """End :meth:`run`: at the first call when the running answers are out, or their grace is over, at the
        second at once."""
        if self._server:
            self._server.force_exit = self._server.should_exit
            self._server.should_exit = True

    async def reload(self) -> dict[str, Any]:
        """Take up the configuration as it is now; running answers and unchanged engines are left alone.

        Raises:
            ApiError: 422, the configuration has errors, and the old one stays in force.
        """
        try:
            configuration = self._load()
        except ConfigurationError as error:
            raise ApiError(422, str(error), "invalid_configuration") from error
        old, self._configuration = self._configuration, configuration
        self.pipeline.fleet = fleet = Fleet(configuration, self._log_directory, self.fleet)
        fleet.start()
        for handle in fleet.retired:
            self._in_background(_retire(handle))
        fixed = [
            key
            for key in ("host", "port", "shutdown_grace_s")
            if getattr(old.server, key) != getattr(configuration.server, key)
        ]
        started = [supervisor.name for supervisor in fleet.added]
        return {
            "started": started,
            "stopped": [handle.name for handle in fleet.retired],
            "unchanged": [name for name in fleet.engines if name not in started],
            "needs_restart": [
                *(f"server.{key}" for key in fixed),
                *(["evidence"] if old.evidence != configuration.evidence else []),
            ],
        }

    async def _reload_on_signal(self) -> None:
        try:
            changes = await self.reload()
            log.info("configuration taken up: %s", changes)
        except ApiError as error:
            log.error("the configuration is not taken up, the old one stays in force:\n%s", error.message)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
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

    def _note(self, request: Request, signals: Signals, decision: Decision, outcome: Outcome) -> None:
        for kept in (self._log, self._traces):
            if kept:
                kept.add(request, signals, decision, outcome)
        self._record(request, signals, decision, outcome)

    def _address_of(self, lane: str) -> tuple[str, int] | None:
        """Of the engine behind a lane, if that is known."""
        handle = self.fleet.lanes.get(lane)
        url = urlsplit(handle.engine.supervisor.url or "") if handle else None
        return (url.hostname, url.port or 80) if url and url.hostname else None

    async def _save(self) -> None:
        """In a thread: a slow disk keeps no request waiting, a full one stops none."""
        if self._memory:
            await asyncio.to_thread(self._memory.save, self.pipeline.state)

    async def _keep_house(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_S)
            self.pipeline.release_slow_readers()
            rounds += 1
            if rounds % SAVE_EVERY == 0:
                await self._save()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the gateway: uvicorn would end the process before the engines are stopped."""
        yield


def _traces(configuration: Configuration) -> Traces | None:
    try:
        return Traces(configuration.evidence.traces) if configuration.evidence.traces else None
    except NoTraces as error:
        raise ConfigurationError(str(error)) from error


async def _retire(handle: EngineHandle) -> None:
    """Stop an engine that is no longer configured when its last answer is out, or the gateway ends."""
    try:
        while handle.in_flight:
            await asyncio.sleep(0.05)
    finally:
        await handle.supervisor.stop()


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


def _uvicorn_settings(application: Application, configuration: Configuration) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,  # the engine's own headers pass through
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=configuration.server.shutdown_grace_s,
    )
