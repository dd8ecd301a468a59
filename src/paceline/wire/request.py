"""One request of a client, and its body as it arrives."""

import asyncio
import io
from collections.abc import Awaitable, Callable

from paceline.wire.framing import ChunkedBody, LengthBody
from paceline.wire.message import Refused, RequestHead


class BodyTooLarge(Refused):
    """The body is larger than the handler takes."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(413, f"the request body is larger than {max_bytes} bytes", "body_too_large")


class BodyTimedOut(Refused):
    """The client fell silent in the middle of its body."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(408, f"nothing of the request body arrived for {timeout_s:g} s", "body_timeout")


class Overloaded(Refused):
    """There are more connections, or bytes of bodies, than may be held."""

    def __init__(self, what: str) -> None:
        super().__init__(503, f"{what}; try again", "overloaded", 2)


class ClientLeft(Refused):
    """The client ended the connection, or its side of it, before its body was whole."""

    def __init__(self) -> None:
        super().__init__(400, "the request body ended before it was whole", "body_incomplete")


class HttpRequest:
    """One request of a client, its body still to come.

    Attributes:
        target: path and query as the client wrote them; of an absolute URL what follows the host, which then stands
            in the headers as ``host``.
        path: without the query, percent-decoded.
        headers: names in lower case, in the client's order.
        client: its address.
        client_left: the connection ended before the answer was whole.
    """

    def __init__(
        self,
        head: RequestHead,
        client: str,
        receive: Callable[[int], Awaitable[bytes]],
        hold: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.method, self.target, self.path, self.query = head.method, head.target, head.path, head.query
        self.version, self.headers = head.version, head.headers
        self.client = client
        self.client_left = False
        self._receive = receive
        self._hold = hold

    async def body(self, max_bytes: int) -> bytes:
        """The whole body, once; it is asked for where the client waits for that (100 Continue).

        Raises:
            BodyTooLarge, BodyTimedOut, Overloaded, ClientLeft: so they say.
            Refused: the base of these; on its own, the chunks are broken. Left to the server, it is answered there.
        """
        return await self._receive(max_bytes)

    def holds(self, more_bytes: int) -> None:
        """Count what the handler keeps of the request beside the body as it came, until the handler's end.

        Raises:
            Overloaded: there is no place for it.
        """
        self._hold(more_bytes)


class Incoming:
    """The body of the running request, as it arrives."""

    def __init__(self, head: RequestHead) -> None:
        self.frame = ChunkedBody() if head.is_chunked else LengthBody(head.content_length)
        self.length = head.content_length
        self.must_ask = head.expects_continue  # the client waits for 100 Continue
        self.max_bytes: int | None = None  # known when the handler has asked for the body
        self._held = io.BytesIO()  # which hands over what it holds without copying it
        self.held_bytes = 0
        self.problem: Refused | None = None
        self.waiter: asyncio.Future[None] | None = None

    def add(self, content: bytes) -> None:
        self.must_ask = False
        self._held.write(content)
        self.held_bytes += len(content)

    def take(self) -> bytes:
        body, self._held = self._held.getvalue(), io.BytesIO()
        return body

    def drop(self) -> None:
        self._held, self.held_bytes = io.BytesIO(), 0

    def fail(self, problem: Refused) -> None:
        self.problem = self.problem or problem
        self.wake()

    def wake(self) -> None:
        if self.waiter and not self.waiter.done():
            self.waiter.set_result(None)
