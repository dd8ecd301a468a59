"""A client's side of an exchange, as the way of a request sees it; what it is over HTTP stands in `http/reply.py`."""

from collections.abc import Sequence
from typing import Protocol

from paceline.serving.errors import ServingError
from paceline.wire.headers import Headers


class Reply(Protocol):
    """Where an answer goes. Each call waits until the client has taken enough of what was sent."""

    async def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""

    async def send(self, data: bytes) -> None:
        """Send a piece of its body."""

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece."""

    async def end_with(self, error: ServingError, is_inside_event: bool) -> None:
        """End a stream of events that can't go on with an event that says why.

        Args:
            is_inside_event: whether an event has begun that has to be ended first.
        """

    def abort(self) -> None:
        """Cut the connection, so that what was sent can't be taken for the whole."""


class ClientReply(Reply, Protocol):
    """A reply that knows whether somebody waits for it."""

    @property
    def client_left(self) -> bool:
        """Whether the client is gone."""

    @property
    def has_begun(self) -> bool:
        """Whether the answer has."""

    async def refuse(self, error: ServingError, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Answer with an error, in the words of the client's API.

        Args:
            headers: put before its own.
        """
