"""Where routers leave for each other what they learned. All of it may be lost at any moment: a store is a letter box,
and what counts is what routers know."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

KEPT_DELTAS = 256
"""Of each router, at least; at one a second, some four minutes."""
KEPT_S = 900.0
"""How long a delta stands in the log at least, unless there are more than :data:`KEPT_DELTAS` after it."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a router, a kind of document and a group may be called: such names are file names and parts of keys."""


class News(NamedTuple):
    """What stands in the log beyond what is known."""

    deltas: Sequence[bytes]
    """Of each router the oldest first."""
    cut_off: frozenset[str]
    """Routers of whose deltas some are gone already."""


class Store(Protocol):
    """Calls may wait, and are made from one thread. Whatever is wrong may be raised as an :class:`Exception`; it is
    tried again later, all of it."""

    def append(self, router: str, sequence: int, delta: bytes) -> None:
        """Put a router's delta into the log. Once more changes nothing."""
        ...

    def since(self, known: Mapping[str, int]) -> News:
        """What is in the log beyond the deltas that are known, by router the number of its last one; of a router that
        is not there, all."""
        ...

    def write(self, kind: str, router: str, document: bytes, lifetime_s: float) -> None:
        """Leave a router's document of a kind in place of its last one, for so long."""
        ...

    def read(self, kind: str) -> Mapping[str, bytes]:
        """All documents of a kind, by router, that live still."""
        ...

    def once(self, name: str, document: bytes) -> bytes:
        """Leave a document that is the same for all: the first one stands; returns what does."""
        ...

    def close(self) -> None: ...


class CannotOpen(Exception):
    """There is no such store, or what speaks to it is not installed."""
