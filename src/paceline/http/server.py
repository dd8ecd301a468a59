"""The gateway in this process: it listens, starts and stops the engines, and takes up a changed configuration."""

import asyncio
import logging
import socket
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

from paceline.api_keys import resolved
from paceline.http.access import Access
from paceline.http.answers import Answers, CurrentSharer, Reload
from paceline.http.application import Application
from paceline.http.changes import changes
from paceline.http.storage import Storage
from paceline.inspection.task_model import task_model
from paceline.money.power import PowerMeter, meters
from paceline.processes import Health
from paceline.records.decision_log import DecisionLog
from paceline.records.record import Sink
from paceline.routing.placer import Placer
from paceline.routing.router import Router
from paceline.serving.fleet import Fleet
from paceline.serving.handles import EngineHandle
from paceline.serving.pipeline import Pipeline
from paceline.settings import FROM_ENVIRONMENT, FROM_FILE, Configuration, ConfigurationError, ServerSettings
from paceline.sharing import CannotOpen, Sharer, new_origin, open_store
from paceline.types import LaneState
from paceline.wire.server import HttpServer, Limits

HOUSEKEEPING_INTERVAL_S = 0.5
"""Between two looks for turns that nobody uses; what is noticed of them takes seconds anyway."""
SAVE_EVERY_S = 10.0
"""Between two savings of what was learned: a crash loses so much of it."""
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


