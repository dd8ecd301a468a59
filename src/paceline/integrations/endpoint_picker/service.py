"""The endpoint picker as a program: it finds endpoints, has them looked after as a gateway does with its engines, and
answers gateways."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from paceline.api_keys import resolved
from paceline.configuration import ConfigurationError
from paceline.http.server import Gateway
from paceline.integrations.endpoint_picker.detect import kinds_of
from paceline.integrations.endpoint_picker.endpoints import DETECTED, Endpoint
from paceline.integrations.endpoint_picker.metrics import PickerMetrics
from paceline.integrations.endpoint_picker.picking import Picker
from paceline.integrations.endpoint_picker.server import PickerServer
from paceline.integrations.endpoint_picker.sources import Source
from paceline.processes import Health
from paceline.settings import Configuration, EngineSettings
from paceline.wire.client import bearer

HEALTH_INTERVAL_S = 0.5
"""Between two looks whether an endpoint is up, for what is told of the picker's own health."""
LOOK_INTERVAL_S = 0.05
"""Between two looks whether all endpoints were looked at, when it starts."""
START_PATIENCE_S = 10.0
"""For sources and endpoints that don't answer; then gateways are answered all the same."""
DETECT_INTERVAL_S = 2.0
"""Until engines that did not tell their kind are asked again."""

log = logging.getLogger("paceline.integrations")


class EndpointPicker:
    """Runs until :meth:`ask_to_stop` is called.

    What it finds becomes engines of a gateway in this process, which also tells what is measured and learned, as any
    gateway does. There is none before the first endpoint was found, and where all are gone, it keeps the last ones,
    which are not picked.

    Args:
        configuration: makes one of the engines that were found; ``None`` where there is not a single engine.
        sources: of endpoints.
        api_key: that engines are shown, as in ``[[engine]]``.
    """

    def __init__(
        self,
        *,
        configuration: Callable[[Sequence[EngineSettings]], Configuration | None],
        sources: Sequence[Source],
        picker: Picker,
        server: PickerServer,
        api_key: str | None = None,
        log_directory: Path | None = None,
        state_directory: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._configuration = configuration
        self._sources = sources
        self._picker = picker
        self._server = server
        self._api_key = api_key
        self._log_directory = log_directory
        self._state_directory = state_directory
        self._say = say
        self._found: dict[int, Sequence[Endpoint]] = {}
        """By the number of the source."""
        self._kinds: dict[str, str] = {}
        """By address, those that were found out."""
        self._engines: Sequence[EngineSettings] = ()
        self._changed = asyncio.Event()
        self._is_up_to_date = False
        """Whether the gateway's engines are those that were found last, as far as their kinds are known."""
        self._is_to_reload = False
        self._asked_to_stop = asyncio.Event()
        self.gateway: Gateway | None = None

    def ask_to_stop(self) -> None:
        """Begin to stop; returns at once."""
        self._asked_to_stop.set()

    def ask_to_reload(self) -> None:
        """Take up the configuration as it is now; returns at once."""
        self._is_to_reload = True
        self._changed.set()

    async def run(self) -> None:
        """
        Raises:
            CannotListen: an address is not to be had, of the picker or of its gateway.
            ConfigurationError: the configuration can't be used.
        """
        self._changed.set()
        loop = asyncio.get_running_loop()
        sources = [loop.create_task(source.run(partial(self._take, at))) for at, source in enumerate(self._sources)]
        own = [loop.create_task(work) for work in (self._keep_up(), self._serve(), self._stop_is_asked_for())]
        try:
            ended, _ = await asyncio.wait(own, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in (*sources, *own):
                task.cancel()
            await asyncio.gather(*sources, *own, return_exceptions=True)
            await self._stop()

    async def _stop_is_asked_for(self) -> None:
        await self._asked_to_stop.wait()

    def _take(self, number: int, found: Sequence[Endpoint]) -> None:
        self._found[number] = found
        self._is_up_to_date = False
        self._changed.set()

    async def _keep_up(self) -> None:
        """Have the gateway's engines be those that were found."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            endpoints = {one.address: one for found in self._found.values() for one in found}
            self._kinds = {address: kind for address, kind in self._kinds.items() if address in endpoints}
            engines = await self._settings(list(endpoints.values()))
            if self.gateway is None or self._is_to_reload or engines != self._engines:
                self._is_to_reload = False
                await self._use(engines)
            self._is_up_to_date = not self._changed.is_set()
            if len(engines) < len(endpoints):  # some have not told their kind
                asyncio.get_running_loop().call_later(DETECT_INTERVAL_S, self._changed.set)

    async def _settings(self, endpoints: Sequence[Endpoint]) -> Sequence[EngineSettings]:
        """Of the engines whose kind is known; those that don't tell are left out."""
        unknown = [one.address for one in endpoints if one.kind == DETECTED and one.address not in self._kinds]
        if unknown:
            key = bearer(resolved(self._api_key)) if self._api_key else ()
            self._kinds |= await kinds_of(unknown, key)
        known = ((one, self._kinds.get(one.address) if one.kind == DETECTED else one.kind) for one in endpoints)
        return [one.settings(kind, self._api_key) for one, kind in known if kind is not None]

    async def _use(self, engines: Sequence[EngineSettings]) -> None:
        before, self._engines = self._engines, engines
        try:
            self._picker.is_empty = self._configuration(engines) is None
            if self._picker.is_empty:
                return
            if self.gateway is not None:
                changes = await self.gateway.reload()
                fleet = self.gateway.fleet
                self.gateway.pipeline.metrics.forget_others(fleet.lanes.keys(), fleet.engines.keys())
                self._say(f"endpoints: {len(engines)}; changed: {changes}")
                return
            gateway = Gateway(self._read, log_directory=self._log_directory, state_directory=self._state_directory)
            await gateway.start()
        except ConfigurationError as error:
            self._engines = before
            if self.gateway is None:
                raise
            log.error("the endpoints stay as they were: %s", error)
            return
        self.gateway = gateway
        self._picker.pipeline = gateway.pipeline
        gateway.pipeline.metrics.add(PickerMetrics(self._picker))
        self._say(f"endpoints: {len(engines)}; metrics and state at {gateway.url}")

    def _read(self) -> Configuration:
        configuration = self._configuration(self._engines)
        if configuration is None:
            raise ConfigurationError("there are no endpoints")
        return configuration

    async def _serve(self) -> None:
        """Listen once it is known which endpoints are up, and tell from then on whether any is. Before that, gateways
        that may go on without a picker do."""
        try:
            async with asyncio.timeout(START_PATIENCE_S):
                while not self._has_looked():
                    await asyncio.sleep(LOOK_INTERVAL_S)
        except TimeoutError:
            log.warning("not all endpoints have been looked at within %g s", START_PATIENCE_S)
        await self._server.start()
        while True:
            await self._server.tell_health()
            await asyncio.sleep(HEALTH_INTERVAL_S)

    def _has_looked(self) -> bool:
        """Whether all sources have told their endpoints, and one of these is up, or all were looked at."""
        if len(self._found) < len(self._sources) or not self._is_up_to_date:
            return False
        engines = self._picker.by_address().values()
        return self._picker.is_ready or not any(engine.supervisor.health is Health.STARTING for engine in engines)

    async def _stop(self) -> None:
        grace_s = self.gateway.fleet.configuration.server.shutdown_grace_s if self.gateway else 0
        await self._server.stop(grace_s)
        if self.gateway is not None:
            await self.gateway.stop()
