"""``paceline calibrate``: have a running gateway learn what its machine's steps cost."""

import argparse
import asyncio
import time
from collections.abc import Sequence

import msgspec

from paceline.cli.common import Subparsers, add_command, fail
from paceline.cli.remote import Address, Unanswered, add_address_options, address, ask
from paceline.configuration import ConfigurationError
from paceline.http_client import Client, ConnectFailed, ConnectionLost

TOKENS = 96
AT_ONCE = (1, 1, 2, 4)
"""Requests at a time, in turn: a step's cost grows with them."""
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


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "calibrate",
        "have a running gateway measure what its lanes' steps cost",
        "Send a running gateway requests down each of its lanes, one and several at a time, for a minute. It learns "
        "from them as from any others: what a step costs plain and drafting, alone and in company. Without this it "
        "learns the same from the first requests, starting from what is usual.",
    )
    add_address_options(parser)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        to = address(options)
        lanes = [lane["lane"] for lane in ask(to, "GET", "/paceline/lanes")["lanes"] if lane["health"] == "up"]
        if not lanes:
            return fail("no lane is up")
        sent = asyncio.run(_calibrate(to, lanes, options.seconds))
        print(f"{sent} requests down {len(lanes)} lanes")
        for lane in ask(to, "GET", "/paceline/lanes")["lanes"]:
            speed = lane["measured"]["tokens_per_s"]
            print(f"  {lane['lane']:<12}{'no report' if speed is None else f'{speed:.1f} tokens/s'}")
    except (ConfigurationError, Unanswered, ConnectFailed, ConnectionLost) as error:
        return fail(str(error))
    return 0


async def _calibrate(to: Address, lanes: Sequence[str], seconds: float) -> int:
    """Lanes in turn, so that a drifting machine is fair to all; returns the number of requests."""
    client = Client(to.url, fetch_headers=to.headers)
    ends_s, sent = time.monotonic() + seconds, 0
    try:
        for at_once in AT_ONCE * 100:
            for lane in lanes:
                if time.monotonic() >= ends_s:
                    return sent
                prompts = [PROMPTS[(number + sent) % len(PROMPTS)] for number in range(at_once)]
                await asyncio.gather(*(_send(client, lane, prompt, ends_s) for prompt in prompts))
                sent += at_once
                left_s = max(0.0, ends_s - time.monotonic())
                print(f"\r{sent} requests, {left_s:.0f} s left ", end="", flush=True)
    finally:
        client.close()
        print("\r" + " " * 40 + "\r", end="")
    return sent


async def _send(client: Client, lane: str, prompt: str, ends_s: float) -> None:
    fields = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS, "temperature": 0}
    headers = [(b"x-paceline-lane", lane.encode()), (b"content-type", b"application/json")]
    timeout_s = max(60.0, 2 * (ends_s - time.monotonic()))
    status, answer = await client.fetch("POST", "/v1/chat/completions", headers, msgspec.json.encode(fields), timeout_s)
    if status != 200:
        raise Unanswered(f"{lane} answers {status}: {answer[:200].decode('utf-8', 'replace')}")
