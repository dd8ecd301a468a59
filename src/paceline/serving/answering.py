"""How attempts end: with an answer that has begun, with an engine's refusal, or without either."""

from msgspec import Struct

from paceline.engines import Observer
from paceline.serving.errors import EngineRefused
from paceline.serving.failure import Failure
from paceline.serving.handles import LaneHandle
from paceline.serving.relay import Relay
from paceline.types import Answered, Observation
from paceline.wire.headers import Headers

ERROR_INSIDE = "the engine's answer was an error"
"""What is kept of an error that came as a success: an engine's own words may quote the prompt."""


class Refusal(Struct, frozen=True, kw_only=True):
    """An engine's refusal, set aside in case no other lane serves."""

    lane: LaneHandle
    fingerprint: str
    status: int
    headers: Headers
    """Of the answer, but for its length."""
    body: bytes | EngineRefused
    """The engine's; or what is said in its place, where it has too many words."""
    error: str
    """What is recorded of it."""


class Failed(Struct, frozen=True):
    """How an attempt failed, or an answer broke."""

    kind: Failure
    problem: str
    """In words for people."""
    is_clients: bool = False
    """Whether the engine says that the client is at fault."""
    refusal: Refusal | None = None
    """The engine's, if it is one."""


class Answering:
    """An answer that has begun, so that no other lane is tried."""

    def __init__(self, *, lane: LaneHandle, relay: Relay, observer: Observer, status: int) -> None:
        self.lane = lane
        self.status = status
        self.error: str | None = None
        """What is recorded of its failure, once it was relayed."""
        self._relay = relay
        self._observer = observer

    async def relay(self) -> Failed | None:
        """Relay it to its end. Returns how it broke, if it did.

        Raises:
            ServingError: it broke in a way that can't be said within it.
        """
        broken = await self._relay.run()
        if broken is not None:
            self.error = str(broken)
            return Failed(Failure.LOST, self.error)
        if self.status >= 400:
            self.error = refused(self.status)
        elif self._observer.error is not None:
            self.error = ERROR_INSIDE
            return Failed(Failure.ERROR, ERROR_INSIDE, self._observer.error_is_clients)
        return None

    def give_up(self, why: str) -> None:
        """End it: its engine is taken for lost."""
        self._relay.give_up(why)

    @property
    def head(self) -> bytes:
        """The beginning of its body."""
        return self._observer.head

    def observation(self) -> Observation:
        """What was measured of it, as far as it has come."""
        return self._observer.observation()

    def answered(self) -> Answered | None:
        """What it says of itself."""
        return self._observer.answered()


def refused(status: int) -> str:
    """What is recorded of an answer that is an error by its status."""
    return f"the engine answered {status}"
