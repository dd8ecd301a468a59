"""Engines that are ill rather than dead, as their supervisor sees them."""

import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.conftest import LOCAL_KINDS, StartEngine
from tests.fake_engine import FakeEngine, Received, Wire
from tests.patient import PATIENCE_S, until

from paceline.engines import ENGINES, examiner
from paceline.engines.interface import Examination, Facts
from paceline.engines.llama_cpp import LlamaCpp, LlamaCppSettings
from paceline.engines.openai import OpenAI, OpenAISettings
from paceline.processes import Health, Supervisor, launched_process
from paceline.processes import supervisor as module
from paceline.processes.followed import EngineState, FollowedEngine
from paceline.processes.supervisor import Timing
from paceline.types import AS_STARTED, LOGPROBS
from paceline.wire.client import Client, ConnectionLost

STAND_IN = Path(__file__).parents[1] / "stand_in_server.py"
Supervise = Callable[..., Supervisor]


@pytest.fixture
async def supervise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervise]:
    monkeypatch.setattr("paceline.engines.openai_compatible.LOOK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(module, "BUSY_SILENCE_S", 1.5)
    monkeypatch.setattr(module, "HUNG_AFTER_S", 1.5)
    running: list[Supervisor] = []

    def start(kind: str | Any = "openai", strategy: str = "autoregressive", **more: Any) -> Supervisor:
        engine = ENGINES[kind] if isinstance(kind, str) else kind
        shared = {key: more.pop(key) for key in ("start_turn", "secret_variables") if key in more}
        settings = engine.settings_type(name="one", strategy=strategy, start_timeout_s=30.0, **more)
        one = Supervisor(settings, engine, log_directory=tmp_path / "log", **shared)
        one.timing = Timing(connect_timeout_s=1.0, health_interval_s=0.05)
        one.start()
        running.append(one)
        return one

    yield start
    for one in running:
        await one.stop()


def launched(*flags: str) -> dict[str, Any]:
    return {"launch": (sys.executable, str(STAND_IN), "--port", "{port}", *flags)}


async def becomes(one: Supervisor, health: Health, restarts: int = 0, limit_s: float = PATIENCE_S) -> None:
    async with asyncio.timeout(limit_s):
        while one.health is not health or one.restarts < restarts:
            await asyncio.sleep(0.01)


def health_of(one: Supervisor) -> Health:
    return one.health


# Silent, busy, gone


class Hanging(FakeEngine):
    """Answers looks until it ``hangs``; streams as long as it does not ``stall``."""

    hangs = False
    stalls = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        wire = Wire(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/stream" in head:
                    await wire.stream_head()
                    while True:
                        if not self.stalls:
                            await wire.chunk(b"a")
                        await asyncio.sleep(0.05)
                if self.hangs:
                    await asyncio.sleep(60)
                self.looks += 1
                await wire.json({"data": [{"id": name} for name in self.models]})
        except (ConnectionError, asyncio.IncompleteReadError):
            pass


@pytest.fixture
async def hanging() -> AsyncIterator[Hanging]:
    one = Hanging()
    await one.start()
    yield one
    await one.stop()


@pytest.mark.slow
async def test_silence_ends_what_runs_and_says_why(hanging: Hanging, supervise: Supervise) -> None:
    one = supervise(url=hanging.url)
    await becomes(one, Health.UP)
    assert one.client
    answer = await one.client.send("GET", "/stream")
    await answer.read()
    hanging.hangs = hanging.stalls = True

    async def read_on() -> None:
        while await answer.read():
            pass

    with pytest.raises(ConnectionLost, match="declared down: no answer in time"):
        await asyncio.wait_for(read_on(), 10)
    assert one.health is Health.DOWN
    hanging.hangs = False
    await becomes(one, Health.UP)


@pytest.mark.slow
async def test_an_engine_that_streams_but_is_late_to_answer_looks_is_busy(
    hanging: Hanging, supervise: Supervise
) -> None:
    one = supervise(url=hanging.url)
    await becomes(one, Health.UP)
    assert one.client
    answer = await one.client.send("GET", "/stream")
    hanging.hangs = True
    until_s = time.monotonic() + 2.5
    while time.monotonic() < until_s:
        assert await answer.read()
        assert one.health is Health.UP
    answer.close()
    await becomes(one, Health.DOWN)


@pytest.mark.slow
async def test_silence_is_borne_for_as_long_as_what_runs_needs(hanging: Hanging, supervise: Supervise) -> None:
    one = supervise(url=hanging.url)
    one.expected_silence_s = lambda: 3.0
    await becomes(one, Health.UP)
    client = one.client
    assert client
    answer = await client.send("GET", "/stream")
    await answer.read()
    hanging.hangs = hanging.stalls = True
    await becomes(one, Health.DOWN)
    assert asyncio.get_running_loop().time() - client.last_heard_s > 3.0
    answer.close()


async def test_without_requests_silence_is_told_soon(
    hanging: Hanging, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SILENCE_S", 2 * PATIENCE_S)
    one = supervise(url=hanging.url)
    await becomes(one, Health.UP)
    hanging.hangs = True
    await becomes(one, Health.DOWN)


async def test_one_that_follows_leaves_it_to_who_sees_the_process_whether_silence_is_the_end(
    hanging: Hanging, supervise: Supervise, tmp_path: Path
) -> None:
    settings = OpenAISettings(name="one", launch=(sys.executable, "{port}"))
    one = FollowedEngine(settings, ENGINES["openai"], log_directory=tmp_path, look=lambda: None)
    one.timing = Timing(connect_timeout_s=1.0, health_interval_s=0.05)
    one.follow(EngineState(health=Health.UP, problem=None, url=hanging.url, pid=1, is_coming=False))
    assert one.is_coming, "it is up, but was not looked at from here yet"
    one.start()
    try:
        await becomes(one, Health.UP)
        hanging.hangs = True
        await asyncio.sleep(1.0)  # five looks without an answer
        assert one.health is Health.UP
        one.follow(EngineState(health=Health.DOWN, problem="hung", url=hanging.url, pid=1))
        await becomes(one, Health.DOWN)
    finally:
        await one.stop()


async def test_answers_may_end_on_an_engine_that_takes_no_more(hanging: Hanging, supervise: Supervise) -> None:
    one = supervise(url=hanging.url)
    await becomes(one, Health.UP)
    assert one.client
    answer = await one.client.send("GET", "/stream")
    assert hanging._server
    hanging._server.close()
    for connection in list(one.client._idle):
        connection.abort()  # so that the next look needs a new one
    await becomes(one, Health.DOWN)
    for _ in range(10):
        assert await answer.read()
    answer.close()


async def test_one_lost_connection_takes_nobody_down(start_engine: StartEngine, supervise: Supervise) -> None:
    engine = await start_engine()
    one = supervise(url=engine.url)
    await becomes(one, Health.UP)
    looks = engine.looks
    one.suspect("it closed the connection")
    assert health_of(one) is Health.UP
    await until(lambda: engine.looks > looks)
    assert health_of(one) is Health.UP
    one.report_failure("nobody listens")
    assert health_of(one) is Health.DOWN
    await becomes(one, Health.UP)
    await engine.stop()
    one.suspect("it closed the connection")
    await becomes(one, Health.DOWN)


async def test_a_look_may_be_asked_for(start_engine: StartEngine, supervise: Supervise) -> None:
    engine = await start_engine()
    one = supervise(url=engine.url)
    one.timing = Timing(connect_timeout_s=1.0, health_interval_s=60.0)
    await becomes(one, Health.UP)
    engine.models = ("m", "new")
    await one.look_again(at_most_every_s=0.0)
    assert one.facts
    assert set(one.facts.models) == {"m", "new"}
    looks = engine.looks
    await asyncio.gather(*(one.look_again(at_most_every_s=10.0) for _ in range(20)))
    assert engine.looks == looks
    await one.stop()
    await one.look_again(0.0)  # returns


# Odd answers to looks

ODD: dict[str, bytes] = {
    "no UTF-8": b'{"data": [{"id": "\xff\xfe"}]}',
    "too deep": b"[" * 200_000,
    "too deep a model": b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no list": b'{"data": {"id": "m"}}',
    "no JSON": b"<html>it works!</html>",
    "nothing": b"",
    "a number": b"7",
}


@pytest.mark.parametrize("kind", LOCAL_KINDS)
@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_answer_is_forgotten(odd: str, kind: str, supervise: Supervise) -> None:
    answers = [ODD[odd]]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = Wire(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await wire.json(answers[0])
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one = supervise(kind, url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await until(lambda: one.problem not in (None, "not looked at yet"))
    assert one.health is Health.DOWN, one.problem
    assert one.problem
    assert one.problem.isprintable()
    answers[0] = b'{"data": [{"id": "m"}]}'
    one.retry()
    await becomes(one, Health.UP)
    server.close()


async def test_a_defect_in_a_driver_is_no_end(start_engine: StartEngine, supervise: Supervise) -> None:
    class Defective(OpenAI):
        is_defective = True

        async def probe(self, client: Client) -> Any:
            if self.is_defective:
                raise KeyError("no such thing")
            return await super().probe(client)

    engine = Defective()
    one = supervise(engine, url=(await start_engine()).url)
    await becomes(one, Health.DOWN)
    assert "KeyError" in str(one.problem)
    engine.is_defective = False
    await becomes(one, Health.UP)


async def test_too_many_looks_is_busy(supervise: Supervise, start_engine: StartEngine) -> None:
    statuses = [200]
    answered: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await Wire(writer).json({"data": [{"id": "m"}]}, statuses[0])
            answered.append(statuses[0])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    one = supervise(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await becomes(one, Health.UP)
    statuses[0] = 429
    await until(lambda: answered.count(429) >= 3)
    assert one.health is Health.UP
    statuses[0] = 500
    await becomes(one, Health.DOWN)
    server.close()


# An examination is optional


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a defect"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
        RecursionError(),
        TimeoutError(),
        OSError("odd"),
    ],
)
async def test_no_examination_takes_an_engine_down(
    error: Exception, start_engine: StartEngine, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examiner, "EXAMINE_AGAIN_AFTER_S", 0.3)
    found = Examination()
    tries = 0

    class Unexaminable(OpenAI):
        async def examine(self, client: Client, settings: OpenAISettings) -> Examination:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise error
            return found

    one = supervise(Unexaminable(), "ngram", url=(await start_engine()).url)
    await becomes(one, Health.UP)
    assert "used as it was started" in one.warnings[0]
    assert one.abilities.not_when_drafting == LOGPROBS
    await until(lambda: not one.warnings)
    assert (tries, one.abilities, one.health) == (2, AS_STARTED, Health.UP)


async def test_an_examination_that_kills_is_not_repeated(start_engine: StartEngine, supervise: Supervise) -> None:
    async def dies(received: Received, wire: Wire) -> None:
        wire.die()

    engine = await start_engine(dies)
    engine.props = {"total_slots": 1}
    one = supervise("llama.cpp", "ngram", url=engine.url)
    await becomes(one, Health.UP)
    assert "lost when asked" in one.warnings[0]
    assert len([one for one in engine.requests if one.target == "/completion"]) == 1


REFUSED = {
    "embeddings only": (501, {"error": {"message": "This server does not support completions."}}),
    "a filter": (404, {"detail": "Not Found"}),
    "a router": (400, {"error": {"message": "model name is missing from the request"}}),
    "no right": (403, {"error": "no"}),
    "a defect": (500, b"\xff\xfe"),
}


@pytest.mark.parametrize("kind", ["llama.cpp", "vllm", "sglang", "mlx-lm"])
@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("strategy", ["autoregressive", "ngram"])
async def test_who_answers_no_tries_is_used_as_started(
    why: str, kind: str, strategy: str, start_engine: StartEngine, supervise: Supervise
) -> None:
    async def refuses(received: Received, wire: Wire) -> None:
        status, document = REFUSED[why]
        await wire.json(document, status)

    one = supervise(kind, strategy, url=(await start_engine(refuses)).url)
    await becomes(one, Health.UP)
    assert one.abilities.drafters == ()
    assert one.abilities.not_when_drafting >= (LOGPROBS if strategy == "ngram" else frozenset())


async def test_a_router_is_examined_with_a_model_that_is_loaded(start_engine: StartEngine) -> None:
    loaded = {"value": "unloaded"}

    async def router(received: Received, wire: Wire) -> None:
        assert received.json["model"] == "beta"
        await wire.json({"generation_settings": {"speculative.types": "none"}})

    class Router(FakeEngine):
        async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.add(writer)
            wire = Wire(writer)
            try:
                while head := await reader.readuntil(b"\r\n\r\n"):
                    path = head.split()[1]
                    if path == b"/props":
                        await wire.json({"role": "router", "default_generation_settings": {"n_ctx": 0}})
                    elif path == b"/v1/models":
                        entries = [{"id": "alpha", "status": {"value": "unloaded"}}, {"id": "beta", "status": loaded}]
                        await wire.json({"data": entries})
                    else:
                        body = await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
                        self.requests.append(Received("POST", path.decode(), {}, body))
                        await router(self.requests[-1], wire)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass

    engine = Router()
    await engine.start()
    client = Client(engine.url)
    seen = await LlamaCpp().examine(client, LlamaCppSettings(name="one"))
    assert (seen.is_provisional, engine.requests) == (True, [])
    loaded["value"] = "loaded"
    seen = await LlamaCpp().examine(client, LlamaCppSettings(name="one"))
    assert not seen.is_provisional
    assert {one.json["model"] for one in engine.requests} == {"beta"}
    client.close()
    await engine.stop()


# Launched


@pytest.mark.slow
async def test_a_launched_engine_that_hangs_is_killed_and_started_again(supervise: Supervise) -> None:
    one = supervise("llama.cpp", **launched())
    await becomes(one, Health.UP)
    pid = one.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    await becomes(one, Health.DOWN)
    assert one.pid == pid  # it has a little more time
    assert one.is_coming
    await becomes(one, Health.UP, restarts=1)
    assert one.pid != pid
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of processor time this way")
@pytest.mark.slow
async def test_a_silent_launched_engine_that_works_is_left_alone(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_SILENCE_S", 0.6)
    monkeypatch.setattr(launched_process, "WORKING_SHARE", 0.01)  # of a processor that others want, too
    script = (
        "import http.server, json, time\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        end = time.process_time() + (3 if self.path == '/prompt' else 0)\n"
        "        while time.process_time() < end: pass\n"
        "        self.send_response(200); self.end_headers()\n"
        "        self.wfile.write(json.dumps({'data': [{'id': 'm'}]}).encode())\n"
        "http.server.HTTPServer(('127.0.0.1', {port}), Handler).serve_forever()\n"
    )
    one = supervise(launch=(sys.executable, "-c", script))
    await becomes(one, Health.UP)
    assert one.client
    async with await one.client.send("GET", "/prompt") as answer:  # reads a prompt in its only thread
        assert b"data" in await answer.read_all()
    assert (one.health, one.restarts) == (Health.UP, 0)


@pytest.mark.slow
async def test_an_engine_that_came_up_is_waited_for_however_often_it_crashes(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", (0.05,))
    one = supervise(**launched())
    for crash in range(module.MAX_STARTS_IN_VAIN + 2):
        await becomes(one, Health.UP, restarts=crash)
        assert one.pid is not None
        os.kill(one.pid, signal.SIGKILL)
        await becomes(one, Health.DOWN)
        assert one.is_coming


async def test_an_engine_that_never_comes_up_is_not_waited_for_any_more(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", (0.05,))
    one = supervise(**launched("--behave", "crash"))
    await becomes(one, Health.DOWN, restarts=module.MAX_STARTS_IN_VAIN + 1)
    assert not one.is_coming


async def test_an_engine_that_is_held_up_for_a_while_is_not_killed(supervise: Supervise) -> None:
    one = supervise("llama.cpp", **launched())
    await becomes(one, Health.UP)
    pid = one.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)
    await becomes(one, Health.DOWN)
    os.kill(pid, signal.SIGCONT)
    await becomes(one, Health.UP)
    assert (one.pid, one.restarts) == (pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of processor time this way")
@pytest.mark.slow
async def test_an_engine_that_hangs_at_its_start_keeps_no_other_from_starting(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = asyncio.Lock()
    works = "import time\nwhile time.process_time() < 60: {port}"
    worker = supervise(launch=(sys.executable, "-c", works), start_turn=turn)
    await until(lambda: worker.pid)
    idler = supervise(launch=(sys.executable, "-c", "import time; time.sleep(1000 + 0 * {port})"), start_turn=turn)
    last = supervise(**launched(), start_turn=turn)
    await asyncio.sleep(2)  # longer than an idle one is waited for, here
    assert (idler.pid, last.pid) == (None, None)
    await worker.stop()
    await becomes(last, Health.UP)
    assert (health_of(idler), idler.restarts) == (Health.STARTING, 0)
    assert idler.is_coming


async def test_an_exit_is_noticed_at_once(supervise: Supervise) -> None:
    one = supervise("llama.cpp", **launched())
    one.timing = Timing(connect_timeout_s=1.0, health_interval_s=60.0)
    await becomes(one, Health.UP)
    assert one.pid
    os.kill(one.pid, signal.SIGKILL)
    await becomes(one, Health.DOWN)
    assert one.is_coming
    await becomes(one, Health.UP, restarts=1)


@pytest.mark.slow
async def test_an_engine_that_ends_often_but_comes_up_is_waited_for(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", (0.05,))
    one = supervise("llama.cpp", **launched())
    for number in range(6):
        await becomes(one, Health.UP, restarts=number)
        assert one.pid
        os.kill(one.pid, signal.SIGKILL)
        await becomes(one, Health.DOWN)
        assert one.is_coming


async def test_what_could_not_be_started_is_tried_again(
    supervise: Supervise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FAILED_INTERVAL_S", 0.2)
    program = tmp_path / "server"
    one = supervise(launch=(str(program), "{port}"))
    await becomes(one, Health.FAILED)
    assert "no program" in str(one.problem)
    assert not one.is_coming
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" --port "$1"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    await becomes(one, Health.UP)


async def test_no_memory_for_a_process_is_a_reason_to_try_again(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, fails = asyncio.create_subprocess_exec, [True]

    async def create(*words: Any, **more: Any) -> Any:
        if fails.pop() if fails else False:
            raise OSError(12, "Cannot allocate memory")
        return await real(*words, **more)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", create)
    one = supervise("llama.cpp", **launched())
    await becomes(one, Health.UP, restarts=1)


async def test_stopping_twice_is_stopping(supervise: Supervise) -> None:
    one = supervise("llama.cpp", **launched())
    await becomes(one, Health.UP)
    pid = one.pid
    assert pid
    await asyncio.gather(one.stop(), one.stop())
    assert not psutil.pid_exists(pid)
    await one.stop()
    started = supervise("llama.cpp", **launched())
    await until(lambda: started.pid)  # in the middle of its start
    await started.stop()
    assert started.pid is None


# Their logs


@pytest.mark.parametrize("trouble", ["a file in the folder's place", "a folder in the file's place", "no room"])
async def test_a_log_that_can_not_be_written_stops_no_start(
    trouble: str, supervise: Supervise, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if trouble == "no room":
        (tmp_path / "log").mkdir()
        (tmp_path / "log" / "one.log").symlink_to("/dev/full")
    elif trouble.startswith("a file"):
        (tmp_path / "log").write_text("")
    else:
        (tmp_path / "log" / "one.log").mkdir(parents=True)
    one = supervise("llama.cpp", **launched())
    await becomes(one, Health.UP)
    assert "can't be written" in caplog.text
    assert one.pid
    os.kill(one.pid, signal.SIGKILL)
    await becomes(one, Health.UP, restarts=1)
    assert caplog.text.count("can't be written") == 1


async def test_a_log_stays_small_while_the_engine_runs(
    supervise: Supervise, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.processes.process_log.MAX_LOG_BYTES", 1_000_000)
    script = "import sys; [sys.stdout.write('x' * 99 + chr(10)) for _ in range(50_000)]; print('the last words')"
    one = supervise(launch=(sys.executable, "-c", script))
    await becomes(one, Health.DOWN, restarts=1)
    assert "exited with 0: the last words" in str(one.problem)
    files = sorted((tmp_path / "log").iterdir())
    assert [file.name for file in files] == ["one.log", "one.log.1"]
    assert all(file.stat().st_size <= 1_000_000 for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o700


# Their keys and their environment


@pytest.fixture
def printing(tmp_path: Path) -> tuple[str, ...]:
    """An engine that writes its environment to its log and ends."""
    return (sys.executable, "-c", "import os; print(sorted(os.environ.items()))", "{port}")


async def said(one: Supervisor) -> str:
    await becomes(one, Health.DOWN, restarts=1)
    return one.log_path.read_text()


async def test_a_launched_engine_gets_a_key_of_its_own_and_none_of_ours(
    supervise: Supervise, printing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GATEWAY_KEY", "VLLM_ADMIN", "OTHER", "WANTED", "CUDA_VISIBLE_DEVICES", "LLAMA_API_KEY"):
        monkeypatch.setenv(name, f"value-of-{name}")
    monkeypatch.delenv("LLAMA_API_KEY")
    secret = ("GATEWAY_KEY", "VLLM_ADMIN")
    one = supervise("llama.cpp", launch=printing, environment=("WANTED", "GATEWAY_KEY"), secret_variables=secret)
    text = await said(one)
    assert one.api_key
    assert f"('LLAMA_API_KEY', '{one.api_key}')" in text
    assert "value-of-WANTED" in text
    assert "value-of-CUDA_VISIBLE_DEVICES" in text
    assert not any(f"value-of-{name}" in text for name in ("GATEWAY_KEY", "VLLM_ADMIN", "OTHER"))
    first = one.api_key
    await until(lambda: one.api_key != first)


async def test_the_configured_key_is_the_engines(supervise: Supervise, printing: tuple[str, ...]) -> None:
    one = supervise("vllm", launch=printing, api_key="configured")
    assert "('VLLM_API_KEY', 'configured')" in await said(one)
    assert one.api_key == "configured"


async def test_a_key_in_the_command_is_used_and_not_shown(supervise: Supervise, printing: tuple[str, ...]) -> None:
    one = supervise("llama.cpp", launch=(*printing, "--api-key", "hunter2,other"))
    text = await said(one)
    assert one.api_key == "hunter2"
    assert "LLAMA_API_KEY" not in text
    assert "hunter2" not in text


async def test_an_engine_of_a_kind_that_takes_no_key_gets_none(supervise: Supervise, printing: tuple[str, ...]) -> None:
    one = supervise("ollama", launch=printing)
    await said(one)
    assert one.api_key is None


async def test_a_url_shows_no_password_and_may_end_with_v1(start_engine: StartEngine, supervise: Supervise) -> None:
    engine = await start_engine()
    url = engine.url.replace("http://", "http://user:hunter2@")
    one = supervise(url=f"{url}/v1/")
    await becomes(one, Health.UP)
    assert one.url == f"{engine.url}/v1/"
    bad = supervise(url="http://user:hunter2@127.0.0.1:99999")
    await becomes(bad, Health.FAILED)
    assert "hunter2" not in f"{bad.url} {bad.problem}"


async def test_stopping_an_engine_can_be_cancelled(supervise: Supervise) -> None:
    begun, leaving, may_leave = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class SlowToLeave(OpenAI):
        async def probe(self, client: Client) -> Facts:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                leaving.set()
                await may_leave.wait()
            return Facts(models={})

    one = supervise(SlowToLeave(), url="http://127.0.0.1:9")
    await begun.wait()
    stopping = asyncio.create_task(one.stop())
    await leaving.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    may_leave.set()
