"""How an engine's streams come, as was seen: when they begin, and how long they pause. So it can be told which one
hangs, and after which time a second copy of a request is worth sending."""

from collections import deque

MAX_STREAMS = 200
"""That are looked back at: a few minutes of a busy gateway."""
MIN_STREAMS = 20
"""Fewer tell no 95th percentile, and nothing of the longest pause."""
HEDGED_SHARE = 0.95
"""Of the streams have begun when a second copy is sent, as in "The Tail at Scale" (Dean and Barroso, 2013)."""
TIMES_LONGEST_PAUSE = 5.0
"""After so many times the longest pause that was seen, a stream hangs. Set by hand: pauses before a tool's arguments or
a long thought vary by two or three times."""
MIN_STALL_S = 20.0
"""No stream is given up sooner, however quick the others were: providers' own hiccups take several seconds."""


class StreamPace:
    """Of one engine."""

    def __init__(self) -> None:
        self._begun_s: deque[float] = deque(maxlen=MAX_STREAMS)
        self._longest_pauses_s: deque[float] = deque(maxlen=MAX_STREAMS)

    def begun(self, after_s: float) -> None:
        """A stream began so long after it was asked for; or had not when it was no longer waited for."""
        self._begun_s.append(after_s)

    def ended(self, longest_pause_s: float) -> None:
        """A stream came whole."""
        self._longest_pauses_s.append(longest_pause_s)

    @property
    def hedge_after_s(self) -> float | None:
        """How long most streams take to begin; ``None`` before enough have."""
        if len(self._begun_s) < MIN_STREAMS:
            return None
        ordered = sorted(self._begun_s)
        return ordered[min(len(ordered) - 1, int(HEDGED_SHARE * len(ordered)))]

    @property
    def stall_limit_s(self) -> float | None:
        """The pause after which a stream hangs; ``None`` before enough were seen."""
        if len(self._longest_pauses_s) < MIN_STREAMS:
            return None
        return max(MIN_STALL_S, TIMES_LONGEST_PAUSE * max(self._longest_pauses_s))
