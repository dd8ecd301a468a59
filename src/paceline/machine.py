"""What this machine has to run a model on."""

import os
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""In bytes, or ``max``: https://docs.kernel.org/admin-guide/cgroup-v2.html"""
PROCESSORS = Path("/sys/devices/system/cpu")


def available_memory_bytes() -> int | None:
    """What programs can still get without swapping, of the machine or of the container; ``None`` where nothing tells.
    A GPU's memory is not in it."""
    available = _available_of_machine()
    try:
        limit = int(CONTAINER_LIMIT.read_text())
    except (OSError, ValueError):
        return available
    return limit if available is None else min(limit, available)


def _available_of_machine() -> int | None:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def engine_threads() -> int:
    """Threads for an engine on the CPU: the cores that this process may use, but one. An engine's threads spin for one
    another at every step, so that one of them that has to wait for a core makes all of them wait: on two busy cores,
    two threads were 4 to 8 times slower than one. Threads that share a core count once."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core(processor) for processor in usable}
    return max(1, len(cores) - 1)


def _core(processor: int) -> str:
    """Names the core that a logical processor is of."""
    try:
        return (PROCESSORS / f"cpu{processor}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(processor)
