"""Fixtures: gateways in this process before fake engines, and one real gateway before real engines."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx2
import hypothesis
import pytest
from benchmarks.gateways import engine
from tests.fake_engine import FakeEngine, Script, answer
from tests.patient import until, wait_until

from paceline.configuration import parse
from paceline.engines import ENGINES
from paceline.engines.bundled_model import bundled_model
from paceline.http.server import Gateway
from paceline.paths import cache_directory
from paceline.processes.launch import free_port
from paceline.records.record import Record
from paceline.settings import EngineSettings, LocalEngineSettings
from paceline.types import Measured, Outcome

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

MARKS = {"embedded_engine": pytest.mark.real_engine, "browser": pytest.mark.browser}
"""What a test is, by a fixture that it asks for, directly or through others."""


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, mark in MARKS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


@dataclass
class RunningGateway:
    """A gateway in this event loop; ``text`` is its configuration, read again at a reload."""

    text: str
    log_directory: Path
    state_directory: Path | None = None
    records: list[Record] = field(default_factory=list)

    async def start(self) -> None:
        self.gateway = Gateway(
            lambda: parse(self.text, "test.toml"),
            log_directory=self.log_directory,
            state_directory=self.state_directory,
            sink=self,
        )
        await self.gateway.start()
        self.url = self.gateway.url
        self.http = httpx2.AsyncClient(base_url=self.url, timeout=30, trust_env=False)

    async def lanes_settle(self) -> None:
        """Until no lane is starting any more."""
        engines = self.gateway.fleet.engines
        await until(lambda: not any(str(one.supervisor.health) == "starting" for one in engines.values()))

    def assert_warned(self, engine: str, warning: str | None) -> None:
        """That what was seen of an engine gave one warning with these words, or none."""
        warnings = self.gateway.fleet.engines[engine].supervisor.warnings
        assert [warning is not None and warning in one for one in warnings] == [True] * (warning is not None), warnings

    async def stop(self) -> None:
        await self.http.aclose()
        for _ in range(2):  # which does not wait for running answers
            self.gateway.ask_to_stop()
        await self.gateway.stop()

    @property
    def outcome(self) -> Outcome:
        """Of the last request."""
        return self.records[-1].outcome

    async def outcome_number(self, number: int) -> Outcome:
        """Of the ``number``-th request, waiting until it is there."""
        await until(lambda: len(self.records) >= number)
        return self.records[number - 1].outcome

    def record(self, record: Record, /) -> None:
        self.records.append(record)


StartGateway = Callable[[str], Awaitable[RunningGateway]]
StartEngine = Callable[..., Awaitable[FakeEngine]]
EngineTable = Callable[..., str]


@pytest.fixture
async def start_gateway(tmp_path: Path) -> AsyncIterator[StartGateway]:
    """Start a gateway that does not explore from a configuration; ``[server]`` must not be in it but by
    ``server.key = value`` lines."""
    running: list[RunningGateway] = []

    async def start(text: str) -> RunningGateway:
        one = RunningGateway(
            "server.port = 0\nserver.health_interval_s = 0.2\nrouting.exploration = 0\n" + text, tmp_path / "log"
        )
        await one.start()
        running.append(one)
        await one.lanes_settle()
        return one

    yield start
    for one in running:
        await one.stop()


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    running: list[FakeEngine] = []

    async def start(script: Script = answer, models: tuple[str, ...] = ("m",)) -> FakeEngine:
        one = await FakeEngine(script, models).start()
        running.append(one)
        return one

    yield start
    for one in running:
        await one.stop()


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"messages": [{"role": "user", "content": text}], **more}


CHAT = chat(model="m")
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/completion", "/infill"]
"""On which an engine generates, one for each API."""


def lane(name: str, url: str, strategy: str = "autoregressive", more: str = "") -> str:
    """An ``[[engine]]`` table for a fake engine."""
    return f'[[engine]]\nname = "{name}"\nkind = "openai"\nurl = "{url}"\nstrategy = "{strategy}"\n{more}\n'


PLAIN_FIRST = '[[rule]]\nmodel = "m"\nlane = "plain"\n'
"""A rule for tests in which a certain lane has to be the first."""


async def two_lanes(
    start_engine: StartEngine, start_gateway: StartGateway, script: Script = answer, more: str = ""
) -> tuple[RunningGateway, FakeEngine, FakeEngine]:
    """A plain and an n-gram lane before two fake engines."""
    plain, ngram = await start_engine(script), await start_engine(script)
    running = await start_gateway(more + lane("plain", plain.url) + lane("ngram", ngram.url, "ngram"))
    return running, plain, ngram


def measured(running: RunningGateway, name: str) -> Measured:
    """Of the lane as it runs now."""
    now = running.gateway.fleet.lanes[name].state(None)
    return running.gateway.pipeline.router.knowledge.measured.get((now.fingerprint, name), Measured())


LOCAL_KINDS = [kind for kind, engine in ENGINES.items() if issubclass(engine.settings_type, LocalEngineSettings)]
"""Kinds of engines of one's own, which are looked at; providers' are not."""


def engine_settings(kind: str = "openai", **keys: Any) -> EngineSettings:
    """Settings of an engine of a kind, named ``one`` unless ``keys`` say otherwise."""
    settings: EngineSettings = ENGINES[kind].settings_type(**{"name": "one"} | keys)
    return settings


class Serving:
    """``paceline serve`` in a process of its own; as a context manager, it is ended."""

    def __init__(self, *words: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        command = [sys.executable, "-m", "paceline.cli", "serve", "--port", str(self.port), *words]
        with self.log.open("wb") as out:
            environment = os.environ | {"XDG_STATE_HOME": str(folder)}
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        try:
            self.wait_for("Ctrl-C stops")
        except BaseException:
            self.process.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)

    def lanes(self) -> list[Any]:
        lanes: list[Any] = httpx2.get(f"{self.url}/paceline/lanes", trust_env=False).json()["lanes"]
        return lanes

    def engine_url(self, lane: str) -> str:
        return next(str(one["engine"]["url"]) for one in self.lanes() if one["lane"] == lane)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.said or self.process.poll() is not None, within_s=60)
        assert text in self.said, self.said


@pytest.fixture(scope="session")
def model() -> Path:
    """The bundled model, in the same cache that ``paceline serve`` uses."""
    return bundled_model(cache_directory())


ENGINE_KEY = "known-to-tests"
"""Of the engines of :func:`real_gateway`, so that they can be asked directly; else each would have one of its own."""
NGRAM = ("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "3", "--spec-ngram-simple-size-m", "8")


@pytest.fixture(scope="session")
def embedded_engine() -> EngineTable:
    """Writes an ``[[engine]]`` table of the embedded engine.

    Whatever starts a real engine asks for this fixture, which is how its tests are marked (``MARKS``).
    """
    return partial(engine, alias="smol", slots=2)


@pytest.fixture(scope="session")
def real_gateway(embedded_engine: EngineTable, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A plain and an n-gram lane of the bundled model, on the embedded engine."""
    folder = tmp_path_factory.mktemp("real")
    configuration = folder / "paceline.toml"
    template = ("--chat-template-file", str(Path(__file__).parent / "tools.jinja"))  # the model's own knows no tools
    shared = (*template, "--api-key", ENGINE_KEY)
    configuration.write_text(
        embedded_engine("plain", *shared) + embedded_engine("ngram", *NGRAM, *shared, strategy="ngram")
    )
    serving = Serving("--config", str(configuration), folder=folder)
    yield serving
    serving.process.terminate()
    assert serving.process.wait(20) == 0
