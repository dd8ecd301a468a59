"""Times that a test may take, on machines that are busy with something else now and then."""

import gc
import time
from collections.abc import Callable

TRIES = 5


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
