"""Which endpoint a request goes to, and what its body becomes. Whatever fails, there is an endpoint, if one is up."""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct

from paceline.http.errors import ApiError
from paceline.http.parse import parse_request
from paceline.http.routes import GENERATION, api_of
from paceline.integrations.endpoint_picker.carried import Carried, OnItsWay, Passed
from paceline.integrations.endpoint_picker.endpoints import address_of, is_in
from paceline.integrations.endpoint_picker.messages import BodyMode, Refuse, RequestHeaders
from paceline.serving.errors import NotPlaced, ServingError
from paceline.serving.fleet import Fleet
from paceline.serving.handles import EngineHandle
from paceline.serving.model_in_body import named_model
from paceline.serving.pipeline import Pipeline
from paceline.wire.headers import Headers

DECISION_LIMIT_S = 1.0
"""A decision takes about a millisecond; one that waits for something is done without, for the gateway waits, too."""
RETRY_AFTER_S = 2.0
"""Told with refusals that may pass, as the gateway does."""
NO_BODY, TOO_LARGE, NOT_DECIDED_ON, ENCODED = "no body", "too large", "no such path", "compressed"
"""Why a request is passed on undecided, beside what fails."""

log = logging.getLogger("paceline.integrations")


class Limits(Struct, frozen=True, kw_only=True):
    """How much is taken on."""

    max_body_bytes: int = 32 * 1024 * 1024
    """Of a request that is decided on; a larger one is passed on as it comes."""
    max_buffered_bytes: int = 256 * 1024 * 1024
    """Of all requests that are being received; beyond that they are passed on as they come."""
    queue_limit: int = 256
    """Requests of each endpoint beyond those that it decodes at once, before more are refused."""
    fallbacks: int = 0
    """Further endpoints that are named to the gateway."""


class Picked(Struct, frozen=True, kw_only=True):
    """Where a request goes."""

    endpoints: tuple[str, ...]
    on_its_way: OnItsWay
    body: bytes | None = None
    """In place of the client's; ``None`` leaves that."""
    set_headers: Headers = ()
    remove_headers: tuple[bytes, ...] = ()


