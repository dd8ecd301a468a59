"""``paceline calibrate``: have a running gateway learn what its machine's steps cost."""

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from paceline.bench.calibrate import LaneRefused, calibrate
from paceline.cli.common import (
    Subparsers,
    add_command,
    add_json_option,
    fail,
    positive_number,
    print_json,
    say_in_place,
)
from paceline.cli.remote import Address, Unanswered, add_address_options, address, ask
from paceline.configuration import ConfigurationError
from paceline.text_table import NEVER_PAYS, columns, shown_number
from paceline.wire.client import Client, ConnectFailed, ConnectionLost

SECONDS = 60.0
"""How long it lasts by default; set by hand."""


def register(commands: Subparsers) -> None:
    parser = add_command(
        commands,
        "calibrate",
        "make a running gateway measure what its lanes' steps cost",
        "Send a running gateway requests down each of its lanes for a minute, one and several at a "
        "time. The gateway learns from them as from any others: what plain and verification steps cost, "
        "alone and at a higher concurrency. Without this it learns the same from the first requests, "
        "starting from usual values.",
    )
    add_address_options(parser)
    parser.add_argument("--seconds", type=positive_number, metavar="N", default=SECONDS, help="how long (default: 60)")
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        print_calibrated(calibrated(address(options), options.seconds), options.json)
    except (ConfigurationError, Unanswered, LaneRefused, ConnectFailed, ConnectionLost) as error:
        return fail(str(error))
    return 0


class Calibrated(NamedTuple):
    """What a gateway knows after it was calibrated.

    Args:
        requests: that it was sent.
        lanes: as ``/paceline/lanes`` has them.
        used: how many of them were up.
    """

    requests: int
    lanes: Sequence[dict[str, Any]]
    used: int


def calibrated(to: Address, seconds: float = SECONDS) -> Calibrated:
    """Have the gateway calibrate.

    Raises:
        Unanswered, LaneRefused, ConnectFailed, ConnectionLost: it could not.
    """
    lanes = [lane["lane"] for lane in ask(to, "GET", "/paceline/lanes")["lanes"] if lane["health"] == "up"]
    if not lanes:
        raise Unanswered("no lane is up")
    sent = asyncio.run(_calibrate(to, lanes, seconds))
    learned = ask(to, "GET", "/paceline/lanes")["lanes"]
    return Calibrated(sent, learned, len(lanes))


def print_calibrated(known: Calibrated, is_json: bool) -> None:
    """For people, a table; for programs, the same with what ``/paceline/lanes`` calls it."""
    if is_json:
        keys = ("lane", "measured", "step")
        print_json({"requests": known.requests, "lanes": [{key: lane[key] for key in keys} for lane in known.lanes]})
        return
    print(f"{known.requests} requests down {known.used} lanes\n{break_even_table(known.lanes)}")


def break_even_table(lanes: Sequence[dict[str, Any]]) -> str:
    """What is known of each lane's steps, and the acceptance above which drafting pays."""
    rows = [("lane", "tokens/s", "plain step", "drafting step", "break-even acceptance")]
    for lane in lanes:
        step, speed = lane["step"], lane["measured"]["tokens_per_s"]
        cost, acceptance = step["drafting_cost_in_plain_steps"], step["break_even_acceptance"]
        rows.append(
            (
                lane["lane"],
                shown_number(speed, ".1f", "no report"),
                "not known" if step["plain_ms"] is None else f"{step['plain_ms']:.1f} ms",
                "" if cost is None else f"{cost:.2f} plain ones",
                "" if cost is None else shown_number(acceptance, ".2f", NEVER_PAYS),
            )
        )
    return columns(rows)


async def _calibrate(to: Address, lanes: Sequence[str], seconds: float) -> int:
    client = Client(to.url, fetch_headers=to.headers)
    try:
        return await calibrate(
            client, lanes, seconds, lambda sent, left_s: say_in_place(f"{sent} requests, {left_s:.0f} s left")
        )
    finally:
        client.close()
        say_in_place("")
