"""A deployment whose replicas each have an inference server: started by Paceline or found at an address, examined,
watched, and asked for the strategy that was chosen for each request."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from ray import serve

from paceline.configuration import parse
from paceline.engines import ENGINES
from paceline.integrations.ray_serve.replica import Lanes, PacelineReplica, Serving, device_name, hashed, machine_class
from paceline.integrations.replicas.notes import Offer, OfferedLane, request_of
from paceline.paths import log_directory
from paceline.processes import Health, Supervisor
from paceline.serving.handles import EngineHandle
from paceline.serving.turns import Device
from paceline.settings import ConfigurationError, EngineSettings
from paceline.types import REFUSALS, Api
from paceline.wire.client import Answer, ConnectFailed, ConnectionLost

START_INTERVAL_S = 0.05
"""Between two looks at whether a starting engine is up."""
PATHS: Mapping[Api, str] = {
    Api.OPENAI_CHAT: "/v1/chat/completions",
    Api.OPENAI_COMPLETIONS: "/v1/completions",
    Api.OPENAI_RESPONSES: "/v1/responses",
}
MAX_SAID_BYTES = 200
"""Of what an engine says that can't serve."""
JSON = [(b"content-type", b"application/json")]


class Head(Struct, frozen=True):
    """How an answer begins."""

    status: int
    content_type: str
    lane: str
    """That serves it."""
    reason: str
    """Why it was chosen; empty where nothing was."""
    replica: str


class NotServed(Exception):
    """The replica's engine can't serve, and nothing of an answer has been passed on: another replica may serve.

    Args:
        replica: that could not serve it.
    """

    def __init__(self, message: str, replica: str) -> None:
        super().__init__(message, replica)
        self.replica = replica

    def __str__(self) -> str:
        return str(self.args[0])


