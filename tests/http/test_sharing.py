"""Gateways that share a store: what one has measured the other shows, and how sharing goes is told."""

import re
from pathlib import Path

from tests.conftest import CHAT, RunningGateway, StartEngine, StartGateway, lane
from tests.patient import until

from paceline.cli.lanes import in_words


def requests(running: RunningGateway, name: str) -> int:
    now = running.gateway.fleet.lanes[name].state(None)
    measured = running.gateway.pipeline.router.measured(now)
    return measured.requests if measured else 0


async def test_what_one_gateway_measures_another_knows(
    start_engine: StartEngine, start_gateway: StartGateway, tmp_path: Path
) -> None:
    engine = await start_engine()
    text = f'sharing.store = "{tmp_path / "store"}"\nsharing.interval_s = 0.05\n' + lane("plain", engine.url)
    first, second = await start_gateway(text), await start_gateway(text)
    assert (await first.http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    await until(lambda: requests(second, "plain") == 1)
    assert first.gateway.fleet.lanes["plain"].state(None).machine
    keys = [running.gateway.pipeline.router.conversation_key for running in (first, second)]
    await until(lambda: first.gateway.pipeline.router.peers.count == 1)
    assert keys[0] == keys[1]

    document = (await second.http.get("/paceline/lanes")).json()["sharing"]
    assert (document["problem"], document["peers"], document["refused"]) == (None, 1, {})
    assert in_words(document).startswith("1 others are there; ")
    text = (await second.http.get("/metrics")).text
    assert "paceline_sharing_up 1.0" in text
    assert "paceline_sharing_peers 1.0" in text
    assert re.search(r"paceline_sharing_messages_learned_total [1-9]", text)


async def test_a_store_that_is_not_there_is_told_and_serves(
    start_engine: StartEngine, start_gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    engine = await start_engine()
    text = f'sharing.store = "{tmp_path / "file"}"\nsharing.interval_s = 0.05\n' + lane("plain", engine.url)
    running = await start_gateway(text)
    assert (await running.http.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert "paceline_sharing_up 0.0" in (await running.http.get("/metrics")).text
    assert in_words((await running.http.get("/paceline/lanes")).json()["sharing"]).startswith("not for now: ")


async def test_sharing_begins_and_ends_with_a_reload(
    start_engine: StartEngine, start_gateway: StartGateway, tmp_path: Path
) -> None:
    engine = await start_engine()
    alone = "server.port = 0\n" + lane("plain", engine.url)
    running = await start_gateway(lane("plain", engine.url))
    assert (await running.http.get("/paceline/lanes")).json()["sharing"] is None
    running.text = f'sharing.store = "{tmp_path / "store"}"\n' + alone
    await running.gateway.reload()
    await until(lambda: (tmp_path / "store").exists())
    assert (await running.http.get("/paceline/lanes")).json()["sharing"]["peers"] == 0
    running.text = alone
    await running.gateway.reload()
    assert (await running.http.get("/paceline/lanes")).json()["sharing"] is None
