"""The commands, as people run them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.conftest import EngineTable, Serving

pytestmark = pytest.mark.slow  # they start processes, and wait for them


def paceline(*words: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "paceline.cli", *words]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environment
    )


CONFIGURATION = """\
[[engine]]
name = "plain"
kind = "openai"
url = "http://127.0.0.1:9"

[[engine]]
name = "mtp"
kind = "openai"
url = "http://127.0.0.1:9"
strategy = "mtp"
n_max = 3
"""


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    file = tmp_path / "paceline.toml"
    file.write_text(CONFIGURATION)
    return file


def test_help_of_every_command() -> None:
    done = paceline("--help")
    assert done.returncode == 0
    for command in ("serve", "check", "explain", "reload"):
        assert command in done.stdout
        assert paceline(command, "--help").returncode == 0
    assert paceline().returncode == 2
    assert paceline("--version").stdout.startswith("paceline ")


def test_check_says_what_a_file_means(configuration: Path) -> None:
    done = paceline("check", "--config", str(configuration))
    assert done.returncode == 0
    assert "mtp: openai, mtp n_max=3" in done.stdout
    assert "fine, 2 engines" in done.stdout


def test_check_says_what_is_wrong(configuration: Path) -> None:
    configuration.write_text(CONFIGURATION.replace("n_max = 3", "n_mx = 3"))
    done = paceline("check", "--config", str(configuration))
    assert done.returncode == 1
    assert done.stderr.startswith(f"{configuration}:11: engine[2].n_mx: unknown key")
    assert paceline("check", "--config", "nowhere.toml").returncode == 1


def test_explain_a_prompt(configuration: Path) -> None:
    done = paceline("explain", "Tell me a story.")
    assert "  conversation_is_named False" in done.stdout
    assert done.returncode == 0
    assert re.search(r"lane +plain", done.stdout)
    assert re.search(r"task +create", done.stdout)
    assert re.search(r"temperature +not given", done.stdout)
    code = "Rename x to y and print the whole file.\n```python\n" + "x = x + 1\n" * 40 + "```"
    assert re.search(r"lane +mtp", paceline("explain", "--config", str(configuration), code).stdout)


def test_explain_a_request_body(tmp_path: Path) -> None:
    body = json.dumps({"messages": [], "response_format": {"type": "json_object"}})
    file = tmp_path / "request.json"
    file.write_text(body)
    for done in (paceline("explain", body), paceline("explain", str(file)), paceline("explain", "-", stdin=body)):
        assert re.search(r"structure +response_format json_object", done.stdout)
        assert re.search(r"lane +ngram", done.stdout)
    wrong = paceline("explain", "-", stdin='{"messages": [')
    assert wrong.returncode == 1
    assert "line 1, column 15" in wrong.stderr


def test_serve_says_what_keeps_it_from_starting(configuration: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = paceline("serve", "--config", str(configuration), "--port", str(port))
    assert done.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr
    assert "no file" in paceline("serve", "--model", str(tmp_path / "no.gguf")).stderr
    assert "not allowed with" in paceline("serve", "--model", "x", "--config", "y").stderr
    assert "nowhere.toml" in paceline("serve", "--config", "nowhere.toml").stderr
    for command in (["reload"], ["calibrate"], ["explain", "hi"]):
        assert "no gateway answers" in paceline(*command, "--url", "http://127.0.0.1:9").stderr


@pytest.fixture
def serving(embedded_engine: EngineTable, tmp_path: Path) -> Iterator[Serving]:
    """The bundled model with the two lanes that ``make run`` gives."""
    one = Serving("--llama-server", "embedded", folder=tmp_path)
    yield one
    one.process.kill()
    one.process.wait()


def test_serve_with_the_bundled_model_until_ctrl_c(serving: Serving) -> None:
    assert f"{serving.url}/v1" in serving.said
    assert "curl" in serving.said
    command = serving.said.partition("try\n")[2].splitlines()[0].strip()
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
    assert "HTTP/1.1 200 OK" in done.stdout
    assert "x-paceline-reason: create" in done.stdout
    serving.wait_for("| create 0.")
    lanes = serving.lanes()
    assert [(one["lane"], one["health"], one["strategy"]["kind"]) for one in lanes] == [
        ("plain", "up", "autoregressive"),
        ("ngram", "up", "ngram"),
    ]
    calibrated = paceline("calibrate", "--url", serving.url, "--seconds", "10")
    assert "requests down 2 lanes" in calibrated.stdout
    assert "plain ones" in calibrated.stdout
    explained = paceline("explain", "--url", serving.url, "Tell me a story.")
    assert "ms/token" in explained.stdout
    assert "ms/token" not in paceline("explain", "Tell me a story.").stdout
    children = psutil.Process(serving.process.pid).children(recursive=True)
    assert len(children) == 2
    serving.process.send_signal(signal.SIGINT)
    assert serving.process.wait(20) == 0
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_reload_by_command_and_by_signal(embedded_engine: EngineTable, tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text(embedded_engine("plain"))
    one = Serving("--config", str(file), folder=tmp_path)
    try:
        pid = one.lanes()[0]["engine"]["pid"]
        file.write_text(embedded_engine("plain") + CONFIGURATION.replace('"plain"', '"far"'))
        done = paceline("reload", "--url", one.url)
        assert done.stdout == "started: far, mtp\nunchanged: plain\n"
        file.write_text(embedded_engine("plain") + "typo = 1\n")
        refused = paceline("reload", "--url", one.url)
        assert refused.returncode == 1
        assert f"{file}:" in refused.stderr
        file.write_text(embedded_engine("plain"))
        one.process.send_signal(signal.SIGHUP)
        one.wait_for("configuration taken up")
        lanes = one.lanes()
        assert [lane["engine"]["pid"] for lane in lanes] == [pid]
    finally:
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(20) == 0
