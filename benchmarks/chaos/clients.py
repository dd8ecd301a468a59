"""Clients in a closed loop, and what each of their requests came to."""

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from benchmarks.chaos.ill_engine import PROMPT, TEXT, WORDS
from paceline.wire.client import Client, ConnectFailed, ConnectionLost
from paceline.wire.headers import Headers

BODY = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": len(WORDS)}


class Verdict(StrEnum):
    SERVED = "served"
    """Whole, as an engine that is well answers, within its deadline."""
    BROKEN = "broken midway"
    """The client had a part of the answer when it broke, and was told: nobody could have served it any more."""
    FAILED = "failed"
    """An error, or nothing in time."""
    WRONG = "wrong"
    """A whole answer with status 200, but not what an engine that is well answers."""


@dataclass
class Asked:
    """One request and what it came to."""

    verdict: Verdict
    lane: str
    began_s: float
    took_s: float
    problem: str = ""


@dataclass
class Clients:
    """Send every other request as a stream.

    Args:
        deadline_s: of each request, until its answer is whole.
    """

    client: Client
    at_a_time: int
    deadline_s: float
    asked: list[Asked] = field(default_factory=list)

    async def ask(self, requests: int) -> list[Asked]:
        """So many requests, one after the other from each client."""
        numbers = iter(range(requests))
        first = len(self.asked)
        await asyncio.gather(*(self._run(numbers) for _ in range(self.at_a_time)))
        return self.asked[first:]

    async def ask_until(self, is_over: Callable[[], Awaitable[bool]], limit_s: float, pause_s: float) -> list[Asked]:
        """Requests with pauses between those of each client, until it is over."""
        first, ends_s = len(self.asked), time.monotonic() + limit_s
        over = asyncio.Event()
        running = [asyncio.create_task(self._run(itertools.count(), pause_s, over)) for _ in range(self.at_a_time)]
        while time.monotonic() < ends_s and not await is_over():
            await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*running)
        return self.asked[first:]

    async def _run(self, numbers: Iterator[int], pause_s: float = 0.0, over: asyncio.Event | None = None) -> None:
        for number in numbers:
            if over is not None and over.is_set():
                return
            self.asked.append(await self._one(streams=number % 2 == 0))
            await asyncio.sleep(pause_s)

    async def ask_lane(self, lane: str) -> Asked:
        """One request that is for this lane, and so can't be served by another; it is not among :attr:`asked`."""
        return await self._one(streams=False, headers=[(b"x-paceline-lane", lane.encode())])

    async def _one(self, streams: bool, headers: Headers = ()) -> Asked:
        began_s = time.monotonic()
        lane, received, verdict, problem = "", b"", Verdict.FAILED, ""
        body = json.dumps(BODY | {"stream": streams}).encode()
        try:
            async with asyncio.timeout(self.deadline_s):
                sent = [(b"content-type", b"application/json"), *headers]
                async with await self.client.send("POST", "/v1/chat/completions", sent, body) as answer:
                    lane = (answer.header(b"x-paceline-lane") or b"").decode()
                    while piece := await answer.read():
                        received += piece
            verdict, problem = verdict_on(answer.status, received, streams)
        except (ConnectFailed, ConnectionLost, TimeoutError) as error:
            problem = repr(error)
            if b"data: {" in received:
                verdict = Verdict.BROKEN
        return Asked(verdict, lane, began_s, time.monotonic() - began_s, problem)


def verdict_on(status: int, received: bytes, streams: bool) -> tuple[Verdict, str]:
    shown = received[-300:].decode("utf-8", "replace")
    if status != 200:
        return Verdict.FAILED, f"{status} {shown}"
    if not streams:
        try:
            is_right = json.loads(received)["choices"][0]["message"]["content"] == TEXT
        except (ValueError, LookupError, TypeError):
            is_right = False
        return (Verdict.SERVED, "") if is_right else (Verdict.WRONG, shown)
    text, error, is_ended = "", False, False
    for line in received.split(b"\n"):
        if line == b"data: [DONE]":
            is_ended = True
        elif line.startswith(b"data: "):
            try:
                event = json.loads(line[6:])
            except ValueError:
                return Verdict.WRONG, shown
            error = error or "error" in event
            text += "".join(choice["delta"].get("content", "") for choice in event.get("choices", ()))
    if error:
        return (Verdict.BROKEN if text else Verdict.FAILED), shown
    return (Verdict.SERVED, "") if is_ended and text == TEXT else (Verdict.WRONG, shown)
