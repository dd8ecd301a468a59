"""What routers and replicas share: one named actor of Ray's for a cluster, which outlives all of them. It holds what
routers tell one another, and has the replicas' reports until the routers take them.

Nothing waits for it: where it is lost, Ray starts it again, and until then routers decide by what they know."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

import ray

NAMESPACE = "paceline"
DEFAULT_NAME = "shared"
MAX_DELTAS = 256
"""Of a router, that are kept for the others to read."""
MAX_ROUTERS = 1024
"""Whose deltas and reports are kept; the one that was not heard of for longest is forgotten."""
MAX_REPORTS = 4096
"""For one router, until it takes them; the oldest are dropped."""
MAX_DELTA_BYTES = 16 * 1024 * 1024
"""Of one delta or document; a larger one is refused."""
ANSWER_TIMEOUT_S = 5.0
"""How long a router's thread waits for the actor."""


class Shared:
    """The actor. Its methods take and give plain values, so that versions of Paceline can differ a little."""

    def __init__(self) -> None:
        self._deltas: OrderedDict[str, OrderedDict[int, bytes]] = OrderedDict()
        """By router and number; the router that told last stands at the end."""
        self._documents: dict[tuple[str, str], tuple[float, bytes]] = {}
        """By kind and router: until when they hold, by the actor's clock, and what they say."""
        self._reports: OrderedDict[str, _Box] = OrderedDict()

    # What routers tell one another

    async def append(self, router: str, sequence: int, delta: bytes) -> None:
        """Keep a delta of a router's for the others."""
        _check_size(delta)
        log = self._deltas.setdefault(router, OrderedDict())
        self._deltas.move_to_end(router)
        log[sequence] = delta
        while len(log) > MAX_DELTAS:
            del log[min(log)]
        while len(self._deltas) > MAX_ROUTERS:
            self._deltas.popitem(last=False)

    async def since(self, known: Mapping[str, int]) -> tuple[list[tuple[str, int, bytes]], list[str]]:
        """Deltas beyond what is known, each with its router and number, and the routers whose log does not reach back
        to what is known of them."""
        news: list[tuple[str, int, bytes]] = []
        cut_off: list[str] = []
        for router, log in self._deltas.items():
            last = known.get(router, 0)
            news += [(router, number, delta) for number, delta in sorted(log.items()) if number > last]
            if min(log) > last + 1:
                cut_off.append(router)
        return news, cut_off

    async def write(self, kind: str, router: str, document: bytes, lifetime_s: float) -> None:
        """Keep a document in place of the router's last one of its kind, for so long."""
        _check_size(document)
        now_s = monotonic()
        self._documents = {key: each for key, each in self._documents.items() if each[0] > now_s}
        self._documents.pop((kind, router), None)
        self._documents[kind, router] = now_s + lifetime_s, document
        while len(self._documents) > 4 * MAX_ROUTERS:
            del self._documents[next(iter(self._documents))]

    async def read(self, kind: str) -> dict[str, bytes]:
        """The documents of a kind that still hold, by router."""
        now_s = monotonic()
        return {
            router: document
            for (its_kind, router), (until_s, document) in self._documents.items()
            if its_kind == kind and until_s > now_s
        }

    # What replicas tell routers

    async def report(self, router: str, served: bytes) -> None:
        """Leave a report on a request for the router that decided on it."""
        self._box(router).put(served)

    async def take_reports(self, router: str, within_s: float) -> list[bytes]:
        """All reports that were left for a router, as soon as there is one; none where none comes in time."""
        return await self._box(router).take(within_s)

    def _box(self, router: str) -> "_Box":
        box = self._reports.setdefault(router, _Box())
        self._reports.move_to_end(router)
        while len(self._reports) > MAX_ROUTERS:
            self._reports.popitem(last=False)
        return box


class _Box:
    """Reports for one router."""

    def __init__(self) -> None:
        self._reports: deque[bytes] = deque(maxlen=MAX_REPORTS)
        self._has_some = asyncio.Event()

    def put(self, report: bytes) -> None:
        self._reports.append(report)
        self._has_some.set()

    async def take(self, within_s: float) -> list[bytes]:
        try:
            async with asyncio.timeout(within_s):
                await self._has_some.wait()
        except TimeoutError:
            return []
        self._has_some.clear()
        taken = list(self._reports)
        self._reports.clear()
        return taken


def _check_size(document: bytes) -> None:
    if len(document) > MAX_DELTA_BYTES:
        raise ValueError(f"{len(document):,} bytes are too many for one document; {MAX_DELTA_BYTES:,} are the most")


def shared_actor(name: str = DEFAULT_NAME) -> Any:
    """A handle to the actor, which is made where there is none yet. It outlives the programs that use it: ``ray.kill``
    ends it, and all that was learned with it."""
    return (
        ray.remote(Shared)
        .options(
            name=name,
            namespace=NAMESPACE,
            get_if_exists=True,
            lifetime="detached",
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=2 * MAX_ROUTERS,  # each router waits for reports
        )
        .remote()
    )


class RayStore:
    """The actor as a store of what routers share (``paceline.sharing``). Each call waits for the actor, and is to be
    made from a thread of its own.

    Raises:
        ray.exceptions.RayError: the actor can't be reached, from every method.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def append(self, router: str, sequence: int, delta: bytes) -> None:
        """Keep a delta of a router's for the others."""
        self._ask(self._actor.append.remote(router, sequence, delta))

    def since(self, known: Mapping[str, int]) -> tuple[Sequence[tuple[str, int, bytes]], Sequence[str]]:
        """As :meth:`Shared.since`."""
        news, cut_off = self._ask(self._actor.since.remote(dict(known)))
        return news, cut_off

    def write(self, kind: str, router: str, document: bytes, lifetime_s: float) -> None:
        """Keep a document in place of the router's last one of its kind, for so long."""
        self._ask(self._actor.write.remote(kind, router, document, lifetime_s))

    def read(self, kind: str) -> Mapping[str, bytes]:
        """The documents of a kind that still hold, by router."""
        documents: dict[str, bytes] = self._ask(self._actor.read.remote(kind))
        return documents

    @staticmethod
    def _ask(answer: Any) -> Any:
        return ray.get(answer, timeout=ANSWER_TIMEOUT_S)
