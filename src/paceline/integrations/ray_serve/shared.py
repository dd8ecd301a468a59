"""What routers and replicas share: one named actor of Ray's for a cluster, which outlives all of them. It holds what
routers tell one another, and has the replicas' reports until the routers take them.

No request waits for it: where it is lost it is started again, and until then routers decide by what they know."""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Mapping
from time import monotonic
from typing import Any

import ray

from paceline.sharing.stores import KEPT_DELTAS, News

NAMESPACE = "paceline"
DEFAULT_NAME = "shared"
MAX_ROUTERS = 1024
"""Whose deltas and reports are kept; the one that was not heard of for longest is forgotten."""
MAX_LOG_BYTES = 256 * 1024 * 1024
"""Of all routers' deltas; beyond that, those are dropped first whose router told nothing for longest."""
MAX_DOCUMENTS = 4 * MAX_ROUTERS
MAX_REPORTS = 4096
"""For one router, until it takes them; the oldest are dropped."""
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Of one delta or document; a larger one is refused."""
ANSWER_TIMEOUT_S = 5.0
"""How long a router's thread waits for the actor."""

log = logging.getLogger("paceline.integrations")


class Shared:
    """The actor. It takes and gives plain values alone, so that its users' versions may differ a little."""

    def __init__(self) -> None:
        self._logs: OrderedDict[str, OrderedDict[int, bytes]] = OrderedDict()
        """Deltas by router and number; the router that told last stands at the end."""
        self._log_bytes = 0
        self._documents: dict[tuple[str, str], tuple[float, bytes]] = {}
        """By kind and router: until when they hold, by the actor's clock, and what they say."""
        self._once: dict[str, bytes] = {}
        self._reports: OrderedDict[str, _Box] = OrderedDict()

    # What routers tell one another; as ``paceline.sharing.stores.Store`` has it

    async def append(self, router: str, sequence: int, delta: bytes) -> None:
        """Keep a router's delta for the others."""
        _check_size(delta)
        known = self._logs.setdefault(router, OrderedDict())
        self._logs.move_to_end(router)
        self._log_bytes += len(delta) - len(known.get(sequence, b""))
        known[sequence] = delta
        while len(known) > KEPT_DELTAS:
            self._drop_oldest(router)
        while len(self._logs) > MAX_ROUTERS or self._log_bytes > MAX_LOG_BYTES:
            self._drop_oldest(next(iter(self._logs)))

    async def since(self, known: Mapping[str, int]) -> tuple[list[bytes], list[str]]:
        """Deltas beyond what is known, of each router the oldest first, and the routers of whose deltas some are
        gone."""
        deltas: list[bytes] = []
        cut_off: list[str] = []
        for router, its_log in self._logs.items():
            expected = known.get(router, 0) + 1
            news = [number for number in sorted(its_log) if number >= expected]
            deltas += [its_log[number] for number in news]
            if news and news != list(range(expected, expected + len(news))):
                cut_off.append(router)
        return deltas, cut_off

    async def write(self, kind: str, router: str, document: bytes, lifetime_s: float) -> None:
        """Keep a document in place of the router's last one of its kind, for so long."""
        _check_size(document)
        now_s = monotonic()
        living = {key: each for key, each in self._documents.items() if each[0] > now_s}
        living.pop((kind, router), None)
        living[kind, router] = now_s + lifetime_s, document
        while len(living) > MAX_DOCUMENTS:
            del living[next(iter(living))]
        self._documents = living

    async def read(self, kind: str) -> dict[str, bytes]:
        """The documents of a kind that still hold, by router."""
        now_s = monotonic()
        return {
            router: document
            for (its_kind, router), (until_s, document) in self._documents.items()
            if its_kind == kind and until_s > now_s
        }

    async def once(self, name: str, document: bytes) -> bytes:
        """Keep the first document of a name; returns that."""
        _check_size(document)
        return self._once.setdefault(name, document)

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

    def _drop_oldest(self, router: str) -> None:
        its_log = self._logs[router]
        self._log_bytes -= len(its_log.pop(min(its_log)))
        if not its_log:
            del self._logs[router]


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
    if len(document) > MAX_MESSAGE_BYTES:
        raise ValueError(f"{len(document):,} bytes are too many for one message; {MAX_MESSAGE_BYTES:,} are the most")


class SharedActor:
    """The actor of a name, wherever it runs: made where there is none, and made again where it was ended. It outlives
    the programs that use it; ``ray.kill`` ends it, and with it what was learned."""

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        self.name = name
        self._handle: Any = None

    @property
    def handle(self) -> Any:
        """To call it."""
        if self._handle is None:
            self._handle = (
                ray.remote(Shared)
                .options(
                    name=self.name,
                    namespace=NAMESPACE,
                    get_if_exists=True,
                    lifetime="detached",
                    num_cpus=0,
                    max_restarts=-1,
                    max_concurrency=2 * MAX_ROUTERS,  # each router waits for reports
                )
                .remote()
            )
        return self._handle

    def forget(self) -> None:
        """It could not be reached; the next call looks for it anew."""
        self._handle = None


class RayStore:
    """The actor as a store of what routers share (``paceline.sharing``). Every method may raise a ``RayError``, where
    the actor can't be reached.

    Args:
        name: of the actor.
    """

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        self._actor = SharedActor(name)

    def append(self, router: str, sequence: int, delta: bytes) -> None:
        self._ask("append", router, sequence, delta)

    def since(self, known: Mapping[str, int]) -> News:
        deltas, cut_off = self._ask("since", dict(known))
        return News(deltas, frozenset(cut_off))

    def write(self, kind: str, router: str, document: bytes, lifetime_s: float) -> None:
        self._ask("write", kind, router, document, lifetime_s)

    def read(self, kind: str) -> Mapping[str, bytes]:
        documents: dict[str, bytes] = self._ask("read", kind)
        return documents

    def once(self, name: str, document: bytes) -> bytes:
        stands: bytes = self._ask("once", name, document)
        return stands

    def close(self) -> None:
        self._actor.forget()

    def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self._actor.handle, method).remote(*arguments), timeout=ANSWER_TIMEOUT_S)
        except Exception:
            self._actor.forget()
            raise
