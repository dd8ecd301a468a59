"""Routers that share a store know what each of them learned, whatever becomes of the store."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from time import monotonic, sleep, time

import pytest
from msgspec.structs import replace

from paceline.decision import Knowledge, decide, predict
from paceline.routing.router import Router
from paceline.settings import RoutingSettings, SharingSettings
from paceline.sharing import News, Sharer, Store, new_origin, open_store
from paceline.sharing.presence import peers, presence
from paceline.types import Api, Lane, LaneState, Observation, Outcome, Request, Signals, Strategy, Task

LANES = [
    LaneState(Lane(f"mtp/{cap}", "engine", Strategy("mtp", cap), "gpu"), model="m", fingerprint="engine")
    for cap in (0, 2, 4, 8)
]
CODE = Signals(tasks={Task.CODE: 1.0}, conversation="c")
REQUEST = Request(Api.OPENAI_CHAT, "/v1/chat/completions", b"", {})
SETTINGS = SharingSettings(interval_s=0.05)


def serve(router: Router, count: int, seed: int, signals: Signals = CODE) -> None:
    rng = Random(seed)
    for number in range(count):
        decision = router.choose(REQUEST, signals, LANES)
        seen = Observation(completion_tokens=100, decode_tokens=100, decode_s=1.0 + 0.05 * rng.random())
        if decision.predictions[decision.lane].strategy.drafts:
            seen = Observation(
                completion_tokens=100, decode_tokens=100, decode_s=0.5 + 0.05 * rng.random(), drafted=120, accepted=60
            )
        router.observe(decision, Outcome(decision.lane, 200, 2.0, observed=seen, at_s=time() + number / 1000))


def times(router: Router, signals: Signals = CODE) -> list[float]:
    found = predict(signals, LANES, router.knowledge).values()
    return [each.relative * (each.plain_step_s or 0.0) for each in found]


def seen(router: Router) -> int:
    return router.knowledge.models["m"].seen if "m" in router.knowledge.models else 0


def until(is_so: Callable[[], bool], patience_s: float = 10.0) -> None:
    deadline_s = monotonic() + patience_s
    while not is_so():
        assert monotonic() < deadline_s, "it did not come to be"
        sleep(0.01)


Join = Callable[..., tuple[Router, Sharer]]


@pytest.fixture
def join(address: str) -> Iterator[Join]:
    """A new router that shares."""
    running: list[Sharer] = []

    def one(store: Store | None = None) -> tuple[Router, Sharer]:
        router = Router((), RoutingSettings(), seed=len(running))
        sharer = Sharer(router, store or open_store(address), new_origin(), SETTINGS)
        sharer.start()
        running.append(sharer)
        return router, sharer

    yield one
    for sharer in running:
        sharer.stop()


def test_what_one_learns_all_know(join: Join) -> None:
    (teller, _), (listener, _) = join(), join()
    serve(teller, 30, 0)
    until(lambda: seen(listener) == 30)
    assert times(listener) == pytest.approx(times(teller), rel=0.1)
    serve(listener, 5, 1)
    until(lambda: seen(teller) == 35)


class Losable:
    """A store that can be lost."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.is_lost = False

    def _there(self) -> Store:
        if self.is_lost:
            raise ConnectionError("the store is lost")
        return self._store

    def append(self, router: str, sequence: int, delta: bytes) -> None:
        self._there().append(router, sequence, delta)

    def since(self, known: Mapping[str, int]) -> News:
        return self._there().since(known)

    def write(self, kind: str, router: str, document: bytes, lifetime_s: float) -> None:
        self._there().write(kind, router, document, lifetime_s)

    def read(self, kind: str) -> Mapping[str, bytes]:
        return self._there().read(kind)

    def once(self, name: str, document: bytes) -> bytes:
        return self._there().once(name, document)

    def close(self) -> None:
        self._store.close()


def test_what_was_learned_while_the_store_was_lost_is_told_later(join: Join, address: str) -> None:
    store = Losable(open_store(address))
    (teller, sharer), (listener, _) = join(store), join()
    serve(teller, 5, 0)
    until(lambda: seen(listener) == 5)
    store.is_lost = True
    serve(teller, 20, 1)
    until(lambda: sharer.state().problem is not None)
    assert "the store is lost" in (sharer.state().problem or "")
    serve(teller, 5, 2)
    assert seen(listener) == 5
    store.is_lost = False
    until(lambda: seen(listener) == 30 and sharer.state().problem is None)


def test_what_is_no_delta_is_left_out_and_counted(join: Join, address: str) -> None:
    store = open_store(address)
    for number, content in enumerate((b"", b"\x01nonsense", b"\xff", b"\x01" + bytes(100)), 1):
        store.append("hostile", number, content)
    (teller, _), (listener, sharer) = join(), join()
    serve(teller, 5, 0)
    until(lambda: seen(listener) == 5)
    assert sum(sharer.state().refused.values()) >= 4
    assert sharer.state().problem is None
    store.close()


def test_a_store_that_can_not_be_written_is_a_problem_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    router = Router((), RoutingSettings(), seed=0)
    sharer = Sharer(router, open_store(str(tmp_path / "file")), new_origin(), SETTINGS)
    sharer.start()
    serve(router, 5, 0)
    until(lambda: sharer.state().problem is not None)
    sharer.stop()
    assert seen(router) == 5


