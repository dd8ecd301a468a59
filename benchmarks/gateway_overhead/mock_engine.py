"""An engine that costs nothing: fixed answers to chat completions, JSON or a stream of 64 events, on a bare socket.

python mock_engine.py PORT
"""

import asyncio
import sys

import uvloop

EVENTS = 64
_CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}\n\n'
)
_LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":500,"completion_tokens":64,"total_tokens":564}}\n\ndata: [DONE]\n\n'
)
_ANSWER = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"' + b"word " * 64 + b'"},"finish_reason":"stop"}],"usage":{"prompt_tokens":500,"completion_tokens":64,'
    b'"total_tokens":564}}'
)
_MODELS = b'{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"mock"}]}'


def _json(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_PIECES = [_STREAM_HEAD + _chunk(_CHUNK), *[_chunk(_CHUNK)] * (EVENTS - 2), _chunk(_LAST) + b"0\r\n\r\n"]
_JSON_ANSWER, _JSON_MODELS = _json(_ANSWER), _json(_MODELS)


class MockEngine(asyncio.Protocol):
    """Just enough HTTP/1.1: a head, a body of a declared length, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._received = bytearray()
        self._need = 0

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._received:
            if len(self._received) < self._need:
                return
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self._need = end + 4 + length
            if len(self._received) < self._need:
                return
            body = bytes(self._received[end + 4 : self._need])
            del self._received[: self._need]
            self._need = 0
            if head.startswith(b"get"):
                self._transport.write(_JSON_MODELS)
            elif b'"stream":true' in body or b'"stream": true' in body:
                self._send_pieces(0)
            else:
                self._transport.write(_JSON_ANSWER)

    def _send_pieces(self, index: int) -> None:
        """One piece in each turn of the loop: tokens arrive one by one, not in one packet."""
        self._transport.write(_PIECES[index])
        if index + 1 < len(_PIECES):
            asyncio.get_running_loop().call_soon(self._send_pieces, index + 1)


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(MockEngine, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main())