class Parts:
    """What a gateway is made of. One of several workers is made of something else."""

    shares_its_address = False
    """Whether others accept connections at the same address."""

    def lets_others_go_first(self, _connections: int) -> bool:
        """Whether one who has so many connections leaves the next one to those others, for a moment."""
        return False

    def listen(self, configuration: Configuration) -> socket.socket:
        """
        Raises:
            CannotListen: the address is not to be had.
        """
        return listen(configuration.server)

    def fleet(self, configuration: Configuration, log_directory: Path, previous: Fleet | None) -> Fleet:
        """Not started yet."""
        return Fleet(configuration, log_directory, previous)

    def storage(self, configuration: Configuration, directory: Path | None) -> Storage:
        """
        Raises:
            ConfigurationError: what it wants is not installed.
        """
        return Storage(configuration, directory)

    def answers(self, pipeline: Pipeline, reload: Reload, log: DecisionLog | None, sharer: CurrentSharer) -> Answers:
        """What answers requests."""
        return Answers(pipeline, reload, log, sharer)


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
        parts: what it is made of.

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
        parts: Parts = Parts(),  # noqa: B008 - it holds nothing
    ) -> None:
        self._parts = parts
        self._load = configuration if callable(configuration) else lambda: configuration
        self._configuration = self._load()
        Access(self._configuration)  # so that a key that is not set is said before anything is started
        self._log_directory = log_directory
        self._state_directory = state_directory
        self._sink = sink
        self._say = say
        self._on_stop = on_stop
        self._background: set[asyncio.Task[None]] = set()
        self._retiring: set[EngineHandle] = set()
        """Engines that are no longer configured and not yet stopped."""
        # From the start on:
        self.pipeline: Pipeline
        self.url: str
        """Where it listens: ``http://127.0.0.1:8080``."""
        self._storage: Storage
        self._engine_logs: Path
        self._application: Application
        self._sharer: Sharer | None
        self._answers: Answers
        self._reloading = asyncio.Lock()
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

    @property
    def engines_in_use(self) -> Sequence[EngineHandle]:
        """Those of the configuration, and those on their way out."""
        return (*self.fleet.engines.values(), *self._retiring)

    @property
    def connections(self) -> int:
        """Those of clients that are open, idle ones included."""
        return self._server.connections if self._server else 0

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
        if self._asked_to_stop.is_set():
            self._begin_to_close()

    async def serve_forever(self) -> None:
        """Serve until :meth:`ask_to_stop` is called or this is cancelled, and stop. Starts the gateway if that was not
        done before; of one that was stopped meanwhile it returns at once.

        Raises:
            CannotListen, ConfigurationError: as :meth:`start`.
        """
        if self._phase is _Phase.STOPPED and not self._asked_to_stop.is_set():
            await self.start()
        try:
            await self._asked_to_stop.wait()
        finally:
            await self.stop()

    def ask_to_stop(self, drains: bool = False) -> None:
        """Begin to stop, which ends :meth:`serve_forever`: at the first call when the running answers are out, or their
        grace is over, at the second at once. Returns at once.

        Args:
            drains: whether requests are still taken for ``server.drain_s``, while ``/readyz`` says 503.
        """
        if self._asked_to_stop.is_set():
            self._is_stopping_now = True
            if self._server is not None:
                self._server.stop_now()
        else:
            self._drains = drains
            self._asked_to_stop.set()
            self._begin_to_close()

    async def stop(self) -> None:
        """Let the running answers finish, for ``server.shutdown_grace_s`` at most, and stop the engines. May be called
        again, also meanwhile; one that is cancelled goes on."""
        if not self._asked_to_stop.is_set():
            self.ask_to_stop()
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def _begin_to_close(self) -> None:
        """Unless it is starting still: then its start does so at the end."""
        if self._phase is _Phase.RUNNING:
            self._phase = _Phase.STOPPING
            self._closing = asyncio.get_running_loop().create_task(self._close())

    async def _open(self, opened: AsyncExitStack) -> None:
        """What is opened is closed in the opposite order."""
        # 1. The address.
        listening = self._parts.listen(self._configuration)
        opened.callback(listening.close)
        self.url = url_of(listening)
        # 2. What is kept.
        self._storage = storage = self._parts.storage(self._configuration, self._state_directory)
        opened.push_async_callback(storage.close)
        # 3. The way of requests.
        power_meter = PowerMeter(await asyncio.to_thread(meters))
        await asyncio.to_thread(task_model)  # which reads its weights now, not in the first request's time
        self._engine_logs = self._log_directory or Path(opened.enter_context(tempfile.TemporaryDirectory()))
        access = Access(self._configuration)
        fleet = self._parts.fleet(self._configuration, self._engine_logs, None)
        router = Router(
            fleet.offered,
            knowledge=await storage.knowledge(),
            conversation_key=storage.conversation_key,
            placer=Placer(self._configuration, storage.ledger),
        )
        router.placer.power_meter = power_meter
        await storage.recall(router.placer)
        self.pipeline = Pipeline(fleet, router)
        self.pipeline.say, self.pipeline.asks_for_keys = self._say, access.asks_for_keys
        storage.listen_to(self.pipeline)
        if self._sink:
            self.pipeline.sinks.add("record", self._sink)
        self._sharer = self._made_sharer(self._configuration)
        opened.push_async_callback(self._stop_sharing)
        opened.push_async_callback(self._stop_engines)
        self._answers = self._parts.answers(self.pipeline, self.reload, storage.log, lambda: self._sharer)
        self._application = Application(access, self._answers, self.pipeline.metrics)
        self._server = server = HttpServer(self._application, _limits(self._configuration.server))
        server.lets_others_go_first = lambda: self._parts.lets_others_go_first(server.connections)
        # 4. Go.
        if self._sharer is not None:
            self._sharer.start()
        self._in_background(self._keep_house())
        opened.push_async_callback(self._end_background)
        self.fleet.start()
        opened.push_async_callback(server.stop, 0)
        await server.start(listening, shares=self._parts.shares_its_address)

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
        sharer = self._sharer
        if configuration.sharing != self._configuration.sharing:
            sharer = self._made_sharer(configuration)
        fleet = self._parts.fleet(configuration, self._engine_logs, self.fleet)
        old, self._configuration = self._configuration, configuration
        self._application.access = access
        self.pipeline.fleet, self.pipeline.asks_for_keys = fleet, access.asks_for_keys
        if self._server is not None:
            self._server.limits = _limits(configuration.server)
        if sharer is not self._sharer:
            await self._stop_sharing()
            self._sharer = sharer
            if sharer is not None:
                sharer.start()
        fleet.start()
        for engine in fleet.engines.values():
            if engine.supervisor.health is Health.FAILED:
                engine.supervisor.retry()
        for handle in fleet.retired:
            self._retiring.add(handle)
            self._in_background(self._retire(handle))
        return changes(old, configuration, fleet)

    def _made_sharer(self, configuration: Configuration) -> Sharer | None:
        """
        Raises:
            ConfigurationError: as :func:`sharer_of`.
        """
        return sharer_of(
            configuration,
            self.pipeline.router,
            lanes=lambda: [handle.load for handle in self.fleet.lanes.values()],
            keep_key=self._storage.keep_key,
        )

    async def _stop_sharing(self) -> None:
        if self._sharer is not None:
            await asyncio.to_thread(self._sharer.stop)

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
        gateway. Then what was learned is whole."""
        async with self._reloading:  # whose new engines are to be stopped, too
            self._engines_are_stopped = True
            await self.pipeline.close()
            await asyncio.gather(self.fleet.stop(), *(handle.supervisor.stop() for handle in self._retiring))
            self._retiring.clear()
            await self._storage.save(self.pipeline.router)

    async def _keep_house(self) -> None:
        rounds = 0
        while True:
            await asyncio.sleep(HOUSEKEEPING_INTERVAL_S)
            self.pipeline.keep_house()
            rounds += 1
            if rounds % round(SAVE_EVERY_S / HOUSEKEEPING_INTERVAL_S) == 0:
                await self._storage.save(self.pipeline.router)


def sharer_of(
    configuration: Configuration,
    router: Router,
    lanes: Callable[[], Sequence[LaneState]] = tuple,
    keep_key: Callable[[bytes], None] = lambda _: None,
    decides: bool = True,
) -> Sharer | None:
    """What shares what the router learns, if that is wanted; not started yet. The last three are as for
    :class:`Sharer`.

    Raises:
        ConfigurationError: the store is none, what speaks to it is not installed, or its address can't be read.
    """
    settings = configuration.sharing
    if settings.store is None:
        return None
    is_secret = settings.store.startswith((FROM_ENVIRONMENT, FROM_FILE))
    address = resolved(settings.store, may_have_spaces=True) if is_secret else settings.store
    try:
        store = open_store(address, settings.group)
    except CannotOpen as error:
        raise ConfigurationError(f"sharing.store: {error}") from error
    return Sharer(router, store, new_origin(), settings, lanes=lanes, keep_key=keep_key, decides=decides)


def listen(server: ServerSettings) -> socket.socket:
    """A socket that listens where it is configured.

    Raises:
        CannotListen: the address is not to be had.
    """
    host, port = server.host, server.port
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


def url_of(listening: socket.socket) -> str:
    """Of a server that listens there."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _limits(server: ServerSettings) -> Limits:
    return Limits(
        max_header_bytes=server.max_header_bytes,
        max_buffered_bytes=server.max_buffered_bytes,
        max_connections=server.max_connections,
        header_timeout_s=server.header_timeout_s,
        body_timeout_s=server.body_timeout_s,
        reserved_paths=("/livez", "/readyz"),
    )