class Picker:
    """Picks endpoints among the engines of a pipeline's fleet."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - it is frozen
        self.limits = limits
        self.pipeline: Pipeline | None = None
        """``None`` before any endpoint was found."""
        self.is_empty = False
        """Whether all endpoints are gone; the pipeline still has the last ones."""
        self.buffered_bytes = 0
        """Of requests that are being received now."""
        self.decided = 0
        self.passed: Counter[str] = Counter()
        """How many were passed on undecided, by why."""
        self.refused: Counter[int] = Counter()
        """How many were refused, by status."""
        self._addresses: dict[str, EngineHandle] = {}
        self._fleet: Fleet | None = None

    @property
    def is_ready(self) -> bool:
        """Whether an endpoint is up."""
        return self.pipeline is not None and any(engine.is_up for engine in self.by_address().values())

    @property
    def in_flight(self) -> int:
        """Requests that are on their way."""
        return sum(engine.in_flight for engine in self.by_address().values())

    def by_address(self) -> Mapping[str, EngineHandle]:
        """The engines that a gateway can send requests to."""
        fleet = self.pipeline.fleet if self.pipeline and not self.is_empty else None
        if fleet is not self._fleet:
            found = ((address_of(engine.settings), engine) for engine in fleet.engines.values()) if fleet else ()
            self._fleet, self._addresses = fleet, {address: engine for address, engine in found if address}
        return self._addresses

    async def pick(self, head: RequestHeaders, body: bytes | None, why_none: str = NO_BODY) -> Picked | Refuse:
        """Where a request goes.

        Args:
            body: the whole of it; ``None`` where it is not there to be looked at.
            why_none: why it is not.
        """
        engines = {
            address: engine
            for address, engine in self.by_address().items()
            if engine.is_up and (head.subset is None or is_in(address, head.subset))
        }
        path = _field(head, b":path").decode("latin-1")
        pipeline = self.pipeline
        if pipeline is None or not engines:
            where = "" if head.subset is None else f" of the {len(head.subset)} that the gateway allows"
            return self._refusal(503, f"no endpoint{where} is ready", "engine_unavailable", path)
        if all(engine.in_flight >= engine.slots + self.limits.queue_limit for engine in engines.values()):
            return self._refusal(429, "all endpoints have as many requests as they may", "rate_limit_exceeded", path)
        api = GENERATION.get(path.partition("?")[0])
        is_encoded = _field(head, b"content-encoding", b"identity") != b"identity"
        why_stays = ""
        if body is not None and api is None:
            why_none = NOT_DECIDED_ON
        elif body is not None and is_encoded:
            why_none = ENCODED
        elif body is not None:
            try:
                async with asyncio.timeout(DECISION_LIMIT_S):
                    picked = await self._decided(pipeline, head, path, body, engines)
                self.decided += 1
                return picked
            except (ApiError, ServingError) as error:
                why_none = type(error).__name__
                if isinstance(error, NotPlaced):
                    why_stays = str(error)
            except Exception as error:
                why_none = type(error).__name__
                if not self.passed[why_none]:  # the first of its kind; the others are counted
                    log.exception("a decision failed; the request goes on as it came")
        # What may not leave this machine does not leave it undecided, either.
        if any(engine.settings.leaves_machine for engine in engines.values()):
            readable = None if is_encoded else b"" if head.ends else body
            if not why_stays and (why_private := await _why_private(pipeline, head, path, readable)):
                why_stays = f"the request is private ({why_private})"
            if why_stays:
                engines = {address: one for address, one in engines.items() if not one.settings.leaves_machine}
            if not engines:
                return self._refusal(403, f"no endpoint may have the request: {why_stays}", "private", path)
        self.passed[why_none] += 1
        return self._undecided(pipeline, head, engines)

    async def _decided(
        self,
        pipeline: Pipeline,
        head: RequestHeaders,
        path: str,
        body: bytes,
        engines: Mapping[str, EngineHandle],
    ) -> Picked:
        """
        Raises:
            Exception: it could not be decided on, for whatever reason; nothing is kept of it.
        """
        # 1. Which lanes there are for it, and which is the best.
        headers = [(name, value) for name, value in head.headers if not name.startswith(b":")]
        api = GENERATION[path.partition("?")[0]]
        request = await parse_request(api, path, body, headers)
        may_serve = {engine.name for engine in engines.values() if api in engine.settings.speaks}
        plan = await pipeline.plan(request, lambda engine: engine.name in may_serve)
        lanes = [lane for lane in pipeline.order(plan) if lane.engine.name in may_serve]
        if not lanes:  # by what was found out of it since
            raise NotPlaced("none that is up may have it", "private")
        first = lanes[0]
        # 2. It is on its way from now on, with the lane's strategy in its body.
        carried = await Carried.begin(pipeline, plan, first, observes=head.response_mode is not BodyMode.NONE)
        # 3. Further endpoints are shown the same key, and understand the same body only if they are of the same kind.
        kind, key = first.engine.settings.kind, first.engine.api_key
        others = [
            lane
            for lane in lanes[1:]
            if lane.engine.api_key == key and (not carried.is_changed or lane.engine.settings.kind == kind)
        ]
        addresses = {engine.name: address for address, engine in engines.items()}
        used = (first, *others[: self.limits.fallbacks])
        return Picked(
            endpoints=tuple(addresses[lane.engine.name] for lane in used),
            on_its_way=carried,
            body=carried.body if carried.is_changed else None,
            set_headers=_key_headers(first.engine),
            remove_headers=(b"accept-encoding",),  # what is compressed can't be read on its way
        )

    def _undecided(self, pipeline: Pipeline, head: RequestHeaders, engines: Mapping[str, EngineHandle]) -> Picked:
        """To the endpoint that has the least to do; of those that are ejected only where all are."""

        def busyness(address: str) -> tuple[bool, float]:
            engine = engines[address]
            return engine.illness.is_ejected, engine.in_flight / engine.slots

        ordered = sorted(engines, key=busyness)
        first = engines[ordered[0]]
        alike = [address for address in ordered if engines[address].api_key == first.api_key]  # all get the first's key
        return Picked(
            endpoints=tuple(alike[: 1 + self.limits.fallbacks]),
            on_its_way=Passed(pipeline, first),
            set_headers=_key_headers(first),
        )

    def _refusal(self, status: int, message: str, code: str, path: str) -> Refuse:
        self.refused[status] += 1
        body = ApiError(status, message, code).body(api_of(path.partition("?")[0]))
        return Refuse(status, message, body, retry_after_s=None if status == 403 else RETRY_AFTER_S)


async def _why_private(pipeline: Pipeline, head: RequestHeaders, path: str, body: bytes | None) -> str:
    """Why a request that is not decided on may not leave this machine; empty where it may.

    Args:
        body: ``None`` where it can't be read.
    """
    headers = [(name, value) for name, value in head.headers if not name.startswith(b":")]
    named = await named_model(headers, body) if body is not None else None
    models = named.models if named is not None and named.is_sure else None
    placer = pipeline.router.placer
    return placer.why_passed_private(path, headers, body or b"", None, models, is_readable=body is not None)


def _field(head: RequestHeaders, name: bytes, default: bytes = b"") -> bytes:
    return next((value for key, value in head.headers if key == name), default)


def _key_headers(engine: EngineHandle) -> Sequence[tuple[bytes, bytes]]:
    """What shows the engine its key, where it has one of its own."""
    return engine.key_headers if engine.api_key is not None else ()
