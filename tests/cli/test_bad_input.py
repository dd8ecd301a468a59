"""Whatever is typed, a command says in a sentence what is wrong, and ends with 1 or 2: nothing ends in a traceback."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.patient import PATIENCE_S, wait_until

from paceline.cli import main

GOOD = '[[engine]]\nname = "a"\nkind = "openai"\nurl = "http://127.0.0.1:9"\n'
COMMANDS: Sequence[str] = """
report --log folder | report --log binary | report --log empty | report --days -1 | report --config folder
replay --log binary | replay --exploration nan | replay --exploration 2 | replay --config binary
cost --config good.toml --log binary | cost --config folder | cost --config good.toml --on-days inf
export folder | export x.json | export nowhere/x.csv | export x.csv --log folder
bench show folder | bench show binary | bench show empty | bench show nowhere | bench compare binary empty
bench run --url 127.0.0.1:9 --workload folder | bench run --url 127.0.0.1:9 --workload binary | bench run --url a:b
bench run --config folder | bench lossless --url 127.0.0.1:9 | bench calibrate --config nowhere.toml
plan folder | plan binary | plan nowhere | plan empty --json | plan binary --gpus nonsense
plan binary --host-memory -1 | plan binary --write folder | plan folder --engine llama.cpp
check --config folder | check --config binary | check --config empty | check --config nowhere.toml --json
doctor --config folder | doctor --config binary | doctor --config nowhere.toml
explain --config folder hi | explain --path /x hi | explain --url http://[::1 hi
explain --api-key env:NOPE --running hi
reload --url 127.0.0.1:9 | reload --config binary | lanes --url http://:80 | lanes --url 127.0.0.1:99999
top --once --url 127.0.0.1:9 | calibrate --seconds 0 | calibrate --url 127.0.0.1:9 --seconds 1
engine remove nosuch | engine build --jobs 0 | engine build --backend abacus
service install --config folder | service install --config good.toml --run-as me | service uninstall --nope | service
init --write folder | init --model folder | init --port 0 | init --engine 127.0.0.1:9
completion | completion tcsh | serve --config folder | serve --model folder | serve --log-file folder --config good.toml
serve --config good.toml --host 1.2.3.4.5 | serve --config good.toml --port 70000 | --nope
""".replace("\n", " | ").split(" | ")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\x00\xff" * 100)
    (tmp_path / "empty").touch()
    (tmp_path / "good.toml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("PACELINE_API_KEY", raising=False)
    return tmp_path


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.strip()])
def test_a_slip_is_said(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(command.split())
    except SystemExit as ended:
        status = int(str(ended.code))
    said = capsys.readouterr()
    assert status in (1, 2)
    assert said.err.strip() or said.out.strip()
    assert "Traceback" not in said.err
    assert "Error(" not in said.err


def paceline(*words: str, stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "paceline", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which programs in the background ignore
    )


@pytest.mark.slow
def test_a_reader_that_has_seen_enough() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    process = paceline("explain", "hi", stdout=theirs)
    os.close(theirs)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert said == ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full() -> None:
    with open("/dev/full", "w") as full:
        process = paceline("explain", "hi", stdout=full.fileno())
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert said == "the output: No space left on device\n"


@pytest.mark.slow
def test_an_output_that_is_closed(folder: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'"{sys.executable}" -m paceline check --config good.toml >&-'],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("lanes",), ("explain", "--running", "hi"), ("reload",), ("calibrate",)])
def test_ctrl_c_while_a_gateway_is_waited_for(words: Sequence[str]) -> None:
    """It takes the connection, and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        process = paceline(*words, "--url", f"127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(PATIENCE_S)
        client, _ = silent.accept()
        with client:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in said


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_a_start(folder: Path) -> None:
    process = paceline("serve", "--config", "good.toml", "--port", "0", "--log-file", "log")
    wait_until(lambda: Path("log").exists() and "NO ENGINE IS UP" in Path("log").read_text())
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert said == ""
    assert "Traceback" not in Path("log").read_text()
