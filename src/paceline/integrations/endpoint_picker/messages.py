"""What a gateway and the endpoint picker say to each other about one exchange, without the format on the wire."""

from enum import Enum, auto

from msgspec import Struct

from paceline.wire.headers import Headers


class BodyMode(Enum):
    """How the gateway hands over a body."""

    NONE = auto()
    """It keeps it to itself."""
    STREAMED = auto()
    """Piece by piece, each of which it waits for; the headers have gone on by then."""
    BUFFERED = auto()
    """At once, as far as it holds it; the headers wait."""
    DUPLEX = auto()
    """Piece by piece, and takes other pieces in place of them whenever they come; the headers wait."""


class RequestHeaders(Struct, frozen=True, kw_only=True):
    """An exchange begins."""

    headers: Headers
    """Names in small letters; ``:path`` and ``:method`` are among them."""
    ends: bool = False
    """Whether there is no body."""
    request_mode: BodyMode = BodyMode.DUPLEX
    response_mode: BodyMode = BodyMode.DUPLEX
    subset: tuple[str, ...] | None = None
    """The endpoints to pick from; ``None`` for all."""


class RequestBody(Struct, frozen=True):
    data: bytes
    ends: bool


class RequestTrailers(Struct, frozen=True):
    """The request's body has ended with trailers."""


class ResponseHeaders(Struct, frozen=True):
    headers: Headers
    ends: bool = False
    served: str | None = None
    """The endpoint that the gateway says has answered."""


class ResponseBody(Struct, frozen=True):
    data: bytes
    ends: bool


class ResponseTrailers(Struct, frozen=True):
    """The answer's body has ended with trailers."""


Said = RequestHeaders | RequestBody | RequestTrailers | ResponseHeaders | ResponseBody | ResponseTrailers


class Go(Struct, frozen=True, kw_only=True):
    """Headers go on, or a body that was handed over at once."""

    is_request: bool
    is_body: bool = False
    body: bytes | None = None
    """In place of what was handed over; ``None`` leaves that."""
    endpoints: tuple[str, ...] = ()
    """To which the request goes, the best first; the others are for a gateway that tries again."""
    set_headers: Headers = ()
    remove_headers: tuple[bytes, ...] = ()


class Piece(Struct, frozen=True, kw_only=True):
    """A piece of a body that goes on."""

    is_request: bool
    data: bytes
    ends: bool
    is_duplex: bool
    """Whether the gateway takes pieces as they come, and not each in place of one."""


class GoTrailers(Struct, frozen=True):
    """Trailers go on."""

    is_request: bool


class Refuse(Struct, frozen=True):
    """The gateway is to answer by itself."""

    status: int
    message: str
    body: bytes
    content_type: bytes = b"application/json"
    retry_after_s: float | None = None


Answer = Go | Piece | GoTrailers | Refuse