def test_who_comes_later_knows_what_the_log_no_longer_holds(tmp_path: Path) -> None:
    teller, sharer = _joined(tmp_path)
    serve(teller, 20, 0)
    until(lambda: sharer.state().told > 0)
    sharer.stop()  # which leaves a snapshot
    for delta in (tmp_path / "paceline" / "log").iterdir():
        delta.unlink()
    joiner, another = _joined(tmp_path)
    until(lambda: seen(joiner) == 20)
    assert times(joiner) == pytest.approx(times(teller), rel=1e-6)
    another.stop()


def test_a_router_that_starts_again_with_what_it_kept_counts_nothing_twice(tmp_path: Path) -> None:
    store, file = tmp_path / "store", tmp_path / "kept.db"
    first, sharer = _joined(store)
    other, another = _joined(store)
    serve(first, 10, 0)
    until(lambda: seen(other) == 10)
    first.save(file)
    sharer.stop()
    serve(other, 5, 1)
    again = Router((), RoutingSettings(), seed=9)
    again.load(file)
    assert seen(again) == 10
    _, third = _joined(store, again)
    until(lambda: seen(again) == 15)
    serve(again, 1, 2)
    until(lambda: seen(other) == 16)
    for running in (another, third):
        running.stop()


def test_what_was_learned_before_sharing_is_told(tmp_path: Path) -> None:
    alone = Router((), RoutingSettings(), seed=0)
    serve(alone, 20, 0)
    other, sharer = _joined(tmp_path)
    serve(other, 5, 1)
    _, another = _joined(tmp_path, alone)
    until(lambda: seen(other) == 25 and seen(alone) == 25)
    for running in (sharer, another):
        running.stop()


def test_routers_know_conversations_by_one_key(tmp_path: Path) -> None:
    kept: list[bytes] = []
    first = Router((), conversation_key=b"1" * 32)
    second = Router((), conversation_key=b"2" * 32)
    _, sharer = _joined(tmp_path, first)
    until(lambda: sharer.state().agreed_s is not None)
    another = Sharer(second, open_store(str(tmp_path)), new_origin(), SETTINGS, keep_key=kept.append)
    another.start()
    until(lambda: second.conversation_key == b"1" * 32)
    assert kept == [b"1" * 32]
    for running in (sharer, another):
        running.stop()


def test_requests_that_others_have_in_flight_count(tmp_path: Path) -> None:
    here = [replace(lane, machine="gpu:8080") for lane in LANES]
    busy = [replace(here[0], running=2, waiting=1), replace(here[2], running=1)]
    elsewhere = replace(LANES[1], machine="another", running=7)
    router = Router((), RoutingSettings(exploration=0), seed=0)
    sharer = Sharer(router, open_store(str(tmp_path)), new_origin(), SETTINGS)
    other = Sharer(Router(()), open_store(str(tmp_path)), new_origin(), SETTINGS, lanes=lambda: [*busy, elsewhere])
    for running in (sharer, other):
        running.start()
    until(lambda: router.peers.count == 1 and bool(router.peers.loads))
    decision = router.choose(REQUEST, CODE, here)
    assert {each.concurrent for each in decision.predictions.values()} == {3}
    assert {each.concurrent for each in router.choose(REQUEST, CODE, LANES).predictions.values()} == {0}
    other.stop()
    until(lambda: router.peers.count == 0)
    assert {each.concurrent for each in router.choose(REQUEST, CODE, here).predictions.values()} == {0}
    sharer.stop()


def test_one_that_only_keeps_what_others_learn_takes_no_part_of_what_is_explored() -> None:
    busy = [replace(LANES[0], machine="gpu:8080", running=2)]
    keeping, deciding = presence(1.0, busy, decides=False), presence(2.0, busy)
    assert peers([keeping]).count == 0
    both = peers([keeping, deciding])
    assert both.count == 1
    assert [load.running for load in both.loads.values()] == [4]


def test_each_of_several_routers_explores_less() -> None:
    alone, together = Knowledge(), Knowledge()
    explored = []
    for knowledge, routers in ((alone, 1), (together, 4)):
        decision = decide(CODE, LANES, knowledge, Random(0), routers=routers)
        assert decision.propensities == {LANES[0].lane.name: 1.0}, "the plain lane is measured first, by each"
        learner = Router((), knowledge=knowledge, seed=0)
        serve(learner, 1, 0)
        decision = decide(CODE, LANES, knowledge, Random(0), routers=routers)
        shares = dict(decision.propensities)
        best = max(shares, key=shares.__getitem__)
        explored.append(sum(share for lane, share in shares.items() if lane != best))
    assert explored[0] > 0
    assert explored[1] == pytest.approx(explored[0] / 4)


def _joined(folder: Path, router: Router | None = None) -> tuple[Router, Sharer]:
    router = router or Router((), RoutingSettings(), seed=0)
    sharer = Sharer(router, open_store(str(folder)), new_origin(), SETTINGS)
    sharer.start()
    return router, sharer
