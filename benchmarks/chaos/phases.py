"""One engine in trouble after the other, each for a number of requests, and what came of it."""

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from statistics import quantiles

from benchmarks.chaos.clients import Asked, Clients, Verdict
from benchmarks.chaos.ill_engine import ILLNESSES
from benchmarks.chaos.stage import UNREACHABLE, Stage

WARM_SHARE = 0.25
"""Of a phase's requests, before the trouble."""
BACK_WITHIN_S = 45.0
PAUSE_S = 0.5
"""Of each client between two requests, where time has to pass."""
PROBLEMS_KEPT = 5

Trouble = Callable[[Stage], AbstractAsyncContextManager[Counter[str]]]
"""Lasts until its block ends; counts what it did."""


@dataclass
class Result:
    """Of a phase."""

    phase: str
    requests: int
    """While there was trouble; the counts below are of the same ones."""
    served: int
    broken: int
    failed: int
    wrong: int
    reached: int
    """Requests that the ill engine got."""
    p50_ms: float
    p99_ms: float
    slowest_s: float
    left_alone_s: float | None
    """From the beginning of the trouble until the gateway took the engine for ill or down; ``None``: it never did."""
    back_s: float | None
    """From the end of the trouble until the gateway took the engine for well, and it served; ``None``: not in time."""
    beside: dict[str, int]
    """Before and after the trouble: verdicts."""
    done: dict[str, int]
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Phase:
    name: str
    launched: bool
    """Whether it is the launched engine that gets into trouble."""
    trouble: Trouble
    lasts_s: float = 0.0
    """At least."""
    needs_small_disk: bool = False


async def run(phase: Phase, stage: Stage, clients: Clients, requests: int) -> Result:
    """Well, in trouble, and until the engine that was is used again. It is the faster one, and so the one that requests
    go to as long as nothing else is known of it."""
    stage.renew()
    await stage.prefer(phase.launched)
    await stage.reload()
    for name in (stage.remote, stage.launched):
        await stage.until_well(name)
    first = len(clients.asked)
    await clients.ask(int(requests * WARM_SHARE))
    ill = stage.launched if phase.launched else stage.remote
    reached_before = await stage.reached()
    began_s = time.monotonic()
    async with phase.trouble(stage) as done:
        noticed = asyncio.create_task(_until_noticed(stage, ill, began_s))
        in_trouble = await clients.ask(requests - int(requests * WARM_SHARE))
        left_s = began_s + phase.lasts_s - time.monotonic()
        in_trouble += await clients.ask_until(_never, left_s, PAUSE_S) if left_s > 0 else []
        noticed.cancel()
        if phase.launched:
            reached = await stage.failures(ill) + sum(_was_served_by(asked, ill) for asked in in_trouble)
        else:
            reached = await stage.reached() - reached_before
    ended_s = time.monotonic()
    ill = stage.launched if phase.launched else stage.remote
    back_s: list[float] = []

    async def is_back() -> bool:
        if await stage.is_well(ill) and _was_served_by(await clients.ask_lane(ill), ill):
            back_s.append(time.monotonic() - ended_s)
        return bool(back_s)

    await clients.ask_until(is_back, BACK_WITHIN_S, PAUSE_S)
    during = {id(asked) for asked in in_trouble}
    beside = [asked for asked in clients.asked[first:] if id(asked) not in during]
    counts = Counter(asked.verdict for asked in in_trouble)
    took = sorted(asked.took_s for asked in in_trouble)
    cuts = quantiles(took, n=100)
    return Result(
        phase.name,
        len(in_trouble),
        served=counts[Verdict.SERVED],
        broken=counts[Verdict.BROKEN],
        failed=counts[Verdict.FAILED],
        wrong=counts[Verdict.WRONG],
        reached=reached,
        p50_ms=1000 * cuts[49],
        p99_ms=1000 * cuts[98],
        slowest_s=took[-1],
        left_alone_s=noticed.result() if noticed.done() and not noticed.cancelled() else None,
        back_s=next(iter(back_s), None),
        beside=dict(Counter(str(asked.verdict) for asked in beside)),
        done=dict(done),
        problems=[
            f"{asked.verdict}: {asked.problem}"
            for asked in (*in_trouble, *beside)
            if asked.verdict is not Verdict.SERVED and asked.verdict is not Verdict.BROKEN
        ][:PROBLEMS_KEPT],
    )


