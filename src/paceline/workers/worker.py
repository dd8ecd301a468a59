"""One worker: a gateway that has its address, its engines' processes and its budgets from the keeper."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from paceline.configuration import ConfigurationError
from paceline.engines import ENGINES
from paceline.http.answers import Answers, CurrentSharer, Reload
from paceline.http.errors import RETRY_AFTER_S, ApiError
from paceline.http.own_process import calm_garbage_collector, calm_matrices, say
from paceline.http.server import Gateway, Parts
from paceline.http.storage import Storage
from paceline.http.sums import GatewaySums
from paceline.processes import Supervisor
from paceline.processes.followed import EngineState, FollowedEngine
from paceline.records.decision_log import DecisionLog
from paceline.records.lines import Lines
from paceline.routing.budgets import Entry
from paceline.routing.placer import Placer
from paceline.routing.remembered import Lesson, Remembered
from paceline.serving.fleet import Fleet, Makers
from paceline.serving.pipeline import Pipeline
from paceline.serving.turns import Device
from paceline.settings import Configuration, DeviceSettings, EngineSettings
from paceline.workers.channel import NOTHING, Channel, Lost, Refusal, T
from paceline.workers.messages import Beginning, EngineUse, Feedback, Learned, Load, RecentRequests, Setting, Stop
from paceline.workers.turns import FREE, DeviceState, SharedDevice

LOAD_INTERVAL_S = 0.1
"""Between two messages about what this worker has to do."""
BUDGET_TIMEOUT_S = 2.0
"""For the keeper to tell whether something may be spent; it does so within a millisecond."""
RELOAD_TIMEOUT_S = 120.0
"""For the keeper and all workers; model files are looked at."""

log = logging.getLogger("paceline.workers")


class Worker:
    """
    Args:
        control: connected to the keeper.
        listening: the socket that all workers accept from.
    """

    def __init__(self, control: socket.socket, listening: socket.socket) -> None:
        self._control = control
        self._listening = listening
        self._channel = Channel(on_end=self._keeper_ended)
        self._gateway: Gateway | None = None
        self._parts: _WorkerParts | None = None
        self._is_stopping = False

    async def run(self) -> int:
        """Serve until the keeper has it stop, or ends. Returns the exit status."""
        # 1. What there is to do.
        channel = self._channel
        channel.on("stop", Stop, self._stop)
        channel.on("setting", Setting, self._take_up)
        channel.on("engines", dict[int, EngineState], self._follow)
        channel.on("devices", dict[str, DeviceState], self._follow_devices)
        channel.on("spent", Entry, self._learn_spent)
        channel.on("learned", Learned, self._learn_placement)
        channel.on("fewest connections", int, self._note_fewest)
        channel.on("sums", NOTHING, lambda _: self._sums())
        channel.on("requests", int, lambda after: self._started.pipeline.recent.after(after))
        channel.on("one request", int, self._one_request)
        channel.on("feedback", Feedback, self._learn_feedback)
        await channel.open(self._control)
        beginning = await channel.ask("begin", os.getpid(), Beginning)
        # 2. The gateway.
        self._parts = parts = _WorkerParts(channel, self._listening, beginning)
        try:
            self._gateway = gateway = Gateway(
                lambda: parts.setting.configuration,
                log_directory=Path(beginning.log_directory),
                state_directory=Path(beginning.state_directory) if beginning.state_directory else None,
                sink=Lines(say, is_wanted=lambda: gateway.fleet.configuration.server.log_requests),
                say=say,
                parts=parts,
            )
            await gateway.start()
        except ConfigurationError as error:
            channel.tell("cannot start", str(error))
            await asyncio.sleep(0)
            return 1
        self._handle_signals()
        if self._is_stopping:
            gateway.ask_to_stop()
        calm_garbage_collector()
        calm_matrices()
        channel.tell("ready")
        # 3. Serve.
        reporting = asyncio.create_task(self._report())
        try:
            await gateway.serve_forever()
        finally:
            reporting.cancel()
            if self._channel.is_open:
                channel.tell("last sums", self._sums())
            channel.close()
            await asyncio.sleep(0)  # in which it is sent
        return 0

    @property
    def _started(self) -> Gateway:
        """
        Raises:
            Refusal: it is not there yet.
        """
        if self._gateway is None or self._parts is None or self._parts.own_answers is None:
            raise Refusal("the worker is starting")
        return self._gateway

    def _handle_signals(self) -> None:
        """Ctrl-C is the keeper's. Whoever ends a single worker has it finish its answers; another takes its place."""
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.add_signal_handler(signal.SIGTERM, lambda: self._stop(Stop(drains=False, at_once=False)))
        loop.add_signal_handler(signal.SIGHUP, lambda: self._channel.tell("reload wanted"))

    def _stop(self, wanted: Stop) -> None:
        if self._gateway is None:
            self._is_stopping = True
            return
        if not self._is_stopping or wanted.at_once:
            self._gateway.ask_to_stop(drains=wanted.drains)
        self._is_stopping = True

    def _keeper_ended(self) -> None:
        if not self._is_stopping:
            log.warning("the process that keeps the workers has ended; this worker finishes its answers and ends")
            self._stop(Stop(drains=False, at_once=False))

    async def _take_up(self, setting: Setting) -> None:
        gateway = self._started
        assert self._parts is not None
        self._parts.take_up(setting)
        await gateway.reload()
        self._channel.tell("load", self._load())  # so that the keeper knows what still runs on engines that go

    def _follow(self, states: dict[int, EngineState]) -> None:
        if self._parts is not None:
            self._parts.follow(states)

    def _follow_devices(self, states: dict[str, DeviceState]) -> None:
        if self._parts is not None:
            self._parts.follow_devices(states)

    def _learn_spent(self, entry: Entry) -> None:
        if self._gateway is not None:
            self._started.pipeline.router.placer.budgets.learn(entry)

    def _learn_placement(self, learned: Learned) -> None:
        if self._gateway is not None:
            self._started.pipeline.router.placer.learn(learned.lesson)

    def _learn_feedback(self, told: Feedback) -> bool:
        return self._started.pipeline.router.placer.feedback(told.id, told.good, told.client)

    def _one_request(self, number: int) -> list[dict[str, Any]]:
        found = self._answers.one_request(number)
        return [] if found is None else [found]

    def _note_fewest(self, fewest: int) -> None:
        if self._parts is not None:
            self._parts.fewest_connections = fewest

    def _sums(self) -> GatewaySums:
        return self._answers.sums(self._started.connections)

    @property
    def _answers(self) -> "_AnswersOfAll":
        """
        Raises:
            Refusal: it is not there yet.
        """
        if self._parts is None or self._parts.own_answers is None:
            raise Refusal("the worker is starting")
        return self._parts.own_answers

    async def _report(self) -> None:
        while True:
            self._channel.tell("load", self._load())
            await asyncio.sleep(LOAD_INTERVAL_S)

    def _load(self) -> Load:
        gateway = self._started
        assert self._parts is not None
        uses: dict[int, EngineUse] = {}
        for number, supervisor in self._parts.followed.items():
            handles = [handle for handle in gateway.engines_in_use if handle.supervisor is supervisor]
            client = supervisor.client
            uses[number] = EngineUse(
                in_flight=sum(handle.in_flight for handle in handles),
                expected_silence_s=supervisor.expected_silence_s(),
                last_heard_s=client.last_heard_s if client else 0.0,
            )
        return Load(gateway.pipeline.in_flight.requests, gateway.connections, uses)


