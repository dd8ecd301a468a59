"""Pauses the drafting of one request while it does not pay: the same rule as in our patch of llama.cpp, for engines
whose scheduler we extend.
"""

STEPS_AT_START = 3
"""Drafting steps until the yield is judged."""
STEPS_AFTER_PAUSE = 1
STEPS_OF_MEAN = 8
"""Drafting steps over which the yield is averaged."""
FIRST_PAUSE = 16
"""Tokens; each further pause in a row lasts twice as long."""
LONGEST_PAUSE = 256


class YieldGuard:
    """Of one request.

    Args:
        min_yield: tokens per drafting step below which drafting pauses; 0 never pauses.
    """

    def __init__(self, min_yield: float) -> None:
        self._min_yield = min_yield
        self._mean = 0.0
        self._steps = 0
        self._pause = 0
        self._left = 0

    @property
    def is_paused(self) -> bool:
        return self._left > 0

    def drafted(self, tokens: int) -> None:
        """A step that verified a draft has yielded so many tokens, the one that it always yields included."""
        self._steps += 1
        self._mean += (tokens - self._mean) / min(self._steps, STEPS_OF_MEAN)
        if self._steps < (STEPS_AFTER_PAUSE if self._pause else STEPS_AT_START):
            return
        if self._mean >= self._min_yield:
            self._pause = 0
            return
        self._pause = min(2 * self._pause, LONGEST_PAUSE) if self._pause else FIRST_PAUSE
        self._left = self._pause
        self._steps, self._mean = 0, 0.0

    def decoded(self, tokens: int) -> None:
        """A step without a draft has yielded so many tokens."""
        self._left = max(0, self._left - tokens)
