"""A process that is an engine of ours: in a group of its own, and gone when the gateway is."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from paceline.processes.process_log import ProcessLog

STOP_GRACE_S = 5.0
"""Between being asked to end and being killed."""
WORKING_SHARE = 0.1
"""Of one processor: a process that used more than this meanwhile is at work, however silent."""


class LaunchedProcess:
    """Made by :meth:`start`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.exited: asyncio.Future[int] = asyncio.ensure_future(process.wait())
        """Done with the exit status as soon as it has ended."""
        self._last_reading: tuple[float, float] | None = None
        """When its processor time was last asked for, and that, in seconds."""

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], log: ProcessLog, shown: str) -> Self:
        """Start a program; what it prints goes to ``log``, under ``shown`` as its headline.

        Raises:
            OSError: it can't be started.
        """
        output = log.pipe(shown)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the gateway, which lets answers finish first
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        finally:
            os.close(output)
        return cls(process)

    def has_ended(self) -> bool:
        """Whether it has ended, also where the event loop was not told yet."""
        if self.exited.done():
            return True
        if not hasattr(os, "waitid"):
            return False
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    @property
    def tells_its_work(self) -> bool:
        """Whether the system told its processor time when :meth:`is_working` last asked for it."""
        return self._last_reading is not None

    async def is_working(self) -> bool:
        """Whether its group has used the processor since this was last asked, as far as can be told."""
        used_s = await asyncio.to_thread(self.processor_s)
        now_s = asyncio.get_running_loop().time()
        before, self._last_reading = self._last_reading, None if used_s is None else (now_s, used_s)
        if before is None or used_s is None:
            return False
        return used_s - before[1] > WORKING_SHARE * (now_s - before[0])

    def processor_s(self) -> float | None:
        """Seconds of processor time that its group has used so far; ``None`` where the system does not tell."""
        ticks, is_told = 0, False
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                # proc(5): behind the name, which stands in parentheses: state, parent, group ... utime and stime
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.pid:
                    ticks += int(fields[11]) + int(fields[12])
                    is_told = True
        return ticks / os.sysconf("SC_CLK_TCK") if is_told else None

    async def end(self, at_once: bool = False) -> None:
        """Ask it to end, kill it if it does not, and kill what it has started itself."""
        for number in (signal.SIGKILL,) if at_once else (signal.SIGTERM, signal.SIGKILL):
            self._signal(number)
            done, _ = await asyncio.wait([self.exited], timeout=STOP_GRACE_S)
            if done:
                break
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


if sys.platform == "linux":
    _libc = ctypes.CDLL(None)

    def _end_with_parent() -> None:
        """In the child: have the kernel end it when the gateway ends, even by SIGKILL."""
        pr_set_pdeathsig = 1
        _libc.prctl(pr_set_pdeathsig, signal.SIGTERM)
