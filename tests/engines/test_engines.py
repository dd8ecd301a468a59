"""Engine modules and their supervision, with real processes."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from tests.conftest import engine_settings
from tests.patient import until

from paceline.engines import ENGINES, Facts, LaunchError, NotReady
from paceline.engines.llama_cpp import LlamaCpp, offered_flags
from paceline.processes import Health, Supervisor
from paceline.processes.supervisor import Timing

pytestmark = pytest.mark.slow  # they start processes, and wait for them

STAND_IN = Path(__file__).parents[1] / "stand_in_server.py"


@pytest.fixture
def llama_server(tmp_path: Path) -> Path:
    """A program named like llama-server, that behaves like one where it counts here."""
    program = tmp_path / "llama-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


Supervise = Callable[..., Supervisor]


@pytest.fixture
async def supervise(llama_server: Path, tmp_path: Path) -> AsyncIterator[Supervise]:
    running: list[Supervisor] = []

    def start(*flags: str, strategy: str = "autoregressive", start_timeout_s: float = 30.0) -> Supervisor:
        settings = engine_settings(
            "llama.cpp",
            launch=(str(llama_server), "--port", "{port}", *flags),
            strategy=strategy,
            start_timeout_s=start_timeout_s,
        )
        one = Supervisor(settings, ENGINES["llama.cpp"], log_directory=tmp_path)
        one.timing = Timing(connect_timeout_s=1.0, health_interval_s=0.1)
        one.start()
        running.append(one)
        return one

    yield start
    for one in running:
        await one.stop()


async def becomes(one: Supervisor, health: Health, restarts: int = 0) -> None:
    await until(lambda: one.health is health and one.restarts >= restarts)


# What a build offers


def test_flags_are_read_from_the_build(llama_server: Path) -> None:
    assert {"--model", "-m", "--port", "--draft-max", "--spec-type"} <= offered_flags(str(llama_server))


def test_an_unknown_flag_is_an_error_that_names_the_builds_own(llama_server: Path) -> None:
    with pytest.raises(LaunchError, match=r"does not know --spec-draft-n-max \(it has --draft-max\)"):
        LlamaCpp().launch((str(llama_server), "--port", "{port}", "--spec-draft-n-max", "8"), 1234)
    with pytest.raises(LaunchError, match=r"--modle \(it has --model"):
        LlamaCpp().launch((str(llama_server), "--modle", "x"), 1234)


def test_known_flags_and_negative_numbers_pass(llama_server: Path) -> None:
    command = LlamaCpp().launch((str(llama_server), "--port", "{port}", "--draft-max", "-1"), 1234)
    assert command == (str(llama_server), "--port", "1234", "--draft-max", "-1")


@pytest.mark.parametrize("kind", ENGINES)
def test_a_program_that_is_not_there(kind: str) -> None:
    with pytest.raises(LaunchError, match="no program 'no-such-server'"):
        ENGINES[kind].launch(("no-such-server", "{port}"), 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "{port}"], "required: -m/--model"),
        (["-m", "/nowhere.gguf", "--port", "{port}"], "--model: there is no file /nowhere.gguf"),
        (["-m", __file__, "--port", "{port}", "--draft-max", "4"], "unrecognized arguments: --draft-max 4"),
        (["-m", __file__, "--port", "{port}", "--threads", "two"], "invalid int value: 'two'"),
    ],
)
def test_the_embedded_engines_command_is_checked_too(flags: list[str], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        LlamaCpp().launch(("embedded", *flags), 1)


def test_the_embedded_engines_help_says_how_it_is_called() -> None:
    words = [sys.executable, "-m", "paceline.engines.embedded", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("usage: python -m paceline.engines.embedded ")


# Supervision


async def test_a_launched_engine_comes_up(supervise: Supervise) -> None:
    one = supervise()
    await becomes(one, Health.UP)
    assert isinstance(one.facts, Facts)
    assert (list(one.facts.models), one.facts.slots, one.facts.context_tokens, one.facts.build) == (
        ["m", "alias"],
        3,
        512,
        "b1",
    )
    assert one.warnings == ()
    pid = one.pid
    await one.stop()
    assert pid
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("configured", "loaded", "warns"),
    [
        ("ngram", "ngram-simple", False),
        ("ngram", "none", True),
        ("mtp", "draft-mtp", False),
        ("mtp", "ngram-simple,draft-mtp", False),
        ("mtp", "ngram-simple", True),
        ("autoregressive", "none", False),
        ("autoregressive", "draft-mtp", True),
    ],
)
async def test_what_was_asked_for_is_checked_to_have_taken_effect(
    configured: str, loaded: str, warns: bool, supervise: Supervise
) -> None:
    one = supervise("--spec-type", loaded, strategy=configured)
    await becomes(one, Health.UP)
    assert (len(one.warnings) == 1) is warns
    if warns:
        assert configured in one.warnings[0]


async def test_an_engine_that_dies_is_started_again(supervise: Supervise) -> None:
    one = supervise()
    await becomes(one, Health.UP)
    assert one.pid
    os.kill(one.pid, signal.SIGKILL)
    await becomes(one, Health.DOWN)
    assert one.problem
    assert "exited with -9" in one.problem
    await becomes(one, Health.UP, restarts=1)


@pytest.mark.slow
async def test_an_engine_that_crashes_at_once_says_its_last_words(supervise: Supervise) -> None:
    one = supervise("--behave", "crash")
    await becomes(one, Health.DOWN, restarts=1)
    assert one.problem
    assert "exited with 3: cannot load the model: it is a teapot" in one.problem
    assert str(one.log_path) in one.problem
    assert one.is_coming
    await becomes(one, Health.DOWN, restarts=4)
    assert not one.is_coming  # nobody waits for what keeps ending


async def test_an_engine_that_never_comes_up_is_given_up(supervise: Supervise) -> None:
    one = supervise("--behave", "loading", start_timeout_s=1.0)
    await becomes(one, Health.DOWN, restarts=1)
    assert one.problem
    assert "not up within 1 s" in one.problem
    assert one.pid is None


async def test_a_wrong_command_is_not_tried_again(supervise: Supervise) -> None:
    one = supervise("--no-such-flag")
    await becomes(one, Health.FAILED)
    assert one.problem
    assert "does not know --no-such-flag" in one.problem
    assert one.restarts == 0


async def test_an_engine_that_ignores_being_asked_is_killed(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.processes.launched_process.STOP_GRACE_S", 0.5)
    one = supervise("--behave", "ignore-term")
    await becomes(one, Health.UP)
    pid = one.pid
    await one.stop()
    assert pid
    assert not psutil.pid_exists(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help in this is Linux's")
@pytest.mark.slow
def test_engines_end_with_a_gateway_that_was_killed(llama_server: Path, tmp_path: Path) -> None:
    configuration = tmp_path / "paceline.toml"
    table = f'name = "one"\nkind = "llama.cpp"\nlaunch = ["{llama_server}", "--port", "{{port}}"]\n'
    configuration.write_text(f"server.port = 0\n[[engine]]\n{table}")
    command = [sys.executable, "-m", "paceline.cli", "serve", "--config", str(configuration)]
    environment = os.environ | {"XDG_STATE_HOME": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout
    while b"serving" not in process.stdout.readline():
        assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.wait()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert (len(gone), alive) == (len(children), [])


async def test_an_engine_that_is_loading_is_not_ready(supervise: Supervise) -> None:
    one = supervise("--behave", "loading")
    await until(lambda: one.problem and "answers 503" in one.problem)
    assert one.client
    for kind in ENGINES.values():
        with pytest.raises(NotReady, match="answers 503"):
            await kind.probe(one.client)
