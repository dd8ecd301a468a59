"""First commands and the slips that go with them: clear sentences, the right exit status, no traceback."""

import argparse
import asyncio
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import cast

import pytest
from benchmarks.gateways import engine
from tests.conftest import EngineTable, Serving
from tests.model_files import model_file, small_model
from tests.patient import PATIENCE_S, wait_until

from paceline.cli import main, serve
from paceline.cli.common import shortened
from paceline.cli.engine_options import add_engine_options, configuration_of_model
from paceline.http.server import Gateway
from paceline.planning.gguf import Tensor
from paceline.processes.launch import free_port

pytestmark = pytest.mark.slow  # they start processes, and wait for them

Paceline = Callable[..., "subprocess.CompletedProcess[str]"]
FAR = '[[engine]]\nname = "far"\nkind = "openai"\nurl = "http://127.0.0.1:9"\n'


@pytest.fixture
def paceline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paceline:
    """Runs a command to its end, of which it has to come by itself: ``serve`` in a process of its own, the others in
    this one, which is quicker."""
    monkeypatch.delenv("PACELINE_API_KEY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*words: object, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [str(word) for word in words]
        run_command = in_a_process if command[0] == "serve" else in_this_process
        done = run_command(command, stdin, environment)
        assert "Traceback" not in done.stderr + done.stdout, done.stderr
        return done

    return run


def in_a_process(command: list[str], stdin: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "paceline", *command],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )


def in_this_process(command: list[str], stdin: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode())))
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            status = main(command)
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else 1
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "99999"], "from 0 to 65535"),
        (["--port", "-1"], "from 0 to 65535"),
        (["--port", "http"], "'http' is no whole number"),
        (["--slots", "0"], "from 1 to 256"),
        (["--slots", "1000"], "from 1 to 256"),
        (["--context-tokens", "0"], "--context-tokens: is 0"),
        (["--threads", "0"], "--threads: is 0"),
        (["--model", "a.gguf", "--model", "b.gguf"], "--model is given twice"),
        (["--config", "a.toml", "--config", "b.toml"], "--config is given twice"),
        (["--config", "a.toml", "--slots", "2"], "--slots goes with --model"),
        (["--config", "a.toml", "--threads", "2"], "--threads goes with --model"),
        (["--config", "a.toml", "--", "-ngl", "1"], "-ngl: with --config, write"),
        (["--", "--port", "1"], "Paceline says where its engine listens"),
        (["--", "--host=::"], "Paceline says where its engine listens"),
        (["--llama-server", "embedded", "--", "--no-such-flag"], "--no-such-flag"),
        (["--llama-server", "/nowhere"], "there is no program '/nowhere'"),
        (["--host", "0.0.0.0"], "--insecure"),
        (["--host", ""], "server.host: is empty"),
        (["--host", "a..b"], "neither an address nor a host's name"),
        (["--model", "/"], "/ is a directory"),
        (["--model", "nowhere.gguf"], "there is no file"),
        (["--config", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--draft-model", "nowhere.gguf"], "there is no file nowhere.gguf"),
    ],
)
def test_slips_of_serve(words: Sequence[str], said: str, paceline: Paceline) -> None:
    done = paceline("serve", *words)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "serving" not in done.stdout


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("nofile.json", "there is no file nofile.json"),
        ("folder/request", "there is no file folder/request"),
        ("", "the prompt is empty"),
        ("  \n", "the prompt is empty"),
        ("[1,2]", "no object"),
        ("/", "is a directory"),
        ("{", "line 1"),
    ],
)
def test_what_explain_takes_for_no_request(request_: str, said: str, paceline: Paceline) -> None:
    done = paceline("explain", request_)
    assert done.returncode == 1
    assert said in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    "prompt", ["What is 1/2?", "Save it as data.json please", "[INST] hi", "42", "null", "x" * 5000]
)
def test_what_explain_takes_for_a_prompt(prompt: str, paceline: Paceline) -> None:
    assert paceline("explain", prompt).returncode == 0


@pytest.mark.parametrize("body", ["", "[1,2]", "17", '"hi"'])
def test_bodies_that_are_no_objects(body: str, paceline: Paceline, tmp_path: Path) -> None:
    (tmp_path / "request.json").write_text(body)
    for done in (paceline("explain", "-", stdin=body), paceline("explain", tmp_path / "request.json")):
        assert done.returncode == 1
        assert "object" in done.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:9", "localhost:9", "http://127.0.0.1:9/v1", "http://127.0.0.1:9/"])
def test_addresses_that_are_understood(url: str, paceline: Paceline) -> None:
    for command in (["lanes"], ["explain", "hi"], ["bench", "run", "--quick"]):
        done = paceline(*command, "--url", url)
        assert done.returncode == 1
        assert "http://" in done.stderr
        assert ":9" in done.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "http://", "a b", "ftp://127.0.0.1"])
