"""Endpoints from a cluster, by the bytes of its API server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integrations.endpoint_picker.api_server import NAMESPACE, PODS, POOLS, pod, pool
from tests.integrations.endpoint_picker.api_server import ApiServer as Cluster
from tests.patient import until

from paceline.integrations.endpoint_picker import kubernetes
from paceline.integrations.endpoint_picker.endpoints import Endpoint
from paceline.integrations.endpoint_picker.kubernetes import ApiServer, InferencePool, NotInCluster, endpoints_of

LABELS = {"app": "llama", "role": "decode"}
OTHER = {"app": "something-else"}


class Watcher:
    """A pool that is watched, and what was told of it."""

    def __init__(self) -> None:
        self.told: list[Sequence[Endpoint]] = []

    @property
    def addresses(self) -> list[str]:
        return [one.address for one in self.told[-1]] if self.told else []


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster().running() as running:
        yield running


@asynccontextmanager
async def watching(cluster: Cluster, token: Path | None = None) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    source = InferencePool(ApiServer(cluster.url, NAMESPACE, token), "llamas", "vllm")
    task = asyncio.create_task(source.run(watcher.told.append))
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_ready_pods_of_a_pool_are_its_endpoints_as_they_come_and_go(cluster: Cluster) -> None:
    cluster.put(POOLS, pool("llamas", LABELS, 8000))
    cluster.put(PODS, pod("a", "10.0.0.1", LABELS))
    cluster.put(PODS, pod("other", "10.0.0.9", OTHER))
    async with watching(cluster) as watcher:
        await until(lambda: watcher.addresses == ["10.0.0.1:8000"])
        await until(lambda: cluster.watches == 2)
        cluster.put(PODS, pod("b", "10.0.0.2", LABELS, is_ready=False))
        cluster.put(PODS, pod("b", "10.0.0.2", LABELS))
        await until(lambda: watcher.addresses == ["10.0.0.1:8000", "10.0.0.2:8000"])
        assert watcher.told[-1][1] == Endpoint("10.0.0.2:8000", "vllm", "b", "llamas")
        cluster.put(PODS, pod("a", "10.0.0.1", LABELS, deleted="2026-11-30T00:00:00Z"))  # it is about to end
        await until(lambda: watcher.addresses == ["10.0.0.2:8000"])
        cluster.remove(PODS, "a")
        cluster.remove(PODS, "b")
        await until(lambda: watcher.told[-1] == [])
    selectors = [target for target, _ in cluster.asked if target.startswith(PODS)]
    assert all("labelSelector=app%3Dllama%2Crole%3Ddecode" in target for target in selectors)


async def test_a_pool_that_selects_otherwise_is_followed(cluster: Cluster) -> None:
    cluster.put(PODS, pod("a", "10.0.0.1", LABELS))
    cluster.put(PODS, pod("other", "10.0.0.9", OTHER))
    async with watching(cluster) as watcher:
        await until(lambda: watcher.told == [()])  # there is no such pool yet
        await until(lambda: cluster.watches == 1)
        cluster.put(POOLS, pool("llamas", LABELS, 8000))
        await until(lambda: watcher.addresses == ["10.0.0.1:8000"])
        cluster.put(POOLS, pool("llamas", OTHER, 8000, 8001))
        await until(lambda: watcher.addresses == ["10.0.0.9:8000", "10.0.0.9:8001"])
        assert [one.name for one in watcher.told[-1]] == ["other-8000", "other-8001"]
        cluster.remove(POOLS, "llamas")
        await until(lambda: watcher.told[-1] == ())


async def test_watches_that_end_break_or_are_too_old_lose_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "PAUSES_S", (0.01,))
    cluster.put(POOLS, pool("llamas", LABELS, 8000))
    async with watching(cluster) as watcher:
        await until(lambda: cluster.watches == 2)
        # 1. Ended by the server: it is watched on from the last version, which a bookmark may have told.
        cluster.bookmark(PODS)
        told_version = cluster.version
        cluster.end()
        await until(lambda: cluster.watches == 2)
        assert any(f"resourceVersion={told_version}" in target for target, _ in cluster.asked)
        # 2. Broken off, and changed meanwhile.
        cluster.cut()
        cluster.put(PODS, pod("a", "10.0.0.1", LABELS))
        await until(lambda: watcher.addresses == ["10.0.0.1:8000"])
        # 3. Too old to be watched from.
        await until(lambda: cluster.watches == 2)
        cluster.end()
        cluster.put(PODS, pod("b", "10.0.0.2", LABELS))
        cluster.oldest_version = cluster.version
        await until(lambda: len(watcher.addresses) == 2)
        # 4. Refused for a while: what was known stays.
        cluster.refuse_with = 403
        cluster.cut()
        asked = len(cluster.asked)
        await until(lambda: len(cluster.asked) > asked + 4)
        assert len(watcher.addresses) == 2
        cluster.refuse_with = 0
        cluster.put(PODS, pod("c", "10.0.0.3", LABELS))
        await until(lambda: len(watcher.addresses) == 3)


@pytest.mark.parametrize(
    "odd", [{"metadata": "none"}, {"metadata": {}}, {"metadata": {}, "items": 7}, {"metadata": {}, "items": ["a pod"]}]
)
async def test_odd_answers_are_outlived_and_not_asked_for_without_a_pause(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, odd: dict[str, object]
) -> None:
    monkeypatch.setattr(kubernetes, "PAUSES_S", (0.05,))
    cluster.put(POOLS, pool("llamas", LABELS, 8000))
    cluster.put(PODS, pod("a", "10.0.0.1", LABELS))
    cluster.odd = odd
    async with watching(cluster) as watcher:
        await asyncio.sleep(0.5)
        assert 2 <= len(cluster.asked) <= 11
        cluster.odd = None
        await until(lambda: watcher.addresses == ["10.0.0.1:8000"])


async def test_watches_that_are_always_too_old_are_begun_ever_more_rarely(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "PAUSES_S", (0.01, 0.1, 60.0))
    cluster.oldest_version = cluster.version + 100
    async with watching(cluster):
        await until(lambda: len(cluster.asked) == 6)  # thrice a list, and a watch
        await asyncio.sleep(0.3)
        assert len(cluster.asked) == 6


async def test_the_token_is_read_anew(cluster: Cluster, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    cluster.put(POOLS, pool("llamas", LABELS, 8000))
    async with watching(cluster, token):
        await until(lambda: cluster.watches == 2)
        token.write_text("second\n")
        cluster.end()
        await until(lambda: cluster.watches == 2)
    shown = [headers["authorization"] for _, headers in cluster.asked]
    assert shown[0] == "Bearer first" and shown[-1] == "Bearer second"


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({"llm-d.ai/engine-type": "sglang"}, "sglang"),
        ({"inference.networking.k8s.io/engine-type": "llama-cpp"}, "llama.cpp"),
        ({"inference.networking.k8s.io/engine-type": "VLLM"}, "vllm"),
        ({"llm-d.ai/engine-type": "of-the-future"}, "auto"),
        ({}, "auto"),
    ],
)
def test_a_label_names_the_engine(labels: dict[str, str], kind: str) -> None:
    assert endpoints_of(pod("a", "10.0.0.1", labels), [8000])[0].kind == kind


def test_ipv6_and_pods_that_are_none() -> None:
    assert endpoints_of(pod("a", "fd00::1", LABELS), [8000])[0].address == "[fd00::1]:8000"
    for broken in ({}, {"metadata": {"name": "a"}}, {"metadata": None, "status": None}, pod("a", "", LABELS)):
        assert endpoints_of(broken, [8000]) == []


def test_where_the_api_server_is_has_to_be_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NotInCluster, match="--kubernetes-api"):
        ApiServer.of_this_pod()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setattr(kubernetes, "ACCOUNT", tmp_path)
    with pytest.raises(NotInCluster, match="--namespace"):
        ApiServer.of_this_pod()
    (tmp_path / "namespace").write_text("models")
    assert ApiServer.of_this_pod().url == "https://[fd00::1]:443"
    assert ApiServer.of_this_pod().namespace == "models"
