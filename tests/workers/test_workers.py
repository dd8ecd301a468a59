"""``paceline serve --workers``: several real processes before fake engines and launched ones."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from tests.conftest import CHAT, StartEngine, lane
from tests.fake_engine import Received, Wire, answer, slow_to_tell, token
from tests.patient import until

from paceline.configuration import ConfigurationError, load
from paceline.paths import KNOWLEDGE
from paceline.processes.launch import free_port
from paceline.routing.store import Memory
from paceline.settings import Configuration
from paceline.workers.keeper import Keeper

pytestmark = pytest.mark.slow
STAND_IN = [sys.executable, str(Path(__file__).parents[1] / "stand_in_server.py"), "--port", "{port}"]

LAUNCHED = f'[[engine]]\nname = "own"\nkind = "llama.cpp"\nlaunch = {json.dumps(STAND_IN)}\n'


class Workers:
    """A gateway with two workers, as ``paceline serve`` starts it."""

    def __init__(self, folder: Path, configuration: str) -> None:
        self.folder = folder
        self.file = folder / "paceline.toml"
        self.file.write_text(configuration)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        command = [sys.executable, "-m", "paceline.cli", "serve", "--config", str(self.file), "--workers", "2"]
        with self.log.open("wb") as log:
            self.keeper = psutil.Popen(
                [*command, "--port", str(self.port)],
                env=os.environ | {"XDG_STATE_HOME": str(folder)},
                stdout=log,
                stderr=log,
            )
        self.http = self.client()

    def client(self) -> httpx2.AsyncClient:
        """With connections of its own."""
        return httpx2.AsyncClient(base_url=self.url, timeout=30, trust_env=False)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [
            child.pid
            for child in self.keeper.children()
            if "paceline.workers" in child.cmdline() and child.is_running()
        ]

    def worker_of(self, answer: httpx2.Response) -> int:
        """The worker that has an answer's connection."""
        _, client_port = answer.extensions["network_stream"].get_extra_info("client_addr")
        for pid in self.pids:
            for connection in psutil.Process(pid).net_connections("tcp"):
                if connection.raddr and connection.raddr.port == client_port:
                    return pid
        raise AssertionError("no worker has it")

    async def get(self, path: str) -> Any:
        return (await self.http.get(path)).json()

    async def requests_counted(self) -> float:
        """By ``/metrics``."""
        text = (await self.http.get("/metrics")).text
        return sum(float(value) for value in re.findall(r"^paceline_requests_total\{.*\} (.*)$", text, re.M))

    async def stop(self) -> None:
        await self.http.aclose()
        if self.keeper.poll() is None:
            self.keeper.send_signal(signal.SIGINT)
        await until(lambda: self.keeper.poll() is not None)


@asynccontextmanager
async def two_workers(folder: Path, configuration: str) -> AsyncIterator[Workers]:
    workers = Workers(folder, configuration)
    try:
        await until(lambda: "serving" in workers.said or workers.keeper.poll() is not None)
        assert "serving" in workers.said, workers.said
        yield workers
    finally:
        await workers.stop()


async def ask_by_each(workers: Workers, times: int) -> Counter[int]:
    """Ask as often, each time by a new connection; returns how many each worker has answered."""
    by_worker: Counter[int] = Counter()
    for _ in range(times):
        async with workers.client() as http, http.stream("POST", "/v1/chat/completions", json=CHAT) as answer:
            by_worker[workers.worker_of(answer)] += 1
            await answer.aread()
            assert answer.status_code == 200, answer.text
    return by_worker


