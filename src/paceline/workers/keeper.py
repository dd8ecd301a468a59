"""Keeps the workers of one gateway: it has the address, the engines' processes, what was learned and what was spent;
the workers answer the requests."""

import asyncio
import logging
import pickle
import tempfile
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from paceline.configuration import ConfigurationError
from paceline.http.access import Access
from paceline.http.changes import changes
from paceline.http.server import SAVE_EVERY_S, listen, sharer_of, url_of
from paceline.http.storage import Storage
from paceline.http.sums import GatewaySums
from paceline.processes import Health, Supervisor
from paceline.processes.followed import EngineState, state_of
from paceline.processes.supervisor import BACKOFF_S, STEADY_AFTER_S, Use
from paceline.records.recent import MAX_REQUESTS
from paceline.routing.budgets import Budgets, Entry
from paceline.routing.router import Router
from paceline.serving.fleet import Fleet
from paceline.serving.handles import EngineHandle
from paceline.serving.turns import Device
from paceline.settings import Configuration
from paceline.sharing import Sharer
from paceline.workers.channel import NOTHING, Channel, Lost, Refusal
from paceline.workers.messages import Beginning, Feedback, Learned, Load, RecentRequests, Setting, Stop
from paceline.workers.one_worker import OneWorker
from paceline.workers.turns import DeviceState, TurnKeeper, TurnWanted

TELL_INTERVAL_S = 0.05
"""Between two looks whether an engine or a device is otherwise than was told."""
SUMS_INTERVAL_S = 2.0
"""Between two askings for what each worker has counted: what is lost of it where one is killed."""
START_TIMEOUT_S = 60.0
"""For a worker to begin to serve."""
HUNG_AFTER_S = 30.0
"""A worker that has told nothing for so long is killed; it does so ten times a second."""
LAST_WORDS_S = 10.0
"""For workers to end when their answers' time is over, before they are killed."""
SHARING_INTERVAL_S = 0.5
"""Between two looks of a worker for what the others have learned, where the configuration names no store."""
AGREEMENT_TIMEOUT_S = 3.0
"""For what others told to be learned, at the beginning and at the end."""
KEEPS = "keep a worker"
"""Name of the tasks that start workers again."""
log = logging.getLogger("paceline.workers")


class CannotStart(Exception):
    """No worker comes up; ``str()`` says why."""


