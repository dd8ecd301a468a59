"""A scriptable engine on a real socket, for what a real one won't do on demand."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

HOST = f"127.0.1.{os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:]}" if sys.platform == "linux" else "127.0.0.1"
"""Tests that run side by side have addresses of their own: a gateway goes on asking for an engine that was stopped, and
another test's server may have got its port."""
ANSWER = {
    "id": "c1",
    "object": "chat.completion",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}

ERROR = {"error": {"message": "CUDA error: an illegal memory access", "type": "server_error"}}


@dataclass
class Received:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """The engine's side of one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def json(self, document: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        await self.head(
            status, {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        )
        await self.raw(body)

    async def head(self, status: int, headers: dict[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await self.raw(f"HTTP/1.1 {status} Some Reason\r\n{lines}\r\n".encode())

    async def stream_head(self, headers: dict[str, str] | None = None) -> None:
        await self.head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})})

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def close(self) -> None:
        """End the connection in good order."""
        await self._writer.drain()
        self._writer.close()

    def die(self) -> None:
        self._writer.transport.abort()


Script = Callable[[Received, Wire], Awaitable[None]]


async def answer(received: Received, wire: Wire) -> None:
    """The default script: a whole JSON answer."""
    await wire.json(ANSWER)


@dataclass
class FakeEngine:
    """Serves from :meth:`start` to :meth:`stop`; ``script`` answers whatever is not a look at its health."""

    script: Script = answer
    models: tuple[str, ...] = ("m",)
    props: dict[str, Any] | None = None
    """Answer to ``/props``; without it the engine is no llama.cpp."""
    requests: list[Received] = field(default_factory=list)
    looks: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    """What its entry of each model tells beside the name."""
    connections: int = 0
    url: str = ""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self, port: int = 0) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, port, limit=2**26)
        self.url = f"http://{HOST}:{self._server.sockets[0].getsockname()[1]}"
        return self

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def stop(self) -> None:
        """As if it were killed: no new connections, the open ones are cut."""
        if self._server:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            self._server = None
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        wire = Wire(writer)
        try:
            while received := await _receive(reader):
                if received.target == "/v1/models":
                    self.looks += 1
                    await wire.json(
                        {
                            "object": "list",
                            "data": [{"id": name, "object": "model"} | self.about for name in self.models],
                        }
                    )
                elif received.target == "/props":
                    await wire.json(self.props or {}, 200 if self.props else 404)
                else:
                    self.requests.append(received)
                    await self.script(received, wire)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections -= 1
            self._writers.discard(writer)
            with contextlib.suppress(Exception):
                writer.close()


async def _receive(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body)


def event(document: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + (document if isinstance(document, bytes) else json.dumps(document).encode()) + b"\n\n"


def token(text: str) -> bytes:
    """An event of a chat stream that carries one token."""
    return event({"id": "c1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]})


# An engine that reports its times


REPORT = {
    "id": "x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "sea"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 41},
}
TIMINGS = {"prompt_n": 20, "prompt_ms": 0.2, "predicted_n": 41, "predicted_ms": 40.0, "cache_n": 0}


async def slow_to_tell(received: Received, wire: Wire) -> None:
    """Says that it decoded 40 tokens in a time that the clock allows."""
    await wire.json(json.dumps(REPORT | {"timings": TIMINGS}).encode())


# What an ill engine does


async def status_500(received: Received, wire: Wire) -> None:
    await wire.json(ERROR, 500)


async def error_in_200(received: Received, wire: Wire) -> None:
    await wire.json(ERROR)


async def drops(received: Received, wire: Wire) -> None:
    wire.die()
    raise ConnectionError
