"""Requests that are not decided on: to the engine that they are for, once, and back as they come."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

import msgspec
from msgspec import Struct

from paceline.records.kept import NO_LANE
from paceline.serving.errors import EngineLost, NoLane, NotPassedOn, NotPlaced, ServingError, Stopping, TookTooLong
from paceline.serving.handles import EngineHandle, LaneHandle
from paceline.serving.headers import to_client, to_engine
from paceline.serving.model_in_body import Named, named_model
from paceline.serving.patience import (
    MAX_UNKNOWN_STALL_S,
    MIN_CHARS_PER_TOKEN,
    MIN_PREFILL_TOKENS_PER_S,
    MIN_STALLED_S,
)
from paceline.serving.pipeline import Pipeline
from paceline.serving.reply import ClientReply
from paceline.serving.stored import id_in_path
from paceline.serving.turns import HeldTurn, QueueFull, Turn
from paceline.types import CLIENT_LEFT
from paceline.wire.client import Answer, ConnectFailed, ConnectionLost
from paceline.wire.headers import Headers

GENERATING_IN_API = ("/api/chat", "/api/generate")
"""Ollama's, whose answer may come as a whole."""
HEAD_BYTES = 4096
"""Of an answer, in which the id stands that its engine keeps."""
MAX_PATH_CHARS = 100
"""Of a path, in the line of its request."""
HARMLESS = ("GET", "HEAD")
"""Methods that may be tried on the next engine when one is lost."""
# Which POSTs an engine answers without decoding, by how their paths end and begin.
_LIGHT = ("/tokenize", "/detokenize", "/apply-template", "/count_tokens", "/input_tokens", "/cancel", "/props")
_LIGHT_BEGINNINGS = ("/v1/files", "/v1/batches", "/v1/conversations", "/slots", "/models", "/lora-adapters", "/api/")
_COMPUTING_IN_API = (*GENERATING_IN_API, "/api/embed", "/api/embeddings")


class Passed(Struct, frozen=True, kw_only=True):
    """A request that is passed through."""

    method: str
    path: str
    target: str
    """Path and query as the client wrote them."""
    headers: Headers
    body: bytes
    is_unpacked: bool
    """Whether the body was compressed and no longer is."""
    address: str
    """The client's."""
    client: str | None = None
    """The name of the client's key."""


async def pass_through(pipeline: Pipeline, passed: Passed, reply: ClientReply) -> None:
    """Relay whatever else an engine offers: to the lane that the request names, the engine that keeps what its path
    names, one that serves the model that it names, or the default lane's.

    Raises:
        ServingError: it can't be reached, or was lost; nothing but what is harmless is sent twice.
    """
    await _Passing(pipeline, passed, reply).run()


def computes(method: str, path: str) -> bool:
    """Whether a passed-through request makes the engine work like a generation, and so needs its device's turn."""
    if method != "POST":
        return False
    path = path.rstrip("/")
    if path in _COMPUTING_IN_API:
        return True
    return not path.endswith(_LIGHT) and not path.startswith(_LIGHT_BEGINNINGS)


