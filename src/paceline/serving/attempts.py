"""What one request may still try. The one place where it is counted."""

from random import uniform

from paceline.serving.errors import EngineGivenUp, EngineLost, LimitReached, NoLane, NotPlaced, ServingError
from paceline.serving.failure import Failure

MAX_DELIVERIES = 2
"""Engines that may have worked on a request without an answer: a request that is the cause itself gets no further. A
generation has no effect but its answer, so the second delivery changes nothing that a client could see."""
FIRST_PAUSE_S = 0.5
"""Before a provider is asked once more: that of OpenAI's and Anthropic's own SDKs."""
MAX_PAUSE_S = 8.0
"""Likewise; a limit that lasts longer is told to the client."""
PASSING = (Failure.BUSY, Failure.ERROR, Failure.LOST, Failure.UNREACHABLE)
"""Failures of a provider that may be over in a moment."""
MAX_RETURNS = 3
"""Times that a request comes back to an engine that it could not reach, or that it lost, once that is up again."""


class Attempts:
    """The attempts of one request that have failed, and how many more it has."""

    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        """By engine, in words for people."""
        self.failures: dict[str, Failure] = {}
        """By engine, how the last attempt failed."""
        self._deliveries = 0
        self._returns = 0

    def failed(self, engine: str, kind: Failure, problem: str) -> None:
        """An attempt has failed on this engine."""
        self.problems[engine], self.failures[engine] = problem, kind
        self._deliveries += kind.was_delivered

    @property
    def may_go_on(self) -> bool:
        """Whether the request may be tried anywhere at all."""
        return self._deliveries < MAX_DELIVERIES

    def may_try(self, engine: str) -> bool:
        """Whether the request has not been tried on this engine."""
        return engine not in self.failures

    def may_return(self, engine: str) -> bool:
        """Whether it is worth waiting for an engine that was tried already."""
        return self.failures.get(engine) in (Failure.UNREACHABLE, Failure.LOST) and self._returns < MAX_RETURNS

    def may_repeat(self, engine: str) -> bool:
        """Whether it is worth asking a provider once more that could not serve, after a pause."""
        return self.failures.get(engine) in (None, *PASSING) and self._returns < MAX_RETURNS

    @property
    def has_another(self) -> bool:
        """Whether a provider could be asked once more if it failed now."""
        return self._deliveries + 1 < MAX_DELIVERIES and self._returns < MAX_RETURNS

    @property
    def pause_s(self) -> float:
        """How long to wait before that; longer each time, and never quite the same, so that many requests that were
        refused together do not come back together."""
        return float(FIRST_PAUSE_S * 2**self._returns * uniform(0.5, 1.0))

    def returns(self, engine: str) -> None:
        """An engine that was tried before is to be tried again."""
        self._returns += 1
        self.failures.pop(engine, None)

    def error(self, problems: str, limit_s: float | None = None) -> ServingError:
        """Why the request is given up, where none of its attempts succeeded.

        Args:
            problems: those of all its lanes, in words for people.
            limit_s: when a provider that could have served it takes requests again.
        """
        message = f"no engine could serve this: {problems}"
        if Failure.SILENT in self.failures.values():
            return EngineGivenUp(message, may_pass=True)
        if self._deliveries:
            return EngineLost(message, may_pass=True)
        if self.failures and set(self.failures.values()) == {Failure.BUDGET}:
            return NotPlaced(message, "cost")
        return NoLane(message) if limit_s is None else LimitReached(message, limit_s)
