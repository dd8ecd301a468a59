"""Binds a router to a store: a thread that tells what the router learned, and has it learn what others told."""

import logging
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from random import Random

from msgspec import Struct

from paceline.decision.knowledge import Shared
from paceline.decision.sharing import Delta, Sharing
from paceline.decision.snapshots import Snapshot
from paceline.routing.peers import Peers
from paceline.routing.router import Router
from paceline.settings import SharingSettings
from paceline.sharing.messages import Refused, decoded, encoded
from paceline.sharing.presence import Presence, peers, presence
from paceline.sharing.stores import KEPT_S, Store
from paceline.types import LaneState

MAX_PAUSE_S = 30.0
"""Between two tries to reach a store that is lost."""
STOP_PATIENCE_S = 5.0
"""How long stopping waits for a store that keeps a call waiting."""
PEERS_AT_INTERVAL = 64
"""With more peers the interval is longer, in proportion: what each router reads in a second stays the same."""
PRESENT_INTERVALS, MIN_PRESENT_S = 4, 3.0
"""How many intervals, and seconds at least, a router counts as being there after it said so last."""
SNAPSHOT_INTERVAL_S = 60.0
RENEWED_S = 600.0
"""How often a router goes on from the snapshot, as after a loss of the store: what each forgets by itself, and learns
in another order than others, would else add up."""
SNAPSHOT_LIFETIME_S = 7 * 86_400.0
"""A group that was off for so long begins with what its routers have kept themselves."""
REPEATED, MAX_REPEATED_BYTES = 64, 8_000_000
"""Own deltas that are kept to be told once more, since a store that was lost may have forgotten them."""
CLOCKS_DIFFER_S = 3_600.0
"""What is dated further in the future was dated by a wrong clock."""
KEY_BYTES = range(16, 65)
"""Lengths of keys that hashes take and that nobody can guess."""
ALL = "all"
"""In place of a router's name, for what is of all of them."""
log = logging.getLogger("paceline.sharing")


