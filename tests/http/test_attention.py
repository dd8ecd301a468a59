"""What needs a person, and the documents that the dashboard asks for beside lanes and requests."""

import asyncio
from typing import Any

import pytest
from tests.conftest import CHAT, StartEngine, StartGateway, chat, lane, two_lanes
from tests.fake_engine import Received, Wire, answer
from tests.patient import until

GENERATES = "/v1/chat/completions"


async def needs(running: Any) -> list[dict[str, Any]]:
    found = (await running.http.get("/paceline/lanes")).json()["needs"]
    assert all(need["problem"].endswith(".") and need["action"].endswith(".") for need in found), found
    return list(found)


async def test_nothing_needs_anybody_where_all_is_well(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, _, _ = await two_lanes(start_engine, start_gateway)
    await running.http.post(GENERATES, json=CHAT)
    assert await needs(running) == []


async def test_what_is_down_is_a_warning_and_all_of_it_critical(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, plain, ngram = await two_lanes(start_engine, start_gateway)
    await plain.stop()
    await until(lambda: not running.gateway.fleet.engines["plain"].is_up)
    (need,) = await needs(running)
    assert (need["severity"], need["about"]) == ("warning", "plain")
    assert plain.url in need["action"]
    await ngram.stop()
    await until(lambda: not running.gateway.fleet.engines["ngram"].is_up)
    first, *others = await needs(running)
    assert (first["severity"], first["about"]) == ("critical", "gateway")
    assert len(others) == 2


async def test_many_failures_are_said_and_a_clients_mistakes_are_none(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def fails(received: Received, wire: Wire) -> None:
        if b"fail" in received.body:
            await wire.json({"error": {"message": "no"}}, 500)
        elif b"wrong" in received.body:
            await wire.json({"error": {"message": "you"}}, 400)
        else:
            await answer(received, wire)

    running = await start_gateway(lane("only", (await start_engine(fails)).url))
    for _ in range(4):
        await running.http.post(GENERATES, json=chat("wrong", model="m"))
    assert await needs(running) == []
    for _ in range(3):
        await running.http.post(GENERATES, json=chat("fail", model="m"))
        await running.http.post(GENERATES, json=CHAT)
    found = [need for need in await needs(running) if need["about"] == "requests"]
    assert [need["problem"] for need in found] == ["3 of the 10 requests of the last five minutes failed."]


async def test_a_budget_is_told_before_it_is_spent(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    gpu, cloud = await start_engine(), await start_engine()
    priced = '[[cloud]]\nname = "m"\ninput_price = 1000.0\noutput_price = 2000.0\n[[budget]]\nlimit = 0.055\n'
    both = '[[model]]\nname = "m"\nlanes = ["gpu", "cloud"]\n'
    running = await start_gateway(priced + both + lane("gpu", gpu.url) + lane("cloud", cloud.url, more="cloud = true"))
    for _ in range(3):
        assert await needs(running) == []
        asked = chat(model="m", max_tokens=3)
        sent = await running.http.post(GENERATES, json=asked, headers={"x-paceline-lane": "cloud"})
        assert sent.status_code == 200, sent.text
    (need,) = await needs(running)
    assert need["about"] == "budget of this day"
    assert need["problem"] == "82% of it is spent."


async def test_requests_in_flight_are_told_with_what_they_wait_for(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    goes_on = asyncio.Event()

    async def waits(received: Received, wire: Wire) -> None:
        if received.method == "POST":
            await goes_on.wait()
        await answer(received, wire)

    running = await start_gateway(lane("only", (await start_engine(waits)).url))
    sent = asyncio.create_task(running.http.post(GENERATES, json=CHAT))
    await until(lambda: running.gateway.pipeline.in_flight.requests == 1)
    await until(lambda: any(exchange.last_attempt for exchange in running.gateway.pipeline.in_flight.exchanges))
    (one,) = (await running.http.get("/paceline/lanes")).json()["running"]
    assert (one["lane"], one["model"], one["phase"]) == ("only", "m", "reads the prompt")
    assert 0 <= one["age_s"] < 30
    goes_on.set()
    assert (await sent).status_code == 200
    assert (await running.http.get("/paceline/lanes")).json()["running"] == []


async def test_one_request_is_told_in_full(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, _, _ = await two_lanes(start_engine, start_gateway)
    await running.http.post(GENERATES, json=chat("Write a poem.", model="m"), headers={"x-request-id": "mine"})
    found = (await running.http.get("/paceline/requests/1")).json()
    assert (found["number"], found["id"]) == (1, "mine")
    assert set(found["predictions"]) == {"plain", "ngram"}
    assert found["signals"]["task"] == "create"
    assert found["why"].startswith("Taken for create")
    for number in ("2", "0", "x", "-1", "1" * 30, "1%2f"):
        refused = await running.http.get(f"/paceline/requests/{number}")
        assert refused.status_code == 404, number
        assert "is not among the last 1000" in refused.json()["error"]["message"]


@pytest.mark.parametrize("query", ["range_s=x", "range_s=-1", "range_s=1e9", "range_s=0", "range_s=" + "9" * 40])
async def test_a_range_that_is_none_is_refused(
    start_engine: StartEngine, start_gateway: StartGateway, query: str
) -> None:
    running = await start_gateway(lane("only", (await start_engine()).url))
    refused = await running.http.get(f"/paceline/history?{query}")
    assert refused.status_code == 400
    assert "range_s" in refused.json()["error"]["message"]


async def test_any_range_is_cut_to_what_is_kept(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running = await start_gateway(lane("only", (await start_engine()).url))
    await running.http.post(GENERATES, json=CHAT)
    found = (await running.http.get("/paceline/history?range_s=999999999999")).json()
    assert found["range_s"] == 30 * 86_400
    assert (found["total"]["requests"], len(found["times_s"])) == (1, 720)


async def test_parts_of_the_page_that_are_none_are_not_found(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running = await start_gateway(lane("only", (await start_engine()).url))
    for path in ("page/", "page/nothing.js", "page/../index.html", "page/__init__.py", "page/LICENSE"):
        assert (await running.http.get(f"/paceline/{path}")).status_code == 404, path
