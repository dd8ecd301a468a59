"""llama.cpp's server where it decides at each step how to draft: a stand-in that answers as docs/llama-cpp-patch.md
says. ``test_patched_llama_cpp.py`` runs the real one."""

import asyncio
import json
from typing import Any

import pytest
from tests.conftest import RunningGateway, StartEngine, StartGateway
from tests.fake_engine import ANSWER, Received, Script, Wire, event, token
from tests.patient import until

from paceline.engines.llama_cpp import LlamaCpp
from paceline.types import (
    ALL,
    NO_CONTROL,
    Abilities,
    Api,
    DraftControl,
    DraftCounts,
    Drafter,
    DrafterControl,
    Request,
    Strategy,
)

LOADED = {"ngram-simple": 8, "draft-mtp": 3}
ABILITIES = Abilities((Drafter("ngram", "ngram-simple", 8), Drafter("mtp", "draft-mtp", 3)), controls_drafts=True)
EACH = (Strategy("ngram", 8), Strategy("mtp", 3))
BOTH = Strategy(ALL, among=EACH)
LANES = ["gpu/plain", "gpu/ngram", "gpu/mtp", "gpu/all"]
COUNTED = {
    "steps": 10,
    "drafted": 24,
    "accepted": 15,
    "accepted_by_position": [8, 5, 2, 0],
    "verified_by_position": [10, 8, 5, 0],
}
SHADOW = {
    "steps": 3,
    "drafted": 24,
    "accepted": 4,
    "accepted_by_position": [2, 1, 1],
    "verified_by_position": [3, 2, 1],
}
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Print the file again."}]}


class Server:
    """
    Args:
        knows: whether it knows the field at all.
        obeys: whether it looks at what the field says.
        accepts: whether anything that it drafts is accepted.
    """

    def __init__(self, knows: bool = True, obeys: bool = True, accepts: bool = True) -> None:
        self.knows, self.obeys, self.accepts = knows, obeys, accepts

    async def __call__(self, received: Received, wire: Wire) -> None:
        asked = received.json
        control = asked.get("speculative.control") if self.knows else None
        if control is not None and not all(_makes_sense(name, said) for name, said in control.items()):
            await wire.json({"error": {"message": "speculative.control makes no sense"}}, 400)
            return
        timings = {"prompt_n": 20, "prompt_ms": 10, "predicted_n": 41, "predicted_ms": 400} | self.drafted(asked)
        answer = ANSWER | {"timings": timings, "generation_settings": {"speculative.types": ",".join(LOADED)}}
        if not asked.get("stream"):
            await wire.json(answer | {"asked": asked})
            return
        await wire.stream_head()
        await wire.chunk(token("hello"))
        await wire.chunk(event({"choices": [], "timings": timings}))
        await wire.end()

    def drafted(self, asked: dict[str, Any]) -> dict[str, Any]:
        control = asked.get("speculative.control") if self.knows else None
        pays = [name for name, said in (control or {}).items() if said["costs"][0] < 10 or not self.obeys]
        if asked.get("speculative.n_max") == 0 or (control is not None and not pays):
            return {"drafters": {}} if self.knows else {}
        drafted: dict[str, dict[str, Any]] = dict.fromkeys(
            pays or ["draft-mtp"], COUNTED | ({} if self.accepts else _nothing_accepted())
        )
        if "ngram-simple" in drafted:
            drafted["ngram-simple"] = {"steps": 0, "drafted": 0, "accepted": 0, "shadow": SHADOW}
        names = {"draft_n": "drafted", "draft_n_accepted": "accepted", "draft_n_steps": "steps"}
        sums: dict[str, Any] = {key: sum(one[name] for one in drafted.values()) for key, name in names.items()}
        return sums | ({"drafters": drafted} if self.knows else {})


def _makes_sense(name: str, said: Any) -> bool:
    return name in LOADED and isinstance(said.get("costs"), list) and isinstance(said.get("acceptance"), list)


def _nothing_accepted() -> dict[str, Any]:
    return {"accepted": 0, "accepted_by_position": [0], "verified_by_position": [10]}


async def engine(start_engine: StartEngine, start_gateway: StartGateway, script: Script) -> RunningGateway:
    fake = await start_engine(script)
    fake.props = {"total_slots": 2, "speculative": {"n_max": LOADED}}
    running = await start_gateway(
        f'[[engine]]\nname = "gpu"\nkind = "llama.cpp"\nurl = "{fake.url}"\nstrategy = "mtp"\n'
    )
    await until(lambda: running.gateway.fleet.engines["gpu"].is_up)
    return running