class State(Struct, frozen=True):
    """How sharing is, for pages and metrics."""

    origin: str
    """What this router is called in the store; another one after each start."""
    problem: str | None
    """Why the store can't be used at the moment; ``None`` where it can."""
    peers: int
    """Other routers that are there."""
    told: int
    """Messages that were put into the store."""
    learned: int
    """Messages of others that were learned."""
    lost: int
    """Times that messages were gone before they were read."""
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
        router: its knowledge is not to be replaced as long as it shares.
        origin: as :func:`new_origin` makes it; unique among all that share, also over restarts.
        lanes: tells this router's lanes with their load, for others to take into account; called in the thread.
        decides: whether the router is asked for decisions.
        keep_key: given the key by which all know conversations, where it is another than the router's own; called in
            the thread.
    """

    def __init__(
        self,
        router: Router,
        store: Store,
        origin: str,
        settings: SharingSettings,
        *,
        lanes: Callable[[], Sequence[LaneState]] = tuple,
        keep_key: Callable[[bytes], None] = lambda _: None,
        decides: bool = True,
    ) -> None:
        self.settings = settings
        self._router = router
        self._store = store
        self._origin = origin
        self._lanes = lanes
        self._keep_key = keep_key
        self._decides = decides
        self._sharing = Sharing(router.knowledge, origin)
        self._started_s = time.time()
        self._has_joined = False
        self._untold: deque[tuple[int, bytes]] = deque()
        """Deltas that are not in the store yet."""
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=REPEATED)
        """Those that are, or were."""
        self._writes_snapshots = True
        self._snapshot_due_s = self._renewal_due_s = 0.0
        self._snapshot_of = -1
        """Outcomes that were learned when the last one was written."""
        self._refused: Counter[str] = Counter()
        self._told = self._learned = self._lost = 0
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
        """As it is now."""
        agreed_at_s = self._agreed_at_s
        return State(
            origin=self._origin,
            problem=self._problem,
            peers=self._router.peers.count,
            told=self._told,
            learned=self._learned,
            lost=self._lost,
            refused=dict(self._refused),
            agreed_s=None if agreed_at_s is None else time.monotonic() - agreed_at_s,
        )

    # The thread

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            pause_s = self._guarded(self._round, pause_s)
        self._guarded(self._leave, 0.0)
        self._guarded(self._store.close, 0.0)

    def _guarded(self, do: Callable[[], None], pause_s: float) -> float:
        """Do it, whatever the store does; returns how long to wait until the next time."""
        try:
            do()
        except Exception as error:
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            if self._problem is None:
                log.warning("what is learned is not shared for now: %s; it is tried again", line)
            self._problem = line
            self._router.peers = Peers(self._router.peers.count)  # they are there still, as far as anybody knows
            return min(MAX_PAUSE_S, max(self._interval_s, 2 * pause_s)) * self._random.uniform(0.75, 1.25)
        if self._problem is not None:
            log.warning("what is learned is shared again")
        self._problem = None
        return self._interval_s

    @property
    def _interval_s(self) -> float:
        return self.settings.interval_s * max(1.0, self._router.peers.count / PEERS_AT_INTERVAL)

    def _round(self) -> None:
        was_lost = self._problem is not None
        if was_lost:
            self._untold.extendleft(reversed(self._recent))
            self._recent.clear()
            self._snapshot_due_s, self._snapshot_of = 0.0, -1
            self._renewal_due_s = 0.0
        if was_lost or not self._has_joined:
            self._agree_on_key()
        if not self._has_joined:
            self._join()
        self._tell()
        self._learn(self._away_s > KEPT_S)
        self._meet()
        self._renew()
        self._write_snapshot()
        self._agreed_at_s = time.monotonic()

    @property
    def _away_s(self) -> float:
        """How long ago all was known."""
        return 0.0 if self._agreed_at_s is None else time.monotonic() - self._agreed_at_s

    def _leave(self) -> None:
        self._tell()
        self._snapshot_due_s = 0.0
        self._write_snapshot()
        self._store.write("present", self._origin, encoded(Presence(self._started_s)), 0.001)

    # What is done in a round

    def _agree_on_key(self) -> None:
        """Know conversations by the same hashes as all others."""
        own = self._router.conversation_key
        key = self._store.once("key", own)
        if len(key) not in KEY_BYTES:
            self._refused["key"] += 1
        elif key != own:
            self._router.conversation_key = key
            self._keep_key(key)

    def _join(self) -> None:
        """Begin with what the others know; where this router knows more, since it did not share before, tell it."""
        knowledge, group = self._router.knowledge, self._group()
        if knowledge.shared.group != group:
            with knowledge.lock:
                knowledge.tell_all()
        self._tell()
        if (snapshot := self._snapshot()) is not None:
            self._take(snapshot)
        self._renewal_due_s = time.monotonic() + RENEWED_S * self._random.uniform(0.75, 1.25)
        knowledge.shared = Shared(time.time(), group)
        self._has_joined = True

    def _group(self) -> str:
        """Who shares this store, told by what all have in common."""
        return blake2b(self._router.conversation_key, digest_size=8).hexdigest()

    def _tell(self) -> None:
        # While the store takes none, what is learned meanwhile adds up, and is told at once.
        if not self._untold:
            self._queue(self._sharing.delta())
        while self._untold:
            self._store.append(self._origin, *self._untold[0])
            self._recent.append(self._untold.popleft())
            self._told += 1
        while sum(len(content) for _, content in self._recent) > MAX_REPEATED_BYTES:
            self._recent.popleft()

    def _queue(self, delta: Delta) -> None:
        if not delta.is_empty:
            self._untold.append((delta.sequence, encoded(delta)))

    def _learn(self, was_away: bool) -> None:
        """
        Args:
            was_away: whether deltas may have come and gone unseen.
        """
        cut_off = self._learn_news()
        if not cut_off and not was_away:
            return
        snapshot = self._snapshot()
        known = self._sharing.known
        if snapshot is not None and any(
            number > known.get(origin, 0) for origin, number in snapshot.known.items() if was_away or origin in cut_off
        ):
            self._take(snapshot)
            self._tell()
            cut_off = self._learn_news()
        for origin in cut_off:
            self._lost += 1
            self._attempt(partial(self._sharing.skip, origin, self._latest_s))

    def _learn_news(self) -> frozenset[str]:
        """Returns routers of whose deltas some are gone."""
        news = self._store.since(self._sharing.known)
        for content in news.deltas:
            self._attempt(partial(self._apply, content))
        known = self._sharing.known
        return frozenset(origin for origin in news.cut_off if self._sharing.waits_for(origin) or origin not in known)

    def _apply(self, content: bytes) -> None:
        self._learned += self._sharing.apply(decoded(content, Delta), self._latest_s)

    def _attempt(self, learn: Callable[[], None]) -> None:
        """Learn what others wrote, whatever they wrote."""
        try:
            learn()
        except (Refused, ValueError) as error:
            self._refused[str(error)] += 1
        except Exception:
            self._refused["failed"] += 1
            log.exception("a message of another router could not be learned, and is left out")

    @property
    def _latest_s(self) -> float:
        return time.time() + CLOCKS_DIFFER_S

    def _meet(self) -> None:
        """Tell that this router is here, and what it has in flight; and hear the same of others."""
        lifetime_s = max(MIN_PRESENT_S, PRESENT_INTERVALS * self._interval_s)
        self._store.write(
            "present", self._origin, encoded(presence(self._started_s, self._lanes(), self._decides)), lifetime_s
        )
        others: dict[str, Presence] = {}
        for origin, content in self._store.read("present").items():
            try:
                if origin != self._origin:
                    others[origin] = decoded(content, Presence)
            except Refused as error:
                self._refused[str(error)] += 1
        self._router.peers = peers(others.values())
        own = self._started_s, self._origin
        self._writes_snapshots = all(own < (other.started_s, origin) for origin, other in others.items())

    def _write_snapshot(self) -> None:
        """Where it is this router's turn."""
        knowledge, now_s = self._router.knowledge, time.monotonic()
        if now_s < self._snapshot_due_s or not self._writes_snapshots or knowledge.learned == self._snapshot_of:
            return
        snapshot, untold = self._sharing.snapshot()
        self._queue(untold)
        self._tell()
        self._snapshot_of = knowledge.learned
        self._store.write("snapshot", ALL, encoded(snapshot), SNAPSHOT_LIFETIME_S)
        self._snapshot_due_s = now_s + SNAPSHOT_INTERVAL_S

    def _renew(self) -> None:
        """Know what the router knows that writes the snapshots, and all that was told since."""
        now_s = time.monotonic()
        if now_s < self._renewal_due_s:
            return
        self._renewal_due_s = now_s + RENEWED_S * self._random.uniform(0.75, 1.25)
        snapshot = None if self._writes_snapshots else self._snapshot()
        if snapshot is not None and not self._store.since(snapshot.known).cut_off:
            self._take(snapshot)
            self._tell()
            self._learn_news()

    def _snapshot(self) -> Snapshot | None:
        content = self._store.read("snapshot").get(ALL)
        try:
            return None if content is None else decoded(content, Snapshot)
        except Refused as error:
            self._refused[str(error)] += 1
            return None

    def _take(self, snapshot: Snapshot) -> None:
        self._queue(self._sharing.join(snapshot, self._latest_s))
