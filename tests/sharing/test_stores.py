"""Every store is a letter box: what is put in is found by all, in order, until it is too old."""

from pathlib import Path
from time import sleep

import pytest

from paceline.sharing import CannotOpen, Store, open_store
from paceline.sharing.stores import KEPT_DELTAS


def test_deltas_are_found_beyond_what_is_known(store: Store, address: str) -> None:
    for number in (1, 2, 3):
        store.append("a", number, b"a%d" % number)
    store.append("b", 1, b"b1")
    other = open_store(address)
    assert sorted(other.since({}).deltas) == [b"a1", b"a2", b"a3", b"b1"]
    assert list(other.since({"a": 1, "b": 1}).deltas) == [b"a2", b"a3"]
    assert not other.since({"a": 3, "b": 1}).deltas
    other.close()


def test_a_delta_that_is_put_in_again_is_there_once(store: Store) -> None:
    for _ in range(2):
        store.append("a", 1, b"a1")
    assert list(store.since({}).deltas) == [b"a1"]


def test_who_is_too_far_behind_is_told_so(store: Store) -> None:
    for number in range(1, KEPT_DELTAS + 4):
        store.append("a", number, b"%d" % number)
    news = store.since({"a": 1})
    assert news.cut_off == {"a"}
    assert news.deltas[-1] == b"%d" % (KEPT_DELTAS + 3)
    assert not store.since({"a": 3}).cut_off
    assert len(store.since({"a": 3}).deltas) == KEPT_DELTAS


def test_documents_are_replaced_and_expire(store: Store) -> None:
    store.write("load", "a", b"old", 60)
    store.write("load", "a", b"new", 60)
    store.write("load", "b", b"short", 0.2)
    store.write("other", "a", b"of another kind", 60)
    assert store.read("load") == {"a": b"new", "b": b"short"}
    sleep(0.4)
    store.write("load", "a", b"newer", 60)
    assert store.read("load") == {"a": b"newer"}
    assert store.read("none") == {}


def test_what_is_the_same_for_all_is_what_came_first(store: Store, address: str) -> None:
    other = open_store(address)
    assert store.once("key", b"first") == b"first"
    assert other.once("key", b"second") == b"first"
    other.close()


def test_groups_do_not_see_each_other(store: Store, address: str) -> None:
    other = open_store(address, "other")
    store.append("a", 1, b"a1")
    store.write("load", "a", b"busy", 60)
    assert not other.since({}).deltas
    assert other.read("load") == {}
    other.close()


def test_a_folder_holds_no_more_than_it_should(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for number in range(1, 2 * KEPT_DELTAS):
        store.append("a", number, b"x")
    assert len(list((tmp_path / "paceline" / "log").iterdir())) == KEPT_DELTAS
    assert not list((tmp_path / "paceline" / "new").iterdir())


@pytest.mark.parametrize("address", ["", "http://host", "postgres://host", "folder:"])
def test_what_is_no_store_is_said(address: str) -> None:
    with pytest.raises(CannotOpen, match="store"):
        open_store(address)