async def _never() -> bool:
    return False


async def _until_noticed(stage: Stage, name: str, began_s: float) -> float:
    while True:
        with contextlib.suppress(*UNREACHABLE):
            if not await stage.is_well(name):
                return time.monotonic() - began_s
        await asyncio.sleep(0.05)


def _was_served_by(asked: Asked, name: str) -> bool:
    return asked.lane == name and asked.verdict is Verdict.SERVED


# Troubles


@asynccontextmanager
async def _nothing(stage: Stage) -> AsyncIterator[Counter[str]]:
    await stage.fall_ill(None)
    yield Counter()


def _illness(name: str) -> Trouble:
    @asynccontextmanager
    async def trouble(stage: Stage) -> AsyncIterator[Counter[str]]:
        await stage.fall_ill(name)
        try:
            yield Counter()
        finally:
            await stage.fall_ill(None)

    return trouble


def _repeated(act: Callable[[Stage, Counter[str]], AbstractAsyncContextManager[None]]) -> Trouble:
    """Something that is done again and again meanwhile; undone in the end."""

    @asynccontextmanager
    async def trouble(stage: Stage) -> AsyncIterator[Counter[str]]:
        done: Counter[str] = Counter()
        over = asyncio.Event()

        async def again() -> None:
            while not over.is_set():
                async with act(stage, done):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(over.wait(), 0.5)

        task = asyncio.create_task(again())
        try:
            yield done
        finally:
            over.set()
            await task

    return trouble


@_repeated
@asynccontextmanager
async def _flapping(stage: Stage, done: Counter[str]) -> AsyncIterator[None]:
    await stage.fall_ill(None if done["turns"] % 2 else "500")
    done["turns"] += 1
    yield
    await stage.fall_ill(None)


@_repeated
@asynccontextmanager
async def _killed(stage: Stage, done: Counter[str]) -> AsyncIterator[None]:
    done["kills"] += await stage.signal(signal.SIGKILL)
    yield


@asynccontextmanager
async def _stopped(stage: Stage) -> AsyncIterator[Counter[str]]:
    done = Counter(stops=int(await stage.signal(signal.SIGSTOP)))
    pid = await stage.pid(stage.launched)
    try:
        yield done
    finally:
        if await stage.pid(stage.launched) == pid:
            done["continued"] += await stage.signal(signal.SIGCONT)


@asynccontextmanager
async def _stopped_for_good(stage: Stage) -> AsyncIterator[Counter[str]]:
    yield Counter(stops=int(await stage.signal(signal.SIGSTOP)))


@asynccontextmanager
async def _disk_full(stage: Stage) -> AsyncIterator[Counter[str]]:
    with stage.full_disk():
        done = Counter(kills=int(await stage.signal(signal.SIGKILL)))
        yield done
        await stage.until_well(stage.launched)  # it comes up though nothing can be written
        done["came up with a full disk"] = 1


@_repeated
@asynccontextmanager
async def _reloaded(stage: Stage, done: Counter[str]) -> AsyncIterator[None]:
    """In turn: an engine is added; it is taken away; both are renamed; a file with an error, which changes nothing."""
    turn = done["reloads"] % 4
    if turn == 0:
        stage.more = f'[[engine]]\nname = "more"\nkind = "openai"\nurl = "{stage.remote_url}"\n'
    elif turn == 1:
        stage.more = ""
    elif turn == 2:
        stage.renew()
    stage.write()
    if turn == 3:
        stage.broken_write()
    status = await stage.reload()
    done["reloads"] += 1
    done["refused"] += status != 200
    stage.write()
    yield


WELL = Phase("well", False, _nothing)
PHASES: Sequence[Phase] = (
    WELL,
    *(Phase(illness, False, _illness(illness)) for illness in ILLNESSES if illness is not None),
    Phase("500, on and off", False, _flapping, lasts_s=8),
    Phase("killed again and again", True, _killed, lasts_s=12),
    Phase("stopped and continued", True, _stopped, lasts_s=4),
    Phase("stopped for good", True, _stopped_for_good, lasts_s=4),
    Phase("killed, disk full", True, _disk_full, lasts_s=2, needs_small_disk=True),
    Phase("reloaded", True, _reloaded, lasts_s=10),
    Phase("well again", False, _nothing),
)
