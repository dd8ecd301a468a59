"""An engine that takes no time: it answers chats at once, whole or as a stream of 64 events.

python -m benchmarks.scale.instant_engine PORT
"""

import asyncio
import json
import sys

EVENTS = 64
MAX_BODY_BYTES = 1 << 26
_USAGE = {"prompt_tokens": 500, "completion_tokens": EVENTS, "total_tokens": 500 + EVENTS}
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": "word " * EVENTS}, "finish_reason": "stop"}
ANSWERS = {
    b"/v1/models": json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode(),
    b"/v1/chat/completions": json.dumps({"id": "c", "model": "m", "choices": [_CHOICE], "usage": _USAGE}).encode(),
}
_EVENT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":" token"}}]}\n\n'
_LAST = b'data: {"id":"c","model":"m","choices":[],"usage":' + json.dumps(_USAGE).encode() + b"}\n\ndata: [DONE]\n\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await _body(reader, head.lower())
            path = head.split(b" ", 2)[1]
            if b'"stream":true' in body.replace(b" ", b""):
                await _stream(writer)
            else:
                answer = ANSWERS.get(path, b"{}")
                status = b"200 OK" if path in ANSWERS else b"404 Not Found"
                writer.write(
                    b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (status, len(answer), answer)
                )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """With a length, or in chunks, as gateways send what they do not hold."""
    if b"transfer-encoding: chunked" not in head:
        _, _, length = head.partition(b"content-length:")
        return await reader.readexactly(int(length.split(b"\r\n", 1)[0] or 0)) if length else b""
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(chunks)


async def _stream(writer: asyncio.StreamWriter) -> None:
    """Each event in a write of its own, so that none waits for the next."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for data in (*[_EVENT] * EVENTS, _LAST):
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await asyncio.sleep(0)
    writer.write(b"0\r\n\r\n")


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=MAX_BODY_BYTES)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
