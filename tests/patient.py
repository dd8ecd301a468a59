"""Waiting and measuring on machines that are busy with something else now and then."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

TRIES = 5
PATIENCE_S = 30.0
"""For what must come: far more than it takes on a slow machine that stalls, since a test that passes does not wait
for it."""

MOMENT_S = 1e-6
"""What each round of a loop takes by :func:`jumping_clock`, since nothing ends that waits for a time to be over
where time stands still."""


async def until(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Waits for ``condition`` to hold.

    Raises:
        TimeoutError: it does not hold after ``within_s`` seconds.
    """
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], object], within_s: float = PATIENCE_S) -> None:
    """Like :func:`until`, where no event loop runs."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, f"not so within {within_s:.0f} s"
        time.sleep(0.005)


def shortest_s(
    action: Callable[[], object], good_enough_s: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The shortest time in seconds that ``action`` took of a few tries, of which a good enough one is the last.

    What else a machine does, and a collection of all the garbage that other tests left, make a try longer, never
    shorter: an action whose best try is too long is itself too long.
    """
    shortest = float("inf")
    gc.disable()
    try:
        for _ in range(TRIES):
            began_s = clock()
            action()
            shortest = min(shortest, clock() - began_s)
            if shortest <= good_enough_s:
                break
    finally:
        gc.enable()
    return shortest


async def shortest_async_s(action: Callable[[], Awaitable[object]], good_enough_s: float) -> float:
    """Like :func:`shortest_s`, of something that is awaited."""
    shortest = float("inf")
    for _ in range(TRIES):
        began_s = time.perf_counter()
        await action()
        shortest = min(shortest, time.perf_counter() - began_s)
        if shortest <= good_enough_s:
            break
    return shortest


@contextmanager
def jumping_clock() -> Iterator[Callable[[], float]]:
    """The running loop's clock moves only when there is nothing to do but wait, and then to the next timer at once.

    So a minute's silence takes no time, and no stop of the machine makes it longer. Not for what waits for threads,
    processes or sockets.

    Yields:
        The clock, in seconds.
    """
    loop: Any = asyncio.get_running_loop()
    now_s, select = loop.time(), loop._selector.select

    def jump(timeout_s: float | None = None) -> Any:
        nonlocal now_s
        events = select(0)
        if not events and timeout_s is None:
            return select(None)
        now_s += MOMENT_S if events else max(MOMENT_S, timeout_s or 0.0)
        return events

    loop._selector.select, loop.time = jump, lambda: now_s
    try:
        yield lambda: now_s
    finally:
        loop._selector.select = select
        del loop.time
