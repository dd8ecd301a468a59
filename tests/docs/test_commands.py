"""Every command of the README and the guides is run as it stands there, or is listed here with the reason why not; then
its words are read by the program's own parser, and a new one fails until it runs or has its reason."""

import json
import re
import runpy
import shlex
import signal
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.conftest import EngineTable, Serving, chat
from tests.docs.commands import ROOT, Command, commands
from tests.docs.stage import PORT, Stage
from tests.patient import PATIENCE_S

from paceline.cli.commands import command_parser
from paceline.routing.router import Router

NOT_RUN = {
    r"curl \S*/paceline/feedback .*": "needs several engines to place on; tests/serving/test_placing.py has them",
    r"make .*": "installs, or runs these tests; `.ci/run` does, and tests/test_docs.py looks for the targets",
    r"(?:\S*bin/)?pip .*|pipx .*|uvx .*": "installs; tests/test_packaging.py does so from the wheel",
    r"docker .*|export .*": "needs a container engine",
    r"vllm .*": "needs vLLM",
    r"\S*serve run .*": "needs Ray; `make test-ray` runs it",
    r"gh .*": "needs a release",
    r"sudo .*": "needs root's systemd",
    r"paceline check": "names the command, which wants a file",
    r"paceline engine build": "builds for minutes; `make test-engines` does",
    r"paceline endpoint-picker.*": "`make test-picker` runs a picker",
    r"paceline lanes --url http://127.0.0.1:9090": "`make test-picker` runs a picker",
    r"paceline bench (?:calibrate|lossless)|paceline calibrate": "takes a minute or more; tests/bench has short ones",
    r"paceline bench run(?! --workload).*": "takes two minutes or more; tests/bench has short ones",
    r"\S*python -m benchmarks\.(?!planning\.speed).*": "measures for minutes",
    r"\S*python -m training\..*": "needs the packages of training",
    r"python3 FOLDER/on_the_gpu\.pyz.*": "needs an H100 or H200",
    r"paceline explain --running|paceline serve --model": "names an option, without what it needs",
}
"""Why a command is not run, by what matches the whole of it."""
INCOMPLETE = ("paceline explain --running", "paceline serve --model")
ELSEWHERE = ("benchmarks.scale.ray_router", "training.task_model")
"""Modules whose packages are not in this environment."""
TELLS = r"paceline doctor.*|python scripts/release_notes.py .*"
"""Commands whose exit status is 1 where they find something."""
BENCH = "paceline bench run --workload mine.jsonl --max-tokens 8 --rounds 1 --teach 0"
FIRST = {
    "paceline service uninstall": "paceline service install --config paceline.toml",
    "paceline bench show before.jsonl": f"{BENCH} --results before.jsonl --url http://127.0.0.1:{PORT}",
    "paceline bench compare before.jsonl after.jsonl": (
        f"{BENCH} --results before.jsonl --url http://127.0.0.1:{PORT} && cp before.jsonl after.jsonl"
    ),
}
"""What has to be done before a command."""
CHECKED, UNCHECKED = (
    "checked by a dry run of llama.cpp b11434, 0.2 s",
    "by formulas alone; `paceline engine build` has them checked",
)
"""A plan shows the former where an engine was built, and here none is."""


def _reason(command: Command) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, command.text)), None)


def _complaint(text: str) -> str | None:
    """What the real parser says of a command line that is wrong."""
    words = shlex.split(text.partition(" paceline ")[2] or text.removeprefix("paceline "))
    with redirect_stderr(StringIO()) as said:
        try:
            command_parser().parse_args(words[: words.index("--")] if "--" in words else words)
        except SystemExit:
            return said.getvalue()
    return None


def _is_name(text: str) -> bool:
    """Whether it only names a command that needs arguments."""
    return bool(re.fullmatch(r"paceline(?: [a-z][a-z-]*)+", text)) and " required" in (_complaint(text) or "")


COMMANDS = commands()
READ = [command for command in COMMANDS if _reason(command)]
RUN = [command for command in COMMANDS if not _reason(command) and not _is_name(command.text)]
SERVED = [command for command in RUN if re.match(r"paceline serve\b(?! --help)", command.text)]
ENDED = [command for command in RUN if command not in SERVED]