class _Passing:
    """One request on its way through."""

    def __init__(self, pipeline: Pipeline, passed: Passed, reply: ClientReply) -> None:
        self._pipeline = pipeline
        self._passed = passed
        self._reply = reply
        self._named = Named()
        self._lane: LaneHandle | None = None
        """To which it was sent last."""
        self._status = 0

    async def run(self) -> None:
        """Have it answered, and note what became of it."""
        began_s = perf_counter()
        error: str | None = None
        try:
            async with asyncio.timeout(self._pipeline.server.total_timeout_s):
                self._named = await named_model(self._passed.headers, self._passed.body)
                await self._try_each()
        except ServingError as problem:
            self._status, error = problem.status, str(problem)
            raise
        except TimeoutError as problem:
            late = TookTooLong()
            self._status, error = late.status, str(late)
            raise late from problem
        except asyncio.CancelledError:
            self._status = CLIENT_LEFT if self._reply.client_left else Stopping.status
            error = "ended before the answer was whole"
            raise
        finally:
            self._note(perf_counter() - began_s, error)

    def _note(self, took_s: float, error: str | None) -> None:
        """Count it, and leave a line."""
        lane = self._lane.lane.name if self._lane else NO_LANE
        self._pipeline.metrics.passed_through(lane, self._status)
        if self._pipeline.server.log_requests:
            path = self._passed.path[:MAX_PATH_CHARS]
            what = f"{self._status} {self._passed.method} {path} {lane} {took_s:.2f} s"
            self._pipeline.say(f"{what} | {error or 'passed through'}")

    async def _try_each(self) -> None:
        """Send it to the engine that it is for; where an id is to be found, to one after the other."""
        lanes, body = await self._lanes()
        for self._lane in lanes:
            is_last = self._lane is lanes[-1]
            try:
                self._status = await self._exchange(self._lane, body, keep_404=is_last)
            except ServingError:
                if is_last or self._passed.method not in HARMLESS or self._reply.has_begun:
                    raise
                continue  # another one may keep what is looked for
            if self._status != 404 or is_last:
                break

    async def _exchange(self, lane: LaneHandle, body: bytes, keep_404: bool) -> int:
        """Send it to one engine and relay the answer. Returns the status; a 404 is relayed only if ``keep_404``."""
        engine, name, server, passed = lane.engine, lane.lane.name, self._pipeline.server, self._passed
        self._check_may_go(engine)
        turn: HeldTurn | None = None
        with engine.passes_one():
            try:
                if computes(passed.method, passed.path):
                    turn = HeldTurn(await self._turn(lane), _patience_s(passed))
                    self._pipeline.in_flight.held_turns.add(turn)
                headers = to_engine(
                    passed.headers,
                    api_key=engine.api_key,
                    keep_key=not self._pipeline.asks_for_keys,
                    plain=False,
                    client=passed.address,
                    is_unpacked=passed.is_unpacked,
                )
                limit_s = server.first_byte_timeout_s
                sent = await engine.client.send(passed.method, passed.target, headers, body, within_s=limit_s)
                async with sent as answer:
                    if answer.status != 404 or keep_404:
                        await self._relay(lane, answer, turn)
                    return answer.status
            except ConnectFailed as error:
                engine.supervisor.report_failure(str(error))
                raise NoLane(f"{name} can't be reached: {error}") from error
            except ConnectionLost as error:
                engine.supervisor.suspect(str(error))
                raise EngineLost(f"{name} was lost: {error}") from error
            except TimeoutError as error:
                late = f"{name} did not answer in time (server.first_byte_timeout_s)"
                raise TookTooLong(late, may_pass=True) from error
            finally:
                if turn:
                    self._pipeline.in_flight.held_turns.discard(turn)
                    turn.release()

    def _check_may_go(self, engine: EngineHandle) -> None:
        """
        Raises:
            NotPlaced: the request is private, and the engine elsewhere.
        """
        if engine.settings.leaves_machine and (why := self._why_private()):
            message = f"the request is private ({why}) and stays on this machine, and {engine.name} is not there"
            raise NotPlaced(message, "private")

    def _why_private(self) -> str:
        """Why the request may not leave this machine, by the rules in force; empty where it may."""
        passed = self._passed
        encodings = any(name == b"content-encoding" for name, _ in passed.headers)
        is_readable = passed.is_unpacked or not encodings
        models = self._named.models if is_readable and self._named.is_sure else None
        return self._pipeline.router.placer.why_passed_private(
            passed.target, passed.headers, passed.body, passed.client, models, is_readable
        )

    async def _turn(self, lane: LaneHandle) -> Turn:
        engine = lane.engine
        try:
            async with asyncio.timeout(self._pipeline.server.queue_timeout_s):
                return await engine.device.acquire(engine.name, engine.slots)
        except QueueFull as error:
            raise NoLane(f"{lane.lane.name}: {error}") from error
        except TimeoutError as error:
            late = f"{lane.lane.name} did not get its device's turn in time (server.queue_timeout_s)"
            raise TookTooLong(late, may_pass=True) from error

    async def _relay(self, lane: LaneHandle, answer: Answer, turn: HeldTurn | None) -> None:
        """Relay an answer, and remember what its engine keeps from now on."""
        own = (b"x-paceline-lane", lane.lane.name.encode())
        await self._reply.start(answer.status, [own, *to_client(answer.headers, lane.engine.supervisor.url)])
        head = b""
        while piece := await self._read(answer):
            head += piece[: HEAD_BYTES - len(head)]
            if turn:
                turn.waits_for_client()
            await self._reply.send(piece)
            if turn:
                turn.waits_for_engine()
        await self._reply.end()
        if answer.status < 300 and self._passed.method == "POST":
            self._pipeline.resolver.stored_ids.note(head, lane.engine.name)

    async def _read(self, answer: Answer) -> bytes:
        idle_timeout_s = self._pipeline.server.idle_timeout_s
        try:
            async with asyncio.timeout(idle_timeout_s):
                return await answer.read()
        except TimeoutError as error:
            raise ConnectionLost(f"no byte for {idle_timeout_s:g} s (server.idle_timeout_s)") from error

    async def _lanes(self) -> tuple[Sequence[LaneHandle], bytes]:
        """The lanes to try in turn, and the body as their engine is to have it. More than one only where an id is to
        be found that nobody remembers."""
        lanes, body = self._meant()
        if self._pipeline.fleet.is_coming(lanes):
            await self._pipeline.resolver.wait_for_start(lambda: self._meant()[0])
            lanes, body = self._meant()
        name = id_in_path(self._passed.path)
        if name is not None and self._pipeline.resolver.stored_ids.engine_of(name) is None:
            by_engine = {lane.engine.name: lane for lane in reversed(lanes) if lane.is_up}
            return list(reversed(by_engine.values())) or lanes[:1], body
        return [_first(lanes)], body

    def _may_serve(self, lanes: Sequence[LaneHandle]) -> Sequence[LaneHandle]:
        """Of the lanes that a request may be for, those to which it may go: where it is private, none that leaves
        this machine.

        Raises:
            NotPlaced: there is none.
        """
        if not self._pipeline.fleet.may_leave:
            return lanes
        if all(not lane.engine.settings.leaves_machine for lane in lanes) or not (why := self._why_private()):
            return lanes
        staying = [lane for lane in lanes if not lane.engine.settings.leaves_machine]
        if not staying:
            message = f"the request is private ({why}) and stays on this machine, where no engine serves it"
            raise NotPlaced(message, "private")
        return staying

    def _meant(self) -> tuple[Sequence[LaneHandle], bytes]:
        """The lanes that it may be for, and the body with their engine's own name for the model. A provider gets
        nothing that was not decided on: with its key, a client could reach all that the operator's account holds.

        Raises:
            NotPassedOn: only a provider could answer it.
            NotPlaced: it may go to none of them.
        """
        lanes, body = self._wanted()
        own = [lane for lane in lanes if not lane.engine.settings.is_cloud]
        if lanes and not own:
            raise NotPassedOn(f"{self._passed.method} {self._passed.path} is not passed on to a provider")
        return own, body

    def _wanted(self) -> tuple[Sequence[LaneHandle], bytes]:
        fleet, passed = self._pipeline.fleet, self._passed
        # 1. The lane that it names.
        if (forced := dict(passed.headers).get(b"x-paceline-lane")) is not None:
            return self._may_serve(fleet.forced(forced.decode("latin-1"), None).lanes), passed.body
        # 2. Those of the engine that keeps what its path names.
        name = id_in_path(passed.path)
        if name is not None:
            keeper = self._pipeline.resolver.stored_ids.engine_of(name)
            own = [lane for lane in fleet.lanes.values() if keeper in (None, lane.engine.name)]
            return self._may_serve(own or list(fleet.lanes.values())), passed.body
        # 3. Those that serve the model that it names, or else the default one.
        named = self._named
        model, span = named.model, named.span
        served = (fleet.find(model) if model else None) or fleet.usual()
        lanes = self._may_serve(served.lanes)
        first = _first([lane for lane in lanes if not lane.engine.settings.is_cloud] or lanes)
        own_name = served.engine_names.get(first.engine.name) if model else None
        if own_name is None or own_name == model or span is None:
            return lanes, passed.body
        written = msgspec.json.encode(own_name) if named.is_text else own_name.encode()
        return [first], passed.body[: span[0]] + written + passed.body[span[1] :]


def _patience_s(passed: Passed) -> float:
    """How long an engine may be silent over it before others have the device."""
    if passed.path.rstrip("/") in GENERATING_IN_API:
        return MAX_UNKNOWN_STALL_S
    prefill_s = len(passed.body) / MIN_CHARS_PER_TOKEN / MIN_PREFILL_TOKENS_PER_S
    return min(MAX_UNKNOWN_STALL_S, max(MIN_STALLED_S, prefill_s))


def _first(lanes: Sequence[LaneHandle]) -> LaneHandle:
    """The first that is well, else that is up."""
    return min(lanes, key=lambda lane: (not lane.is_up, not lane.engine.is_well))
