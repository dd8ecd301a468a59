"""What the gateway answers itself: by which methods, for whom, and to which pages."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.conftest import CHAT, StartEngine, StartGateway, lane
from tests.fake_engine import Received, Wire, token

from paceline.engines.openai import OpenAISettings
from paceline.http.access import Access
from paceline.http.answers import Answers
from paceline.http.application import Application
from paceline.http.routes import CLIENT_PATHS, GENERATION, ROUTES, Audience, Route, reference, route
from paceline.routing.router import Router
from paceline.serving.fleet import Fleet
from paceline.serving.passing import computes
from paceline.serving.pipeline import Pipeline
from paceline.settings import Configuration

KEYS = 'server.api_keys = ["team-a", "team-b"]\nserver.admin_key = "root"\n'


async def test_addresses_take_their_methods(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url))
    for row in ROUTES:
        if not row.methods or row.path.endswith("*"):
            continue
        wrong = "DELETE"
        answer = await running.http.request(wrong, row.path)
        assert answer.status_code == 405, row.path
        _, allowed = route(wrong, row.path)
        assert set(row.allowed) <= set(allowed)
        assert answer.headers["allow"] == ", ".join(allowed)
        options = await running.http.options(row.path)
        assert (options.status_code, options.headers["allow"]) == (200, ", ".join(allowed))
        if row.name == "pass_on":
            continue
        if "GET" in row.methods:
            whole, head = await running.http.get(row.path), await running.http.head(row.path)
            assert head.status_code == whole.status_code
            assert head.content == b""
        elif "GET" not in allowed:
            assert (await running.http.get(row.path)).status_code == 405
    assert not engine.requests


async def test_what_an_engine_stored_is_listed_and_deleted_there(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    """OpenAI's list of stored completions and its deleting of a model share their addresses with answers of ours."""
    engine = await start_engine()
    running = await start_gateway(KEYS + lane("a", engine.url))
    a, root = ({"authorization": f"Bearer {key}"} for key in ("team-a", "root"))
    for method, path, key, expected in (
        ("GET", "/v1/chat/completions?limit=1", a, 200),
        ("DELETE", "/v1/models/ft:m", a, 403),
        ("DELETE", "/v1/models/ft:m", root, 200),
        ("DELETE", "/v1/chat/completions", root, 405),
    ):
        before = len(engine.requests)
        answer = await running.http.request(method, path, headers=key)
        assert answer.status_code in ((expected, 404) if expected == 200 else (expected,)), (method, path)
        got = [(one.method, one.target) for one in engine.requests[before:]]
        assert got == ([(method, path)] if expected == 200 else []), (method, path)


async def test_what_does_not_exist_is_said_with_what_does(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url))
    answer = await running.http.get("/paceline/nothing")
    assert answer.status_code == 404
    assert "POST /paceline/reload" in answer.json()["error"]["message"]
    for method in ("TRACE", "CONNECT", "PROPFIND"):
        assert (await running.http.request(method, "/anything")).status_code in (400, 405, 501)
    assert not engine.requests


