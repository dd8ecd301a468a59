"""Many mixed requests at once, clients that hang up, an engine that is killed: what is lost, what is left behind?"""

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import psutil

from benchmarks.gateway_lanes import in_flight, lanes
from paceline.wire.client import Client, ConnectionLost

TALK = {"messages": [{"role": "user", "content": "Say something."}]}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", TALK | {"max_tokens": 8}),
    ("/v1/chat/completions", TALK | {"max_tokens": 8, "tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("/v1/messages", TALK | {"max_tokens": 8}),
    ("/v1/completions", {"prompt": "One, two,", "max_tokens": 8}),
    ("/completion", {"prompt": "One, two,", "n_predict": 8}),
]


@dataclass
class Report:
    """What became of the requests, and of the gateway."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """``served``, ``left`` (the client hung up), ``broken`` (its engine was killed after the first byte: the stream
    ended with an error event), and, for everything else, what it was."""
    kills: int = 0
    children: int = 0
    in_flight: int = 0
    fds_before: int = 0
    fds_after: int = 0
    rss_warm_bytes: int = 0
    """After a quarter of the requests."""
    rss_end_bytes: int = 0

    @property
    def lost(self) -> dict[str, int]:
        return {what: count for what, count in self.outcomes.items() if what not in ("served", "left", "broken")}


async def soak(url: str, pid: int, requests: int, at_a_time: int, kill_at: Sequence[int], seed: int = 0) -> Report:
    """Send ``requests`` requests, ``at_a_time`` at a time, a tenth of which hang up midway, and kill the first lane's
    engine when the numbers in ``kill_at`` are reached.

    Args:
        url: of the gateway, whose engines are launched.
        pid: of the gateway.
    """
    report = Report()
    gateway = psutil.Process(pid)
    random = Random(seed)
    client = Client(url)
    report.fds_before = gateway.num_fds()
    numbers = iter(range(requests))

    async def run() -> None:
        for number in numbers:
            if number in kill_at:
                report.kills += await _kill_first_engine(client)
            if number == requests // 4:
                report.rss_warm_bytes = gateway.memory_info().rss
            path, body = random.choice(KINDS)
            body = body | {"stream": random.random() < 0.6}
            report.outcomes[await _request(client, path, body, leaves=number % 10 == 0)] += 1

    await asyncio.gather(*(run() for _ in range(at_a_time)))
    client.close()
    await asyncio.sleep(6)  # idle connections to engines are closed after four seconds, or reused
    report.in_flight = in_flight(await lanes(Client(url)))
    report.rss_end_bytes = gateway.memory_info().rss
    report.children = len(gateway.children(recursive=True))
    report.fds_after = gateway.num_fds()
    return report


async def _request(client: Client, path: str, body: dict[str, Any], leaves: bool) -> str:
    try:
        async with asyncio.timeout(300):
            sending = client.send("POST", path, [(b"content-type", b"application/json")], json.dumps(body).encode())
            if leaves and not body["stream"]:
                try:
                    async with asyncio.timeout(0.2):
                        (await sending).close()
                except TimeoutError:
                    pass
                return "left"
            async with await sending as answer:
                if leaves:
                    await answer.read()
                    return "left"
                whole = await answer.read_all()
                if answer.status != 200:
                    return f"{answer.status} {whole[:300].decode()}"
                if body["stream"] and b"lost in the middle" in whole:
                    return "broken"
                return "served" if _is_whole(whole, body["stream"]) else f"not whole: {whole[-300:].decode()}"
    except (ConnectionLost, TimeoutError) as error:
        return repr(error)


def _is_whole(answer: bytes, streamed: bool) -> bool:
    if not streamed:
        return isinstance(json.loads(answer), dict)
    return any(end in answer for end in (b"[DONE]", b"message_stop", b'"stop":true'))


async def _kill_first_engine(client: Client) -> int:
    pid = (await lanes(client))["lanes"][0]["engine"]["pid"]
    if pid is None:
        return 0
    os.kill(pid, signal.SIGKILL)
    return 1