async def test_whichever_worker_is_asked_tells_of_all(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine()
    sharing = f'[sharing]\nstore = "{tmp_path / "store"}"\ninterval_s = 0.1\n'
    async with two_workers(tmp_path, lane("plain", engine.url) + sharing) as workers:
        clients = [workers.client() for _ in range(16)]  # which keep their connections
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=CHAT) for client in clients))
        by_worker = Counter(workers.worker_of(answer) for answer in answers)
        assert len(by_worker) == 2, "both have a part of them"
        shared: dict[str, tuple[int, int]] = {}
        async with asyncio.timeout(30):
            while len(shared) < 2 or len(set(shared.values())) > 1 or min(shared.values()) < (2, 2):
                told = [(await client.get("/paceline/lanes")).json()["sharing"] for client in clients]
                shared = {each["origin"]: (each["told"], each["learned"]) for each in told}
        for client in clients:
            assert (await client.get("/paceline/requests")).json()["last"] == 16
            lanes = (await client.get("/paceline/lanes")).json()
            assert lanes["log"]["written"] + lanes["log"]["waiting"] == 16
            text = (await client.get("/metrics")).text
            assert 'paceline_requests_total{lane="plain",status="200",task="chat"} 16.0' in text
            assert 'paceline_request_duration_seconds_count{lane="plain"} 16.0' in text
            await client.aclose()
        numbers = [one["number"] for one in (await workers.get("/paceline/requests?after=13"))["requests"]]
        assert numbers == [14, 15, 16]
        for number in range(1, 17):
            one = await workers.get(f"/paceline/requests/{number}")
            assert (one["number"], list(one["predictions"])) == (number, ["plain"])
        async with workers.client() as client:
            assert (await client.get("/paceline/requests/17")).status_code == 404
        await asyncio.sleep(1)  # in which the log is written
        assert (await workers.get("/paceline/history?range_s=900"))["total"]["requests"] == 16
    with closing(sqlite3.connect(tmp_path / "paceline" / "requests.sqlite")) as log:
        assert log.execute("SELECT count(*) FROM requests").fetchone() == (16,)


