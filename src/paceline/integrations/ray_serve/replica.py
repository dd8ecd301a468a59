"""What a deployment needs so that Paceline can route to it: its replicas tell what they offer, find in each request how
to decode it, and report what came of it."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from platform import machine
from time import perf_counter, time
from typing import Any

import msgspec
import ray
from ray import serve

from paceline.integrations.ray_serve.shared import SharedActor
from paceline.integrations.replicas.notes import (
    Choice,
    Offer,
    OfferedLane,
    Served,
    fields_of,
    note_in,
)
from paceline.types import CLIENT_LEFT, NO_CONTROL, Answered, DraftControl, Observation, Outcome, Strategy

ACCELERATOR_LABEL = "ray.io/accelerator-type"
CPU_INFO = Path("/proc/cpuinfo")
FAILED = 500
"""Status of a request that the replica raised an error over."""

log = logging.getLogger("paceline.integrations")


class Lanes:
    """What a replica offers, and what it serves now.

    Args:
        offer: tells what it offers, whenever it is asked.
    """

    def __init__(self, offer: Callable[[], Offer]) -> None:
        self.offer = offer
        self._shared: dict[str, SharedActor] = {}
        """The actors by which routers are told what became of their requests, by name."""
        self._running = 0
        self._request_s = 0.0
        self._counted_s = perf_counter()

    @classmethod
    def of(
        cls,
        strategies: Sequence[Strategy],
        about: Any,
        *,
        name: str = "engine",
        device: str | None = None,
        slots: int | None = None,
    ) -> "Lanes":
        """Those of a replica that decodes by itself.

        Args:
            strategies: that a request to it can have, the default one first.
            about: all that changes how fast it decodes, such as the model's name and its settings; anything that JSON
                can hold. Replicas with the same are learned of together.
            name: for people; the same for replicas that are alike.
            device: of this node, that other replicas on it use, too.
            slots: requests that it decodes at once.

        Raises:
            ValueError: there is no strategy.
        """
        if not strategies:
            raise ValueError("a replica needs a strategy: Strategy() is plain decoding")
        machine = machine_class()
        offer = Offer(
            engine=name,
            fingerprint=hashed(about, name, machine),
            model=hashed(about, machine),
            device=device_name(device),
            lanes=tuple(OfferedLane(strategy.name, strategy) for strategy in strategies),
            slots=slots,
        )
        return cls(lambda: offer)

    @contextmanager
    def serving(self, body: Any) -> Iterator["Serving"]:
        """While a request is served. What became of it is reported at the end; an error is passed on.

        Args:
            body: as the replica was given it.
        """
        serving = Serving(body, self.offer())
        before_s, begun_s = self._count(1), perf_counter()
        try:
            yield serving
        except (GeneratorExit, asyncio.CancelledError):
            serving.status, serving.error = CLIENT_LEFT, "the client left"
            raise
        except BaseException as error:
            if serving.error is None:
                serving.status, serving.error = FAILED, type(error).__name__  # its words may quote the request
            raise
        finally:
            took_s = perf_counter() - begun_s
            beside = max(0.0, (self._count(-1) - before_s) / took_s - 1) if took_s > 0 else 0.0
            self._report(serving, took_s, beside)

    def _count(self, by: int) -> float:
        """Note that a request comes or goes; the time that all requests so far have run, added up."""
        now_s = perf_counter()
        self._request_s += self._running * (now_s - self._counted_s)
        self._counted_s = now_s
        self._running += by
        return self._request_s

    def _report(self, serving: "Serving", took_s: float, beside: float) -> None:
        """Without waiting, and without an error: an answer is not lost over it."""
        choice = serving.choice
        if choice is None:
            return
        outcome = Outcome(
            lane=serving.lane_name,
            status=serving.status,
            total_s=took_s,
            first_byte_s=serving.first_byte_s,
            observed=serving.observed,
            concurrent=beside,
            at_s=time(),
            error=serving.error,
            answered=serving.answered,
            fingerprint=serving.offer.fingerprint,
        )
        try:
            shared = self._shared.setdefault(choice.shared, SharedActor(choice.shared))
            shared.handle.report.remote(choice.router, msgspec.msgpack.encode(Served(choice.number, outcome)))
        except Exception as error:
            self._shared.pop(choice.shared, None)
            log.warning("a router can't be told what became of its request: %s", error)


class Serving:
    """A request, and what is learned from it."""

    def __init__(self, body: Any, offer: Offer) -> None:
        note = note_in(body)
        self.choice = note if isinstance(note, Choice) else None
        """What was decided; ``None`` where no router of Paceline's did."""
        self.fields: Mapping[str, Any] = fields_of(body)
        """The request's body without what Paceline says in it."""
        self.offer = offer
        chosen = self.choice.lanes.get(offer.fingerprint, "") if self.choice else ""
        engine, _, name = chosen.rpartition("/")
        self.lane: OfferedLane = next((lane for lane in offer.lanes if lane.name == name), offer.lanes[0])
        """How it is to be decoded: the default lane where nothing was decided for such a replica."""
        self.lane_name = f"{engine or offer.engine}/{self.lane.name}"
        """That lane, as the router calls it."""
        self.status = 200
        self.error: str | None = None
        """What went wrong, in one line."""
        self.observed = Observation()
        """What is known of the decoding; to be set."""
        self.answered: Answered | None = None
        self.first_byte_s: float | None = None
        """From its arrival to the first part of its answer, where that was streamed."""

    @property
    def strategy(self) -> Strategy:
        """The lane's."""
        return self.lane.strategy

    @property
    def control(self) -> DraftControl:
        """What the engine's control of drafts starts from."""
        is_for_this = self.choice is not None and self.choice.fingerprint == self.offer.fingerprint
        return self.choice.control if self.choice is not None and is_for_this else NO_CONTROL


class PacelineReplica:
    """To be derived from by a deployment's class, which sets :attr:`paceline` when it is made."""

    paceline: Lanes

    def record_replica_metadata(self) -> dict[str, str]:
        """Called by Ray Serve, once, when the replica is ready."""
        return self.paceline.offer().told()

    async def record_routing_stats(self) -> dict[str, Any]:
        """Called by Ray Serve now and then."""
        return self.paceline.offer().told()


def hashed(*about: Any) -> str:
    """A fingerprint."""
    return blake2b(msgspec.json.encode(about), digest_size=8).hexdigest()


def device_name(device: str | None) -> str:
    """Of a device of this node's; without one, of the replica alone."""
    node: str = ray.get_runtime_context().get_node_id()
    return f"{node[:12]}/{device}" if device else serve.get_replica_context().replica_tag


def machine_class() -> str:
    """What machines that decode equally fast have in common: the kind of accelerator by Ray's label of the node, or
    else the processor."""
    context = ray.get_runtime_context()
    accelerator = context.get_node_labels().get(ACCELERATOR_LABEL)
    if accelerator and any(context.get_accelerator_ids().values()):
        return str(accelerator)
    try:
        lines = CPU_INFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), machine())
