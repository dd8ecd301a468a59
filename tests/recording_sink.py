"""A cloud engine that keeps every byte it is sent."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

from tests.fake_engine import HOST, FakeEngine


@dataclass
class RecordingSink(FakeEngine):
    """A fake engine; ``seen`` holds all that came, looks at its health included."""

    seen: bytearray = field(default_factory=bytearray)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, port: int = 0) -> Self:
        self._server = await asyncio.start_server(self._connected, HOST, port, limit=2**26)
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Called before any byte has come."""
        feed = reader.feed_data

        def record(data: Any) -> None:
            self.seen += data
            feed(data)

        setattr(reader, "feed_data", record)  # noqa: B010 - it is a method
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
