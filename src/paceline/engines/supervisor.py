"""Keeps one engine usable: starts it if it is ours to start, looks at its health, restarts it when it dies."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from paceline.engines.interface import Engine, Facts, LaunchError, NotReady
from paceline.http.client import Client, ConnectFailed, ConnectionLost
from paceline.types import AS_STARTED, Strategy

BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses before the first, second ... restart in a row; the last one repeats."""
STEADY_AFTER_S = 60.0
"""An engine that was up this long starts again from the shortest pause."""
DOWN_INTERVAL_S = 0.5
"""Seconds between two looks at an engine that is not up."""
TIMEOUTS_TO_BE_DOWN = 3
"""A busy engine may answer late; only this many looks in a row without an answer count."""
ENDS_TO_BE_HOPELESS = 3
"""An engine that ended more often than this in a row is started again, but no longer waited for."""
STOP_GRACE_S = 5.0
LOG_LIMIT_BYTES = 20_000_000
"""An engine that starts with a log larger than this begins a new one; the old one is kept beside it."""

log = logging.getLogger("paceline.engines")


class Health(StrEnum):
    STARTING = "starting"
    UP = "up"
    DOWN = "down"
    FAILED = "failed"
    """It can't be started as configured; only a changed configuration helps."""


@dataclass(frozen=True)
class Timing:
    """How often and how patiently an engine is looked at, in seconds."""

    connect_timeout_s: float = 3.0
    health_interval_s: float = 5.0
    start_timeout_s: float = 300.0