async def test_without_a_key_nothing_reaches_an_engine(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    secret = lane("a", engine.url, more='api_key = "ENGINE-SECRET"')
    running = await start_gateway('server.api_keys = ["K"]\n' + secret)
    paths = [row.path.replace("*", "x") for row in ROUTES]
    paths += ["/", "/props", "/slots", "/tokenize", "/%68ealth", "//paceline/lanes", "/health/", "/health;x", "/HEALTH"]
    for path in paths:
        for method in ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            answer = await running.http.request(method, path, content=b"{}" if method in ("POST", "PUT") else None)
            row, _ = route(method, httpx2.URL(path).path)
            is_open = row is not None and row.audience is Audience.ANYONE
            if not is_open and method != "OPTIONS":
                assert answer.status_code in (401, 405), (method, path, answer.status_code)
    assert not engine.requests
    counted = (await running.http.get("/metrics", headers={"authorization": "Bearer K"})).text
    assert 'paceline_denied_total{reason="invalid_api_key"}' in counted


async def test_a_clients_key_sees_and_changes_nothing_of_others(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway(KEYS + lane("a", engine.url))
    a, b, root = ({"authorization": f"Bearer {key}"} for key in ("team-a", "team-b", "root"))
    assert (await running.http.post("/v1/chat/completions", json=CHAT, headers=a)).status_code == 200
    assert running.records[-1].client == "key 1"
    assert "authorization" not in engine.requests[-1].headers
    for method, path in (
        ("GET", "/paceline/requests"),
        ("GET", "/paceline/lanes"),
        ("GET", "/paceline/report"),
        ("GET", "/metrics"),
        ("POST", "/paceline/reload"),
        ("DELETE", "/api/delete"),
        ("POST", "/slots/0"),
        ("POST", "/v1/load_lora_adapter"),
    ):
        answer = await running.http.request(method, path, headers=b)
        assert answer.status_code == 403, path
        assert "admin_key" in answer.json()["error"]["message"]
        assert (await running.http.request(method, path, headers=root)).status_code == 200
    assert [one.target for one in engine.requests[1:]] == ["/api/delete", "/slots/0", "/v1/load_lora_adapter"]


async def test_pages_of_other_origins_get_nothing_but_their_refusal(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def allows_all(received: Received, wire: Wire) -> None:
        await wire.json({}, headers={"access-control-allow-origin": "*", "access-control-allow-credentials": "true"})

    engine = await start_engine(allows_all)
    running = await start_gateway('server.cors = ["http://app.example"]\n' + lane("a", engine.url))
    listed, foreign = {"origin": "http://app.example"}, {"origin": "http://evil.example"}
    requests = [
        ("POST", "/v1/chat/completions", b'{"messages": []}'),
        ("POST", "/v1/chat/completions", b"{"),
        ("POST", "/v1/embeddings", b"{}"),
        ("GET", "/v1/models", None),
        ("GET", "/health", None),
        ("GET", "/v1/models/none", None),
        ("GET", "/paceline/lanes", None),
        ("POST", "/paceline/reload", None),
    ]
    for method, path, content in requests:
        allowed = await running.http.request(method, path, content=content, headers=listed)
        assert allowed.headers.get_list("access-control-allow-origin") == ["http://app.example"], path
        assert "x-paceline-lane" in allowed.headers["access-control-expose-headers"]
        assert "access-control-allow-credentials" not in allowed.headers
        served = len(engine.requests)
        refused = await running.http.request(method, path, content=content, headers=foreign)
        assert refused.status_code == 403, path
        assert "access-control-allow-origin" not in refused.headers
        assert len(engine.requests) == served
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-api-key"}
    preflight = await running.http.options("/v1/chat/completions", headers=listed | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-headers"] == "authorization,x-api-key"
    assert preflight.headers.get_list("access-control-allow-origin") == ["http://app.example"]  # browsers take no two
    names = [name for name, _ in preflight.headers.multi_items()]
    assert len(names) == len(set(names))
    refused = await running.http.options("/v1/chat/completions", headers=foreign | asked)
    assert "access-control-allow-origin" not in refused.headers


async def test_a_foreign_name_for_this_machine_is_refused(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway('server.hosts = ["llm.example"]\n' + lane("a", engine.url))
    for path in ("/v1/models", "/metrics", "/paceline/requests", "/paceline/", "/props"):
        assert (await running.http.get(path, headers={"host": "rebound.test:8080"})).status_code == 421
    await running.http.get("/props", headers={"host": "llm.example:8443"})
    assert engine.requests == [] or all(one.headers["host"] != "rebound.test:8080" for one in engine.requests)
    assert (await running.http.get("/v1/models", headers={"host": "llm.example:8443"})).status_code == 200


async def test_probes_tell_life_from_readiness(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url))
    assert (await running.http.get("/livez")).status_code == 200
    assert (await running.http.get("/readyz")).status_code == 200
    await engine.stop()
    while running.gateway.fleet.lanes["a"].is_up:
        await running.http.get("/health")
    assert (await running.http.get("/livez")).status_code == 200
    assert (await running.http.get("/readyz")).status_code == 503


async def test_readiness_ends_before_the_port_closes(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def slow(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one"))
        await wire.end()

    engine = await start_engine(slow)
    running = await start_gateway("server.drain_s = 5.0\n" + lane("a", engine.url))
    running.gateway.ask_to_stop(drains=True)
    stopping = asyncio.create_task(running.gateway.stop())
    await asyncio.sleep(0)  # so that it begins
    answer = await running.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "stopping")
    assert (await running.http.get("/livez")).status_code == 200
    assert (await running.http.post("/v1/chat/completions", json=CHAT | {"stream": True})).status_code == 200
    running.gateway.ask_to_stop()
    await stopping


async def test_what_is_passed_through_leaves_a_line_and_a_count(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("a", engine.url))
    lines: list[str] = []
    running.gateway.pipeline.say = lines.append
    paths = ["/v1/embeddings", "/v1/chat/completions/", "/api/chat", "/v1/audio/transcriptions"]
    for path in paths:
        await running.http.post(path + "?token=secret", json={"messages": []})
    assert [line.split()[:4] for line in lines] == [["200", "POST", path, "a"] for path in paths]
    assert "secret" not in "".join(lines)
    metrics = (await running.http.get("/metrics")).text
    assert 'paceline_passed_through_total{lane="a",status="200"} 4.0' in metrics


async def test_redirects_lead_back_and_the_clients_host_is_told(
    start_engine: StartEngine, start_gateway: StartGateway
) -> None:
    async def redirects(received: Received, wire: Wire) -> None:
        there = f"http://{received.headers['host']}{received.target.rstrip('/')}"
        await wire.head(307, {"location": there, "content-length": "0"})

    engine = await start_engine(redirects)
    running = await start_gateway(lane("a", engine.url))
    for path in ("/v1/chat/completions/", "/v1/embeddings/", "/docs/"):
        answer = await running.http.post(path, json=CHAT)
        assert answer.headers["location"] == path.rstrip("/")
    sent = engine.requests[-1].headers
    assert sent["x-forwarded-host"] == running.url.removeprefix("http://")
    assert sent["x-forwarded-for"] == "127.0.0.1"
    assert sent["x-forwarded-proto"] == "http"


async def test_headers_for_this_hop_stay_here(start_engine: StartEngine, start_gateway: StartGateway) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.json({}, headers={"connection": "x-back", "x-back": "1", "x-kept": "1"})

    engine = await start_engine(script)
    running = await start_gateway(lane("a", engine.url))
    headers = {"connection": "x-hop", "x-hop": "1", "x-kept": "1"}
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        answer = await running.http.post(path, json=CHAT, headers=headers)
        assert "x-hop" not in engine.requests[-1].headers
        assert engine.requests[-1].headers["x-kept"] == "1"
        assert "x-back" not in answer.headers
        assert answer.headers["x-kept"] == "1"


@pytest.mark.parametrize(
    ("path", "is_computing"),
    [
        ("/v1/embeddings", True),
        ("/rerank", True),
        ("/v1/chat/completions/", True),
        ("/api/chat", True),
        ("/api/pull", False),
        ("/tokenize", False),
        ("/v1/messages/count_tokens", False),
        ("/slots/0", False),
        ("/v1/files", False),
    ],
)
def test_what_computes_takes_its_devices_turn(path: str, is_computing: bool) -> None:
    assert computes("POST", path) is is_computing
    assert not computes("GET", path)


def test_a_clients_paths_hold_all_that_is_decided_on() -> None:
    assert set(GENERATION) <= set(CLIENT_PATHS)
    assert all(row.methods or row.path.endswith("*") for row in ROUTES)


def test_the_docs_hold_the_table_of_endpoints() -> None:
    page = (Path(__file__).parents[2] / "docs" / "endpoints.md").read_text()
    begin, end = "<!-- generated: python -m paceline.http.routes -->\n", "<!-- end of generated -->"
    assert page.partition(begin)[2].partition(end)[0].strip() == reference().strip()


def application(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rows: Sequence[Route]) -> Application:
    monkeypatch.setattr("paceline.http.application.ROUTES", rows)
    engine = OpenAISettings(name="one", url="http://127.0.0.1:1")
    configuration = Configuration(engine=(engine,))

    async def reload() -> dict[str, Any]:
        return {}

    pipeline = Pipeline(Fleet(configuration, tmp_path), Router(()))
    return Application(Access(configuration), Answers(pipeline, reload, None), pipeline.metrics)


def test_each_row_is_answered_by_something_or_nothing_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    application(monkeypatch, tmp_path, ROUTES)
    wrong = Route(("GET",), "/paceline/new", "not_there", Audience.CLIENTS, "nothing answers it")
    with pytest.raises(AttributeError, match="not_there"):
        application(monkeypatch, tmp_path, [*ROUTES, wrong])
