"""Keeps one engine usable: starts it if it is ours to start, looks at its health, restarts it when it dies or hangs.

An engine is up as long as it answers looks, or anything else: one that streams but is late to answer a look is busy.
One that is silent on all of its connections for too long is declared down, which ends what runs on it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from paceline.api_keys import resolved
from paceline.engines.examiner import Examiner
from paceline.engines.interface import AnyEngine, Facts, LaunchError, NotReady
from paceline.engines.launch_environment import masked
from paceline.processes.launch import prepare_launch
from paceline.processes.launched_process import LaunchedProcess
from paceline.processes.process_log import ProcessLog
from paceline.settings import (
    FROM_ENVIRONMENT,
    FROM_FILE,
    CloudEngineSettings,
    ConfigurationError,
    EngineSettings,
    LocalEngineSettings,
)
from paceline.types import Abilities
from paceline.wire.client import IDLE_LIMIT_S, Client, ConnectFailed, ConnectionLost, bearer, without_credentials

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before the first, second ... restart in a row; the last one repeats."""
STEADY_AFTER_S = 60.0
"""An engine that was up this long starts again from the shortest pause."""
DOWN_INTERVAL_S = 0.5
"""Seconds between two looks at an engine that is not up."""
FAILED_INTERVAL_S = 30.0
"""Seconds until an engine that could not be started as configured is tried again: a program or a file may be back."""
TIMEOUTS_TO_BE_DOWN = 3
"""A busy engine may answer late; only this many looks in a row without an answer count."""
LOSSES_TO_BE_DOWN = 2
"""One look whose connection is lost proves nothing; two in a row do."""
BUSY_SILENCE_S = 30.0
"""Silence on all connections that is borne of an engine on which requests run: it may be reading prompts, with all of
its threads for HTTP taken."""
HUNG_AFTER_S = 30.0
"""A launched engine that is down and has been silent for this long without working is killed: a machine that swaps may
hold one up for a while. One that is as idle while it starts no longer keeps others of its device from starting."""
MAX_STARTS_IN_VAIN = 3
"""An engine that did not come up after more starts in a row than this is started again, but no longer waited for."""
MAX_LOOK_AGAIN_S = 5.0
"""A request that names an unknown model waits no longer than this for engines to be asked anew."""
CLOUD_IDLE_LIMIT_S = 30.0
"""For so long connections to a provider are kept, since each costs two or three times the way there and back. Their
servers keep them for a minute and more."""
DECLARED_DOWN = "the engine was declared down"

log = logging.getLogger("paceline.processes")


class Health(StrEnum):
    """How an engine is, as requests are concerned."""

    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    FAILED = "failed"
    """It can't be started as configured. It is tried again, but not waited for."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How often and how patiently an engine is looked at, in seconds."""

    connect_timeout_s: float = 3.0
    health_interval_s: float = 5.0


class Use(NamedTuple):
    """What other processes of ours do with an engine."""

    is_busy: bool = False
    """Whether requests of theirs run on it."""
    expected_silence_s: float = 0.0
    """The longest silence that those may need."""
    last_heard_s: float = 0.0
    """When they last heard of it, by the machine's monotonic clock, as event loops have it."""