class Supervisor:
    """One engine, running (``url``) or to be started (``launch``).

    Args:
        name: for logs, and the name of the log file.
        strategy: what the engine is configured to do, for checking that it does.
        draft_model: the model that requests may be drafted with, where the engine takes it from each request.
        api_key: sent with every look, as clients' requests send it.
        start_turn: held from an engine's start until it is up, so that engines of one device don't slow each
            other's start down.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        strategy: Strategy,
        draft_model: str | None = None,
        log_directory: Path,
        url: str | None = None,
        launch: Sequence[str] = (),
        api_key: str | None = None,
        start_turn: asyncio.Lock | None = None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.url = url
        self.health = Health.STARTING
        self.problem: str | None = "not looked at yet" if url else "not started yet"
        """Why it is not up, in words for people; ``None`` when it is."""
        self.facts: Facts | None = None
        """What it said when it was last up."""
        self.abilities = AS_STARTED
        """What it was seen to do when it last came up."""
        self.warnings: tuple[str, ...] = ()
        self.restarts = 0
        self.pid: int | None = None
        self.log_path = log_directory / f"{name}.log"
        self.client: Client | None = None
        self.timing = Timing()
        self.on_change: Callable[[], None] = lambda: None
        self._strategy = strategy
        self._draft_model = draft_model
        self._launch = launch
        self._api_key = api_key
        self._start_turn = start_turn or asyncio.Lock()
        self._ends_in_a_row = 0
        """How often it ended without having been up for long."""
        self._checked = False
        """Whether the engine that is up was compared with its configuration."""
        self._look_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._task = asyncio.create_task(self._run(), name=f"supervise {self.name}")

    async def stop(self) -> None:
        """Close the connections and end the process, if it is ours."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._end_process()

    @property
    def is_coming(self) -> bool:
        """Not up, but it may be soon: it is starting, or will be started again."""
        will_start = bool(self._launch) and self._ends_in_a_row <= ENDS_TO_BE_HOPELESS
        return self.health is Health.STARTING or (self.health is Health.DOWN and will_start)

    def report_failure(self, problem: str) -> None:
        """Tell that a request could not reach the engine: it counts as down until a look says otherwise."""
        if self.health is Health.UP:
            self._set(Health.DOWN, problem)
        self._look_now.set()

    async def _run(self) -> None:
        try:
            if self._launch:
                await self._keep_running()
            else:
                assert self.url is not None
                self.client = self._connect(self.url)
                while True:
                    await self._look()
                    await self._pause()
        except LaunchError as error:
            self._set(Health.FAILED, str(error))
        except Exception as error:  # a defect here must not look like an engine that is up
            log.exception("supervising %s failed", self.name)
            self._set(Health.FAILED, f"internal error: {error!r}")

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with self._start_turn:
                started_s = loop.time()
                process = await self._start_process()
                exited = asyncio.ensure_future(process.wait())
                await self._come_up(exited, started_s + self.timing.start_timeout_s)
            while self.health is not Health.STARTING and not exited.done():
                await self._pause(exited)
                await self._look()
            if exited.done():
                problem = f"exited with {exited.result()}: {self._last_log_line()} (log: {self.log_path})"
            else:
                problem = f"not up within {self.timing.start_timeout_s:g} s (log: {self.log_path})"
            self._set(Health.DOWN, problem)
            await self._end_process()
            if loop.time() - started_s > STEADY_AFTER_S:
                self._ends_in_a_row = 0
            pause_s = BACKOFF_S[min(self._ends_in_a_row, len(BACKOFF_S) - 1)]
            self._ends_in_a_row += 1
            self.restarts += 1
            log.warning("%s %s; starting it again in %g s", self.name, problem, pause_s)
            await asyncio.sleep(pause_s)

    async def _come_up(self, exited: "asyncio.Future[int]", deadline_s: float) -> None:
        """Look at a started engine until it is up, has exited, or is late."""
        loop = asyncio.get_running_loop()
        while not exited.done() and self.health is Health.STARTING and loop.time() < deadline_s:
            await self._look(when_down=Health.STARTING)
            if self.health is Health.STARTING:
                await self._pause(exited)

    async def _look(self, when_down: Health = Health.DOWN) -> None:
        assert self.client is not None
        missed = 0
        while True:
            try:
                facts = await self.engine.probe(self.client)
                if not self._checked:
                    seen = await self.engine.examine(self.client, self._strategy, self._draft_model)
                    self.abilities, self.warnings = seen.abilities, seen.contradictions
                    for warning in self.warnings:
                        log.warning("%s: %s", self.name, warning)
                    self._checked = True
                self._set(Health.UP, None)
                self.facts = facts
                return
            except TimeoutError:
                missed += 1
                if self.health is not Health.UP or missed >= TIMEOUTS_TO_BE_DOWN:
                    problem = "no answer in time"
                    break
            except (NotReady, ConnectFailed, ConnectionLost) as error:
                problem = str(error)
                self._checked = False  # what comes back may be another one
                break
        self._set(when_down, problem)

    async def _pause(self, exited: "asyncio.Future[int] | None" = None) -> None:
        """Until the next look is due, or asked for, or the process exits."""
        self._look_now.clear()
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
            if self.facts is not None and health is not Health.STARTING:
                log.warning("%s is %s%s", self.name, health, f": {problem}" if problem else "")
            self.on_change()

    def _connect(self, url: str) -> Client:
        authorization = [(b"authorization", b"Bearer " + self._api_key.encode())] if self._api_key else []
        return Client(url, self.timing.connect_timeout_s, authorization)

    async def _start_process(self) -> asyncio.subprocess.Process:
        port = free_port()
        command = await asyncio.to_thread(self.engine.launch, self._launch, port)
        self.url = f"http://127.0.0.1:{port}"
        self.client = self._connect(self.url)
        self._checked = False
        self._set(Health.STARTING, "starting")
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            if self.log_path.exists() and self.log_path.stat().st_size > LOG_LIMIT_BYTES:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
            with self.log_path.open("ab") as file:
                file.write(f"\n--- {' '.join(command)}\n".encode())
                file.flush()
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,  # Ctrl-C is for the gateway, which lets answers finish first
                    preexec_fn=_end_with_parent if sys.platform == "linux" else None,
                )
        except OSError as error:
            raise LaunchError(f"{command[0]} can't be started: {error}") from error
        self.pid = self._process.pid
        return self._process

    async def _end_process(self) -> None:
        if self.client:
            self.client.close()
        process, self._process, self.pid = self._process, None, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            try:
                async with asyncio.timeout(STOP_GRACE_S):
                    await process.wait()
            except TimeoutError:
                continue
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started itself

    def _last_log_line(self) -> str:
        with contextlib.suppress(OSError), self.log_path.open("rb") as file:
            file.seek(max(0, self.log_path.stat().st_size - 4096))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
            return lines[-1] if lines else "it said nothing"
        return "it left no log"


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if sys.platform == "linux":
    _libc = ctypes.CDLL(None)

    def _end_with_parent() -> None:
        """In the child: have the kernel end it when the gateway ends, even by SIGKILL."""
        pr_set_pdeathsig = 1
        _libc.prctl(pr_set_pdeathsig, signal.SIGTERM)
