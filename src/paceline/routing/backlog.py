"""How long a request would wait for those that are there before it."""

from heapq import heapify, heappop, heappush
from math import exp
from weakref import ref

from paceline.types import Decision

RATE_S = 20.0
"""For how long an arrival counts towards the rate at which requests come."""
MIN_LEFT = 0.1
"""Of its expected time, that a request takes at least still, however long it has run."""


class _Job:
    __slots__ = ("begun_s", "decision", "service_s")

    def __init__(self, decision: Decision, service_s: float) -> None:
        self.decision = ref(decision)
        self.service_s = service_s
        self.begun_s: float | None = None
        """When it left the queue; ``None`` while it waits."""

    def left_s(self, now_s: float) -> float:
        ran_s = 0.0 if self.begun_s is None else now_s - self.begun_s
        return max(MIN_LEFT * self.service_s, self.service_s - ran_s)


class Backlog:
    """The requests in flight, by what serves them: a device, or an engine that shares none."""

    def __init__(self) -> None:
        self._jobs: dict[str, list[_Job]] = {}
        self._rates: dict[str, tuple[float, float]] = {}
        """Requests in a second as they came lately, and when that was."""

    def add(self, by: str, slots: int | None, decision: Decision, service_s: float, now_s: float) -> None:
        """A request is on its way.

        Args:
            slots: requests that are served at once; ``None`` for as many as come.
            service_s: that it is expected to take once its turn has come.
        """
        self._rates[by] = self._rate(by, now_s) + 1 / RATE_S, now_s
        self._jobs.setdefault(by, []).append(_Job(decision, service_s))
        self._begin(by, slots, now_s)

    def remove(self, by: str, slots: int | None, decision: Decision, now_s: float) -> None:
        """A request is over."""
        jobs = self._jobs.get(by, [])
        jobs[:] = [job for job in jobs if (own := job.decision()) is not None and own is not decision]
        self._begin(by, slots, now_s)

    def wait_s(self, by: str, slots: int | None, now_s: float) -> float:
        """How long one more request would wait, if the first that came is the first served."""
        jobs = [job for job in self._jobs.get(by, ()) if job.decision() is not None]
        if slots is None or len(jobs) < slots:
            return 0.0
        left_s = [job.left_s(now_s) for job in jobs[:slots]]
        heapify(left_s)
        for job in jobs[slots:]:
            heappush(left_s, heappop(left_s) + job.service_s)
        return left_s[0]

    def others_wait_s(self, by: str, slots: int | None, service_s: float, now_s: float) -> float:
        """How much longer others would wait in all, if one more request took so long: those that come before the queue
        is gone, as many as came lately, each by its part of the slots."""
        if slots is None:
            return 0.0
        return self._rate(by, now_s) * self.wait_s(by, slots, now_s) * service_s / slots

    def _rate(self, by: str, now_s: float) -> float:
        rate, at_s = self._rates.get(by, (0.0, now_s))
        return rate * exp((at_s - now_s) / RATE_S)

    def _begin(self, by: str, slots: int | None, now_s: float) -> None:
        """Those at the head of the queue are served."""
        jobs = self._jobs.get(by, [])
        for job in jobs if slots is None else jobs[:slots]:
            if job.begun_s is None:
                job.begun_s = now_s
        if not jobs:
            self._jobs.pop(by, None)