def test_addresses_where_nothing_can_be(url: str, paceline: Paceline) -> None:
    done = paceline("lanes", "--url", url)
    assert done.returncode == 1
    assert url in done.stderr


def test_check_looks_at_programs_flags_and_models(paceline: Paceline, tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    model = small_model(tmp_path / "model.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(model.read_bytes()[:-100])

    def said(*launch: str) -> str:
        file.write_text(f'[[engine]]\nname = "a"\nkind = "llama.cpp"\nlaunch = {json.dumps(launch)}\n')
        done = paceline("check", "--config", file)
        assert done.returncode == (0 if "fine" in done.stdout else 1)
        return done.stdout + done.stderr

    here = f"{file}:4: engine[1].launch: "
    assert "fine, 1 engine;" in said("embedded", "-m", str(model), "--port", "{port}")
    assert here in said("embedded", "-m", str(model), "--port", "{port}", "--no-such-flag")
    assert said("embedded", "-m", str(tmp_path / "nowhere.gguf"), "--port", "{port}").count("there is no file") == 1
    assert "is cut short" in said("embedded", "-m", str(cut), "--port", "{port}")
    assert "is cut short" in said(sys.executable, f"--model={cut}", "--port", "{port}")
    assert "there is no program 'nosuch'" in said("nosuch", "--port", "{port}")


def test_check_says_what_becomes_of_v1(paceline: Paceline, tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text(FAR.replace(":9", ":9/v1"))
    assert "the /v1 at the end of its url is left off" in paceline("check", "--config", file).stdout


def test_a_port_that_is_taken(paceline: Paceline, tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file.write_text(f"[server]\nport = {port}\n{FAR}")
        done = paceline("serve", "--config", file)
    assert done.returncode == 1
    assert "another program listens there" in done.stderr
    assert f"--port {port + 1}" in done.stderr
    file.write_text(FAR)
    with Serving("--config", str(file), folder=tmp_path) as serving:
        done = paceline("serve", "--config", file, "--port", serving.port)
        assert "another Paceline runs there" in done.stderr
        assert 'make run ARGS="--port' in done.stderr


def test_all_engines_of_a_file_failed_for_good(paceline: Paceline, tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text('[[engine]]\nname = "a"\nkind = "openai"\nlaunch = ["nosuch", "{port}"]\n')
    done = paceline("serve", "--config", file, "--port", 0)
    assert done.returncode == 1
    assert "no engine can be started" in done.stdout
    assert "curl" not in done.stdout


class _Late(BaseHTTPRequestHandler):
    """An engine that lists one model, whose name has a colour in it."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.end_headers()
        self.wfile.write(b'{"object":"list","data":[{"id":"m\\u001b[31m"}]}')

    def log_message(self, *_: object) -> None:
        return


def test_nothing_is_up_until_an_engine_comes(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "paceline.toml"
    file.write_text(FAR.replace(":9", f":{port}"))
    with Serving("--config", str(file), folder=tmp_path) as serving:
        assert "NO ENGINE IS UP" in serving.said
        assert "curl" not in serving.said
        server = ThreadingHTTPServer(("127.0.0.1", port), _Late)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            serving.wait_for("curl")
        finally:
            server.shutdown()
            server.server_close()
        assert f"Anthropic  {serving.url}\n" in serving.said
        assert "\x1b" not in serving.said.partition("curl")[0]
        assert "slots of ?" not in serving.said
        command = next(line for line in serving.said.splitlines() if "bench run --quick" in line).partition("#")[0]
        program = command.partition(" run ")[0] + " --help"
        assert subprocess.run(program, shell=True, capture_output=True, check=False).returncode == 0


def test_a_file_with_a_missing_program_is_not_taken_up(paceline: Paceline, tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text(FAR)
    with Serving("--config", str(file), folder=tmp_path) as serving:
        file.write_text(FAR + '[[engine]]\nname = "a"\nkind = "openai"\nlaunch = ["nosuch", "{port}"]\n')
        done = paceline("reload", "--url", serving.url)
        assert done.returncode == 1
        assert f"{file}:8: engine[2].launch: there is no program 'nosuch'" in done.stderr
        assert [lane["lane"] for lane in serving.lanes()] == ["far"]


def test_keys_of_the_command_line(paceline: Paceline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text('[server]\napi_keys = ["client"]\nadmin_key = "env:PACELINE_TRIED"\n' + FAR)
    monkeypatch.setenv("PACELINE_TRIED", "boss")
    with Serving("--config", str(file), folder=tmp_path) as serving:
        url = ("--url", serving.url)
        assert paceline("lanes", *url).returncode == 1
        assert paceline("lanes", *url, PACELINE_API_KEY="boss").returncode == 0
        assert paceline("lanes", *url, PACELINE_API_KEY="wrong").returncode == 1
        assert paceline("lanes", *url, "--api-key", "env:PACELINE_TRIED").returncode == 0
        assert paceline("lanes", *url, "--config", file).returncode == 0
        done = paceline("lanes", *url, "--config", file, PACELINE_TRIED="")
        assert "PACELINE_TRIED is empty; set it here, too" in done.stderr


def test_top_ends_by_q(tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text(FAR)
    with Serving("--config", str(file), folder=tmp_path) as serving:
        outer, inner = pty.openpty()
        command = [sys.executable, "-m", "paceline", "top", "--url", serving.url]
        process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, close_fds=True)
        os.close(inner)
        try:
            shown = b""
            while b"lanes up" not in shown:
                shown += os.read(outer, 4096)
            os.write(outer, b"xq")
            deadline_s = time.monotonic() + PATIENCE_S
            while process.poll() is None and time.monotonic() < deadline_s:
                os.write(outer, b"q")
                time.sleep(0.1)
            assert process.poll() == 0
        finally:
            process.kill()
            process.wait()
            os.close(outer)


def test_bench_that_is_interrupted_shows_what_it_has(real_gateway: Serving, tmp_path: Path) -> None:
    results = tmp_path / "results.jsonl"
    command = [
        sys.executable,
        "-m",
        "paceline",
        "bench",
        "run",
        "--quick",
        "--max-tokens",
        "4",
        "--url",
        real_gateway.url,
    ]
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen([*command, "--results", str(results)], stdout=out, stderr=out)
        wait_until(lambda: results.exists() and results.read_bytes().count(b"\n") >= 8, within_s=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    said = (tmp_path / "out").read_text()
    assert "Traceback" not in said
    assert "stopped after" in said
    assert "of 36" in said  # how far it is, also without a terminal
    assert "--resume" in said


def test_a_checkout_runs_without_being_installed() -> None:
    hidden = (
        "import importlib.metadata as m, sys\n"
        "def gone(name): raise m.PackageNotFoundError(name)\n"
        "m.version = gone\n"
        "sys.argv = ['paceline', '--version']\n"
        "import runpy; runpy.run_module('paceline', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=False)
    assert done.stdout == "paceline from source\n"
    assert done.returncode == 0


def test_flags_behind_two_dashes_are_the_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--", "-5 or 5: which is more?"]) == 0
    assert "task" in capsys.readouterr().out


def test_flags_reach_the_engine(embedded_engine: EngineTable, tmp_path: Path) -> None:
    words = ("--llama-server", "embedded", "--slots", "1", "--context-tokens", "1024", "--", "--ctx-size", "512")
    with Serving(*words, folder=tmp_path) as serving:
        assert "1 slot of 512 tokens" in serving.said
        assert "1024" not in serving.said
        log = (tmp_path / "paceline" / "log" / "plain.log").read_text("utf-8", "replace")
        assert "--ctx-size 512" in log


def test_what_others_name_is_printed_in_bounds() -> None:
    assert shortened("a\x1b[31mb\nc") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c"
    assert len(shortened("x" * 10_000)) < 400


def test_an_engine_table_of_the_benchmarks_is_checked(paceline: Paceline, tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    file.write_text(engine("plain"))
    assert paceline("check", "--config", file).returncode == 0


@pytest.mark.parametrize(("size_bytes", "warns"), [(1 << 20, False), (1 << 42, True)])
def test_a_model_that_is_larger_than_the_memory(
    size_bytes: int, warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model_file(tmp_path / "model.gguf", tensors=[Tensor("output.weight", (size_bytes // 4,), 0, 0)])
    os.truncate(path, path.stat().st_size + size_bytes)
    parser = argparse.ArgumentParser()
    add_engine_options(parser)
    options = parser.parse_args(["--model", str(path), "--llama-server", "embedded", "--threads", "3"])
    configuration = configuration_of_model(options, {"port": 0})
    assert [one.name for one in configuration.engine] == ["plain", "ngram"]
    assert "--threads 3" in " ".join(configuration.engine[0].launch)
    said = capsys.readouterr().out
    assert "4 slots of" in said
    assert ("warning: its weights have 4398.0 GB" in said) is warns


class Running:
    """A gateway that is stopped from outside."""

    async def start(self) -> None:
        pass

    async def serve_forever(self) -> None:
        await asyncio.sleep(0.05)

    def ask_to_stop(self) -> None:
        pass


async def test_what_can_not_be_said_at_the_start_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> bool:
        raise BrokenPipeError("nobody reads it")

    monkeypatch.setattr(serve, "announce", broken)
    monkeypatch.setattr(serve, "calm_garbage_collector", lambda: None)
    assert await serve._serve(cast(Gateway, Running()), of_one_model=False) == 0
    assert "nobody reads it" in caplog.text