async def test_lanes_are_kinds_of_drafters_and_each_request_brings_costs_and_prior(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running = await engine(start_engine, start_gateway, Server())
    shown = (await running.http.get("/paceline/lanes")).json()["lanes"]
    assert [one["lane"] for one in shown] == LANES
    assert shown[3]["strategy"]["among"] == [
        {"kind": "ngram", "n_max": 8, "among": []},
        {"kind": "mtp", "n_max": 3, "among": []},
    ]
    for name in LANES:
        answer = await running.http.post("/v1/chat/completions", json=ASK, headers={"x-paceline-lane": name})
        asked = answer.json()["asked"]
        if name == "gpu/plain":
            assert (asked["speculative.n_max"], "speculative.control" in asked) == (0, False)
            continue
        control = asked["speculative.control"]
        wanted = {"gpu/ngram": {"ngram-simple"}, "gpu/mtp": {"draft-mtp"}, "gpu/all": set(LOADED)}[name]
        assert control.keys() == wanted
        assert "speculative.n_max" not in asked
        for drafter, said in control.items():
            assert len(said["costs"]) == LOADED[drafter]
            assert said["weight"] > 0
            assert ("by_match" in said) == (drafter == "ngram-simple")
    explained = (await running.http.post("/paceline/explain/v1/chat/completions", json=ASK)).json()["decision"]
    assert explained["lane"] in LANES
    assert (explained["control"] is None) == (explained["lane"] == "gpu/plain")
    chosen = await running.http.post("/v1/chat/completions", json=ASK)
    assert chosen.headers["x-paceline-lane"] == explained["lane"]


@pytest.mark.parametrize("controls", [True, False])
@pytest.mark.parametrize("apart", [True, False])
async def test_batches_are_held_together_where_the_server_decodes_lengths_apart_and_nothing_else_does_so(
    start_engine: StartEngine, start_gateway: StartGateway, apart: bool, controls: bool
) -> None:
    fake = await start_engine(Server())
    fake.props = {"total_slots": 2, "speculative": {"n_max": LOADED, "decodes_apart": apart}}
    running = await start_gateway(
        f'[[engine]]\nname = "gpu"\nkind = "llama.cpp"\nurl = "{fake.url}"\nstrategy = "mtp"\n'
        f"draft_control = {str(controls).lower()}\n"
    )
    engine = running.gateway.fleet.engines["gpu"]
    await until(lambda: engine.is_up)
    needs = [lane.state("m").needs_alike for lane in engine.lanes()]
    assert needs == [apart and not controls] * len(needs)
    assert len(needs) > 1


@pytest.mark.parametrize("apart", [True, False])
async def test_a_request_among_others_is_asked_for_no_pauses_where_lengths_are_decoded_apart(
    start_engine: StartEngine, start_gateway: StartGateway, apart: bool
) -> None:
    """All others would wait for each of its pauses."""
    well, may_answer = Server(knows=False), asyncio.Event()

    async def waits(received: Received, wire: Wire) -> None:
        if received.json.get("seed") == 1:
            await may_answer.wait()
        await well(received, wire)

    fake = await start_engine(waits)
    fake.props = {"total_slots": 2, "speculative": {"n_max": LOADED, "decodes_apart": apart}}
    running = await start_gateway(
        f'[[engine]]\nname = "gpu"\nkind = "llama.cpp"\nurl = "{fake.url}"\nstrategy = "mtp"\ndraft_control = false\n'
    )
    engine = running.gateway.fleet.engines["gpu"]
    await until(lambda: engine.is_up)
    alone = asyncio.create_task(running.http.post("/v1/chat/completions", json=ASK | {"seed": 1}))
    await until(lambda: sum(lane.running for lane in engine.lanes()) == 1)
    among = await running.http.post("/v1/chat/completions", json=ASK)
    may_answer.set()
    for answer, is_asked in ((await alone, True), (among, not apart)):
        asked = answer.json()["asked"]
        assert asked["speculative.n_max"] > 0
        assert (asked["speculative.min_yield"] > 1) == is_asked


async def test_a_lane_that_serves_in_another_ones_place_gets_a_control_of_its_own(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    well = Server()

    async def breaks(received: Received, wire: Wire) -> None:
        if "messages" in received.json:
            await wire.json({"error": {"message": "out of memory"}}, 500)
        else:
            await well(received, wire)

    urls = {}
    for name, script in {"broken": breaks, "other": well}.items():
        fake = await start_engine(script)
        fake.props = {"total_slots": 2, "speculative": {"n_max": LOADED}}
        urls[name] = fake.url
    running = await start_gateway(
        "".join(
            f'[[engine]]\nname = "{name}"\nkind = "llama.cpp"\nurl = "{url}"\nstrategy = "mtp"\n'
            for name, url in urls.items()
        )
    )
    await until(lambda: all(engine.is_up for engine in running.gateway.fleet.engines.values()))
    answer = await running.http.post("/v1/chat/completions", json=ASK)
    assert "could not serve" in answer.headers["x-paceline-reason"]
    lane, asked = answer.headers["x-paceline-lane"], answer.json()["asked"]
    assert lane in ("other/ngram", "other/mtp", "other/all")
    assert asked["speculative.control"]


PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/completion")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_each_drafter_did_is_observed(
    start_engine: StartEngine, start_gateway: StartGateway, path: str, stream: bool
) -> None:
    running = await engine(start_engine, start_gateway, Server())
    ask = ASK | {"prompt": "Hi", "input": "Hi", "stream": stream, "max_tokens": 40}
    await running.http.post(path, json=ask, headers={"x-paceline-lane": "gpu/all"})
    observed = (await running.outcome_number(1)).observed
    assert observed.by_drafter == {
        "mtp": DraftCounts(10, 24, 15, (8, 5, 2), (10, 8, 5)),
        "ngram": DraftCounts(0, 0, 0, shadow=DraftCounts(3, 24, 4, (2, 1, 1), (3, 2, 1))),
    }
    assert (observed.drafted, observed.accepted, observed.drafting_steps) == (24, 15, 10)


@pytest.mark.parametrize("server", [Server(knows=False), Server(obeys=False)], ids=["passes it over", "disobeys"])
async def test_a_server_that_does_not_decide_has_lanes_with_caps(
    start_engine: StartEngine, start_gateway: StartGateway, server: Server
) -> None:
    running = await engine(start_engine, start_gateway, server)
    assert "gpu/mtp-3" in running.gateway.fleet.lanes
    assert "gpu/all" not in running.gateway.fleet.lanes


async def test_a_server_that_refuses_the_field_whatever_it_says_has_lanes_with_caps(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def refuses(received: Received, wire: Wire) -> None:
        if "speculative.control" in received.json:
            await wire.json({"error": {"message": "unknown field"}}, 400)
        else:
            await Server(knows=False)(received, wire)

    running = await engine(start_engine, start_gateway, refuses)
    assert "gpu/mtp-3" in running.gateway.fleet.lanes


async def test_drafts_that_are_hardly_ever_accepted_are_told_as_a_fault(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    running = await engine(start_engine, start_gateway, Server(accepts=False))
    for _ in range(12):
        await running.http.post("/v1/chat/completions", json=ASK, headers={"x-paceline-lane": "gpu/mtp"})
    shown = {one["lane"]: one["faults"] for one in (await running.http.get("/paceline/lanes")).json()["lanes"]}
    assert shown["gpu/plain"] == shown["gpu/ngram"] == []
    (told,) = shown["gpu/mtp"]
    assert shown["gpu/all"] == [told]
    assert told.startswith("drafts by mtp are hardly ever accepted (0% of ")
    assert "quantized" in told


def request(body: str) -> Request:
    return Request(Api.OPENAI_CHAT, "/v1/chat/completions", body.encode(), json.loads(body))


def test_the_control_is_written_in_the_servers_names() -> None:
    control = DraftControl(
        drafters={
            "ngram": DrafterControl((1.2, 1.4), (0.7,), {2: (0.5, 0.6), 4: (0.8,)}, 4.0),
            "mtp": DrafterControl((1.25, 1.4), (0.85, 0.8)),
            "gone": DrafterControl((1.0,), (0.5,)),
        }
    )
    sent = LlamaCpp().prepare(request('{"prompt": "Hi"}'), BOTH, ABILITIES, control)
    assert json.loads(sent) == {
        "prompt": "Hi",
        "speculative.control": {
            "ngram-simple": {
                "costs": [1.2, 1.4],
                "acceptance": [0.7],
                "by_match": {"2": [0.5, 0.6], "4": [0.8]},
                "weight": 4.0,
            },
            "draft-mtp": {"costs": [1.25, 1.4], "acceptance": [0.85, 0.8]},
        },
    }
    one = Strategy("mtp", among=EACH[1:])
    assert json.loads(LlamaCpp().prepare(request("{}"), one, ABILITIES, control))["speculative.control"].keys() == {
        "draft-mtp"
    }


def test_where_nothing_is_known_the_drafters_draft_as_they_were_started() -> None:
    sent = json.loads(LlamaCpp().prepare(request("{}"), BOTH, ABILITIES, NO_CONTROL))
    assert sent == {"speculative.types": ["ngram-simple", "draft-mtp"]}


def test_a_control_of_the_clients_own_counts() -> None:
    own = request('{"prompt": "Hi", "speculative.control": {}}')
    assert LlamaCpp().prepare(own, BOTH, ABILITIES, NO_CONTROL) is own.body
