"""The gateway inside another program: in its event loop, in a thread, again and again, and where it can't start."""

import asyncio
import gc
import json
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from tests.conftest import StartEngine, lane
from tests.fake_engine import Received, Wire, token

from paceline.configuration import ConfigurationError, parse
from paceline.http.server import CannotListen, Gateway
from paceline.records.lines import Lines
from paceline.settings import Configuration
from paceline.wire.server import HttpServer

pytestmark = pytest.mark.slow  # they start processes, and wait for them

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STAND_IN = [sys.executable, str(Path(__file__).parents[1] / "stand_in_server.py"), "--port", "{port}"]
LAUNCHED = f'[[engine]]\nname = "own"\nkind = "llama.cpp"\nlaunch = {json.dumps(STAND_IN)}\n'


def configuration(engines: str, more: str = "") -> Configuration:
    return parse(f"server.port = 0\nserver.shutdown_grace_s = 5\n{more}{engines}")


async def ask(url: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        return await client.post("/v1/chat/completions", json=CHAT)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0.01)


def engines() -> list[int]:
    """Processes that this one has started and that run."""
    return [one.pid for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]


def sockets() -> int:
    return len(psutil.Process().net_connections("inet"))


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """Neither a task nor a process, a socket or a thread of the gateway's."""
    gc.collect()
    tasks, processes, open_sockets = set(asyncio.all_tasks()), engines(), sockets()
    yield
    assert not asyncio.all_tasks() - tasks - {asyncio.current_task()}
    assert engines() == processes
    assert "decision log" not in [thread.name for thread in threading.enumerate()]
    await until(lambda: sockets() <= open_sockets)


async def test_it_runs_beside_other_tasks_and_handles_no_signals(start_engine: StartEngine) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    engine = await start_engine()
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    said: list[str] = []
    other = asyncio.create_task(other_work())
    lines = Lines(said.append, is_wanted=lambda: True)
    async with Gateway(configuration(lane("a", engine.url)), sink=lines) as gateway:
        await until(lambda: gateway.fleet.lanes["a"].is_up)
        before = turns
        assert (await ask(gateway.url)).json()["choices"][0]["message"]["content"] == "hello"
        assert turns > before
        assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == handlers
    assert [line.split(" ")[0] for line in said] == ["200"]
    with pytest.raises(httpx2.ConnectError):
        await ask(gateway.url)
    assert not other.done()
    other.cancel()
    await asyncio.wait([other])


async def test_it_runs_in_a_thread_with_engines_of_its_own(tmp_path: Path) -> None:
    gateways: list[tuple[Gateway, asyncio.AbstractEventLoop]] = []
    is_up = threading.Event()

    async def serve() -> None:
        gateway = Gateway(configuration(LAUNCHED), log_directory=tmp_path)
        async with gateway:
            await until(lambda: gateway.fleet.lanes["own"].is_up)
            gateways.append((gateway, asyncio.get_running_loop()))
            is_up.set()
            await gateway.serve_forever()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert await asyncio.to_thread(is_up.wait, 20)
    (gateway, loop) = gateways[0]
    assert (await ask(gateway.url)).status_code == 200
    loop.call_soon_threadsafe(gateway.ask_to_stop)
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()


async def test_it_is_stopped_and_started_again(start_engine: StartEngine, tmp_path: Path) -> None:
    """The decision log has a thread of its own, which each start begins anew."""
    engine = await start_engine()
    gateway = Gateway(configuration(lane("a", engine.url)), state_directory=tmp_path)
    for number in range(3):
        async with gateway:
            await until(lambda: gateway.fleet.lanes["a"].is_up)
            assert (await ask(gateway.url)).status_code == 200
            with pytest.raises(RuntimeError, match="running already"):
                await gateway.start()
            measured = gateway.pipeline.router.measured(gateway.fleet.lanes["a"].state("m"))
            assert measured and measured.requests == number + 1, "what was learned is kept"
    await gateway.stop()
    with pytest.raises(RuntimeError, match="does not run"):
        await gateway.reload()


async def test_two_run_beside_one_another(start_engine: StartEngine) -> None:
    engine = await start_engine()
    first, second = (Gateway(configuration(lane(name, engine.url))) for name in "ab")
    async with first as one, second as two:
        await until(lambda: one.fleet.lanes["a"].is_up and two.fleet.lanes["b"].is_up)
        answers = await asyncio.gather(ask(one.url), ask(two.url))
        assert [answer.headers["x-paceline-lane"] for answer in answers] == ["a", "b"]