async def test_connections_are_shared_out(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine()
    async with two_workers(tmp_path, lane("plain", engine.url)) as workers:
        clients = [workers.client() for _ in range(40)]
        by_worker: Counter[int] = Counter()
        for client in clients:
            by_worker[workers.worker_of(await client.post("/v1/chat/completions", json=CHAT))] += 1
        assert min(by_worker.values()) >= 10 and len(by_worker) == 2, by_worker
        for client in clients:
            await client.aclose()


async def test_a_worker_that_is_killed_takes_its_own_answers_along_and_no_others(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    go = asyncio.Event()

    async def script(received: Received, wire: Wire) -> None:
        if not received.json.get("stream"):
            await wire.json(b'{"choices": []}')
            return
        await wire.stream_head()
        await wire.chunk(token("one"))
        await go.wait()
        await wire.chunk(token("two"))
        await wire.chunk(b"data: [DONE]\n\n")
        await wire.end()

    engine = await start_engine(script)
    async with two_workers(tmp_path, lane("plain", engine.url)) as workers:
        known: list[int] = []

        async def stream() -> tuple[int, bool]:
            """Its worker, and whether it came whole."""
            async with workers.client() as http:
                body = CHAT | {"stream": True}
                async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                    pid = workers.worker_of(answer)
                    known.append(pid)
                    try:
                        return pid, (await answer.aread()).endswith(b"data: [DONE]\n\n")
                    except httpx2.HTTPError:
                        return pid, False

        before = await workers.requests_counted()
        streams = [asyncio.create_task(stream()) for _ in range(16)]
        await until(lambda: len(known) == 16)
        killed, spared = workers.pids
        os.kill(killed, signal.SIGKILL)
        await ask_by_each(workers, 5)  # at once
        go.set()
        outcomes = Counter([await task for task in streams])
        assert set(outcomes) == {(killed, False), (spared, True)}
        await until(lambda: len(workers.pids) == 2 and killed not in workers.pids)
        assert "has ended with -9; another one is started" in workers.said
        await until_both_answer(workers)
        assert await workers.requests_counted() >= before + outcomes[spared, True] + 5


async def until_both_answer(workers: Workers) -> None:
    async with asyncio.timeout(30):
        while len(await ask_by_each(workers, 4)) < 2:
            pass


async def test_a_worker_that_is_asked_to_end_finishes_its_answer(start_engine: StartEngine, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def script(received: Received, wire: Wire) -> None:
        await go.wait()
        await wire.json(b'{"choices": []}')

    engine = await start_engine(script)
    async with two_workers(tmp_path, lane("plain", engine.url)) as workers:
        clients = [workers.client() for _ in range(6)]
        asked = [asyncio.create_task(client.post("/v1/chat/completions", json=CHAT)) for client in clients]
        await until(lambda: len(engine.requests) == 6)
        os.kill(workers.pids[0], signal.SIGTERM)
        go.set()
        assert [(await answer).status_code for answer in asked] == [200] * 6
        await until(lambda: "another one is started" in workers.said and len(workers.pids) == 2)
        for client in clients:
            await client.aclose()


async def test_all_workers_follow_an_engine_that_is_launched_again(tmp_path: Path) -> None:
    async with two_workers(tmp_path, LAUNCHED) as workers:
        await until_both_answer(workers)
        before = (await workers.get("/paceline/lanes"))["lanes"][0]["engine"]
        os.kill(before["pid"], signal.SIGKILL)

        async def now() -> Any:
            return (await workers.get("/paceline/lanes"))["lanes"][0]

        async with asyncio.timeout(30):
            while (lane_now := await now())["health"] != "up" or lane_now["engine"]["pid"] == before["pid"]:
                await asyncio.sleep(0.05)
        assert lane_now["engine"]["restarts"] == 1
        await until_both_answer(workers)
        engines = [child for child in workers.keeper.children() if "stand_in_server.py" in " ".join(child.cmdline())]
        assert [engine.pid for engine in engines] == [lane_now["engine"]["pid"]], "it runs once for all"
    assert not psutil.pid_exists(lane_now["engine"]["pid"])


async def test_a_reload_reaches_all_workers(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine()
    async with two_workers(tmp_path, lane("plain", engine.url)) as workers:
        workers.file.write_text(lane("plain", engine.url) + LAUNCHED)
        answer = await workers.http.post("/paceline/reload")
        assert answer.json()["started"] == ["own"]
        for client in (workers.client() for _ in range(6)):
            async with client, asyncio.timeout(30):
                while True:
                    got = await client.post("/v1/chat/completions", json=CHAT, headers={"x-paceline-lane": "own"})
                    if got.status_code == 200:
                        break
        workers.file.write_text(lane("plain", engine.url) + "speed = 9\n")
        refused = await workers.http.post("/paceline/reload")
        assert refused.status_code == 422
        assert (await workers.get("/paceline/lanes"))["sharing"] is None, "no store is configured"
        assert "speed" in refused.json()["error"]["message"]
        await ask_by_each(workers, 4)
        workers.file.write_text(lane("other", engine.url))
        workers.keeper.send_signal(signal.SIGHUP)
        await until(lambda: "configuration taken up" in workers.said)
        for client in (workers.client() for _ in range(6)):
            async with client:
                assert [one["lane"] for one in (await client.get("/paceline/lanes")).json()["lanes"]] == ["other"]
        await until(lambda: not [child for child in workers.keeper.children() if "stand_in" in str(child.cmdline())])


async def test_answers_outlast_reloads_that_take_their_engine_away(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine()
    slow = f'[[engine]]\nname = "own"\nkind = "llama.cpp"\nlaunch = {json.dumps([*STAND_IN, "--behave", "slow"])}\n'
    async with two_workers(tmp_path, slow + lane("plain", engine.url)) as workers:

        def engines() -> list[psutil.Process]:
            found = []
            for child in workers.keeper.children():
                with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                    if "stand_in" in str(child.cmdline()):
                        found.append(child)
            return found

        async def whole() -> bool:
            body, headers = CHAT | {"stream": True}, {"x-paceline-lane": "own"}
            async with workers.client() as http:
                answer = await http.post("/v1/chat/completions", json=body, headers=headers)
                return answer.content.endswith(b"data: [DONE]\n\n")

        assert await whole()
        streams = [asyncio.create_task(whole()) for _ in range(4)]
        await asyncio.sleep(0.5)
        for name in ("plain", "other"):
            workers.file.write_text(lane(name, engine.url))
            assert (await workers.http.post("/paceline/reload")).status_code == 200
        assert [await stream for stream in streams] == [True] * 4
        await until(lambda: not engines())


async def test_engines_of_a_device_take_turns_over_all_workers(start_engine: StartEngine, tmp_path: Path) -> None:
    running: Counter[str] = Counter()
    together: list[dict[str, int]] = []

    def script_of(name: str) -> Callable[[Received, Wire], Any]:
        async def script(received: Received, wire: Wire) -> None:
            running[name] += 1
            together.append(dict(+running))
            await asyncio.sleep(0.02)
            running[name] -= 1
            await wire.json(b'{"choices": []}')

        return script

    engines = [await start_engine(script_of(name)) for name in ("one", "two")]
    tables = "".join(
        lane(name, engine.url, more='device = "card"\nslots = 3')
        for name, engine in zip(("one", "two"), engines, strict=True)
    )
    device = '[[device]]\nname = "card"\nsharing = "turns"\n'
    async with two_workers(tmp_path, device + tables) as workers:

        async def ask(number: int) -> tuple[int, int]:
            async with workers.client() as http:
                headers = {"x-paceline-lane": "one" if number % 2 else "two"}
                async with http.stream("POST", "/v1/chat/completions", json=CHAT, headers=headers) as answer:
                    pid = workers.worker_of(answer)
                    await answer.aread()
                    return answer.status_code, pid

        answers = await asyncio.gather(*(ask(number) for number in range(40)))
        assert {status for status, _ in answers} == {200}
        assert len({pid for _, pid in answers}) == 2
        assert all(len(engines_at_once) == 1 for engines_at_once in together), "never both engines at once"
        assert max(max(one.values()) for one in together) == 3, "as many as have slots, of both workers"


async def test_a_budget_is_one_for_all_workers(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine()
    cloud = (
        f'[[engine]]\nname = "cloud"\nkind = "openai"\ncloud = true\nurl = "{engine.url}"\n'
        '[[cloud]]\nname = "m"\ninput_price = 1000.0\noutput_price = 2000.0\n[[budget]]\nlimit = 0.1\n'
    )
    async with two_workers(tmp_path, cloud) as workers:
        statuses: Counter[int] = Counter()
        told: list[float] = []
        for _ in range(12):
            async with workers.client() as http:
                statuses[(await http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 3})).status_code] += 1
                told.append((await http.get("/paceline/lanes")).json()["budgets"][0]["spent"])
        assert statuses[200] == 6 and statuses[402] == 6, statuses
        assert told == sorted(told) and told[-1] == pytest.approx(6 * 0.015)
        money = (await workers.get("/paceline/lanes"))["money"]
        assert money["engines"][0]["answers"] == 6
        assert money["engines"][0]["paid"] == pytest.approx(6 * 0.015)
    async with two_workers(tmp_path, cloud) as again:
        assert (await again.get("/paceline/lanes"))["budgets"][0]["spent"] == pytest.approx(6 * 0.015)


async def test_requests_at_the_same_moment_do_not_exceed_a_budget_together(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    async def after_a_while(received: Received, wire: Wire) -> None:
        await asyncio.sleep(1.0)
        await answer(received, wire)

    engine = await start_engine(after_a_while)
    cloud = (
        f'[[engine]]\nname = "cloud"\nkind = "openai"\ncloud = true\nurl = "{engine.url}"\n'
        '[[cloud]]\nname = "m"\ninput_price = 1000.0\noutput_price = 2000.0\n[[budget]]\nlimit = 0.1\n'
    )
    async with two_workers(tmp_path, cloud) as workers, AsyncExitStack() as opened:
        clients = [await opened.enter_async_context(workers.client()) for _ in range(24)]
        met = await asyncio.gather(*(client.get("/livez") for client in clients))
        assert len({workers.worker_of(each) for each in met}) == 2
        asked = CHAT | {"max_tokens": 3}
        answers = await asyncio.gather(*(client.post("/v1/chat/completions", json=asked) for client in clients))
        statuses = Counter(each.status_code for each in answers)
        assert set(statuses) == {200, 402}, statuses
        assert len(engine.requests) == statuses[200] > 0
        spent = [(await client.get("/paceline/lanes")).json()["budgets"][0]["spent"] for client in clients]
        assert spent == pytest.approx([spent[0]] * len(clients)), "all workers tell the same"
        assert spent[0] <= 0.1


async def test_a_keeper_that_refuses_a_reload_or_has_stopped_takes_nothing_up(
    start_engine: StartEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await start_engine()
    file = tmp_path / "paceline.toml"
    file.write_text(lane("plain", engine.url) + f"[server]\nport = {free_port()}\n")

    def read() -> Configuration:
        configuration = load(file)
        monkeypatch.delenv("GONE_SOON", raising=False)  # so that it is missed where engines are made
        return configuration

    keeper = Keeper(read, 1, log_directory=tmp_path / "log", state_directory=None)
    await keeper.start()
    sharer = keeper._sharer
    monkeypatch.setenv("GONE_SOON", "a-key-of-an-engine")
    elsewhere = f'[sharing]\nstore = "{tmp_path / "elsewhere"}"\n'
    file.write_text(lane("other", engine.url, more='api_key = "env:GONE_SOON"') + elsewhere)
    with pytest.raises(ConfigurationError, match="GONE_SOON"):
        await keeper.reload()
    assert sharer is not None and keeper._sharer is sharer and not sharer._stopping.is_set()
    await keeper.stop()
    with pytest.raises(RuntimeError, match="does not run"):
        await keeper.reload()


async def test_workers_end_with_their_keeper_and_leave_the_address(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine()
    async with two_workers(tmp_path, lane("plain", engine.url)) as workers:
        pids = workers.pids
        workers.keeper.kill()
        await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
        with pytest.raises(httpx2.ConnectError):
            await workers.http.get("/livez")


async def test_workers_learn_as_one_and_it_is_kept(start_engine: StartEngine, tmp_path: Path) -> None:
    engine = await start_engine(slow_to_tell)

    async def known(workers: Workers) -> list[tuple[int, int]]:
        """By worker, the outcomes that it has learned; asked until both were."""
        by_worker: dict[int, int] = {}
        while len(by_worker) < 2:
            async with workers.client() as http, http.stream("GET", "/paceline/lanes") as answer:
                pid = workers.worker_of(answer)
                by_worker[pid] = json.loads(await answer.aread())["lanes"][0]["measured"]["requests"]
        return sorted(by_worker.items())

    async def all_know(workers: Workers, number: int) -> None:
        async with asyncio.timeout(15):
            while {count for _, count in await known(workers)} != {number}:
                await asyncio.sleep(0.1)

    async with two_workers(tmp_path, lane("plain", engine.url)) as workers:
        by_worker = await ask_by_each(workers, 10)
        while len(by_worker) < 2:  # which one takes a connection is left to the kernel's dice
            by_worker += await ask_by_each(workers, 1)
        number = by_worker.total()
        await all_know(workers, number)
        os.kill(workers.pids[0], signal.SIGKILL)
        await until(lambda: "another one is started" in workers.said)
        await all_know(workers, number)
        await ask_by_each(workers, 2)
    async with two_workers(tmp_path, lane("plain", engine.url)) as again:
        await all_know(again, number + 2)


async def test_an_address_that_is_taken_is_said_once(tmp_path: Path) -> None:
    async with two_workers(tmp_path, LAUNCHED) as workers:
        command = [sys.executable, "-m", "paceline.cli", "serve", "--config", str(workers.file), "--workers", "2"]
        second = await asyncio.to_thread(said_by, [*command, "--port", str(workers.port)], tmp_path / "second")
        assert second.count("can't listen on") == 1
        assert "another Paceline runs there" in second


def said_by(command: Sequence[str], folder: Path) -> str:
    folder.mkdir()
    ended = subprocess.run(
        command, env=os.environ | {"XDG_STATE_HOME": str(folder)}, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    return ended.stderr + ended.stdout


async def test_what_placement_learns_is_of_all_workers_and_kept(start_engine: StartEngine, tmp_path: Path) -> None:
    async def streams(received: Received, wire: Wire) -> None:
        await asyncio.sleep(0.05)
        await answer(received, wire)

    engine = await start_engine(streams)
    cloud = (
        f'[[engine]]\nname = "cloud"\nkind = "openai"\ncloud = true\nurl = "{engine.url}"\n'
        '[[cloud]]\nname = "m"\ninput_price = 1.0\noutput_price = 2.0\n'
    )
    for told in (1, 2):  # before a restart, and after
        async with two_workers(tmp_path, cloud) as workers:
            given = {"x-request-id": f"request-{told}"}
            assert (await workers.http.post("/v1/chat/completions", json=CHAT, headers=given)).status_code == 200
            feedback = {"id": f"request-{told}", "good": False}
            assert (await workers.http.post("/paceline/feedback", json=feedback)).status_code == 200
        with closing(Memory(tmp_path / "paceline" / KNOWLEDGE)) as memory:
            judged = {entry.group: entry for entry in memory.load_placement().qualities}
        assert judged[""].good == 0 and judged[""].count == pytest.approx(told, abs=0.01)
