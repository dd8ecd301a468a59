"""A gateway before a local and a cloud engine: who serves, and what it costs."""

import asyncio
from pathlib import Path
from time import time
from typing import Any

import pytest
from tests.conftest import RunningGateway, StartEngine, StartGateway, chat
from tests.fake_engine import ANSWER, FakeEngine, Received, Script, Wire, answer, drops, status_500
from tests.patient import until

from paceline.serving.attempts import Attempts
from paceline.serving.fleet import Fleet
from paceline.settings import BudgetSettings

GROUP = """
[[model]]
name = "m"
lanes = ["gpu", "cloud"]
[[cloud]]
name = "m"
input_price = 1000.0
output_price = 2000.0
"""
COST = (9 * 1000 + 3 * 2000) / 1e6
"""Of the fake engines' answer at these prices."""


def engines(gpu: FakeEngine, cloud: FakeEngine, more: str = "") -> str:
    one = f'[[engine]]\nname = "gpu"\nkind = "openai"\nurl = "{gpu.url}"\n{more}\n'
    return one + f'[[engine]]\nname = "cloud"\nkind = "openai"\ncloud = true\nurl = "{cloud.url}"\n'


async def both(
    start_engine: StartEngine, start_gateway: StartGateway, more: str = "", own: str = "", **scripts: Any
) -> tuple[RunningGateway, FakeEngine, FakeEngine]:
    gpu = await start_engine(**({"script": scripts["gpu"]} if "gpu" in scripts else {}))
    cloud = await start_engine(**({"script": scripts["cloud"]} if "cloud" in scripts else {}))
    return await start_gateway(more + GROUP + engines(gpu, cloud, own)), gpu, cloud


async def ask(running: RunningGateway, text: str = "hi", **headers: str) -> Any:
    named = {f"x-paceline-{name.replace('_', '-')}": value for name, value in headers.items()}
    return await running.http.post("/v1/chat/completions", json=chat(text, model="m"), headers=named)


