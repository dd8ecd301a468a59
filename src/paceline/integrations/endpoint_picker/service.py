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
from paceline.settings import Configuration, EngineSettings
from paceline.wire.client import bearer

HEALTH_INTERVAL_S = 0.5
"""Between two looks whether an endpoint is up, for what is told of the picker's own health."""
DETECT_INTERVAL_S = 2.0
"""Until engines that did not tell their kind are asked again."""

log = logging.getLogger("paceline.endpoint_picker")


class EndpointPicker:
    """Runs until :meth:`ask_to_stop` is called.

    What it finds becomes engines of a gateway in this process, which also tells what is measured and learned, as any
    gateway does. So there is none before the first endpoint was found; where all are gone, the last ones are kept, and
    are found to be down.

    Args:
        configuration: makes one of the engines that were found.
        sources: of endpoints.
        api_key: that engines are shown, as in ``[[engine]]``.
    """

    def __init__(
        self,
        *,
        configuration: Callable[[Sequence[EngineSettings]], Configuration],
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
        self._asked_to_stop = asyncio.Event()
        self.gateway: Gateway | None = None

    def ask_to_stop(self) -> None:
        """Begin to stop; returns at once."""
        self._asked_to_stop.set()

    async def run(self) -> None:
        """
        Raises:
            CannotListen: an address is not to be had, of the picker or of its gateway.
            ConfigurationError: the configuration can't be used.
        """
        await self._server.start()
        self._changed.set()
        loop = asyncio.get_running_loop()
        sources = [loop.create_task(source.run(partial(self._take, at))) for at, source in enumerate(self._sources)]
        own = [loop.create_task(work) for work in (self._keep_up(), self._tell_health(), self._stop_is_asked_for())]
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
        self._changed.set()

    async def _keep_up(self) -> None:
        """Have the gateway's engines be those that were found."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            endpoints = {one.address: one for found in self._found.values() for one in found}
            engines = await self._settings(list(endpoints.values()))
            if self.gateway is None or (engines and engines != self._engines):
                await self._use(engines)
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
            if self.gateway is not None:
                changes = await self.gateway.reload()
                self._say(f"endpoints: {len(engines)}; changed: {changes}")
                return
            configuration = self._configuration(engines)
            if not configuration.engine:
                return
            gateway = Gateway(
                lambda: self._configuration(self._engines),
                log_directory=self._log_directory,
                state_directory=self._state_directory,
            )
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

    async def _tell_health(self) -> None:
        while True:
            await self._server.tell_health()
            await asyncio.sleep(HEALTH_INTERVAL_S)

    async def _stop(self) -> None:
        grace_s = self.gateway.fleet.configuration.server.shutdown_grace_s if self.gateway else 0
        await self._server.stop(grace_s)
        if self.gateway is not None:
            await self.gateway.stop()
