"""Responses that an engine keeps: later requests about them go to that engine."""

from urllib.parse import quote

import pytest
from tests.conftest import StartEngine, StartGateway, lane
from tests.fake_engine import Received, Wire

from paceline.serving.stored import StoredIds


@pytest.mark.parametrize("name", ["resp_bGl0ZQ==", "resp/a+b", "a b", "r", "resp_" + "a" * 300, "rësp", "a%2fb"])
async def test_a_response_is_found_again_whatever_its_id(
    name: str, start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def keeps(received: Received, wire: Wire) -> None:
        await wire.json({"id": name, "object": "response", "status": "completed"})

    async def knows_nothing(received: Received, wire: Wire) -> None:
        await wire.json({"error": {"message": "not found", "code": 404}}, 404)

    engines = [await start_engine(knows_nothing), await start_engine(keeps)]
    running = await start_gateway("".join(lane(a, one.url) for a, one in zip("ab", engines, strict=True)))
    for forget in (False, True):
        body = {"input": "x"}
        made = await running.http.post("/v1/responses", json=body, headers={"x-paceline-lane": "b"})
        assert made.status_code == 200
        if forget:
            running.gateway.pipeline.resolver.stored_ids = StoredIds()
        answer = await running.http.post("/v1/responses", json=body | {"previous_response_id": name})
        assert answer.headers["x-paceline-lane"] == "b"
        answer = await running.http.request("DELETE", f"/v1/responses/{quote(name, safe='')}")
        assert answer.headers["x-paceline-lane"] == "b"
