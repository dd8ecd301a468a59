"""A Redis or Valkey as a store, of version 5 or later. What it holds expires by the server's own clock,
but for what is the same for all."""

from collections.abc import Mapping

try:
    import redis
except ImportError as error:
    from paceline.sharing.stores import CannotOpen

    raise CannotOpen(
        "sharing through Redis needs the redis package; install it with: pip install 'paceline[sharing]'"
    ) from error

from paceline.sharing.stores import KEPT_DELTAS, KEPT_S, NAME, News

TIMEOUT_S = 2.0
"""For a connection, and for an answer."""
AT_ONCE = 256
"""Deltas that are asked for together."""


class RedisStore:
    """
    Args:
        address: as the redis package takes it, with user, password and database.
    """

    def __init__(self, address: str, group: str) -> None:
        self._redis = redis.Redis.from_url(
            address, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=None
        )
        self._group = group

    def append(self, router: str, sequence: int, delta: bytes) -> None:
        lifetime_ms = int(1000 * KEPT_S)
        with self._redis.pipeline() as pipe:
            pipe.set(self._delta(router, sequence), delta, px=lifetime_ms)
            pipe.delete(self._delta(router, sequence - KEPT_DELTAS))
            pipe.set(self._key("last", router), sequence, px=lifetime_ms)
            pipe.sadd(self._key("last"), router)
            pipe.execute()

    def since(self, known: Mapping[str, int]) -> News:
        wanted: list[tuple[str, int]] = []
        cut_off: set[str] = set()
        for router, last in self._read("last").items():
            if last.isdigit() and NAME.fullmatch(router) and int(last) > known.get(router, 0):
                first = max(known.get(router, 0), int(last) - KEPT_DELTAS) + 1
                if first > known.get(router, 0) + 1:
                    cut_off.add(router)
                wanted += [(router, sequence) for sequence in range(first, int(last) + 1)]
        deltas: list[bytes] = []
        for start in range(0, len(wanted), AT_ONCE):
            part = wanted[start : start + AT_ONCE]
            found = self._redis.mget([self._delta(*each) for each in part])
            for (router, _), delta in zip(part, found, strict=True):
                if delta is None:
                    cut_off.add(router)
                else:
                    deltas.append(delta)
        return News(deltas, frozenset(cut_off))

    def write(self, kind: str, router: str, document: bytes, lifetime_s: float) -> None:
        with self._redis.pipeline() as pipe:
            pipe.set(self._key(kind, router), document, px=int(1000 * lifetime_s))
            pipe.sadd(self._key(kind), router)
            pipe.execute()

    def read(self, kind: str) -> Mapping[str, bytes]:
        return self._read(kind)

    def once(self, name: str, document: bytes) -> bytes:
        key = self._key("once", name)
        self._redis.set(key, document, nx=True)
        return self._redis.get(key) or document

    def close(self) -> None:
        self._redis.close()

    def _read(self, kind: str) -> dict[str, bytes]:
        routers = sorted(name.decode(errors="replace") for name in self._redis.smembers(self._key(kind)))
        if not routers:
            return {}
        documents = self._redis.mget([self._key(kind, router) for router in routers])
        found = dict(zip(routers, documents, strict=True))
        if gone := [router for router, document in found.items() if document is None]:
            self._redis.srem(self._key(kind), *gone)
        return {router: document for router, document in found.items() if document is not None}

    def _delta(self, router: str, sequence: int) -> str:
        return self._key("delta", f"{router}:{sequence}")

    def _key(self, kind: str, about: str = "") -> str:
        return f"paceline:{self._group}:{kind}:{about}" if about else f"paceline:{self._group}:{kind}"