class _WorkerParts(Parts, Makers):
    """What a worker has from the keeper."""

    shares_its_address = True

    def __init__(self, channel: Channel, listening: socket.socket, beginning: Beginning) -> None:
        self.setting = beginning.setting
        """The configuration in force."""
        self.followed: dict[int, FollowedEngine] = {}
        """By the keeper's number."""
        self.fewest_connections = 0
        """That one of the others has."""
        self.own_answers: _AnswersOfAll | None = None
        self._channel = channel
        self._listening = listening
        self._book = _KeptElsewhere(beginning.spent, channel)
        self._placement = beginning.placement
        self._states = dict(beginning.setting.engines)
        self._device_states = dict(beginning.setting.devices)
        self._shared: dict[str, SharedDevice] = {}

    def take_up(self, setting: Setting) -> None:
        """Have the next fleet made by it."""
        self.setting = setting
        self.follow(setting.engines)
        self.follow_devices(setting.devices)

    def follow(self, states: dict[int, EngineState]) -> None:
        """Have engines taken up as they are."""
        self._states |= states
        for number, state in states.items():
            if number in self.followed:
                self.followed[number].follow(state)

    def follow_devices(self, states: dict[str, DeviceState]) -> None:
        """The same of devices."""
        self._device_states |= states
        for name, state in states.items():
            if name in self._shared:
                self._shared[name].follow(state)

    # Of a gateway

    def lets_others_go_first(self, connections: int) -> bool:
        return connections > self.fewest_connections

    def listen(self, configuration: Configuration) -> socket.socket:
        return self._listening

    def fleet(self, configuration: Configuration, log_directory: Path, previous: Fleet | None) -> Fleet:
        fleet = Fleet(configuration, log_directory, previous, self)
        in_use = self.setting.engines.keys()  # those that the keeper waits for to be out of use, too
        for number in [number for number in self.followed if number not in in_use]:
            if self.followed[number] not in {handle.supervisor for handle in fleet.retired}:
                del self.followed[number]
        return fleet

    def storage(self, configuration: Configuration, directory: Path | None) -> Storage:
        return _SharedStorage(configuration, directory, self._book, self._placement)

    def answers(self, pipeline: Pipeline, reload: Reload, log: DecisionLog | None, sharer: CurrentSharer) -> Answers:
        self.own_answers = _AnswersOfAll(
            pipeline, log, lambda: sharer() if self.setting.shares else None, self._channel
        )
        return self.own_answers

    # Of a fleet

    def supervisor(
        self, settings: EngineSettings, configuration: Configuration, log_directory: Path, device: Device
    ) -> Supervisor:
        number = self.setting.numbers.get(settings.name)
        if number is None:
            return super().supervisor(settings, configuration, log_directory, device)
        followed = FollowedEngine(
            settings,
            ENGINES[settings.kind],
            log_directory=log_directory,
            look=lambda: self._channel.tell("look", number),
        )
        followed.follow(self._states.get(number, EngineState()))
        self.followed[number] = followed
        return followed

    def device(self, settings: DeviceSettings) -> Device:
        if not settings.takes_turns:
            return super().device(settings)
        shared = SharedDevice(
            takes_turns=True,
            patience_s=settings.patience_s,
            queue_limit=settings.queue_limit,
            name=settings.name,
            channel=self._channel,
        )
        shared.follow(self._device_states.get(settings.name, FREE))
        self._shared[settings.name] = shared
        return shared


