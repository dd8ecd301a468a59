"""Where requests went, why, what they cost and what that saves, as the gateway tells it of itself."""

from typing import Any

import pytest
from tests.conftest import RunningGateway, StartEngine, StartGateway, chat, lane
from tests.fake_engine import ANSWER, FakeEngine, Received, Wire, answer, status_500
from tests.patient import until

PRICES = '[[cloud]]\nname = "m"\ninput_price = 1000.0\noutput_price = 2000.0\n'
GROUP = '[[model]]\nname = "m"\nlanes = ["gpu", "cloud"]\n'
COST = (9 * 1000 + 3 * 2000) / 1e6
"""Of the fake engines' answer at these prices."""


async def both(
    start_engine: StartEngine, start_gateway: StartGateway, more: str, script: Any = answer
) -> tuple[RunningGateway, FakeEngine]:
    gpu, cloud = await start_engine(), await start_engine(script)
    tables = lane("gpu", gpu.url) + lane("cloud", cloud.url, more="cloud = true")
    return await start_gateway(more + GROUP + tables), gpu


async def ask(running: RunningGateway, **headers: str) -> int:
    """Ask, and wait until the answer is counted; returns the status."""
    number = len(running.records)
    named = {f"x-paceline-{name}": value for name, value in headers.items()}
    answered = await running.http.post("/v1/chat/completions", json=chat(model="m"), headers=named)
    await running.outcome_number(number + 1)
    return answered.status_code


async def told(running: RunningGateway) -> Any:
    return (await running.http.get("/paceline/lanes")).json()["money"]


async def test_nothing_is_told_where_nothing_costs_anything(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running = await start_gateway(lane("gpu", (await start_engine()).url))
    assert await ask(running) == 200
    assert await told(running) is None
    (entry,) = (await running.http.get("/paceline/requests")).json()["requests"]
    assert entry["placed"] is None
    assert entry["cost"] is None


async def test_answers_are_counted_by_engine_with_why_and_compared(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    watts = "cost.currency = 'EUR'\ncost.watts = 3.6e9\ncost.idle_watts = 0.0\ncost.price_per_kwh = 0.0001\n"
    running, gpu = await both(start_engine, start_gateway, watts + PRICES)
    before = await told(running)
    assert [engine["answers"] for engine in before["engines"]] == [0, 0]
    assert before["verdict"] == "Compared with m for everything: no answer yet that tells its tokens."
    assert [await ask(running), await ask(running, private="yes"), await ask(running, lane="cloud")] == [200] * 3
    outcomes = [record.outcome for record in running.records]
    power = sum(0.1 * (one.total_s - one.queue_s) / (1 + one.concurrent) for one in outcomes[:2])
    money = await told(running)
    assert money["currency"] == "EUR"
    own, cloud = money["engines"]
    assert own == {
        "engine": "gpu",
        "is_cloud": False,
        "answers": 2,
        "paid": None,
        "estimates": 0,
        "unpriced": 0,
        "why": {"local-first": 1, "private, stays on this machine": 1},
    }
    assert (cloud["answers"], cloud["paid"], cloud["why"]) == (1, pytest.approx(COST), {"named": 1})
    assert money["baseline"] == {
        "model": "m",
        "answers": 3,
        "total": pytest.approx(3 * COST),
        "paid": pytest.approx(COST),
        "power": pytest.approx(power),
        "saved": pytest.approx(2 * COST - power),
    }
    assert "m for everything would have cost 0.045 EUR for 3 answers" in money["verdict"]
    requests = (await running.http.get("/paceline/requests")).json()["requests"]
    assert "x-paceline-private" in requests[1]["placed"]["struck"]["cloud"]
    assert requests[1]["placed"]["private"]
    assert requests[2]["cost"] == pytest.approx(COST)
    await gpu.stop()
    await until(lambda: not running.gateway.fleet.lanes["gpu"].is_up)
    assert await ask(running) == 200
    assert (await told(running))["engines"][1]["why"]["all others are down"] == 1


async def test_a_guess_is_counted_as_one_and_not_compared(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def untold(received: Received, wire: Wire) -> None:
        await wire.json({name: value for name, value in ANSWER.items() if name not in ("usage", "timings")})

    running, _ = await both(start_engine, start_gateway, PRICES, untold)
    assert await ask(running, lane="cloud") == 200
    money = await told(running)
    assert (money["engines"][1]["estimates"], money["baseline"]["answers"]) == (1, 0)
    assert money["engines"][1]["paid"] == pytest.approx(running.outcome.cost)
    assert money["engines"][1]["paid"] > 0


async def test_another_baseline_begins_at_nothing_and_without_a_price_there_is_none(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, _ = await both(start_engine, start_gateway, PRICES.replace('"m"', '"dear"') + PRICES)
    assert await ask(running) == 200
    money = await told(running)
    assert (money["baseline"]["model"], money["baseline"]["answers"]) == ("dear", 1)
    running.text = running.text.replace('"dear"', '"dearer"')
    await running.gateway.reload()
    money = await told(running)
    assert (money["baseline"]["model"], money["baseline"]["answers"]) == ("dearer", 0)
    assert money["engines"][0]["answers"] == 1
    running.text = running.text[running.text.index(GROUP) :]
    await running.gateway.reload()
    await running.lanes_settle()
    assert await ask(running, lane="cloud") == 200
    money = await told(running)
    assert money["baseline"] is None
    assert "No price of a cloud model is known" in money["verdict"]
    assert money["engines"][1]["unpriced"] == 1


async def test_a_first_choice_that_did_not_answer_is_the_reason(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gpu, cloud = await start_engine(status_500), await start_engine()
    tables = lane("gpu", gpu.url) + lane("cloud", cloud.url, more="cloud = true")
    running = await start_gateway(PRICES + GROUP + tables)
    assert await ask(running) == 200
    assert [engine["why"] for engine in (await told(running))["engines"]] == [
        {},
        {"the first choice did not answer": 1},
    ]
