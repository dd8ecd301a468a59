"""Pauses the drafting of one request while it does not pay: the same rule as in our patch of llama.cpp, for engines
whose scheduler we extend.

Drafting is on probation at the start and after each pause: drafts are shorter, and less of a gain is asked of them, so
that finding out costs little.
"""

STEPS_ON_PROBATION = 1
STEPS_IN_FULL = 3
"""Verification steps until the yield is judged."""
PROBATION_PART = 3
"""On probation, drafts have this part of their length, and this part of the gain is asked of them."""
STEPS_OF_MEAN = 8
"""Verification steps over which the yield is averaged."""
MIN_PAUSE = 16
"""Tokens; each further pause in a row lasts twice as long."""
MAX_PAUSE = 256
"""Tokens."""


class YieldGuard:
    """Of one request.

    Args:
        min_yield: tokens per verification step below which drafting pauses; 0 never pauses.
    """

    def __init__(self, min_yield: float) -> None:
        self._min_yield = min_yield
        self._is_on_probation = min_yield > 0
        self._mean = 0.0
        self._steps = 0
        self._pause = 0
        self._left = 0

    def limit(self, n_max: int) -> int:
        """Tokens to draft in the next step where at most ``n_max`` may be."""
        if self._left > 0:
            return 0
        return -(-n_max // PROBATION_PART) if self._is_on_probation else n_max

    def drafted(self, tokens: int) -> None:
        """A step that verified a draft has yielded so many tokens, the one that it always yields included."""
        self._steps += 1
        self._mean += (tokens - self._mean) / min(self._steps, STEPS_OF_MEAN)
        if self._steps < (STEPS_ON_PROBATION if self._is_on_probation else STEPS_IN_FULL):
            return
        gain = self._min_yield - 1
        if self._is_on_probation and self._mean >= 1 + gain / PROBATION_PART:
            self._begin(on_probation=False)
        elif not self._is_on_probation and self._mean >= self._min_yield:
            self._pause = 0
        else:
            self._pause = min(2 * self._pause, MAX_PAUSE) if self._pause else MIN_PAUSE
            self._left = self._pause
            self._begin(on_probation=True)

    def decoded(self, tokens: int) -> None:
        """A step without a draft has yielded so many tokens."""
        self._left = max(0, self._left - tokens)

    def _begin(self, on_probation: bool) -> None:
        self._is_on_probation = on_probation
        self._steps, self._mean = 0, 0.0
