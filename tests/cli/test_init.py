"""`paceline init` on machines that have this and that; what it writes is read again by `check`."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.answering import answering
from tests.model_files import small_model
from tests.patient import PATIENCE_S

from paceline.cli import main
from paceline.configuration import load
from paceline.discovery import running_engines
from paceline.settings import CloudEngineSettings, LocalEngineSettings

CTRL_C = "\x03"


def listing(owner: str | None, **more: Any) -> dict[str, Any]:
    entry = {"id": "m", "object": "model"} | ({"owned_by": owner} if owner else {})
    return {"/v1/models": {"object": "list", "data": [entry]}, **more}


ENGINES: Mapping[str, tuple[dict[str, Any], str]] = {
    "llama.cpp": (listing("llamacpp"), "llama.cpp"),
    "vllm": (listing("vllm"), "uvicorn"),
    "sglang": (listing("sglang"), "uvicorn"),
    "tabbyapi": (listing("tabbyAPI"), "uvicorn"),
    "lmstudio": (listing("organization_owner"), "Express"),
    "ollama": (listing("library", **{"/": b"Ollama is running"}), ""),
    "mlx-lm": (listing(None), "BaseHTTP/0.6 Python/3.12"),
    "openai": (listing("somebody"), "nginx"),
}


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs, no keys, an empty home and folder."""
    monkeypatch.setattr(running_engines, "USUAL_PORTS", ())
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("cache", "state"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name in ("HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE"):
            monkeypatch.delenv(name)
    monkeypatch.setattr("paceline.cli.init._bundled_is_there", lambda: False)
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")


def test_every_kind_of_engine_is_known_by_what_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        urls = {
            kind: stack.enter_context(answering(documents, server=server))
            for kind, (documents, server) in ENGINES.items()
        }
        gateway = stack.enter_context(answering(listing("paceline") | {"/health": {"lanes": {}}}))
        ports = tuple(int(url.rpartition(":")[2]) for url in (*urls.values(), gateway))
        monkeypatch.setattr(running_engines, "USUAL_PORTS", ports)
        assert main(["init"]) == 0
        assert main(["check", "--config", "paceline.toml"]) == 0
    found = {engine.kind: engine.url for engine in load(Path("paceline.toml")).engine}
    assert found == urls
    assert "fine, 8 engines" in capsys.readouterr().out


def test_a_file_stays_unless_it_is_to_go(capsys: pytest.CaptureFixture[str]) -> None:
    Path("paceline.toml").write_text("# mine")
    with answering(listing("vllm")) as url:
        assert main(["init", "--engine", url]) == 1
        assert Path("paceline.toml").read_text() == "# mine"
        assert "--force" in capsys.readouterr().err
        assert main(["init", "--engine", url, "--force"]) == 0
        assert main(["init", "--engine", url, "--write", "other/paceline.toml"]) == 0
    assert load(Path("paceline.toml")).engine[0].kind == "vllm"
    assert load(Path("other/paceline.toml")).engine[0].kind == "vllm"


def test_where_there_is_nothing_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["init"]) == 1
    assert "--model FILE" in capsys.readouterr().err
    folder = tmp_path / "home" / ".lmstudio" / "models" / "publisher" / "qwen"
    folder.mkdir(parents=True)
    small_model(folder / "qwen.gguf")
    monkeypatch.setattr("paceline.discovery.model_files.MIN_BYTES", 100)
    assert main(["init"]) == 1
    assert f"paceline init --model {folder}/qwen.gguf" in capsys.readouterr().err
    assert not Path("paceline.toml").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "127.0.0.1:9"], "no engine answers at http://127.0.0.1:9"),
        (["--engine", "http://"], "names no host"),
        (["--model", "nowhere.gguf"], "there is no file"),
        (["--write", "."], "is a directory"),
        (["--cloud", "openai=m"], "export OPENAI_API_KEY=... first"),
    ],
)
def test_slips(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["init", *words]) == 1
    assert said in capsys.readouterr().err
    assert not Path("paceline.toml").exists()


