"""How attempts fail."""

from enum import StrEnum


class Failure(StrEnum):
    """How an attempt to have a request served ended without an answer."""

    QUEUE = "queue"
    """The device's turn did not come; nothing was sent."""
    BUDGET = "budget"
    """It can't be paid for; nothing was sent."""
    UNREACHABLE = "unreachable"
    """No connection; nothing was sent."""
    ACCOUNT = "account"
    """A provider does not take the operator's key, or the account behind it."""
    BUSY = "busy"
    """The engine refused, as it may."""
    ERROR = "error"
    """It answered with an error of its own: a status from 500 on, or an error inside a 200."""
    LOST = "lost"
    """It broke off."""
    SILENT = "silent"
    """It did not answer in time."""

    @property
    def was_delivered(self) -> bool:
        """Whether the engine may have worked on the request."""
        return self in (Failure.ERROR, Failure.LOST, Failure.SILENT)
