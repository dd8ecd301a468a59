"""Has a gateway learn what its machine's steps cost: plain and drafting, alone and in company."""

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from paceline.wire.client import Client

MAX_TOKENS = 96
"""Of each answer: enough steps to be timed, also where they verify long drafts."""
MIN_TIMEOUT_S = 60.0
"""Of each answer, however little time is left."""
CONCURRENCIES = (1, 1, 2, 4)
"""Requests in flight, in turn: a step's cost grows with them."""
NAMES = ("Ada", "Boris", "Chen", "Dora", "Emil", "Fay", "Gus", "Hana")
LIST = "\n".join(
    f"- {name} lives at {number} Mill Street and can be reached under {number}-00{number}."
    for number, name in enumerate(NAMES, 11)
)
PROMPTS = (
    f"Print this list again, word for word, with the heading Neighbours.\n\n{LIST}",
    "Tell me about a walk along a river on a windy day, in as many words as you like.",
)
"""One answer that repeats its prompt, so that drafts are accepted, and one that does not."""


class LaneRefused(Exception):
    """A lane answers with an error; ``str()`` says which."""


async def calibrate(client: Client, lanes: Sequence[str], seconds: float, report: Callable[[int, float], None]) -> int:
    """Send requests down the lanes in turn, so that a drifting machine is fair to all; returns their number.

    Args:
        report: told the number of requests, and the seconds that are left.

    Raises:
        LaneRefused: a lane did not serve.
        ConnectFailed, ConnectionLost: from the client.
    """
    ends_s, sent = time.monotonic() + seconds, 0
    while True:
        for concurrency in CONCURRENCIES:
            for lane in lanes:
                if time.monotonic() >= ends_s:
                    return sent
                prompts = [PROMPTS[(number + sent) % len(PROMPTS)] for number in range(concurrency)]
                await asyncio.gather(*(_send(client, lane, prompt, ends_s) for prompt in prompts))
                sent += concurrency
                report(sent, max(0.0, ends_s - time.monotonic()))


async def _send(client: Client, lane: str, prompt: str, ends_s: float) -> None:
    fields = {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS, "temperature": 0}
    headers = [(b"x-paceline-lane", lane.encode()), (b"content-type", b"application/json")]
    timeout_s = max(MIN_TIMEOUT_S, 2 * (ends_s - time.monotonic()))
    status, answer = await client.fetch("POST", "/v1/chat/completions", headers, msgspec.json.encode(fields), timeout_s)
    if status != 200:
        raise LaneRefused(f"{lane} answers {status}: {answer[:200].decode('utf-8', 'replace')}")