def each(of: list[Command]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("command", of, ids=[f"{one.page}: {one.text[:60]}" for one in of])


@pytest.fixture(scope="module")
def stage(embedded_engine: EngineTable, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage.set_up(tmp_path_factory.mktemp("stage"), model) as one:
        yield one


@each(ENDED)
def test_a_command_does_what_its_page_says(command: Command, stage: Stage, tmp_path: Path) -> None:
    if first := FIRST.get(command.text):
        done = stage.run(first, tmp_path)
        assert done.returncode == 0, done.stderr
    done = stage.run(command.text, tmp_path, command.page)
    said = done.stdout + done.stderr
    assert done.returncode in ((0, 1) if re.fullmatch(TELLS, command.text) else (0,)), said
    assert "Traceback" not in said
    printed = _shape(done.stdout)
    for line in _shape(command.shown.replace(CHECKED, UNCHECKED)):
        assert line == "..." or any(one.startswith(line) for one in printed), f"{line}\n{said}"


def _shape(text: str) -> list[str]:
    """Its lines, whatever their numbers are, and whatever room these take."""
    return [" ".join(re.sub(r"[0-9][0-9.,]*", "?", line).split()) for line in text.splitlines()]


@each(SERVED)
def test_a_gateway_is_served_as_its_page_says(
    command: Command, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.give_files(command.text, tmp_path)
    monkeypatch.chdir(tmp_path)
    with Serving(*shlex.split(command.text)[2:], folder=tmp_path) as gateway:  # on a port that is free
        answer = httpx2.post(f"{gateway.url}/v1/chat/completions", json=chat(max_tokens=4), timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(PATIENCE_S) == 0, gateway.said


@each(READ)
def test_a_command_that_is_not_run_can_be_read(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command.text)
    options = [word for word in words if word.startswith("--")]
    if re.match(r"(?:sudo )?paceline |uvx ", command.text):
        assert command.text in INCOMPLETE or _complaint(command.text) is None
    elif module := re.search(r"python -m (\S+)", command.text):
        assert find_spec(module[1])
        if options and module[1] not in ELSEWHERE:
            said = _help(module[1], monkeypatch)
            assert all(re.search(rf"{option}\b", said) for option in options), said
    elif extras := re.search(r"paceline\[([\w,-]+)\]", command.text):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()
    else:
        assert subprocess.run(["bash", "-n", "-c", command.text], check=False).returncode == 0


def _help(module: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with redirect_stdout(StringIO()) as said, pytest.raises(SystemExit):
        runpy.run_module(module, run_name="__main__")
    return said.getvalue()


def test_nothing_is_listed_that_no_page_has() -> None:
    texts = [command.text for command in COMMANDS]
    for pattern in (*NOT_RUN, *map(re.escape, (*FIRST, *INCOMPLETE))):
        assert any(re.fullmatch(pattern, text) for text in texts), pattern


# Programs


def test_the_gateway_runs_inside_another_program(stage: Stage, tmp_path: Path) -> None:
    """The program of the page on how it works."""
    program = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "how-it-works.md").read_text(), re.DOTALL)
    assert program
    (tmp_path / "program.py").write_text(program[1])
    (tmp_path / "paceline.toml").write_text(f"server.port = 0\n{stage.engine}")
    process = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert json.loads(process.stdout.readline())["object"] == "list"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)


def test_a_router_of_ones_own_shares(tmp_path: Path) -> None:
    """The lines of the page on sharing, with a folder in the place of the Redis."""
    page, store = (ROOT / "docs" / "sharing.md").read_text(), "redis://127.0.0.1:6379/0"
    lines = textwrap.dedent(re.findall(r"(?:^    .*\n|^\n)+", page, re.MULTILINE)[-1])
    assert store in lines
    names: dict[str, Any] = {"router": Router([])}
    exec(compile(lines.replace(store, str(tmp_path)), "sharing.md", "exec"), names)
    assert names["sharer"]
