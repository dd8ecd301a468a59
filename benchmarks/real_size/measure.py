"""Sends the mix down every way, and notes how long the decoding of each answer took."""

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
from msgspec import Struct
from msgspec.structs import asdict

from benchmarks.real_size.tasks import Asked

PLAIN, ROUTED, ROUTED_WITH_CONTROL = "plain", "routed", "routed, controlled"
TIMEOUT_S = 600.0


class Way(Struct, frozen=True):
    """One way to have the mix served."""

    name: str
    url: str
    """Of the gateway."""
    dice: str
    """The server's name for the drafter whose drafts are accepted by dice."""
    lane: str = ""
    """Empty where the gateway chooses."""


def is_static(way: str) -> bool:
    """Whether it is one of those that the oracle chooses among: the same setting for all, without control."""
    return way == PLAIN or way.rpartition("-")[2].isdigit()


class Sample(Struct, frozen=True, kw_only=True):
    """One answer."""

    way: str
    round: int
    concurrency: int
    number: int
    """Of the request in the mix."""
    task: str
    lane: str
    tokens: int
    decode_s: float
    drafted: int
    accepted: int
    steps: int

    def row(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    ways: Sequence[Way], taught: Sequence[Asked], asked: Sequence[Asked], concurrency: int, rounds: int, tokens: int
) -> Iterator[list[Sample]]:
    """One round after the other.

    Args:
        taught: what the gateways learn from before anything is measured.
        asked: the mix.
        concurrency: requests at a time.
        tokens: of each answer.
    """
    with httpx2.Client(timeout=TIMEOUT_S, trust_env=False) as client, ThreadPoolExecutor(concurrency) as pool:

        def block(way: Way, requests: Sequence[tuple[int, Asked]], round_number: int) -> list[Sample]:
            """So many requests at a time."""

            def one(entry: tuple[int, Asked]) -> Sample:
                number, request = entry
                return _sample(client, way, request, number, round_number, concurrency, tokens)

            return list(pool.map(one, requests))

        for way in ways:
            if not way.lane:
                block(way, list(enumerate(taught)), -1)
        numbered = list(enumerate(asked))
        # The server holds all prompts from here on. Else answers wait for others' prompts, in one way more often than
        # in another (seen: a third of 16 answers took twice as long).
        block(ways[0], numbered, -1)
        # Alone, each request goes down all ways before the next one: so they meet the same moments of the machine.
        blocks = [[entry] for entry in numbered] if concurrency == 1 else [numbered]
        for number in range(rounds):
            samples: list[Sample] = []
            for requests in blocks:
                for place in range(len(ways)):
                    way = ways[(place + number * 3 + requests[0][0]) % len(ways)]
                    samples += block(way, requests, number)
            print(f"{concurrency} at a time, round {number + 1} of {rounds} done", file=sys.stderr)
            yield samples


def _sample(
    client: httpx2.Client, way: Way, asked: Asked, number: int, round_number: int, concurrency: int, tokens: int
) -> Sample:
    body = {
        "messages": asked.messages,
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
        "seed": number + 1000 * round_number + 1,  # of the dice, the same for each way
        "prompt_cache_key": f"{round_number}-{number}",  # a conversation of its own
        "speculative.synthetic": {way.dice: asked.acceptance},
    } | ({"speculative.synthetic_text": asked.answer} if asked.answer else {})
    headers = {"content-type": "application/json"} | ({"x-paceline-lane": way.lane} if way.lane else {})
    answer = client.post(f"{way.url}/v1/chat/completions", content=json.dumps(body), headers=headers)
    answer.raise_for_status()
    timings = answer.json()["timings"]
    return Sample(
        way=way.name,
        round=round_number,
        concurrency=concurrency,
        number=number,
        task=asked.task,
        lane=answer.headers["x-paceline-lane"],
        tokens=timings["predicted_n"] - 1,
        decode_s=timings["predicted_ms"] / 1000,
        drafted=timings.get("draft_n", 0),
        accepted=timings.get("draft_n_accepted", 0),
        steps=timings.get("draft_n_steps", 0),
    )