class Keeper:
    """A gateway of several processes; used as :class:`paceline.http.server.Gateway` is.

    Args:
        load: reads the configuration: now, and again at each reload.
        workers: how many.
        log_directory: for what engines print that it starts.
        state_directory: as for a gateway.
        on_stop: as for a gateway.

    Raises:
        ConfigurationError: it can't be read, or names a variable for a key that is not set.
    """

    def __init__(
        self,
        load: Callable[[], Configuration],
        workers: int,
        *,
        log_directory: Path,
        state_directory: Path | None,
        on_stop: Callable[[int, float], None] = lambda _running, _grace_s: None,
    ) -> None:
        self._load = load
        self._configuration = load()
        Access(self._configuration)
        self._wanted = workers
        self._log_directory, self._state_directory = log_directory, state_directory
        self._on_stop = on_stop
        self.fleet: Fleet
        """The engines; what it launches, and what runs anyway."""
        self.url: str
        self._storage: Storage
        self._budgets: Budgets
        self._router: Router
        """It chooses nothing; it knows what all workers have learned, to be kept."""
        self._sharer: Sharer | None = None
        self._workers: dict[int, OneWorker] = {}
        self._departed: GatewaySums | None = None
        """What workers had counted that have ended."""
        self._recent = _Recent()
        self._numbers: dict[Supervisor, int] = {}
        self._next_number = count(1)
        """No number is given twice: a worker may still know who had it."""
        self._retiring: set[EngineHandle] = set()
        self._generation = 0
        """Of the configuration in force: how many there were before."""
        self._told_engines: dict[int, EngineState] = {}
        self._told_devices: dict[str, DeviceState] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._opened = AsyncExitStack()
        self._reloading = asyncio.Lock()
        self._asked_to_stop = asyncio.Event()
        self._drains = self._is_stopping_now = self._engines_are_stopped = False
        self._stopped: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns when the workers serve.

        Raises:
            CannotListen: the address is not to be had.
            ConfigurationError: what the configuration wants is not installed.
            CannotStart: no worker comes up.
        """
        async with AsyncExitStack() as opened:
            # 1. The address. What connects before the workers are there waits in it.
            self._listening = listen(self._configuration.server)
            opened.callback(self._listening.close)
            self.url = url_of(self._listening)
            # 2. What is kept.
            self._storage = Storage(_without_records(self._configuration), self._state_directory)
            opened.push_async_callback(self._storage.close)
            self._budgets = Budgets(self._storage.ledger)
            self._budgets.settings = self._configuration.budget
            self._router = Router(
                (), knowledge=await self._storage.knowledge(), conversation_key=self._storage.conversation_key
            )
            await self._storage.recall(self._router.placer)
            self._folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="paceline-"))
            await self._share_by(self._made_sharer(self._configuration))
            opened.push_async_callback(self._end_sharing)
            await self._agreed(since_s=0.0)  # so that workers begin with what was learned before
            # 3. The engines.
            self.fleet = Fleet(self._configuration, self._log_directory)
            self._number(self.fleet)
            opened.push_async_callback(self._stop_engines)
            self.fleet.start()
            # 4. The workers.
            opened.push_async_callback(self._end_background)
            opened.push_async_callback(self._end_workers)
            self._in_background(self._tell_changes())
            self._in_background(self._look_after_workers())
            first = [asyncio.create_task(self._first_start(index)) for index in range(self._wanted)]
            try:
                await asyncio.gather(*first)
            finally:
                for task in first:
                    task.cancel()
            for worker in list(self._workers.values()):
                self._in_background(self._keep(worker), KEEPS)
            self._opened = opened.pop_all()

    async def serve_forever(self) -> None:
        """Serve until :meth:`ask_to_stop` is called or this is cancelled, and stop."""
        try:
            await self._asked_to_stop.wait()
        finally:
            await self.stop()

    def ask_to_stop(self, drains: bool = False) -> None:
        """As :meth:`paceline.http.server.Gateway.ask_to_stop`."""
        if self._asked_to_stop.is_set():
            self._is_stopping_now = True
            self._have_all_stop(Stop(drains=False, at_once=True))
            return
        self._drains = drains
        self._asked_to_stop.set()

    async def stop(self) -> None:
        """Let the running answers finish, for ``server.shutdown_grace_s`` at most, and stop the engines."""
        self._asked_to_stop.set()
        if self._stopped is None:
            self._stopped = asyncio.create_task(self._opened.aclose())
        await asyncio.shield(self._stopped)

    async def reload(self) -> dict[str, Any]:
        """Take up the configuration as it is now, with all workers.

        Returns:
            What changed: names of engines and keys, in lists.

        Raises:
            ConfigurationError: the configuration has errors, and the old one stays in force.
            RuntimeError: the gateway does not run.
        """
        async with self._reloading:
            if self._engines_are_stopped:
                raise RuntimeError("the gateway does not run")
            # 1. All that may be refused.
            configuration = await asyncio.to_thread(self._load)
            Access(configuration)
            shares_otherwise = configuration.sharing != self._configuration.sharing
            sharer = self._made_sharer(configuration) if shares_otherwise else None
            fleet = Fleet(configuration, self._log_directory, self.fleet)
            # 2. It is in force.
            old, self._configuration, self.fleet = self._configuration, configuration, fleet
            self._generation += 1
            self._budgets.settings = configuration.budget
            self._number(fleet)
            fleet.start()
            for engine in fleet.engines.values():
                if engine.supervisor.health is Health.FAILED:
                    engine.supervisor.retry()
            self._retiring |= set(fleet.retired)
            for worker in self._workers.values():
                worker.turns.devices = self._devices()
            if sharer is not None:
                await self._share_by(sharer)
            # 3. In the workers, too.
            await asyncio.gather(*(self._give_setting(worker) for worker in self._serving()))
            for handle in fleet.retired:
                self._in_background(self._retire(handle))
            return changes(old, configuration, fleet)

    async def _give_setting(self, worker: OneWorker) -> None:
        """Have a worker take up the configuration in force; one that ends meanwhile begins with it."""
        worker.generation = self._generation
        try:
            await worker.channel.ask("setting", self._setting(), NOTHING)
        except (Lost, Refusal) as error:
            log.error("a worker has not taken up the configuration: %s", error)

    # The workers

    async def _first_start(self, index: int) -> None:
        """
        Raises:
            ConfigurationError: what the configuration wants is not installed.
            CannotStart: it does not come up.
        """
        worker = await self._started(index)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await asyncio.shield(worker.ready)
        except TimeoutError:
            raise CannotStart(f"worker {index} does not serve after {START_TIMEOUT_S:g} s") from None
        except Lost as error:
            raise CannotStart(f"worker {index} has ended while it started; what it said is above") from error

    async def _started(self, index: int) -> OneWorker:
        """
        Raises:
            CannotStart: its process can't be started.
        """
        channel = Channel(on_end=lambda: self._note_end(worker))
        worker = OneWorker(index, channel, TurnKeeper(self._devices()))
        channel.on("begin", int, lambda _: self._begin(worker))
        channel.on("ready", NOTHING, lambda _: self._note_ready(worker))
        channel.on("cannot start", str, lambda why: worker.ready.set_exception(ConfigurationError(why)))
        channel.on("load", Load, partial(self._note_load, worker))
        channel.on("last sums", GatewaySums, lambda sums: setattr(worker, "sums", sums))
        channel.on("look", int, self._look)
        channel.on("reload", NOTHING, lambda _: self._reload_asked())
        channel.on("reload wanted", NOTHING, lambda _: self._reload_told())
        channel.on("others", NOTHING, lambda _: self._others(worker))
        channel.on("recent", int, self._recent_after)
        channel.on("one request", int, self._recent.find)
        channel.on("feedback", Feedback, partial(self._feedback, worker))
        channel.on("spent", Entry, partial(self._note_spent, worker))
        channel.on("spend if left", Entry, partial(self._spend_if_left, worker))
        channel.on("learned", Learned, partial(self._learn_placement, worker))
        channel.on("turn wanted", TurnWanted, worker.turns.grant)
        channel.on("turn over", int, worker.turns.end)
        try:
            await worker.start(self._listening)
        except OSError as error:
            raise CannotStart(f"worker {index} can't be started: {error}") from error
        self._workers[index] = worker
        return worker

    def _note_ready(self, worker: OneWorker) -> None:
        worker.serves()
        self._tell_fewest()
        if worker.generation != self._generation:  # there was a reload while it started
            self._in_background(self._give_setting(worker))

    async def _keep(self, worker: OneWorker) -> None:
        """Start a worker again whenever it has ended, until the gateway stops."""
        loop = asyncio.get_running_loop()
        ends_in_a_row = 0
        while True:
            began_s = loop.time()
            try:
                status = await worker.ended()
                self._forget(worker)
                if loop.time() - began_s > STEADY_AFTER_S:
                    ends_in_a_row = 0
                pause_s = BACKOFF_S[min(ends_in_a_row, len(BACKOFF_S) - 1)] if ends_in_a_row else 0.0
                ends_in_a_row += 1
                log.warning(
                    "worker %d (process %d) has ended with %s; another one is started%s",
                    worker.index,
                    worker.pid,
                    status,
                    f" in {pause_s:g} s" if pause_s else "",
                )
                await asyncio.sleep(pause_s)
                worker = await self._started(worker.index)
            except CannotStart as error:
                log.error("%s", error)
                await asyncio.sleep(BACKOFF_S[-1])

    def _forget(self, worker: OneWorker) -> None:
        """Keep what it had counted, and give back what it held."""
        worker.turns.end_all()
        if worker.sums is not None:
            self._departed = worker.sums.ended(self._departed)
            worker.sums = None  # so that it counts once, however often another one can't be started
        if self._workers.get(worker.index) is worker:
            del self._workers[worker.index]
        self._tell_fewest()

    def _note_end(self, worker: OneWorker) -> None:
        worker.turns.end_all()
        if not worker.ready.done():
            worker.ready.set_exception(Lost("it has ended"))
            worker.ready.exception()  # which somebody may wait for, or nobody

    async def _look_after_workers(self) -> None:
        """Have at hand what each has counted, should it be killed; and kill one that hangs."""
        loop = asyncio.get_running_loop()
        saved_s = loop.time()
        while True:
            await asyncio.sleep(SUMS_INTERVAL_S)
            await asyncio.gather(*(worker.refresh_sums() for worker in self._workers.values()))
            for worker in list(self._workers.values()):
                if loop.time() - worker.heard_s > (HUNG_AFTER_S if worker.is_serving else START_TIMEOUT_S):
                    log.error("worker %d (process %d) hangs and is killed", worker.index, worker.pid)
                    worker.kill()
            if loop.time() - saved_s >= SAVE_EVERY_S:
                saved_s = loop.time()
                await self._storage.save(self._router)

    def _serving(self) -> Sequence[OneWorker]:
        return [worker for worker in self._workers.values() if worker.is_serving]

    def _tell_all(self, name: str, content: object, but: OneWorker | None = None) -> None:
        for worker in self._workers.values():
            if worker is not but:
                worker.tell(name, content)

    def _have_all_stop(self, how: Stop) -> None:
        """Those that start still, too."""
        for worker in self._workers.values():
            worker.channel.tell("stop", how)

    async def _end_workers(self) -> None:
        """Have them finish their answers, and end."""
        server = self._configuration.server
        self._listening.close()  # theirs are open while they drain
        running = sum(worker.load.in_flight for worker in self._workers.values())
        if running and not self._is_stopping_now:
            self._on_stop(running, server.shutdown_grace_s)
        keeping = [task for task in self._background if task.get_name() == KEEPS]
        for task in keeping:
            task.cancel()
        self._have_all_stop(Stop(drains=self._drains, at_once=self._is_stopping_now))
        limit_s = server.shutdown_grace_s + (server.drain_s if self._drains else 0) + LAST_WORDS_S
        workers = list(self._workers.values())
        if not workers:
            return
        _, late = await asyncio.wait([asyncio.create_task(worker.ended()) for worker in workers], timeout=limit_s)
        if late:
            for worker in workers:
                worker.kill()
            await asyncio.wait(late)
        await self._agreed(since_s=asyncio.get_running_loop().time())  # so that what they told last is kept

    def _made_sharer(self, configuration: Configuration) -> Sharer:
        """What learns what the workers do, by the store that a configuration wants.

        Raises:
            ConfigurationError: there is no such store.
        """
        sharer = sharer_of(self._for_workers(configuration), self._router, decides=False)
        assert sharer is not None  # workers always have a store
        return sharer

    async def _share_by(self, sharer: Sharer) -> None:
        await self._end_sharing()
        self._sharer = sharer
        sharer.start()

    async def _end_sharing(self) -> None:
        if self._sharer is not None:
            await asyncio.to_thread(self._sharer.stop)

    async def _agreed(self, since_s: float) -> None:
        """Until all is learned that was told until some moment, or the store keeps that waiting for too long."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + AGREEMENT_TIMEOUT_S
        while loop.time() < deadline_s and self._sharer is not None:
            agreed_s = self._sharer.state().agreed_s
            if agreed_s is not None and loop.time() - agreed_s > since_s:
                return
            await asyncio.sleep(TELL_INTERVAL_S)

    # What they ask and tell

    def _begin(self, worker: OneWorker) -> Beginning:
        worker.begins_with_all(self._generation)
        worker.turns.devices = self._devices()
        return Beginning(
            setting=self._setting(),
            spent=self._budgets.entries(),
            placement=self._router.placer.remembered(),
            state_directory=None if self._state_directory is None else str(self._state_directory),
            log_directory=str(self._log_directory),
        )

    def _setting(self) -> Setting:
        return Setting(
            pickled=pickle.dumps(self._for_workers(self._configuration)),
            numbers={
                name: self._numbers[handle.supervisor]
                for name, handle in self.fleet.engines.items()
                if handle.settings.launch
            },
            engines=self._engine_states(),
            devices=self._device_states(),
            shares=self._configuration.sharing.store is not None,
        )

    def _for_workers(self, configuration: Configuration) -> Configuration:
        """They share what they learn, with the keeper, who alone keeps it, and with whom the configuration says."""
        sharing = configuration.sharing
        if sharing.store is None:
            sharing = replace(sharing, store=self._folder, interval_s=SHARING_INTERVAL_S)
        return replace(configuration, routing=replace(configuration.routing, remember=False), sharing=sharing)

    def _note_load(self, worker: OneWorker, load: Load) -> None:
        worker.heard_s = asyncio.get_running_loop().time()
        has_changed = load.connections != worker.load.connections
        worker.load = load
        if has_changed:
            self._tell_fewest()

    def _tell_fewest(self) -> None:
        """Each is to know whether another one has fewer connections."""
        for worker in self._workers.values():
            others = [other.load.connections for other in self._serving() if other is not worker]
            worker.channel.tell("fewest connections", min(others, default=1 << 30))

    def _look(self, number: int) -> None:
        for supervisor, its_number in self._numbers.items():
            if its_number == number:
                supervisor.retry()

    async def _reload_asked(self) -> dict[str, Any]:
        try:
            return await self.reload()
        except (ConfigurationError, RuntimeError) as error:
            raise Refusal(str(error)) from error

    async def _reload_told(self) -> None:
        try:
            log.info("configuration taken up: %s", await self.reload())
        except (ConfigurationError, RuntimeError) as error:
            log.error("the configuration is not taken up, the old one stays in force:\n%s", error)

    async def _others(self, asking: OneWorker) -> list[GatewaySums]:
        """What all but one have counted, those that have ended, too."""
        others = [worker for worker in self._serving() if worker is not asking]
        departed = self._departed  # before they are asked: one that ends meanwhile is not to count twice
        found = await asyncio.gather(*(worker.refresh_sums() for worker in others))
        return [sums for sums in (*found, departed) if sums is not None]

    async def _recent_after(self, number: int) -> dict[str, Any]:
        return await self._recent.after(number, self._serving())

    async def _feedback(self, asking: OneWorker, told: Feedback) -> bool:
        others = [worker for worker in self._serving() if worker is not asking]
        answers = await asyncio.gather(
            *(worker.channel.ask("feedback", told, bool) for worker in others), return_exceptions=True
        )
        return True in answers

    def _note_spent(self, worker: OneWorker, entry: Entry) -> None:
        self._budgets.spend(entry)
        self._tell_all("spent", entry, but=worker)

    def _spend_if_left(self, worker: OneWorker, entry: Entry) -> str:
        """Returns why it may not be spent; empty where it is."""
        if not (refused := self._budgets.spend_if_left(entry)):
            self._tell_all("spent", entry, but=worker)
        return refused

    def _learn_placement(self, worker: OneWorker, learned: Learned) -> None:
        self._router.placer.learn(learned.lesson)
        self._tell_all("learned", learned, but=worker)

    # The engines

    def _number(self, fleet: Fleet) -> None:
        """Give each engine that is looked after here its number, by which workers know it."""
        for handle in fleet.engines.values():
            if handle.supervisor not in self._numbers:
                number = self._numbers[handle.supervisor] = next(self._next_number)
                handle.supervisor.use_elsewhere = partial(self._use, number)

    def _use(self, number: int) -> Use:
        uses = [use for worker in self._workers.values() if (use := worker.load.engines.get(number)) is not None]
        return Use(
            is_busy=any(use.in_flight for use in uses),
            expected_silence_s=max((use.expected_silence_s for use in uses), default=0.0),
            last_heard_s=max((use.last_heard_s for use in uses), default=0.0),
        )

    def _devices(self) -> Mapping[str, Device]:
        return {settings.name: device for settings, device in self.fleet.devices.items() if device.takes_turns}

    def _engine_states(self) -> dict[int, EngineState]:
        return {number: state_of(supervisor) for supervisor, number in self._numbers.items()}

    def _device_states(self) -> dict[str, DeviceState]:
        return {name: DeviceState(device.holder, device.running) for name, device in self._devices().items()}

    async def _tell_changes(self) -> None:
        """Have the workers know how engines and devices are."""
        while True:
            engines, devices = self._engine_states(), self._device_states()
            if changed := {
                number: state for number, state in engines.items() if self._told_engines.get(number) != state
            }:
                self._tell_all("engines", changed)
            if others := {name: state for name, state in devices.items() if self._told_devices.get(name) != state}:
                self._tell_all("devices", others)
            self._told_engines, self._told_devices = engines, devices
            await asyncio.sleep(TELL_INTERVAL_S)

    async def _retire(self, handle: EngineHandle) -> None:
        """Stop an engine that is no longer configured when the last answer of it is out."""
        number = self._numbers[handle.supervisor]
        while self._use(number).is_busy:
            await asyncio.sleep(TELL_INTERVAL_S)
        await handle.supervisor.stop()
        self._retiring.discard(handle)
        del self._numbers[handle.supervisor]

    async def _stop_engines(self) -> None:
        async with self._reloading:  # whose new engines are to be stopped, too
            self._engines_are_stopped = True
            await asyncio.gather(self.fleet.stop(), *(handle.supervisor.stop() for handle in self._retiring))
            await self._storage.save(self._router)

    def _in_background(self, work: Coroutine[Any, Any, None], name: str | None = None) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _end_background(self) -> None:
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)


