"""The tools of docs/tools.md, set up as that page says, do their work before the real gateway and engine."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
from gguf import GGUFReader
from msgspec import Struct
from tests.conftest import Serving

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PAGE = (ROOT / "docs" / "tools.md").read_text()
INSTALLED = ROOT / ".venv-clients"
"""What ``make test-clients`` installs: the libraries and Node.js, ``aider/``, and ``npm/`` with ``node_modules``."""
URL = "http://127.0.0.1:8080"
"""As the page writes the gateway's address."""
PROGRAMS = {"sh": ("bash", "-eu"), "python": (str(INSTALLED / "bin" / "python"),), "js": ("node",)}
TIMEOUT_S = 400.0
"""For one tool. The slowest took 131 s, on two processor cores under a load of 8."""
MAX_ANSWER_TOKENS = "96"
"""Should a sentence not end. Claude Code asks for 32,000 tokens unless it is told."""
OWN_NETWORK = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
}
"""Tools reach the gateway and nothing else, whatever they would like to report."""

pytestmark = pytest.mark.clients


class Guide(Struct):
    """A section of the page."""

    tool: str
    files: dict[str, str]
    language: str
    program: str


def _guides() -> Iterator[Guide]:
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        blocks = re.findall(r"^```(\w+) title=\"([^\"]+)\"\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        runs = [(language, text) for language, title, text in blocks if title == "run"]
        if runs:
            files = {title: text for _, title, text in blocks if title != "run"}
            yield Guide(section.splitlines()[0], files, *runs[0])


GUIDES = list(_guides())


def _model_of_one_sentence(model: Path, folder: Path) -> Path:
    """A copy of the model, to which a full stop ends its turn, too.

    A model of 135M weights does not always find an end, and tools that see an answer cut off ask it to go on.
    """
    file = shutil.copyfile(model, folder / "one-sentence.gguf")
    fields: dict[str, Any] = GGUFReader(file, "r+").fields
    end_of_turn = fields["tokenizer.ggml.eos_token_id"].parts[-1]
    end_of_turn[0] = fields["tokenizer.ggml.tokens"].contents().index(".")
    return file


@pytest.fixture(scope="module")
def gateway(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("gateway")
    words = ("--llama-server", "embedded", "--model", str(_model_of_one_sentence(model, folder)), "--slots", "1")
    with Serving(*words, "--", "--predict", MAX_ANSWER_TOKENS, folder=folder) as serving:
        yield serving


def _requests(gateway: Serving, after: int = 0) -> list[dict[str, Any]]:
    with urlopen(f"{gateway.url}/paceline/requests?after={after}") as answer:
        rows: list[dict[str, Any]] = json.load(answer)["requests"]
    return rows


def _end_processes_at_home(home: Path) -> None:
    """Ends all processes that live in a home, such as the daemon that Cline leaves behind."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("HOME") == str(home):
                process.kill()


def test_the_page_has_the_tools_that_people_use() -> None:
    for tool in (
        "Claude Code",
        "Codex",
        "opencode",
        "Qwen Code",
        "Cline",
        "Continue",
        "aider",
        "LangChain",
        "LlamaIndex",
    ):
        assert any(tool in guide.tool for guide in GUIDES), tool


def test_the_page_names_the_versions_that_are_installed() -> None:
    packages: dict[str, str] = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    aider = (FOLDER / "requirements-aider.txt").read_text().strip().removeprefix("aider-chat==")
    named = re.findall(r"^\| [^|]+ (\d+\.\d+\.\d+) \|", PAGE, re.MULTILINE)
    assert named
    assert set(named) <= {aider, *packages.values()}


@pytest.mark.parametrize("guide", GUIDES, ids=[guide.tool for guide in GUIDES])
def test_a_tool_set_up_as_the_page_says_is_answered(guide: Guide, gateway: Serving, tmp_path: Path) -> None:
    before = max((row["number"] for row in _requests(gateway)), default=0)
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (work / "node_modules").symlink_to(INSTALLED / "npm" / "node_modules")
    for name, text in guide.files.items():
        file = home / name.removeprefix("~/") if name.startswith("~/") else work / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(URL, gateway.url))
    program = work / {"sh": "run.sh", "python": "run.py", "js": "run.mjs"}[guide.language]
    program.write_text(guide.program.replace(URL, gateway.url))
    places = [INSTALLED / "npm" / "node_modules" / ".bin", INSTALLED / "aider" / "bin", INSTALLED / "bin"]
    path = os.pathsep.join([*map(str, places), os.environ["PATH"]])
    environment = {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8", "DO_NOT_TRACK": "1", **OWN_NETWORK}
    environment["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = MAX_ANSWER_TOKENS
    out, errors = tmp_path / "stdout", tmp_path / "stderr"
    with out.open("wb") as to_out, errors.open("wb") as to_errors:  # files: what is left running would hold a pipe open
        tool = subprocess.Popen(
            [*PROGRAMS[guide.language], program.name],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=to_out,
            stderr=to_errors,
        )
    try:
        ended = tool.wait(TIMEOUT_S)
    finally:
        _end_processes_at_home(home)
    answer = out.read_text()
    said = f"{answer}\n{errors.read_text()}"
    assert ended == 0, said
    rows = _requests(gateway, before)
    served = [row for row in rows if row["status"] == 200]
    assert served, f"{rows}\n{said}"
    assert len(answer.strip()) > 1, said
    assert served[0] == rows[0], "the first request is answered; a model so small may then fill its context"
    assert all(row["status"] in (200, 400, 499) for row in rows), rows
