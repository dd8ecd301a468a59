"""What a gateway costs that only relays: a raw ASGI application on uvicorn with aiohttp's client.

python bare_relay.py PORT ENGINE_URL
"""

import sys
from typing import Any

import aiohttp
import uvicorn

_session: aiohttp.ClientSession | None = None


async def application(scope: Any, receive: Any, send: Any) -> None:
    global _session
    if _session is None:
        connector = aiohttp.TCPConnector(limit=0)
        _session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(k.decode(), v.decode()) for k, v in scope["headers"] if k not in (b"host", b"content-length")]
    async with _session.request(scope["method"], sys.argv[2] + scope["path"], data=body, headers=headers) as answer:
        kept = [(k, v) for k, v in answer.raw_headers if k.lower() not in (b"transfer-encoding", b"connection")]
        await send({"type": "http.response.start", "status": answer.status, "headers": kept})
        async for piece in answer.content.iter_any():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    uvicorn.run(application, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off", ws="none")
