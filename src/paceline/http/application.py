"""HTTP in, HTTP out: who is let in, which row of `routes.py` a request is for, and what is answered if that fails."""

import asyncio
import logging
from collections.abc import Mapping
from time import monotonic

from paceline.http.access import ANYONE, Access, Caller
from paceline.http.answers import Answers, Handler
from paceline.http.errors import ApiError, api_error
from paceline.http.reply import ApiReply
from paceline.http.routes import ROUTES, Audience, api_of, route
from paceline.records.metrics import Metrics
from paceline.serving.errors import ServingError
from paceline.wire.headers import Headers
from paceline.wire.server import ClientLeft, HttpRequest, Refused, Reply

DENIED_LINE_INTERVAL_S = 1.0
"""At most one line is logged in so many seconds for requests that are denied; the others are counted."""
STOPPING_RETRY_AFTER_S = 5
"""Told to requests that are cut off when the gateway stops: another one may have taken its place by then."""
MAX_PATH_CHARS = 200
"""Of a path, in a message."""

log = logging.getLogger("paceline.http")


class Application:
    """Answers requests, whatever happens.

    Args:
        access: who may; may be replaced.
        answers: what answers those that are let in.
        metrics: count those that are not.
    """

    def __init__(self, access: Access, answers: Answers, metrics: Metrics) -> None:
        self.access = access
        self._answers = answers
        self._by_name: Mapping[str, Handler] = {row.name: getattr(answers, row.name) for row in ROUTES}
        self._metrics = metrics
        self._denials = _Denials()

    async def __call__(self, incoming: HttpRequest, wire: Reply) -> None:
        """Answer one request."""
        reply = ApiReply(wire, api_of(incoming.path), self.access.cors_headers(incoming.headers), incoming)
        try:
            await self._answer(incoming, reply)
        except (ClientLeft, ConnectionError):
            return
        except ApiError as error:
            await reply.error(error)
        except (ServingError, Refused) as error:
            await reply.error(api_error(error))
        except asyncio.CancelledError:
            if not incoming.client_left:
                await reply.error(ApiError(503, "the gateway is stopping", "stopping", STOPPING_RETRY_AFTER_S))
            raise
        except Exception:
            log.exception("%s %s failed", incoming.method, incoming.path[:MAX_PATH_CHARS])
            await reply.error(ApiError(500, "internal error; the gateway's log has more", "internal_error"))

    async def _answer(self, incoming: HttpRequest, reply: ApiReply) -> None:
        method, path = incoming.method, incoming.path
        # 1. Which row it is for, and by which methods the address may be used.
        row, methods = route(method, path)
        audience = row.audience_of(method) if row else Audience.CLIENTS
        # 2. A preflight is answered, and only then who may: browsers send no key with it.
        if method == "OPTIONS":
            self.access.check_origin(_without_origin(incoming.headers), opens_a_page=False)
            await reply.empty(200, self.access.preflight_headers(incoming.headers, methods))
            return
        # 3. Whether it is let in.
        caller = self._admit(incoming, audience)
        if row is None and method not in methods:
            allowed = ", ".join(methods)
            refused = f"{method} is not for {path[:MAX_PATH_CHARS]}; it takes {allowed}"
            raise ApiError(405, refused, headers=[(b"allow", allowed.encode())])
        # 4. What the row names answers; what stands in no row is the engines'.
        handle = self._by_name[row.name] if row else self._answers.pass_on
        await handle(incoming, reply, caller)

    def _admit(self, incoming: HttpRequest, audience: Audience) -> Caller:
        """Who sends the request, if it is let in.

        Raises:
            ApiError: 401, 403 or 421; counted and logged.
        """
        try:
            is_page = incoming.path == "/" or (audience is Audience.ANYONE and incoming.path.startswith("/paceline"))
            self.access.check_origin(incoming.headers, opens_a_page=is_page)
            caller = ANYONE if audience is Audience.ANYONE else self.access.identify(incoming.headers)
            self.access.admit(caller, audience, incoming.path)
        except ApiError as error:
            self._metrics.denied(error.code or str(error.status))
            self._denials.note(f"{error.status} {incoming.method} from {incoming.client or 'unknown'}: {error.code}")
            raise
        return caller


class _Denials:
    """Logs that requests are denied, now and then."""

    def __init__(self) -> None:
        self._logged_s = float("-inf")
        self._left_out = 0

    def note(self, what: str) -> None:
        """Log this one, or count it for the next line."""
        if monotonic() - self._logged_s < DENIED_LINE_INTERVAL_S:
            self._left_out += 1
            return
        log.warning("denied: %s%s", what, f" (and {self._left_out} more)" if self._left_out else "")
        self._logged_s, self._left_out = monotonic(), 0


def _without_origin(headers: Headers) -> Headers:
    """A preflight asks on behalf of a page; whether that may is what the answer tells."""
    return [(name, value) for name, value in headers if name not in (b"origin", b"sec-fetch-site")]