async def test_an_address_that_is_taken_leaves_nothing_open(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = f"server.port = {taken.getsockname()[1]}\n{LAUNCHED}"
        gateway = Gateway(lambda: parse(text), state_directory=tmp_path)
        with pytest.raises(CannotListen, match=r"server\.port"):
            await gateway.start()
    await gateway.start()  # the address is free now
    await gateway.stop()


async def test_a_start_that_fails_at_its_end_closes_what_it_had_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: HttpServer, listening: socket.socket, *, shares: bool) -> None:
        await until(lambda: bool(engines()))
        raise OSError("no buffer space available")

    monkeypatch.setattr(HttpServer, "start", broken)
    gateway = Gateway(configuration(LAUNCHED), log_directory=tmp_path, state_directory=tmp_path / "state")
    with pytest.raises(OSError, match="no buffer space"):
        await gateway.start()
    monkeypatch.undo()
    await gateway.start()  # what was in the way is gone
    await gateway.stop()


async def test_what_raises_inside_ends_it(tmp_path: Path) -> None:
    async def use() -> None:
        async with Gateway(configuration(LAUNCHED), log_directory=tmp_path) as gateway:
            await until(lambda: gateway.fleet.lanes["own"].is_up)
            raise ValueError("a defect of the program around it")

    with pytest.raises(ValueError, match="a defect"):
        await use()
    assert (tmp_path / "own.log").exists()


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(self: HttpServer, listening: socket.socket, *, shares: bool) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(HttpServer, "start", endless)
    starting = asyncio.create_task(Gateway(configuration(LAUNCHED), log_directory=tmp_path).start())
    await until(lambda: bool(engines()))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


async def test_serving_that_is_cancelled_lets_answers_finish(start_engine: StartEngine) -> None:
    async def script(received: Received, wire: Wire) -> None:
        await wire.stream_head()
        await wire.chunk(token("one"))
        await asyncio.sleep(0.3)
        await wire.chunk(b"data: [DONE]\n\n")
        await wire.end()

    engine = await start_engine(script)
    gateway = Gateway(configuration(lane("a", engine.url)))
    await gateway.start()
    await until(lambda: gateway.fleet.lanes["a"].is_up)
    serving = asyncio.create_task(gateway.serve_forever())
    answer = asyncio.create_task(ask(gateway.url))
    await until(lambda: bool(engine.requests))
    serving.cancel()
    assert (await answer).content.endswith(b"data: [DONE]\n\n")
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_what_is_wrong_is_said_before_anything_is_started() -> None:
    def read() -> Configuration:
        raise ConfigurationError("paceline.toml, line 3: no such key")

    with pytest.raises(ConfigurationError, match="line 3"):
        Gateway(read)
    with pytest.raises(ConfigurationError, match="NOT_SET"):
        Gateway(configuration(LAUNCHED, 'server.api_keys = ["env:NOT_SET"]\n'))


async def test_its_configuration_is_read_again(start_engine: StartEngine) -> None:
    engine = await start_engine()
    texts = iter([lane("a", engine.url), lane("b", engine.url), "not TOML"])
    async with Gateway(lambda: configuration(next(texts))) as gateway:
        changes: dict[str, Any] = await gateway.reload()
        assert (changes["started"], changes["stopped"]) == (["b"], ["a"])
        with pytest.raises(ConfigurationError):
            await gateway.reload()
        assert list(gateway.fleet.engines) == ["b"]


async def test_the_docs_example_runs(start_engine: StartEngine, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-it-works.md").read_text()
    program = (
        page.partition("## The gateway inside your own program")[2].partition("```python\n")[2].partition("```")[0]
    )
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "paceline.toml").write_text("server.port = 0\n" + lane("a", (await start_engine()).url))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "program.py", cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert b'"object":"list"' in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
    assert errors.rstrip().endswith(b"KeyboardInterrupt"), "as of any program that Ctrl-C ends"


async def test_asking_it_to_stop_is_enough(start_engine: StartEngine) -> None:
    """Nobody has to wait in ``serve_forever``; and who asks while it starts is heard when it has."""
    engine = await start_engine()
    gateway = Gateway(configuration(lane("a", engine.url)))
    await gateway.start()
    gateway.ask_to_stop()
    await gateway.stop()
    await gateway.serve_forever()  # which does not start it again
    starting = asyncio.create_task(gateway.start())
    await asyncio.sleep(0)
    gateway.ask_to_stop()
    await starting
    async with asyncio.timeout(20):
        await gateway.serve_forever()
