"""What a container engine is given fits the gateway, and a real Prometheus scrapes what the dashboard shows."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.conftest import CHAT, RunningGateway, StartEngine, StartGateway, two_lanes
from tests.fake_engine import slow_to_tell, status_500

from paceline.configuration import load
from paceline.processes.launch import free_port

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "deploy" / "container"
KEY = "key-of-the-administrator"


def test_the_gateways_configuration_fits_the_services() -> None:
    configuration = load(CONTAINER / "paceline.toml", here=False)
    services = re.findall(r"^  ([a-z]+): ?(?:&[a-z]+)?$", (CONTAINER / "compose.yaml").read_text(), re.M)
    assert {engine.name for engine in configuration.engine} <= set(services)
    assert [engine.url for engine in configuration.engine] == ["http://plain:8081", "http://ngram:8081"]
    assert configuration.sharing.store == "redis://redis:6379/0"
    assert not any(engine.leaves_machine for engine in configuration.engine)


def test_files_that_the_image_and_the_services_take_are_there() -> None:
    for words in re.findall(r"^COPY (?!--from)(.*) \S+$", (CONTAINER / "Dockerfile").read_text(), re.M):
        ignored = (CONTAINER / "Dockerfile.dockerignore").read_text()
        for name in words.split():
            assert (ROOT / name).exists()
            assert f"!{name}\n" in ignored
    for name in re.findall(r"^      - (\.\S*?):", (CONTAINER / "compose.yaml").read_text(), re.M):
        assert (CONTAINER / name).exists(), name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (Debian: apt-get install prometheus)")
async def test_a_real_prometheus_answers_every_query_of_the_dashboard(
    start_engine: StartEngine, start_gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(KEY)
    keys = f'server.admin_key = "file:{tmp_path / "key"}"\n'
    running, _, ngram = await two_lanes(start_engine, start_gateway, slow_to_tell, keys)
    async with prometheus(running, tmp_path) as http:

        async def traffic() -> None:
            while True:
                for lane in ("plain", "ngram"):
                    headers = {"x-paceline-lane": lane, "authorization": f"Bearer {KEY}"}
                    await running.http.post("/v1/chat/completions", json=CHAT, headers=headers)
                await asyncio.sleep(0.05)

        asking = asyncio.create_task(traffic())
        try:
            await target_is_up(http)
            await asyncio.sleep(4)  # Prometheus needs two samples for a rate, and it scrapes each second
            ngram.script = status_500
            found = {expression: await answered(http, expression) for expression in expressions()}
        finally:
            asking.cancel()
    empty = [expression for expression, result in found.items() if not result]
    assert empty == [expression for expression in found if 'status!~"2.."' in expression]
    rates = found["sum by (lane) (rate(paceline_requests_total[$__rate_interval]))"]
    assert {one["metric"]["lane"]: float(one["value"][1]) > 1 for one in rates} == {"plain": True, "ngram": True}


def expressions() -> list[str]:
    """Of all panels."""
    panels = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


async def answered(http: httpx2.AsyncClient, expression: str) -> list[dict[str, Any]]:
    query = expression.replace("$__rate_interval", "10s")
    document = (await http.get("/api/v1/query", params={"query": query})).json()
    assert document["status"] == "success", document
    result: list[dict[str, Any]] = document["data"]["result"]
    return result


async def target_is_up(http: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while True:
            targets = (await http.get("/api/v1/targets")).json()["data"]["activeTargets"]
            if [target["health"] for target in targets] == ["up"]:
                return
            await asyncio.sleep(0.1)


@asynccontextmanager
async def prometheus(running: RunningGateway, folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """With the configuration of the services, but for the address of the gateway, the place of its key and the pace."""
    text = (CONTAINER / "prometheus.yml").read_text()
    for there, here in (
        ("gateway:8080", running.url.removeprefix("http://")),
        ("/run/secrets/paceline_admin_key", str(folder / "key")),
        ("scrape_interval: 5s", "scrape_interval: 1s"),
    ):
        assert there in text
        text = text.replace(there, here)
    (folder / "prometheus.yml").write_text(text)
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False) as http:
            async with asyncio.timeout(30):
                while True:
                    try:
                        if (await http.get("/-/ready")).status_code == 200:
                            break
                    except httpx2.TransportError:
                        pass
                    await asyncio.sleep(0.1)
            yield http
    finally:
        process.terminate()
        await process.wait()