class _KeptElsewhere:
    """What is spent, kept by the keeper, who tells the other workers."""

    def __init__(self, before: Sequence[Entry], channel: Channel) -> None:
        self.before = before
        self._channel = channel
        self._loop = asyncio.get_running_loop()

    def add(self, entry: Entry) -> None:
        self.tell("spent", entry)

    def tell(self, name: str, content: object) -> None:
        """Have the keeper know something; called in any thread."""
        self._loop.call_soon_threadsafe(self._channel.tell, name, content)

    def tell_learned(self, lesson: Lesson) -> None:
        """The same of what placement has learned."""
        self.tell("learned", Learned(lesson))

    async def spend_if_left(self, entry: Entry) -> str:
        """Returns why it may not be spent. What is not known in time may not; given up, it is taken back."""
        asking = asyncio.ensure_future(self._channel.ask("spend if left", entry, str, within_s=None))
        try:
            async with asyncio.timeout(BUDGET_TIMEOUT_S):
                return await asyncio.shield(asking)
        except (Lost, Refusal) as error:
            return f"whether a budget allows it can't be told: {error}"
        except TimeoutError:
            asking.add_done_callback(partial(self._take_back, entry))
            return f"whether a budget allows it was not told within {BUDGET_TIMEOUT_S:g} s"
        except asyncio.CancelledError:
            asking.add_done_callback(partial(self._take_back, entry))
            raise

    def _take_back(self, entry: Entry, asked: asyncio.Future[str]) -> None:
        if not asked.cancelled() and asked.exception() is None and not asked.result():
            self._channel.tell("spent", replace(entry, amount=-entry.amount))

    def close(self) -> None:
        pass  # it was told


class _SharedStorage(Storage):
    """Of what placement knows, the keeper keeps what all workers have learned.

    Args:
        placement: that by now.
    """

    def __init__(
        self, configuration: Configuration, directory: Path | None, book: _KeptElsewhere, placement: Remembered
    ) -> None:
        super().__init__(configuration, directory, book)
        self._book, self._placement = book, placement

    async def recall(self, placer: Placer) -> None:
        placer.recall(self._placement)
        placer.tell = self._book.tell_learned
        placer.budgets.agree = self._book.spend_if_left


class _AnswersOfAll(Answers):
    """Tells of all workers, whichever is asked."""

    def __init__(self, pipeline: Pipeline, log: DecisionLog | None, sharer: CurrentSharer, channel: Channel) -> None:
        super().__init__(pipeline, self._ask_for_reload, log, sharer)
        self._channel = channel

    async def _ask_for_reload(self) -> dict[str, Any]:
        """
        Raises:
            ConfigurationError: it has errors; nothing was changed.
            ApiError: 503, the keeper has ended, or takes too long.
        """
        try:
            return await self._channel.ask("reload", None, dict[str, Any], RELOAD_TIMEOUT_S)
        except Refusal as error:
            raise ConfigurationError(str(error)) from error
        except Lost as error:
            message = f"whether the configuration is taken up is not known: {error}; look at the log, and try again"
            raise ApiError(503, message, retry_after_s=RETRY_AFTER_S) from error

    async def others(self) -> Sequence[GatewaySums]:
        return await self._asked("others", None, list[GatewaySums], [])

    async def requests_after(self, number: int) -> dict[str, Any]:
        own = RecentRequests(0, [])
        found = await self._asked("recent", number, RecentRequests, own)
        return {"last": found.last, "requests": found.requests}

    async def one_of_all(self, number: int) -> dict[str, Any] | None:
        found = await self._asked("one request", number, list[dict[str, Any]], [])
        return found[0] if found else None

    async def learned_feedback(self, identifier: str, is_good: bool, client: str | None) -> bool:
        if await super().learned_feedback(identifier, is_good, client):
            return True
        return await self._asked("feedback", Feedback(identifier, is_good, client), bool, False)

    async def _asked(self, name: str, content: object, kind: type[T], otherwise: T) -> T:
        """The keeper's answer; where it has just ended, this worker tells of itself."""
        try:
            return await self._channel.ask(name, content, kind)
        except (Lost, Refusal):
            return otherwise


def run(control: int, listening: int, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None) -> int:
    """Be a worker on these descriptors; returns the exit status."""
    worker = Worker(socket.socket(fileno=control), socket.socket(fileno=listening))
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(worker.run())
    except Lost:
        return 0  # the keeper ended while this was starting
