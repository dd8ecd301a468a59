"""Where the endpoints are learned from."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from paceline.integrations.endpoint_picker.endpoints import BadEndpoint, Endpoint, endpoints_in

LOOK_INTERVAL_S = 1.0
"""Between two looks at a file: whatever writes it, and by whatever means, it is noticed within a second."""

Found = Callable[[Sequence[Endpoint]], None]
"""To be told all endpoints, whenever they change."""

log = logging.getLogger("paceline.integrations")


class Source(Protocol):
    """Something that knows endpoints."""

    async def run(self, found: Found) -> None:
        """Tell the endpoints, and again whenever they have changed, until it is cancelled. It raises nothing: what goes
        wrong is said, and the endpoints that were told last stay."""


class Given(Source):
    """Endpoints that don't change."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    async def run(self, found: Found) -> None:
        found(self._endpoints)


class EndpointFile(Source):
    """A file with an endpoint a line, which may change at any time.

    Raises:
        BadEndpoint: a line is none.
        OSError: it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()  # what is wrong at the start is said at the start

    async def run(self, found: Found) -> None:
        told: list[Endpoint] | None = None
        problem = ""
        while True:
            try:
                endpoints, now_wrong = await asyncio.to_thread(self._read), ""
                if endpoints != told:
                    told = endpoints
                    found(endpoints)
            except (BadEndpoint, OSError, UnicodeDecodeError) as error:
                now_wrong = str(error)
            if now_wrong and now_wrong != problem:
                log.warning("the endpoints stay as they were: %s", now_wrong)
            problem = now_wrong
            await asyncio.sleep(LOOK_INTERVAL_S)

    def _read(self) -> list[Endpoint]:
        return endpoints_in(self._path.read_text("utf-8-sig"), str(self._path))
