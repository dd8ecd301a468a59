"""An engine that falls ill on demand: OpenAI's chat, JSON or a stream, on a bare socket.

python -m benchmarks.chaos.ill_engine --port PORT

``POST /chaos`` with ``{"ill": NAME}`` gives it an illness of :data:`ILLNESSES`, ``null`` none, and with
``{"token_s": NUMBER}`` another pace; ``GET /chaos`` tells how many of the clients' requests have reached it so far.
"""

import argparse
import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Awaitable, Callable

import uvloop

PROMPT = "Count to eight."
"""What clients send; the gateway's own trials say something else."""
WORDS = tuple(f" {number}" for number in range(1, 9))
TEXT = "".join(WORDS)
TOKEN_S = 0.006
"""Between two tokens, so that an answer takes some 50 ms."""
TIMES_SLOWER = 20
FOREVER_S = 3600.0
USAGE = {"prompt_tokens": 9, "completion_tokens": len(WORDS), "total_tokens": 9 + len(WORDS)}
ABSURD_USAGE = {"prompt_tokens": -5, "completion_tokens": 10**18, "total_tokens": "many"}
ERROR = {"error": {"message": "CUDA error: an illegal memory access was encountered", "type": "server_error"}}


class Broken(Exception):
    """The connection is to be cut now."""


class Wire:
    """The engine's side of one connection."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.token_s = TOKEN_S
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def whole(self, body: bytes, status: int = 200, length: int | None = None) -> None:
        declared = len(body) if length is None else length
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {declared}\r\n\r\n"
        await self.send(head.encode() + body)

    async def stream_head(self) -> None:
        await self.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def reset(self) -> None:
        """Cut the connection with a reset, as a kernel does for a process that was killed."""
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Script = Callable[[Wire, bool], Awaitable[None]]
"""Answers one request, streamed or not."""


def _event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def _token(word: str) -> bytes:
    return _event({"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": word}}]})


def _answer(usage: object = USAGE) -> bytes:
    message = {"role": "assistant", "content": TEXT}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


async def _well(wire: Wire, streams: bool, times: float = 1.0, usage: object = USAGE) -> None:
    pace_s = times * wire.token_s
    if not streams:
        await asyncio.sleep(pace_s * len(WORDS))
        return await wire.whole(_answer(usage))
    await wire.stream_head()
    for word in WORDS:
        await asyncio.sleep(pace_s)
        await wire.chunk(_token(word))
    await wire.chunk(_event({"id": "c", "choices": [], "usage": usage}) + b"data: [DONE]\n\n")
    await wire.send(b"0\r\n\r\n")
    return None


async def _slow(wire: Wire, streams: bool) -> None:
    await _well(wire, streams, TIMES_SLOWER)


async def _silent(wire: Wire, streams: bool) -> None:
    await asyncio.sleep(FOREVER_S)


async def _silent_midway(wire: Wire, streams: bool) -> None:
    await _half(wire, streams)
    await asyncio.sleep(FOREVER_S)


async def _status_500(wire: Wire, streams: bool) -> None:
    await wire.whole(json.dumps(ERROR).encode(), 500)


async def _error_in_200(wire: Wire, streams: bool) -> None:
    if not streams:
        return await wire.whole(json.dumps(ERROR).encode())
    await wire.stream_head()
    await wire.chunk(_event(ERROR))
    await wire.send(b"0\r\n\r\n")
    return None


async def _error_midway(wire: Wire, streams: bool) -> None:
    if not streams:
        return await _error_in_200(wire, streams)
    await _half(wire, streams)
    await wire.chunk(_event(ERROR))
    await wire.send(b"0\r\n\r\n")
    return None


async def _half(wire: Wire, streams: bool) -> None:
    if streams:
        await wire.stream_head()
        for word in WORDS[:3]:
            await asyncio.sleep(wire.token_s)
            await wire.chunk(_token(word))
    else:
        whole = _answer()
        await wire.whole(whole[: len(whole) // 2], length=len(whole))


async def _breaks_midway(wire: Wire, streams: bool) -> None:
    await _half(wire, streams)
    raise Broken


async def _garbage(wire: Wire, streams: bool) -> None:
    """Neither JSON nor events, though the head says so."""
    noise = bytes(range(256)) * 4
    if not streams:
        return await wire.whole(noise)
    await wire.stream_head()
    await wire.chunk(noise)
    await wire.send(b"0\r\n\r\n")
    return None


async def _no_http(wire: Wire, streams: bool) -> None:
    await wire.send(b"\x15\x03\x01\x00\x02\x02\x50 this is no HTTP\r\n\r\n")
    raise Broken


async def _wrong_length(wire: Wire, streams: bool) -> None:
    """A declared length that is too short, and a chunk's that is too long."""
    if not streams:
        whole = _answer()
        return await wire.whole(whole, length=len(whole) - 20)
    await wire.stream_head()
    await wire.send(b"ffff\r\n" + _token(WORDS[0]))
    raise Broken


async def _absurd_usage(wire: Wire, streams: bool) -> None:
    await _well(wire, streams, usage=ABSURD_USAGE)


async def _resets(wire: Wire, streams: bool) -> None:
    raise Broken


ILLNESSES: dict[str | None, Script] = {
    None: _well,
    "slow": _slow,
    "silent": _silent,
    "silent midway": _silent_midway,
    "500": _status_500,
    "error in a 200": _error_in_200,
    "error midway": _error_midway,
    "breaks midway": _breaks_midway,
    "garbage": _garbage,
    "no HTTP": _no_http,
    "wrong length": _wrong_length,
    "absurd usage": _absurd_usage,
    "resets": _resets,
}


class IllEngine:
    """Serves until it is ended."""

    def __init__(self) -> None:
        self._illness: str | None = None
        self._token_s = TOKEN_S
        self._reached = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request after the other."""
        wire = Wire(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).lower()
                    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                    await self._answer(head, await reader.readexactly(int(length or 0)), wire)
            except Broken:
                wire.reset()
        writer.close()

    async def _answer(self, head: bytes, body: bytes, wire: Wire) -> None:
        if head.startswith(b"get /v1/models"):
            await wire.whole(b'{"object":"list","data":[{"id":"m","object":"model"}]}')
        elif head.startswith(b"get /chaos"):
            await wire.whole(json.dumps({"reached": self._reached}).encode())
        elif head.startswith(b"post /chaos"):
            asked = json.loads(body)
            self._illness = asked.get("ill", self._illness)
            self._token_s = asked.get("token_s", self._token_s)
            await wire.whole(b"{}")
        else:
            self._reached += PROMPT.encode() in body
            wire.token_s = self._token_s
            await ILLNESSES[self._illness](wire, bool(json.loads(body).get("stream")))


async def _main(port: int) -> None:
    server = await asyncio.start_server(IllEngine().serve, "127.0.0.1", port, backlog=1024)
    print(f"listening on {port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_main(parser.parse_args().port))