class EngineReplica(PacelineReplica):
    """A replica with an engine of its own. To be deployed with :func:`router_config`.

    Args:
        configuration: the text of a configuration of Paceline's with an ``[[engine]]`` table; no other table counts.
            With several, the replicas take them in turn, by their rank.

    Raises:
        ConfigurationError: it can't be used; ``str()`` says where and why.
        RuntimeError: the engine did not start; ``str()`` says why.
    """

    async def __init__(self, configuration: str) -> None:  # type: ignore[misc] # Ray awaits it
        engines = parse(configuration, "EngineReplica's configuration").engine
        if not engines:
            raise ConfigurationError("EngineReplica's configuration: it has no [[engine]] table")
        context = serve.get_replica_context()
        settings = engines[context.rank.rank % len(engines)]
        self.replica: str = context.replica_tag
        """This replica's name."""
        self._device = device_name(settings.device)
        self._settings = of_class(settings, machine_class())
        supervisor = Supervisor(
            self._settings, ENGINES[settings.kind], log_directory=log_directory() / Path(self.replica).name
        )
        self._engine = EngineHandle(self._settings, supervisor, Device(takes_turns=False))
        self.paceline = Lanes(self._offer)
        supervisor.start()
        await self._started()

    async def answer(self, body: Mapping[str, Any]) -> AsyncIterator[Head | bytes]:
        """Serve a generation request: the head of the answer, then its body as it comes.

        Args:
            body: its fields.

        Raises:
            NotServed: the engine can't serve it, and nothing was passed on yet.
            ConnectionLost: the engine broke off within the answer.
        """
        with self.paceline.serving(body) as serving:
            try:
                async for part in self._answered(serving):
                    yield part
            except (ConnectFailed, ConnectionLost) as error:
                serving.status, serving.error = 502, type(error).__name__
                if isinstance(error, ConnectFailed):
                    self._engine.supervisor.report_failure(str(error))
                else:
                    self._engine.supervisor.suspect(str(error))
                if serving.first_byte_s is None:
                    raise NotServed(f"{self._settings.name}: {error}", self.replica) from error
                raise

    async def models(self) -> bytes:
        """The engine's models, as ``/v1/models`` lists them."""
        entries = {id(entry): entry for entry in self._engine.models.values()}
        return msgspec.json.encode({"object": "list", "data": list(entries.values())})

    async def check_health(self) -> None:
        """Called by Ray Serve. An engine that is down is started again here; one that can't be started is for Ray.

        Raises:
            RuntimeError: the engine can't be started.
        """
        supervisor = self._engine.supervisor
        if supervisor.health is Health.FAILED:
            raise RuntimeError(f"the engine {self._settings.name} can't be started: {supervisor.problem}")

    async def __del__(self) -> None:
        """Called by Ray Serve when the replica stops."""
        await self._engine.supervisor.stop()

    async def _answered(self, serving: Serving) -> AsyncIterator[Head | bytes]:
        supervisor = self._engine.supervisor
        # 1. What the engine is sent: the client's fields, and the strategy's.
        request = request_of(serving.fields, msgspec.json.encode(serving.fields))
        path = self._settings.path(PATHS[request.api])
        body = supervisor.engine.prepare(request, serving.strategy, supervisor.abilities, serving.control)
        observer = supervisor.engine.observe(request, serving.strategy)
        # 2. The answer's head. An engine that is ill or busy is told of before anything is passed on.
        sent_s = perf_counter()
        async with await self._engine.client.send("POST", path, [*JSON, *self._engine.key_headers], body) as answer:
            serving.status = answer.status
            if answer.status >= 500 or answer.status in REFUSALS:
                said = (await answer.read_all())[:MAX_SAID_BYTES].decode("utf-8", "replace")
                serving.error = f"answered {answer.status}"
                raise NotServed(f"{self._settings.name} answered {answer.status}: {said}", self.replica)
            content_type = (answer.header(b"content-type") or b"application/json").decode("latin-1")
            observer.is_stream = content_type.startswith("text/event-stream")
            # 3. Its body, piece by piece.
            head = Head(
                answer.status,
                content_type,
                serving.lane_name,
                serving.choice.reason if serving.choice else "",
                self.replica,
            )
            async for part in _relayed(answer, head, observer, serving, sent_s):
                yield part
        # 4. What it told of itself.
        if observer.error is not None:
            serving.error = "an error inside the answer"
        serving.observed, serving.answered = observer.observation(), observer.answered()

    async def _started(self) -> None:
        supervisor = self._engine.supervisor
        while supervisor.health is not Health.UP:
            if supervisor.health is Health.FAILED or not supervisor.is_coming:
                problem = supervisor.problem
                await supervisor.stop()
                raise RuntimeError(f"the engine {self._settings.name} did not start: {problem}")
            await asyncio.sleep(START_INTERVAL_S)

    def _offer(self) -> Offer:
        engine = self._engine
        states = [handle.state(None) for handle in engine.lanes()]
        facts = engine.supervisor.facts
        return Offer(
            engine=self._settings.name,
            fingerprint=states[0].fingerprint,
            model=states[0].model,
            device=self._device,
            lanes=tuple(
                OfferedLane(state.lane.strategy.name, state.lane.strategy, state.cannot_keep) for state in states
            ),
            slots=self._settings.slots or (facts.slots if facts else None),
            is_well=states[0].healthy,
            drafted_token_cost=states[0].drafted_token_cost,
        )


async def _relayed(
    answer: Answer, head: Head, observer: Any, serving: Serving, sent_s: float
) -> AsyncIterator[Head | bytes]:
    """The head, as soon as there is something behind it, and the body."""
    whole = bytearray()
    while piece := await answer.read():
        at_s = perf_counter() - sent_s
        if serving.first_byte_s is None:
            yield head
            serving.first_byte_s = at_s
        if not observer.is_stream:
            whole += piece
        if shown := observer.feed(piece, at_s):
            yield shown
    if serving.first_byte_s is None:
        yield head
        serving.first_byte_s = perf_counter() - sent_s
    if observer.is_stream and (left := observer.end(perf_counter() - sent_s)):
        yield left
    if not observer.is_stream:
        observer.read_whole(bytes(whole))


def of_class(settings: EngineSettings, machine: str) -> EngineSettings:
    """Settings whose device is a class of machines: what is learned of an engine then holds for all replicas with the
    same settings on such machines."""
    return replace(settings, device=hashed(settings.device, machine))
