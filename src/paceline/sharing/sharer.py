"""Binds a router to a store: a thread that tells what the router learned, and has it learn what others told."""

import logging
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from random import Random

from msgspec import Struct

from paceline.decision.sharing import Delta, Sharing
from paceline.routing.router import Router
from paceline.settings import SharingSettings
from paceline.sharing.messages import Refused, decoded, encoded
from paceline.sharing.stores import Store

MAX_PAUSE_S = 30.0
"""Between two tries to reach a store that is lost."""
STOP_PATIENCE_S = 5.0
"""How long stopping waits for a store that keeps a call waiting."""
log = logging.getLogger("paceline.sharing")


class State(Struct, frozen=True):
    """How sharing is, for pages and metrics."""

    origin: str
    """What this router is called in the store; another one after each start."""
    problem: str | None
    """Why the store can't be used at the moment; ``None`` where it can."""
    told: int
    """Messages that were put into the store."""
    learned: int
    """Messages of others that were learned."""
    refused: dict[str, int]
    """Messages that were left out, by why."""
    agreed_s: float | None
    """Seconds since this router last knew all that was in the store; ``None`` before the first time."""


def new_origin() -> str:
    """What a router may be called in a store: told by its machine, and unique over restarts."""
    machine = re.sub("[^A-Za-z0-9-]+", "-", socket.gethostname())[:32]
    return f"{machine}-{os.getpid()}-{secrets.token_hex(4)}"


class Sharer:
    """Tells and learns every ``interval_s`` in a thread of its own, so that no request ever waits for the store.

    Args:
        origin: as :func:`new_origin` makes it; unique among all that share, also over restarts.
    """

    def __init__(self, router: Router, store: Store, origin: str, settings: SharingSettings) -> None:
        self.settings = settings
        self._router = router
        self._store = store
        self._origin = origin
        self._sharing = Sharing(router.knowledge, origin)
        self._untold: list[tuple[int, bytes]] = []
        self._refused: Counter[str] = Counter()
        self._told = self._learned = 0
        self._problem: str | None = None
        self._agreed_at_s: float | None = None
        self._random = Random()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to tell and to learn."""
        self._thread = threading.Thread(target=self._run, name="sharing", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Tell what was learned last, and end; a store that keeps that waiting is waited for a few seconds."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_PATIENCE_S)

    def state(self) -> State:
        agreed_at_s = self._agreed_at_s
        return State(
            origin=self._origin,
            problem=self._problem,
            told=self._told,
            learned=self._learned,
            refused=dict(self._refused),
            agreed_s=None if agreed_at_s is None else time.monotonic() - agreed_at_s,
        )

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            pause_s = self._guarded(self._round, pause_s)
        self._guarded(self._tell, 0.0)
        self._guarded(self._store.close, 0.0)

    def _guarded(self, do: Callable[[], None], pause_s: float) -> float:
        """Do it, whatever the store does; returns how long to wait until the next time."""
        interval_s = self.settings.interval_s
        try:
            do()
        except Exception as error:
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            if self._problem is None:
                log.warning("what is learned is not shared for now: %s; it is tried again", line)
            self._problem = line
            return min(MAX_PAUSE_S, max(interval_s, 2 * pause_s)) * self._random.uniform(0.75, 1.25)
        if self._problem is not None:
            log.warning("what is learned is shared again")
        self._problem = None
        return interval_s

    def _round(self) -> None:
        self._tell()
        news = self._store.since(self._sharing.known)
        for content in news.deltas:
            try:
                self._learned += self._sharing.apply(decoded(content, Delta))
            except (Refused, ValueError) as error:
                self._refused[str(error)] += 1
        self._agreed_at_s = time.monotonic()

    def _tell(self) -> None:
        delta = self._sharing.delta()
        if not delta.is_empty:
            self._untold.append((delta.sequence, encoded(delta)))
        while self._untold:
            self._store.append(self._origin, *self._untold[0])
            self._untold.pop(0)
            self._told += 1