@pytest.mark.parametrize(
    ("documents", "status", "said"),
    [
        ({"/v1/models": {"error": "no key"}}, 401, "wants a key"),
        ({"/v1/models": {}}, 200, "lists no models"),
        ({"/health": {"lanes": {}}}, 200, "a Paceline gateway answers"),
    ],
)
def test_what_answers_is_no_engine_to_use(
    documents: dict[str, Any], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(documents, status) as url:
        assert main(["init", "--engine", url]) == 1
    assert said in capsys.readouterr().err
    assert not Path("paceline.toml").exists()


@pytest.mark.parametrize(
    ("word", "said"), [("nobody=m", "known are openai"), ("openai", "names no model"), ("openai=,", "names no model")]
)
def test_slips_in_providers(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["init", "--cloud", word])
    assert said in capsys.readouterr().err


def test_a_model_is_served_as_serve_would() -> None:
    model = small_model(Path("a model.gguf"))
    assert main(["init", "--model", str(model), "--llama-server", sys.executable, "--slots", "2"]) == 0
    plain, ngram = load(Path("paceline.toml")).engine
    assert isinstance(plain, LocalEngineSettings)
    assert plain.launch[:3] == (sys.executable, "--model", str(model.absolute()))
    assert ngram.strategy == "ngram"
    assert main(["check", "--config", "paceline.toml"]) == 0


def test_keys_of_providers_are_named_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    with answering(listing("vllm")) as url:
        assert main(["init", "--engine", url, "--cloud", "openai=gpt-5.5, gpt-5.5-mini"]) == 0
    text = Path("paceline.toml").read_text()
    assert "sk-secret" not in text
    assert '# api_key = "env:ANTHROPIC_API_KEY"' in text
    _, cloud = load(Path("paceline.toml")).engine
    assert isinstance(cloud, CloudEngineSettings)
    assert cloud.models == ("gpt-5.5", "gpt-5.5-mini")
    assert main(["check", "--config", "paceline.toml"]) == 0


def test_others_get_in_with_a_key_alone() -> None:
    with answering(listing("vllm")) as url:
        assert main(["init", "--engine", url, "--open", "--port", "9999"]) == 0
        key = Path("paceline.key")
        assert key.stat().st_mode & 0o077 == 0
        before = key.read_text()
        assert main(["init", "--engine", url, "--open", "--force"]) == 0
        assert key.read_text() == before
    server = load(Path("paceline.toml")).server
    assert server.host == "0.0.0.0"
    assert server.api_keys == (f"file:{key.absolute()}",)
    assert len(before.strip()) > 30


def test_it_takes_no_port_that_an_engine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(listing("llamacpp")) as url:
        port = int(url.rpartition(":")[2])
        usual = type("Usual", (), {"server": type("Server", (), {"port": port})})
        monkeypatch.setattr("paceline.cli.init.Configuration", usual)
        assert main(["init", "--engine", url]) == 0
    assert load(Path("paceline.toml"), here=False).server.port > port


@pytest.mark.slow
def test_it_asks_where_there_is_a_terminal() -> None:
    Path("paceline.toml").write_text("# mine")
    model = small_model(Path("model.gguf"))
    said, status = in_a_terminal(
        ["init", "--llama-server", sys.executable],
        [
            ("Overwrite it? [y/N]", "y"),
            ("Which model shall Paceline start?", str(model)),
            ("Models of OpenAI to use", "gpt-5.5"),
            ("Shall other machines reach it", ""),
        ],
        OPENAI_API_KEY="sk-secret",
    )
    assert status == 0, said
    assert "wrote paceline.toml" in said
    assert [engine.name for engine in load(Path("paceline.toml"), here=False).engine] == ["plain", "ngram", "openai"]


@pytest.mark.slow
def test_no_is_an_answer() -> None:
    Path("paceline.toml").write_text("# mine")
    said, status = in_a_terminal(["init"], [("Overwrite it?", "")])
    assert status == 1
    assert "stays as it is" in said
    assert Path("paceline.toml").read_text() == "# mine"


@pytest.mark.slow
def test_ctrl_c_at_a_question_leaves_nothing() -> None:
    said, status = in_a_terminal(["init"], [("Which model shall Paceline start?", CTRL_C)])
    assert status == 130
    assert "Traceback" not in said
    assert not Path("paceline.toml").exists()


def in_a_terminal(words: list[str], answers: list[tuple[str, str]], **environment: str) -> tuple[str, int]:
    """What a command prints in a terminal when each question gets its answer, and its exit status. No engine is looked
    for: what runs on the usual ports of this machine is not the test's."""
    ours, theirs = pty.openpty()
    program = "import sys; from paceline.discovery import running_engines; running_engines.USUAL_PORTS = ()\n"
    program += (
        "from paceline.cli import init, main; init._bundled_is_there = lambda: False; sys.exit(main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | environment | {"TERM": "dumb"},
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    said, left, until_s, pressed_s = "", list(answers), time.monotonic() + PATIENCE_S, 0.0
    while time.monotonic() < until_s:
        ready, _, _ = select.select([ours], [], [], 0.1)
        if ready:
            try:
                data = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            said += data.decode("utf-8", "replace")
        if left and left[0][0] in said and left[0][1] != CTRL_C:
            os.write(ours, left.pop(0)[1].encode() + b"\n")
        elif left and left[0][0] in said and time.monotonic() - pressed_s > 2.0:
            os.write(ours, CTRL_C.encode())  # one that comes just before the answer is waited for is lost: press again
            pressed_s = time.monotonic()
    assert all(answer == CTRL_C for _, answer in left), said
    status = process.wait(PATIENCE_S)
    os.close(ours)  # which hangs up on who is still there
    return said, status


def _take_terminal() -> None:
    """Make it the process's own, so that Ctrl-C in it is a signal; programs in the background ignore that one."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