class _Recent:
    """The last requests of all workers, numbered from 1 as they become known here."""

    def __init__(self) -> None:
        self._last = 0
        self._requests: deque[dict[str, Any]] = deque(maxlen=MAX_REQUESTS)
        self._served_by: deque[tuple[OneWorker, int]] = deque(maxlen=MAX_REQUESTS)
        """For each of them, who served it, and its number there."""
        self._asking = asyncio.Lock()

    async def after(self, number: int, workers: Sequence[OneWorker]) -> dict[str, Any]:
        """All that are still remembered beyond a number, the oldest first; what is new is asked for."""
        async with self._asking:
            found = await asyncio.gather(*(self._newer(worker) for worker in workers))
            newer = [(worker, request) for worker, requests in zip(workers, found, strict=True) for request in requests]
            for worker, request in sorted(newer, key=lambda each: each[1]["at_s"]):
                self._last += 1
                self._served_by.append((worker, request["number"]))
                self._requests.append(request | {"number": self._last})
        return {"last": self._last, "requests": [request for request in self._requests if request["number"] > number]}

    async def find(self, number: int) -> list[dict[str, Any]]:
        """The request with a number in full, or, where its worker has ended, as the list has it; none where it is not
        remembered."""
        place = number - self._last - 1
        if not -len(self._requests) <= place < 0:
            return []
        (worker, its_number), request = self._served_by[place], self._requests[place]
        try:
            found = await worker.channel.ask("one request", its_number, list[dict[str, Any]])
        except (Lost, Refusal):
            found = []
        return [one | {"number": number} for one in found] or [request]

    async def _newer(self, worker: OneWorker) -> Sequence[dict[str, Any]]:
        try:
            answer = await worker.channel.ask("requests", worker.last_request, RecentRequests)
        except (Lost, Refusal):
            return ()
        worker.last_request = answer.last
        return answer.requests


def _without_records(configuration: Configuration) -> Configuration:
    """What the keeper itself keeps: no record of a request, since it serves none."""
    return replace(configuration, evidence=replace(configuration.evidence, log=False, traces=None))
