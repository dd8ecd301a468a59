"""Why a request is not served: the facts, for whoever answers it to put into words of an API's own (`http/errors.py`).

Each error has the status that the record of the request keeps, which is what every API answers with, too.
"""

from collections.abc import Collection, Iterable

from paceline.types import CLIENT_LEFT

MAX_QUOTED_CHARS = 100
"""Of what a client or an engine wrote, in a message."""
MAX_LISTED = 50
"""Models that a message names."""


class ServingError(Exception):
    """A request that is not served. ``str()`` says to people what was wrong and what to do.

    Attributes:
        status: in HTTP's numbers, 400 or above.
        may_pass: whether the same request may be served in a moment.
        retry_after_s: when, in seconds, as far as that is known.
    """

    status: int
    may_pass: bool = False
    retry_after_s: float | None = None


class UnknownLane(ServingError):
    """The client asks by name for a lane that there is not."""

    status = 400

    def __init__(self, *, name: str, lanes: Iterable[str]) -> None:
        super().__init__(f"x-paceline-lane: there is no lane {bounded(name)!r}; there are: {', '.join(lanes)}")
        self.name = name


class UnknownModel(ServingError):
    """No lane serves the model; or the lane that the client asks for does not."""

    status = 404

    def __init__(self, *, name: str | None, models: Collection[str], lane: str | None = None) -> None:
        if lane is None:
            message = f"no lane serves the model {bounded(name or '')!r}; there are: {_listed(models)}"
        else:
            message = f"lane {bounded(lane)!r} does not serve the model {bounded(name or '')!r}, but: {_listed(models)}"
        super().__init__(message)
        self.name, self.lane = name, lane


class NotPlaced(ServingError):
    """No engine may serve the request: it is private, or its key, what it needs, or its price speaks against each.

    Args:
        filter_name: what spoke against the last that was left.
    """

    def __init__(self, message: str, filter_name: str) -> None:
        super().__init__(message)
        self.status = _STATUS_BY_FILTER.get(filter_name, 403)


_STATUS_BY_FILTER = {"private": 403, "engines": 403, "declared": 404, "needs": 400, "cost": 402}
"""Statuses after which no client asks again by itself."""


class NoLane(ServingError):
    """No engine could be reached, or none has a place for the request. None has worked on it."""

    status = 503
    may_pass = True


class CannotBeSaid(ServingError):
    """No engine that serves the model speaks the client's API, and the request can't be translated."""

    status = 400


class LimitReached(ServingError):
    """The providers that could serve it take no more for a while.

    Args:
        retry_after_s: how long.
    """

    status = 429
    may_pass = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotPassedOn(ServingError):
    """A request that is not decided on names, or could only go to, a provider."""

    status = 404


class EngineLost(ServingError):
    """An engine broke off while it worked on the request, or answered it with an error of its own."""

    status = 502

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class EngineGivenUp(ServingError):
    """An engine was silent for longer than it may be."""

    status = 504

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class EngineRefused(ServingError):
    """An engine refused the request in more words than are passed on.

    Args:
        status: the engine's.
    """

    def __init__(self, *, status: int, max_bytes: int) -> None:
        super().__init__(f"the engine answered {status}, with more than {max_bytes:,} bytes")
        self.status = status


class TookTooLong(ServingError):
    """A limit of time was over, of the whole request or of what it waited for."""

    status = 504

    def __init__(self, message: str = "it took longer than server.total_timeout_s", *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class ClientLeft(ServingError):
    """Nobody waits for the answer any more. It is recorded, and never raised."""

    status = CLIENT_LEFT

    def __init__(self) -> None:
        super().__init__("the client left")


class Stopping(ServingError):
    """The gateway stopped before the answer was whole. It is recorded; what is raised is the cancellation."""

    status = 503

    def __init__(self) -> None:
        super().__init__("the gateway was stopped")


def bounded(text: str) -> str:
    """What a client or an engine wrote, short enough for a message."""
    return text if len(text) <= MAX_QUOTED_CHARS else text[:MAX_QUOTED_CHARS] + "..."


def _listed(names: Collection[str]) -> str:
    shown = [bounded(name) for name in list(names)[:MAX_LISTED]]
    more = len(names) - MAX_LISTED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "") or "none yet"