async def test_local_first_until_it_is_down(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, gpu, cloud = await both(start_engine, start_gateway)
    answer = await ask(running)
    assert answer.headers["x-paceline-lane"] == "gpu"
    assert "local-first" in answer.headers["x-paceline-reason"]
    assert running.outcome.cost is None
    await gpu.stop()
    answer = await ask(running)
    assert answer.headers["x-paceline-lane"] == "cloud"
    assert running.outcome.cost == pytest.approx(COST)
    assert not running.outcome.cost_is_estimate
    private = await ask(running, private="yes")
    assert private.status_code == 503
    assert "gpu is down" in private.text
    assert len(cloud.requests) == 1
    metrics = (await running.http.get("/metrics")).text
    assert f'paceline_cost_total{{lane="cloud"}} {COST}' in metrics
    await gpu.start(gpu.port)
    await until(lambda: running.gateway.fleet.lanes["gpu"].is_up)
    assert (await ask(running)).headers["x-paceline-lane"] == "gpu"


async def test_own_headers_stay_here_and_odd_ones_are_refused(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, gpu, _ = await both(start_engine, start_gateway)
    await ask(running, private="yes", deadline_ms="90000", max_cost="0.5")
    assert not [name for name in gpu.requests[-1].headers if name.startswith("x-paceline")]
    for headers in ({"private": "true"}, {"deadline_ms": "soon"}, {"deadline_ms": "0"}, {"max_cost": "-1"}):
        refused = await ask(running, **headers)
        assert refused.status_code == 400
        assert refused.json()["error"]["code"] == "invalid_header"


async def test_a_forced_lane_does_not_overrule_privacy(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, _, cloud = await both(start_engine, start_gateway)
    assert (await ask(running, lane="cloud")).headers["x-paceline-lane"] == "cloud"
    refused = await ask(running, lane="cloud", private="yes")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "not_placed"
    assert "header x-paceline-private" in refused.json()["error"]["message"]
    assert len(cloud.requests) == 1


async def test_an_engine_at_another_address_gets_nothing_private_unless_it_is_said(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.settings.is_loopback", lambda _: False)
    engine = await start_engine()
    table = f'[[engine]]\nname = "lan"\nkind = "openai"\nurl = "{engine.url}"\n'
    running = await start_gateway(table)
    assert (await ask(running)).status_code == 200
    assert (await ask(running, private="yes")).status_code == 403
    running.text = running.text.replace(table, table + "takes_private = true\n")
    await running.gateway.reload()
    await running.lanes_settle()
    assert (await ask(running, private="yes")).status_code == 200


async def test_spilling_over_when_the_queue_would_miss_the_deadline_and_coming_back(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    go = asyncio.Event()

    async def slow(received: Received, wire: Wire) -> None:
        await go.wait()
        await wire.json(ANSWER)

    running, gpu, cloud = await both(start_engine, start_gateway, own="slots = 1", gpu=slow)
    waiting = [asyncio.create_task(ask(running)) for _ in range(3)]  # none has a deadline
    await until(lambda: len(gpu.requests) == 3)
    assert not cloud.requests
    in_time = await ask(running, deadline_ms="12000")
    assert in_time.headers["x-paceline-lane"] == "cloud"
    placed = running.records[-1].decision.placed
    assert placed is not None
    assert placed.terms["gpu"].queue_s > 10
    assert placed.terms["gpu"].late == pytest.approx(1.0)
    go.set()
    await asyncio.gather(*waiting)
    assert (await ask(running, deadline_ms="60000")).headers["x-paceline-lane"] == "gpu"


async def test_a_budget_runs_out_and_requests_stay_at_home(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, _, cloud = await both(start_engine, start_gateway, 'placement.mode = "best"\n[[budget]]\nlimit = 0.05\n')
    body = chat("hi", model="m", max_tokens=3)  # expected to cost 0.024, and it costs 0.015

    async def lane_of(**headers: str) -> tuple[int, str | None]:
        answer = await running.http.post("/v1/chat/completions", json=body, headers=headers)
        return answer.status_code, answer.headers.get("x-paceline-lane")

    forced = {"x-paceline-lane": "cloud"}
    assert [await lane_of(**forced) for _ in range(2)] == [(200, "cloud")] * 2
    assert (await lane_of(**forced))[0] == 402
    assert await lane_of() == (200, "gpu")
    placed = running.records[-1].decision.placed
    assert placed is not None
    assert "the budget of 0.05 a day is spent" in placed.struck["cloud"]
    assert len(cloud.requests) == 2
    told = (await running.http.get("/paceline/lanes")).json()["budgets"]
    assert told == [{"key": None, "per": "day", "spent": pytest.approx(2 * COST), "limit": 0.05}]
    metrics = (await running.http.get("/metrics")).text
    assert 'paceline_budget_spent{key="",per="day"} 0.03' in metrics


async def test_requests_at_the_same_time_do_not_exceed_a_budget_together(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    go = asyncio.Event()

    async def slow(received: Received, wire: Wire) -> None:
        await go.wait()
        await wire.json(ANSWER)

    running, _, cloud = await both(start_engine, start_gateway, "[[budget]]\nlimit = 0.08\n", cloud=slow)
    body = chat("hi", model="m", max_tokens=3)
    forced = {"x-paceline-lane": "cloud"}
    asked = [
        asyncio.create_task(running.http.post("/v1/chat/completions", json=body, headers=forced)) for _ in range(20)
    ]
    await until(lambda: sum(task.done() for task in asked) == 17, 3)
    go.set()
    statuses = [(await task).status_code for task in asked]
    assert (statuses.count(200), statuses.count(402)) == (3, 17)
    assert len(cloud.requests) == 3


async def test_what_a_request_may_cost(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, gpu, cloud = await both(start_engine, start_gateway)
    await gpu.stop()
    await until(lambda: not running.gateway.fleet.lanes["gpu"].is_up)
    refused = await ask(running, max_cost="0.0001")
    assert refused.status_code == 503, "gpu alone may serve it, and is down"
    assert not cloud.requests
    assert (await ask(running, max_cost="100")).status_code == 200


async def test_an_engine_that_fails_is_followed_by_the_other_and_only_what_was_answered_is_billed(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, _, _ = await both(start_engine, start_gateway, gpu=status_500)
    answer = await ask(running)
    assert (answer.status_code, answer.headers["x-paceline-lane"]) == (200, "cloud")
    assert running.outcome.cost == pytest.approx(COST)
    placer = running.gateway.pipeline.router.placer
    assert placer.budgets.spent(BudgetSettings(limit=1.0), time()) == pytest.approx(COST)


async def test_a_fallback_that_can_not_be_paid_is_not_taken(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, _, cloud = await both(start_engine, start_gateway, "[[budget]]\nlimit = 0.000001\n", gpu=status_500)
    assert (await ask(running)).status_code == 500
    assert not cloud.requests


async def test_a_cloud_engine_that_only_happens_to_list_the_model_is_not_used(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gpu, cloud = await start_engine(status_500), await start_engine()
    running = await start_gateway(engines(gpu, cloud))
    assert (await ask(running)).status_code == 500
    assert not cloud.requests
    assert (await ask(running, lane="cloud")).status_code == 200


async def test_a_tool_loop_stays_where_its_turn_began(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, gpu, cloud = await both(start_engine, start_gateway)
    call = {"id": "c1", "type": "function", "function": {"name": "read_file", "arguments": "{}"}}
    conversation: list[dict[str, Any]] = [{"role": "user", "content": "Read the file, and tell me what is in it."}]
    more: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "x = 1"},
    ]
    tools = [{"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}]

    async def turn(messages: list[dict[str, Any]]) -> str:
        body = {"model": "m", "messages": messages, "tools": tools}
        lane: str = (await running.http.post("/v1/chat/completions", json=body)).headers["x-paceline-lane"]
        return lane

    await gpu.stop()
    assert await turn(conversation) == "cloud"
    await gpu.start(gpu.port)
    await until(lambda: running.gateway.fleet.lanes["gpu"].is_up)
    assert await turn([*conversation, *more]) == "cloud"
    assert "the tool loop stays there" in running.records[-1].decision.reason
    done: list[dict[str, Any]] = [
        {"role": "assistant", "content": "It sets x."},
        {"role": "user", "content": "Thanks. And why?"},
    ]
    assert await turn([*conversation, *more, *done]) == "gpu"
    assert len(cloud.requests) == 2


async def test_signed_thinking_stays_with_who_signed_it(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, gpu, _ = await both(start_engine, start_gateway)
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2lnbmVk"}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "hello"}]},
        {"role": "user", "content": "and now?"},
    ]
    body = {"model": "m", "max_tokens": 9, "messages": messages}
    answer = await running.http.post("/v1/messages", json=body)
    assert answer.headers["x-paceline-lane"] == "cloud"
    assert not gpu.requests
    private = await running.http.post("/v1/messages", json=body, headers={"x-paceline-private": "yes"})
    assert private.headers["x-paceline-lane"] == "gpu"


async def test_explain_shows_what_was_struck_and_the_terms_and_spends_nothing(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running, gpu, cloud = await both(start_engine, start_gateway, "[[budget]]\nlimit = 9.0\n")
    path = "/paceline/explain/v1/chat/completions"
    found = (await running.http.post(path, json=chat("hi", model="m"))).json()["placement"]
    assert found["engine"] == "gpu"
    assert found["terms"]["cloud"]["cost"] > 0
    headers = {"x-paceline-private": "yes"}
    found = (await running.http.post(path, json=chat("hi", model="m"), headers=headers)).json()["placement"]
    assert found["private"] == "header x-paceline-private"
    assert "private" in found["struck"]["cloud"]
    assert not (gpu.requests or cloud.requests)
    assert not running.gateway.pipeline.router.placer.budgets._spent


async def test_keys_may_be_kept_to_engines(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    more = '[[key]]\nname = "team"\nkey = "k"\nengines = ["gpu"]\n[[key]]\nname = "other"\nkey = "o"\n'
    running, gpu, cloud = await both(start_engine, start_gateway, more)
    await gpu.stop()
    for key, status in (("k", 503), ("o", 200)):
        answer = await running.http.post(
            "/v1/chat/completions", json=chat("hi", model="m"), headers={"authorization": f"Bearer {key}"}
        )
        assert answer.status_code == status
    assert len(cloud.requests) == 1


async def test_a_client_judges_its_own_answers_alone(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    keys = "".join(f'[[key]]\nname = "{name}"\nkey = "{name}"\n' for name in ("team", "other"))
    running, _, _ = await both(start_engine, start_gateway, keys)
    headers = {"authorization": "Bearer team", "x-request-id": "r-1"}
    await running.http.post("/v1/chat/completions", json=chat("hi", model="m"), headers=headers)
    told = {"id": "r-1", "good": False}
    for key, status in (("other", 404), ("team", 200)):
        answer = await running.http.post("/paceline/feedback", json=told, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == status


async def test_passed_through_work_stays_at_home(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    running, gpu, cloud = await both(start_engine, start_gateway)
    body = {"model": "m", "input": "x"}
    assert (await running.http.post("/v1/embeddings", json=body)).headers["x-paceline-lane"] == "gpu"
    refused = await running.http.post("/v1/embeddings", json=body, headers={"x-paceline-lane": "cloud"})
    assert refused.status_code == 404, "a provider gets nothing that was not decided on"
    refused = await running.http.post(
        "/tokenize", json=body, headers={"x-paceline-lane": "cloud", "x-paceline-private": "yes"}
    )
    assert refused.status_code == 403
    assert (len(gpu.requests), len(cloud.requests)) == (1, 0)


async def test_feedback_changes_who_is_asked(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    offers = "".join(
        f'[[model.offer]]\nengine = "{engine}"\nquality = {quality}\n'
        for engine, quality in (("gpu", 0.8), ("cloud", 0.8))
    )
    gpu, cloud = await start_engine(), await start_engine()
    group = GROUP.replace('lanes = ["gpu", "cloud"]\n', offers)
    running = await start_gateway('placement.mode = "best"\n' + group + engines(gpu, cloud))
    lanes = []
    for number in range(30):
        headers = {"x-request-id": f"r-{number}"}
        answer = await running.http.post("/v1/chat/completions", json=chat("hi", model="m"), headers=headers)
        lanes.append(answer.headers["x-paceline-lane"])
        told = {"id": f"r-{number}", "good": lanes[-1] == "cloud"}
        assert (await running.http.post("/paceline/feedback", json=told)).json() == {"known": True}
    assert lanes[0] == "gpu"
    assert lanes[-5:] == ["cloud"] * 5
    assert (await running.http.post("/paceline/feedback", json=told)).status_code == 404, "told already"
    assert (await running.http.post("/paceline/feedback", json={"id": 3})).status_code == 400


async def test_an_agent_that_fails_again_and_again_is_moved_up_at_the_next_turn(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    offers = "".join(
        f'[[model.offer]]\nengine = "{engine}"\nquality = {quality}\n'
        for engine, quality in (("gpu", 0.6), ("cloud", 0.9))
    )
    gpu, cloud = await start_engine(), await start_engine()
    group = GROUP.replace('lanes = ["gpu", "cloud"]\n', offers)
    running = await start_gateway("placement.escalate_after = 2\n" + group + engines(gpu, cloud))
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Run the tests, and repair what fails."}]
    tools = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]

    async def turn() -> str:
        body = {"model": "m", "messages": messages, "tools": tools}
        lane: str = (await running.http.post("/v1/chat/completions", json=body)).headers["x-paceline-lane"]
        return lane

    def runs(result: str) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "c1", "content": result})

    lanes = [await turn()]
    for _ in range(2):
        runs("Traceback (most recent call last): error: no such file")
        lanes.append(await turn())
    assert lanes == ["gpu"] * 3, "a turn stays where it began"
    messages += [{"role": "assistant", "content": "It fails."}, {"role": "user", "content": "Then try again."}]
    assert await turn() == "cloud"
    assert "failed again and again" in running.records[-1].decision.reason
    runs("2 passed")
    assert await turn() == "cloud"
    messages += [{"role": "assistant", "content": "Done."}, {"role": "user", "content": "Thanks. What was it?"}]
    assert await turn() == "gpu"


@pytest.mark.parametrize("part", ["wanted", "pools", "placed"])
async def test_where_placing_fails_nothing_leaves(
    part: str, start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, gpu, cloud = await both(start_engine, start_gateway, 'placement.mode = "best"\n')
    pipeline = running.gateway.pipeline
    monkeypatch.setattr(pipeline.router.placer, part, lambda *_: 1 / 0)
    assert (await ask(running)).headers["x-paceline-lane"] == "gpu"
    refused = await ask(running, lane="cloud")
    assert refused.status_code == 403
    assert "it may be private" in refused.text
    assert pipeline.failures["placement"] == 2
    assert (len(gpu.requests), len(cloud.requests)) == (1, 0)


async def test_a_reload_that_puts_a_provider_under_the_name_of_an_own_engine_leaks_nothing(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    go = asyncio.Event()

    async def slow(received: Received, wire: Wire) -> None:
        await go.wait()
        await wire.json(ANSWER)

    own, cloud = await start_engine(slow), await start_engine()
    table = f'[[engine]]\nname = "gpu"\nkind = "openai"\nurl = "{own.url}"\ndevice = "cpu"\nslots = 1\n'
    running = await start_gateway(table)
    waiting = [asyncio.create_task(ask(running, private="yes")) for _ in range(3)]
    await until(lambda: len(own.requests) == 1)
    running.text = running.text.replace(own.url, cloud.url) + "cloud = true\n"
    await running.gateway.reload()
    await own.stop()  # those that wait for it find it gone, and their lane's name elsewhere
    go.set()
    statuses = [(await task).status_code for task in waiting]
    assert all(status >= 400 for status in statuses)
    assert not cloud.requests
    assert (await ask(running)).status_code == 200


@pytest.mark.parametrize("end", ["leaves", "time is over"])
async def test_what_a_provider_did_for_nobody_is_paid_for(
    end: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def never(received: Received, wire: Wire) -> None:
        await asyncio.sleep(60)

    limit = "server.total_timeout_s = 0.5\n" if end == "time is over" else ""
    running, _, cloud = await both(start_engine, start_gateway, limit + "[[budget]]\nlimit = 9.0\n", cloud=never)
    asked = asyncio.create_task(ask(running, lane="cloud"))
    await until(lambda: len(cloud.requests) == 1)
    if end == "leaves":
        asked.cancel()
    else:
        assert (await asked).status_code == 504
    outcome = await running.outcome_number(1)
    assert outcome.cost is not None
    assert outcome.cost > 0
    assert outcome.cost_is_estimate
    assert [lane for lane, _ in outcome.cancelled] == ["cloud"]
    budgets = running.gateway.pipeline.router.placer.budgets
    assert budgets.spent(BudgetSettings(limit=1.0), time()) == pytest.approx(outcome.cost)
    assert 'cancelled_copies_total{lane="cloud"} 0.0' in (await running.http.get("/metrics")).text


async def test_copies_that_nobody_waited_for_are_billed_once_each(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pings(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(b": ping\n\n")
        await asyncio.sleep(60)

    one, two = await start_engine(pings), await start_engine(pings)
    tables = "".join(
        f'[[engine]]\nname = "{name}"\nkind = "openai"\ncloud = true\nurl = "{engine.url}"\n'
        for name, engine in (("one", one), ("two", two))
    )
    group = GROUP.replace('["gpu", "cloud"]', '["one", "two"]')
    running = await start_gateway("routing.hedging = true\n" + group + tables)
    monkeypatch.setattr(type(running.gateway.fleet.engines["one"].pace), "hedge_after_s", 0.05)
    body = chat("hi", model="m", max_tokens=3, stream=True)
    asked = asyncio.create_task(running.http.post("/v1/chat/completions", json=body))
    await until(lambda: len(one.requests) + len(two.requests) == 2)
    await asyncio.sleep(0.2)
    asked.cancel()
    outcome = await running.outcome_number(1)
    placer = running.gateway.pipeline.router.placer
    assert sorted(lane for lane, _ in outcome.cancelled) == ["one", "two"]
    placed = running.records[-1].decision.placed
    assert placed is not None
    assert outcome.cost == pytest.approx(sum(term.cost or 0.0 for term in placed.terms.values()))
    assert placer.budgets.spent(BudgetSettings(limit=1.0), time()) == pytest.approx(outcome.cost)


async def test_engines_elsewhere_are_not_asked_for_an_id_that_became_private_meanwhile(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await start_engine(), await start_engine()
    tables = "".join(
        f'[[engine]]\nname = "{name}"\nkind = "openai"\nurl = "{engine.url}"\ntakes_private = false\n'
        for name, engine in (("one", one), ("two", two))
    )
    running = await start_gateway(tables)
    body = {"model": "unheard-of", "input": "x", "previous_response_id": "resp-of-patient-4711"}
    assert (await running.http.post("/v1/responses", json=body)).status_code == 200
    assert any("resp-of-patient" in asked.target for asked in one.requests), "which is how they are found"
    one.requests.clear()
    two.requests.clear()

    async def reload(_: Fleet) -> None:
        running.text = 'privacy.paths = ["/v1/responses"]\n' + tables
        await running.gateway.reload()

    monkeypatch.setattr(Fleet, "look_again", reload)
    body["previous_response_id"] = "resp-of-patient-4712"
    assert (await running.http.post("/v1/responses", json=body)).status_code == 403
    assert not (one.requests or two.requests)


OFFERS = """
placement.mode = "best"
server.first_byte_timeout_s = 0.4
[[budget]]
limit = 9.0
[[model]]
name = "m"
[[model.offer]]
engine = "gpu"
quality = 0.5
[[model.offer]]
engine = "cloud"
quality = 0.9
[[cloud]]
name = "m"
input_price = 1000.0
output_price = 2000.0
"""


async def silent(received: Received, wire: Wire) -> None:
    await asyncio.sleep(60)


async def breaks_off(received: Received, wire: Wire) -> None:
    await wire.stream_head()
    await drops(received, wire)


async def breaks_off_in_a_refusal(received: Received, wire: Wire) -> None:
    await wire.head(429, {"content-length": "9"})
    await drops(received, wire)


@pytest.mark.parametrize(
    ("script", "is_billed"),
    [(silent, True), (breaks_off, True), (drops, False), (status_500, False), (breaks_off_in_a_refusal, False)],
)
@pytest.mark.parametrize("has_another", [True, False])
async def test_a_provider_that_may_have_worked_in_vain_is_billed_by_a_guess(
    script: Script, is_billed: bool, has_another: bool, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    gpu, cloud = await start_engine(answer if has_another else status_500), await start_engine(script)
    running = await start_gateway(OFFERS + engines(gpu, cloud))
    body = chat("hi", model="m", max_tokens=3, stream=script is breaks_off)
    got = await running.http.post("/v1/chat/completions", json=body, timeout=20)
    assert (got.status_code < 400) == has_another
    assert cloud.requests
    outcome = await running.outcome_number(1)
    placed = running.records[-1].decision.placed
    assert placed is not None
    expected = placed.terms["cloud"].cost
    assert expected
    assert (outcome.cost or 0.0) == pytest.approx(expected if is_billed else 0.0)
    assert outcome.cost_is_estimate == is_billed
    assert [name for name, _ in outcome.abandoned] == (["cloud"] if is_billed else [])
    budgets = running.gateway.pipeline.router.placer.budgets
    assert budgets.spent(BudgetSettings(limit=1.0), time()) == pytest.approx(outcome.cost or 0.0)


async def test_a_provider_that_broke_off_is_asked_again_only_where_both_answers_can_be_paid(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    expected, asked = 0.0, []
    for answers in (1000.0, 1.5, 2.5):
        gpu, cloud = await start_engine(), await start_engine(breaks_off)
        budget = f"[[budget]]\nlimit = {answers * (expected or 1.0)}\n"
        running = await start_gateway(OFFERS + engines(gpu, cloud) + budget)
        body = chat("hi", model="m", max_tokens=3, stream=True)
        named = {"x-paceline-lane": "cloud"}
        got = await running.http.post("/v1/chat/completions", json=body, headers=named, timeout=20)
        assert got.status_code >= 400
        outcome = await running.outcome_number(1)
        placed = running.records[-1].decision.placed
        assert placed is not None
        expected = placed.terms["cloud"].cost or 0.0
        asked.append(len(cloud.requests))
        assert outcome.cost == pytest.approx(asked[-1] * expected)
        budgets = running.gateway.pipeline.router.placer.budgets
        assert budgets.spent(budgets.settings[0], time()) == pytest.approx(outcome.cost)
    assert asked == [2, 1, 2]


async def test_a_fallback_that_can_not_be_paid_is_not_waited_for(
    start_engine: StartEngine, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[int] = []

    def pause_s(_: Attempts) -> float:
        paused.append(1)
        return 0.0

    monkeypatch.setattr(Attempts, "pause_s", property(pause_s))
    running, gpu, cloud = await both(start_engine, start_gateway, "[[budget]]\nlimit = 0.000001\n", gpu=drops)
    assert (await ask(running)).status_code >= 500
    assert gpu.requests
    assert not cloud.requests
    assert not paused


async def test_how_fast_providers_are_and_how_good_models_are_found_is_known_after_a_restart(
    tmp_path: Path, start_engine: StartEngine
) -> None:
    gpu, cloud = await start_engine(), await start_engine()
    running = RunningGateway("server.port = 0\n" + GROUP + engines(gpu, cloud), tmp_path, tmp_path / "state")
    learned = []
    for _ in range(2):
        await running.start()
        await running.lanes_settle()
        learned.append(running.gateway.pipeline.router.placer.remembered())
        named = {"x-paceline-lane": "cloud", "x-request-id": "r1"}
        body = chat("hi", model="m")
        assert (await running.http.post("/v1/chat/completions", json=body, headers=named)).status_code == 200
        judged = await running.http.post("/paceline/feedback", json={"id": "r1", "good": False})
        assert judged.status_code == 200
        await running.stop()
    assert not learned[0].qualities
    assert {(one.engine, one.model, one.good, one.count) for one in learned[1].qualities} == {("cloud", "m", 0.0, 1.0)}
    assert [(one.engine, one.model) for one in learned[1].paces] == [("cloud", "m")]
