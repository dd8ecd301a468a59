"""The actor is a store like the others, bounded, and comes again when it was ended."""

from collections.abc import Iterator

import pytest
import ray
from tests.patient import wait_until

from paceline import Router
from paceline.integrations.ray_serve import RayStore, shared
from paceline.integrations.ray_serve.shared import MAX_REPORTS, MAX_ROUTERS, Shared, SharedActor
from paceline.settings import SharingSettings
from paceline.sharing import Sharer, Store, new_origin
from paceline.sharing.stores import KEPT_DELTAS


@pytest.fixture
def store(serve_url: str) -> Iterator[Store]:
    name = new_origin()
    yield RayStore(name)
    ray.kill(SharedActor(name).handle)


def test_deltas_are_found_beyond_what_is_known(store: Store) -> None:
    for number in (1, 2, 3):
        store.append("a", number, b"a%d" % number)
    store.append("b", 1, b"b1")
    store.append("b", 1, b"b1")
    assert sorted(store.since({}).deltas) == [b"a1", b"a2", b"a3", b"b1"]
    assert list(store.since({"a": 1, "b": 1}).deltas) == [b"a2", b"a3"]
    assert not store.since({"a": 3, "b": 1}).deltas


def test_who_is_too_far_behind_is_told_so(store: Store) -> None:
    for number in range(1, KEPT_DELTAS + 4):
        store.append("a", number, b"%d" % number)
    news = store.since({"a": 1})
    assert news.cut_off == {"a"}
    assert len(news.deltas) == KEPT_DELTAS
    assert not store.since({"a": 3}).cut_off


def test_documents_are_replaced_and_expire(store: Store) -> None:
    store.write("load", "a", b"old", 60)
    store.write("load", "a", b"new", 60)
    store.write("load", "b", b"short", 0.2)
    store.write("other", "a", b"of another kind", 60)
    wait_until(lambda: store.read("load") == {"a": b"new"})
    assert store.read("none") == {}


def test_what_is_the_same_for_all_is_what_came_first(store: Store) -> None:
    assert store.once("key", b"first") == b"first"
    assert store.once("key", b"second") == b"first"


def test_an_actor_that_was_ended_comes_again_and_sharing_goes_on(serve_url: str) -> None:
    name, settings = new_origin(), SharingSettings(interval_s=0.05)
    sharer = Sharer(Router(()), RayStore(name), new_origin(), settings)
    sharer.start()
    wait_until(lambda: sharer.state().agreed_s is not None)
    ray.kill(ray.get_actor(name, namespace=shared.NAMESPACE))
    wait_until(lambda: sharer.state().problem is not None)
    wait_until(lambda: sharer.state().problem is None)
    sharer.stop()
    ray.kill(SharedActor(name).handle)


async def test_what_it_holds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = Shared()
    for number in range(MAX_ROUTERS + 10):
        await actor.append(f"{number}", 1, b"delta")
        await actor.report(f"{number}", b"report")
    assert len((await actor.since({}))[0]) == MAX_ROUTERS
    for number in range(MAX_REPORTS + 10):
        await actor.report("one", b"%d" % number)
    assert len(await actor.take_reports("one", 1)) == MAX_REPORTS
    monkeypatch.setattr(shared, "MAX_LOG_BYTES", 1000)
    await actor.append("large", 1, bytes(999))
    assert (await actor.since({}))[0] == [bytes(999)]
    with pytest.raises(ValueError, match="too many"):
        await actor.append("large", 2, bytes(shared.MAX_MESSAGE_BYTES + 1))


async def test_reports_are_given_out_once_and_waited_for_no_longer_than_asked() -> None:
    actor = Shared()
    await actor.report("one", b"a")
    await actor.report("one", b"b")
    assert await actor.take_reports("one", 1) == [b"a", b"b"]
    assert await actor.take_reports("one", 0.01) == []
