"""Other ways to watch a gateway: `paceline top`, traces, Grafana, the short report."""

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.conftest import Serving, StartEngine, StartGateway, lane
from tests.decision_logs import log_of
from tests.patient import PATIENCE_S

from paceline.cli import main
from paceline.http.gain import Gain
from paceline.paths import DECISION_LOG

CHAT = "/v1/chat/completions"
ASKED = {"model": "m", "messages": [{"role": "user", "content": "Write a poem about rain."}], "max_tokens": 7}


# Top


def test_top_shows_it_once_where_there_is_no_terminal(
    real_gateway: Serving, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"messages": ASKED["messages"], "max_tokens": 8}
    httpx2.post(f"{real_gateway.url}{CHAT}", json=asked, timeout=60, trust_env=False).raise_for_status()
    assert main(["top", "--url", real_gateway.url]) == 0
    said = capsys.readouterr().out
    assert "2 of 2 lanes up" in said
    assert re.search(r"^plain +up", said, re.MULTILINE)
    assert re.search(r"^create +\d", said, re.MULTILINE)
    assert "\x1b" not in said
    assert main(["top", "--url", "http://127.0.0.1:9"]) == 1
    assert "no gateway answers" in capsys.readouterr().err


def test_top_keeps_watching_in_a_terminal(real_gateway: Serving) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "paceline.cli", "top", "--url", real_gateway.url]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"COLUMNS": "60"})
    os.close(theirs)
    shown = b""
    deadline_s = time.monotonic() + 30
    while shown.count(b"lanes up") < 3 and time.monotonic() < deadline_s:
        shown += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    try:
        while piece := os.read(ours, 65536):
            shown += piece
    except OSError:
        pass  # the other end is closed
    os.close(ours)
    assert process.wait(10) == 130
    text = shown.decode()
    assert text.count("lanes up") >= 3
    assert text.startswith("\x1b[?1049h")
    assert text.rstrip().endswith("\x1b[?1049l")
    frames = re.sub(r"\x1b\[(\?\d+)?[JKhl]", "", text).replace("\x1b[H", "\n")
    assert max(map(len, frames.splitlines())) < 60


# Traces


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Its address, and the spans that it was sent."""
    spans: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", spans
        server.shutdown()


async def test_every_request_is_a_span(
    start_gateway: StartGateway, start_engine: StartEngine, collector: tuple[str, list[Any]]
) -> None:
    url, spans = collector
    engine = await start_engine()
    strict = "server.strict_models = true\n"
    running = await start_gateway(f'{strict}evidence.traces = "{url}"\n' + lane("only", engine.url))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "mine"}
    await running.http.post(CHAT, json=ASKED, headers=headers)
    await running.http.post(CHAT, json=ASKED | {"model": "unknown"})
    await running.outcome_number(2)
    await running.stop()
    good, bad = sorted(spans, key=lambda span: span.start_time_unix_nano)
    told = {one.key: one.value for one in good.attributes}
    assert good.name == "chat m"
    assert good.trace_id.hex() == trace
    assert good.parent_span_id.hex() == parent
    assert told["gen_ai.operation.name"].string_value == "chat"
    assert told["gen_ai.request.max_tokens"].int_value == 7
    assert told["gen_ai.usage.output_tokens"].int_value > 0
    assert told["paceline.lane"].string_value == "only"
    assert told["paceline.request.id"].string_value == "mine"
    assert 0 < good.end_time_unix_nano - good.start_time_unix_nano < 30e9
    assert not any("rain" in one.value.string_value for one in good.attributes)
    assert bad.status.code == 2
    assert {one.key: one.value for one in bad.attributes}["error.type"].string_value == "404"


async def test_a_collector_that_is_gone_stops_nothing(start_gateway: StartGateway, start_engine: StartEngine) -> None:
    engine = await start_engine()
    running = await start_gateway('evidence.traces = "http://127.0.0.1:9/v1/traces"\n' + lane("only", engine.url))
    for _ in range(3):
        assert (await running.http.post(CHAT, json=ASKED)).status_code == 200
    async with asyncio.timeout(PATIENCE_S):
        await running.stop()


# Grafana


async def test_grafana_finds_every_metric(start_gateway: StartGateway, start_engine: StartEngine) -> None:
    engine = await start_engine()
    running = await start_gateway(lane("only", engine.url))
    await running.http.post(CHAT, json=ASKED)
    await running.outcome_number(1)
    told = (await running.http.get("/metrics")).text
    types = set(re.findall(r"^# TYPE (\S+)", told, re.MULTILINE))
    file = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
    asked = [target["expr"] for panel in json.loads(file.read_text())["panels"] for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"paceline_\w+", expression)}
    assert len(names) > 10
    assert {name.removesuffix("_bucket") for name in names} <= types


async def test_a_log_that_can_not_be_written_is_told(
    tmp_path: Path, start_engine: StartEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "paceline" / DECISION_LOG).mkdir(parents=True)  # a folder where the file should be
    engine = await start_engine()
    (tmp_path / "paceline.toml").write_text(lane("only", engine.url))
    with await asyncio.to_thread(Serving, "--config", str(tmp_path / "paceline.toml"), folder=tmp_path) as serving:
        async with httpx2.AsyncClient(base_url=serving.url, timeout=30, trust_env=False) as http:
            assert (await http.post(CHAT, json=ASKED)).status_code == 200
            async with asyncio.timeout(PATIENCE_S):
                while not (told := (await http.get("/paceline/lanes")).json()["log"])["problem"]:
                    await asyncio.sleep(0.1)
            assert (told["written"], told["waiting"], told["lost"]) == (0, 1, 0)
            assert "paceline_log_entries_lost_total 0.0" in (await http.get("/metrics")).text
        assert await asyncio.to_thread(main, ["top", "--once", "--url", serving.url]) == 0
        said = capsys.readouterr().out
        assert "decision log" in said and "can't be written" in said
        assert "requests go on without it" in serving.said


# The short report


async def test_the_short_report(tmp_path: Path) -> None:
    path = log_of(tmp_path / "requests.sqlite", {"plain": 0.1, "ngram": 0.05})
    gain = Gain(path)
    found = await gain.document()
    (one,) = found["comparisons"]
    assert one["pays"] is False
    assert found["verdict"].startswith("Routing does not pay here: always ngram")
    assert [policy["name"] for policy in one["policies"]][:2] == ["always ngram", "always plain"]
    assert all(policy["low"] <= policy["ratio"] <= policy["high"] for policy in one["policies"])
    path.unlink()
    assert await gain.document() is found  # made lately
    assert (await Gain(path).document())["comparisons"] == []
    assert "No decision log is kept" in (await Gain(None).document())["verdict"]
