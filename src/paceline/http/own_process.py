"""What a process that does nothing but serve sets for itself."""

import asyncio
import gc
import sys
import time
from collections.abc import Callable

OBJECTS_BETWEEN_COLLECTIONS = 10_000
"""Made and not freed since the last look for garbage; Python's own default is 700 to 2,000."""


def say(line: str) -> None:
    """A line of a request, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def calm_garbage_collector() -> None:
    """What is loaded by now stays to the end, and a request makes hardly any cycles: looking for garbage at the usual
    rate took 6 % of the time under load."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def calm_matrices() -> None:
    """Linear algebra in one thread. The decision's matrices have some hundred rows, and threads that wait for one
    another on cores where an engine computes made learning take 21 ms in place of 0.5."""
    from threadpoolctl import threadpool_limits  # which only a process that serves needs

    threadpool_limits(1, user_api="blas")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop, where there is one."""
    if sys.platform == "win32":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