class Supervisor:
    """One engine, running (``url``) or to be started (``launch``).

    Args:
        engine: the driver of the settings' kind.
        log_directory: where a launched engine's output goes, to ``NAME.log``.
        start_turn: held from an engine's start until it is up, so that engines of one device don't slow each
            other's start down.
        secret_variables: names of variables that hold keys of the gateway, which no engine gets.

    Raises:
        ConfigurationError: the variable that holds its key is not set.
    """

    def __init__(
        self,
        settings: EngineSettings,
        engine: AnyEngine,
        *,
        log_directory: Path,
        start_turn: asyncio.Lock | None = None,
        secret_variables: Collection[str] = (),
    ) -> None:
        self.name = settings.name
        self.engine = engine
        self.url = without_credentials(settings.url) if settings.url else None
        """For people: without a user's name and password."""
        self.health = Health.STARTING
        self.problem: str | None = "not looked at yet" if settings.url else "not started yet"
        """Why it is not up, in words for people; ``None`` when it is."""
        self.facts: Facts | None = None
        """What it said when it was last up."""
        self.restarts = 0
        self.client: Client | None = None
        self.api_key = resolved(settings.api_key) if settings.api_key else None
        """The key that requests to it need: the configured one, or that of the present start."""
        self.timing = Timing()
        self.on_change: Callable[[], None] = lambda: None
        self.expected_silence_s: Callable[[], float] = lambda: 0.0
        """The longest silence that the requests on it may need, as for reading long prompts at its pace."""
        self.use_elsewhere: Callable[[], Use] = Use
        """What other processes do with it; those that it is looked after for."""
        self._settings = settings
        self._configured_key = self.api_key
        self._examiner = Examiner(engine, settings)
        self._start_turn = start_turn or asyncio.Lock()
        self._secret_variables = secret_variables
        self._log = ProcessLog(log_directory / f"{settings.name}.log")
        self._start_timeout_s = settings.start_timeout_s if isinstance(settings, LocalEngineSettings) else inf
        self._process: LaunchedProcess | None = None
        self._ends_in_a_row = 0
        """How often it ended without having been up for long."""
        self._starts_in_vain = 0
        """How often in a row it was started and did not come up."""
        self._changed_s = 0.0
        """The event loop's time when its health last changed."""
        self._is_hung = False
        """Whether the process that runs is to be killed."""
        self._was_up = False
        self._look_now = asyncio.Event()
        self._looks_begun = self._looks_done = 0
        self._looked = asyncio.Event()
        """Set, and replaced, at the end of each look."""
        self._last_look_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Lock()

    @property
    def abilities(self) -> Abilities:
        """What it was seen to do when it last came up."""
        return self._examiner.abilities

    @property
    def warnings(self) -> tuple[str, ...]:
        """How that contradicts its configuration."""
        return self._examiner.warnings

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def log_path(self) -> Path:
        return self._log.path

    @property
    def is_coming(self) -> bool:
        """Not up, but it may be soon: it is starting, or will be started again."""
        will_start = bool(self._settings.launch) and self._starts_in_vain <= MAX_STARTS_IN_VAIN
        return self.health is Health.STARTING or (self.health is Health.DOWN and will_start)

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run(), name=f"supervise {self.name}")

    async def stop(self) -> None:
        """Close the connections and end the process, if it is ours. May be called again, also meanwhile."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        async with self._stopping:
            if self.client:
                self.client.close("the engine is being stopped")
            await self._end_process()

    def retry(self) -> None:
        """Look, or try to start it, at once."""
        self._look_now.set()

    def report_failure(self, problem: str) -> None:
        """Tell that no connection to the engine could be made: it counts as down until a look says otherwise. A
        provider's is not looked at, and so stays up."""
        if self._settings.is_cloud:
            return
        if self.health is Health.UP:
            self._set(Health.DOWN, problem)
        self._look_now.set()

    def suspect(self, problem: str) -> None:
        """Tell that the engine closed a connection on which it was to answer. It is looked at; but it may well have
        been that one request, so it counts as down only where its process has ended."""
        if self._process and self._process.has_ended() and self.health is Health.UP:
            self._set(Health.DOWN, problem)
        self._look_now.set()

    async def look_again(self, at_most_every_s: float = 1.0) -> None:
        """Refresh :attr:`facts` and :attr:`health` now, unless that was done less than so many seconds ago. Returns
        when it is done, or is taking too long."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._settings.is_cloud:
            return
        if self._looks_begun == self._looks_done and loop.time() - self._last_look_s < at_most_every_s:
            return
        wanted = self._looks_begun + 1
        self._look_now.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_LOOK_AGAIN_S):
                while self._looks_done < wanted:
                    await self._looked.wait()

    async def _run(self) -> None:
        while True:
            try:
                await (self._keep_running() if self._settings.launch else self._watch())
            except LaunchError as error:
                problem = str(error)
            except Exception as error:  # a defect here must not look like an engine that is up
                log.exception("supervising %s failed", self.name)
                problem = f"internal error: {error!r}"
            await self._end_process()
            self._set(Health.FAILED, problem)
            self._look_now.clear()
            await self._pause(FAILED_INTERVAL_S)

    async def _watch(self) -> None:
        assert self._settings.base_url is not None
        self.client = self._connect(self._settings.base_url)
        if isinstance(self._settings, CloudEngineSettings):
            self.facts = Facts(models={name: {"id": name, "object": "model"} for name in self._settings.models})
            self._set(Health.UP, None)
            await asyncio.Event().wait()  # until it is stopped: nothing is asked, since everything costs
        while True:
            await self._look()
            await self._pause()

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with self._start_turn:
                    process = await self._start_process()
                    deadline_s = loop.time() + self._start_timeout_s
                    await self._come_up(process, deadline_s, idle_limit_s=HUNG_AFTER_S)
                await self._come_up(process, deadline_s)
                up_s = loop.time()
                while not (process.exited.done() or self._is_hung or self._is_late()):
                    await self._pause(exited=process.exited)
                    if not process.exited.done():
                        await self._look()
                problem = await self._why_it_ended(process)
            except OSError as error:  # no memory, no processes left: that may pass
                problem, up_s = f"could not be started: {error}", loop.time()
            self._set(Health.DOWN, problem)
            await self._end_process(at_once=self._is_hung)
            if loop.time() - up_s > STEADY_AFTER_S:
                self._ends_in_a_row = 0
            pause_s = BACKOFF_S[min(self._ends_in_a_row, len(BACKOFF_S) - 1)]
            self._ends_in_a_row += 1
            self._starts_in_vain += 1
            self.restarts += 1
            log.warning("%s %s; starting it again in %g s", self.name, problem, pause_s)
            await asyncio.sleep(pause_s)

    def _is_late(self) -> bool:
        """Whether its process runs, but has not served for as long as a start may take."""
        since_s = asyncio.get_running_loop().time() - self._changed_s
        return self.health is Health.STARTING or (self.health is Health.DOWN and since_s > self._start_timeout_s)

    async def _why_it_ended(self, process: LaunchedProcess) -> str:
        where = self._log.whereabouts
        if process.exited.done():
            words = await asyncio.to_thread(self._log.last_line)
            return f"exited with {process.exited.result()}: {words}{self._log.whereabouts}"
        if self._is_hung:
            return f"hung ({self.problem}) and was killed{where}"
        return f"not up within {self._start_timeout_s:g} s{where}"

    async def _come_up(self, process: LaunchedProcess, deadline_s: float, idle_limit_s: float = inf) -> None:
        """Look at a started engine until it is up, has exited, or is late; or has not worked for a while, so that it
        may load beside another one."""
        loop = asyncio.get_running_loop()
        worked_s = loop.time()
        while not process.exited.done() and self.health is Health.STARTING and loop.time() < deadline_s:
            if await self._is_working():
                worked_s = loop.time()
            elif loop.time() - worked_s > idle_limit_s and process.tells_its_work:
                return
            await self._look(when_down=Health.STARTING)
            if self.health is Health.STARTING:
                await self._pause(exited=process.exited)

    async def _look(self, when_down: Health = Health.DOWN) -> None:
        self._look_now.clear()
        self._looks_begun += 1
        try:
            await self._look_once(when_down)
        finally:
            self._last_look_s = asyncio.get_running_loop().time()
            self._looks_done = self._looks_begun
            self._looked.set()
            self._looked = asyncio.Event()

    async def _look_once(self, when_down: Health) -> None:
        client = self.client
        assert client is not None
        # 1. What it says of itself.
        facts = await self._probed(client, when_down)
        if facts is None:
            return
        # 2. What it can do, if it may be another one than before.
        try:
            if await self._examiner.examine_if_due(client, facts):
                self.on_change()
        except (ConnectFailed, ConnectionLost) as error:
            self._not_up(when_down, str(error))
            return
        # 3. It is up, unless its process has ended meanwhile.
        if self._process and self._process.has_ended():
            return
        has_other_models = self.facts is not None and self.facts.models.keys() != facts.models.keys()
        self.facts = facts
        self._set(Health.UP, None)
        if has_other_models:
            self.on_change()

    async def _probed(self, client: Client, when_down: Health) -> Facts | None:
        """What the engine says of itself; ``None`` where it does not, and was noted as down, or is given more time."""
        began_s = asyncio.get_running_loop().time()
        missed = lost = 0
        while True:
            try:
                return await self.engine.probe(client)
            except TimeoutError:
                problem = "no answer in time"
            except ConnectFailed as error:
                problem = str(error)
                if error.in_time:
                    self._not_up(when_down, problem)
                    return None
            except ConnectionLost as error:
                lost += 1
                if self.health is not Health.UP or lost >= LOSSES_TO_BE_DOWN:
                    self._not_up(when_down, str(error))
                    return None
                continue
            except NotReady as error:
                if error.is_busy and self.health is Health.UP:
                    return None
                self._not_up(when_down, str(error))
                return None
            except Exception as error:  # it answers, but as no engine of its kind does
                log.exception("looking at %s failed", self.name)
                self._not_up(when_down, f"its answer can't be understood: {error!r}")
                return None
            missed += 1
            if not await self._is_to_be_asked_again(client, when_down, problem, missed, began_s):
                return None

    async def _is_to_be_asked_again(
        self, client: Client, when_down: Health, problem: str, missed: int, began_s: float
    ) -> bool:
        """Whether a look goes on that an engine did not answer in time; else it was noted as down, or is busy.

        Args:
            missed: how often in this look.
            began_s: when this look began.
        """
        # 1. One that was not up gets no more time; one that has hung is to be killed.
        if self.health is not Health.UP:
            self._is_hung = self.health is Health.DOWN and await self._has_hung(client)
            self._not_up(when_down, problem, may_be_another=False)
            return False
        # 2. One that answered something else meanwhile is busy, not dead.
        if self._last_heard_s(client) > began_s:
            return False
        # 3. One that was silent often enough is down, unless requests on it may be the cause.
        is_working = await self._is_working()
        if missed < TIMEOUTS_TO_BE_DOWN or self._may_be_busy(client, is_working):
            return True
        self._set(Health.DOWN, problem)
        client.close(f"{DECLARED_DOWN}: {problem}")
        return False

    def _not_up(self, health: Health, problem: str, may_be_another: bool = True) -> None:
        """It said so itself, or nobody is there. What runs on it may still end well, as where an engine finishes its
        answers before it ends, unless it stays silent.

        Args:
            may_be_another: whether what comes back may be another engine.
        """
        if may_be_another:
            self._examiner.expect_another()
        self._set(health, problem)
        client = self.client
        if client and client.busy_connections:
            silent_s = asyncio.get_running_loop().time() - max(self._last_heard_s(client), self._changed_s)
            if silent_s > max(BUSY_SILENCE_S, self.expected_silence_s()):
                client.close(f"{DECLARED_DOWN}: {problem}")

    def _may_be_busy(self, client: Client, is_working: bool) -> bool:
        """Whether a silent engine is to be given more time, since requests run on it."""
        elsewhere = self.use_elsewhere()
        if not client.busy_connections and not elsewhere.is_busy:
            return False
        silent_s = asyncio.get_running_loop().time() - max(self._last_heard_s(client), self._changed_s)
        expected_s = max(self.expected_silence_s(), elsewhere.expected_silence_s)
        return is_working or silent_s < max(BUSY_SILENCE_S, expected_s)

    def _last_heard_s(self, client: Client) -> float:
        return max(client.last_heard_s, self.use_elsewhere().last_heard_s)

    async def _has_hung(self, client: Client) -> bool:
        """Whether nothing is to be hoped for from a launched engine that does not answer."""
        if self._process is None:
            return False
        is_working = await self._is_working()
        return not is_working and asyncio.get_running_loop().time() - self._last_heard_s(client) > HUNG_AFTER_S

    async def _is_working(self) -> bool:
        """Whether a launched engine is at work, as far as can be told."""
        return self._process is not None and await self._process.is_working()

    async def _pause(self, due_s: float | None = None, *, exited: "asyncio.Future[int] | None" = None) -> None:
        """Until the next look is due, or asked for, or the process exits."""
        if due_s is None:
            due_s = self.timing.health_interval_s if self.health is Health.UP else DOWN_INTERVAL_S
        asked = asyncio.ensure_future(self._look_now.wait())
        events: list[asyncio.Future[Any]] = [asked, exited] if exited else [asked]
        try:
            await asyncio.wait(events, timeout=due_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()

    def _set(self, health: Health, problem: str | None) -> None:
        changed = health is not self.health
        self.health, self.problem = health, problem
        if changed:
            self._changed_s = asyncio.get_running_loop().time()
            if self._was_up and health is not Health.STARTING:
                log.warning("%s is %s%s", self.name, health, f": {problem}" if problem else "")
            if health is Health.UP:
                self._was_up = True
                self._starts_in_vain = -1  # so that the end of this start does not count
            self.on_change()

    def _connect(self, url: str) -> Client:
        try:
            idle_limit_s = CLOUD_IDLE_LIMIT_S if self._settings.is_cloud else IDLE_LIMIT_S
            secrets = _secrets_of(self._settings, self.api_key)
            return Client(
                url,
                self.timing.connect_timeout_s,
                bearer(self.api_key),
                idle_limit_s,
                secrets,
                uses_proxy=self._settings.is_cloud,
            )
        except (ValueError, ConfigurationError) as error:
            raise LaunchError(str(error)) from error

    async def _start_process(self) -> LaunchedProcess:
        # 1. What to start, and with which key.
        assert isinstance(self._settings, LocalEngineSettings)
        launch = await prepare_launch(self._settings, self.engine, self._configured_key, self._secret_variables)
        # 2. What comes up is another engine than the last one.
        self.api_key, self.url = launch.api_key, launch.url
        self.client = self._connect(launch.url)
        self._examiner.expect_another()
        self._is_hung = False
        self._set(Health.STARTING, "starting")
        # 3. The process.
        try:
            process = await LaunchedProcess.start(launch.command, launch.environment, self._log, masked(launch.command))
        except (FileNotFoundError, PermissionError) as error:
            raise LaunchError(f"{launch.command[0]} can't be started: {error}") from error
        self._process = process
        process.exited.add_done_callback(lambda _: self._note_exit(process))
        return process

    def _note_exit(self, process: LaunchedProcess) -> None:
        """At once, so that no request is sent to what has ended; the reason follows."""
        if process is self._process and self.health is Health.UP and not self._stopping.locked():
            self._set(Health.DOWN, f"exited with {process.exited.result()}")
        self._look_now.set()

    async def _end_process(self, at_once: bool = False) -> None:
        """End the process, if there is one. Connections to one that ended by itself end by themselves, with what it
        still had to say."""
        process = self._process
        if process is None:
            return
        if self.client and not process.exited.done():
            self.client.close(f"the engine was stopped: {self.problem}")
        await process.end(at_once)
        self._process = None


def _secrets_of(settings: EngineSettings, key: str | None) -> list[str]:
    """What an engine is shown that nobody else is to see.

    Raises:
        ConfigurationError: a variable or file that holds one is not there.
    """
    headers = settings.headers.values() if isinstance(settings, CloudEngineSettings) else ()
    secret = (value for value in headers if value.startswith((FROM_ENVIRONMENT, FROM_FILE)))
    return [*([key] if key else []), *(resolved(value, may_have_spaces=True) for value in secret)]
