"""Two engines under load, one of them in trouble of every kind: is every request served that can be, and in time?"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos.clients import Clients, Verdict
from benchmarks.chaos.phases import PHASES, Phase, Result, run
from benchmarks.chaos.stage import stage
from benchmarks.gateway_lanes import in_flight
from paceline.wire.client import Client

DEADLINE_S = 15.0
"""Of each request: what the configuration gives it in all."""
AT_REST_AFTER_S = 6.0
"""Idle connections to engines are closed after four seconds."""


@dataclass
class Report:
    """Of all phases, and of what they have left behind."""

    results: list[Result] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    in_flight: int = 0
    engines_running: int = 0
    """Processes that the gateway has started and that run."""
    fds_before: int = 0
    """Before and after: at rest, after the first phase and after the last."""
    fds_after: int = 0
    rss_before_bytes: int = 0
    rss_after_bytes: int = 0
    tracebacks: int = 0
    """In what the gateway has printed."""
    routing_failures: dict[str, int] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether every request that could be served was, and nothing was left behind. The sizes are not judged."""
        lost = sum(result.failed + result.wrong for result in self.results) + sum(
            result.beside.get(verdict, 0) for result in self.results for verdict in (Verdict.FAILED, Verdict.WRONG)
        )
        is_back = all(result.back_s is not None for result in self.results)
        left = self.in_flight or self.tracebacks or self.routing_failures or self.engines_running != 1
        return not lost and is_back and not left


async def chaos(
    folder: Path,
    requests: int,
    at_a_time: int,
    phases: Sequence[Phase] = PHASES,
    say: Callable[[Result], None] = lambda _: None,
    rest_s: float = AT_REST_AFTER_S,
) -> Report:
    """Go through the phases with ``requests`` requests each.

    Args:
        folder: an empty one, for the configuration, the state and the log of the gateway.
        say: told of every phase.
        rest_s: before what is left behind is counted.
    """
    report = Report()
    with stage(folder) as (there, running, log):
        clients = Clients(Client(running.url), at_a_time, DEADLINE_S)
        for number, phase in enumerate(phases):
            if phase.needs_small_disk and not there.may_be_full:
                report.skipped.append(phase.name)
                continue
            report.results.append(await run(phase, there, clients, requests))
            say(report.results[-1])
            if number == 0:
                await asyncio.sleep(rest_s)
                report.fds_before = there.process.num_fds()
                report.rss_before_bytes = there.process.memory_info().rss
        clients.client.close()
        await asyncio.sleep(rest_s)
        report.fds_after = there.process.num_fds()
        report.rss_after_bytes = there.process.memory_info().rss
        report.engines_running = len(there.process.children(recursive=True))
        lanes = await there.lanes()
        report.in_flight = in_flight(lanes)
        report.routing_failures = lanes["routing_failures"]
        there.close()
        report.tracebacks = log.read_text("utf-8", "replace").count("Traceback")
    return report
