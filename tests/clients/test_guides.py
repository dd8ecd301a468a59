"""The tools of docs/tools.md, set up as that page says, do their work before the real gateway and engine."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from msgspec import Struct
from tests.conftest import Serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tools.md").read_text()
INSTALLED = ROOT / ".venv-clients"
"""What ``make test-clients`` installs: the libraries and Node.js, ``aider/``, and ``npm/`` with ``node_modules``."""
URL = "http://127.0.0.1:8080"
"""As the page writes the gateway's address."""
PROGRAMS = {"sh": ("bash", "-eu"), "python": (str(INSTALLED / "bin" / "python"),), "js": ("node",)}
TIMEOUT_S = 900.0
CONTEXT_TOKENS = 10_240
"""Qwen Code's first request has 9,000 tokens."""
MAX_ANSWER_TOKENS = "96"
"""A model of 135M weights does not always find an end. Claude Code asks for 32,000 tokens unless it is told."""
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


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("gateway")
    words = ("--slots", "1", "--context-tokens", str(CONTEXT_TOKENS), "--", "--predict", MAX_ANSWER_TOKENS)
    with Serving(*words, folder=folder) as serving:
        yield serving


def _requests(gateway: Serving, after: int = 0) -> list[dict[str, Any]]:
    with urlopen(f"{gateway.url}/paceline/requests?after={after}") as answer:
        rows: list[dict[str, Any]] = json.load(answer)["requests"]
    return rows


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
    ended = subprocess.run(
        [*PROGRAMS[guide.language], program.name],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = f"{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, said
    rows = _requests(gateway, before)
    served = [row for row in rows if row["status"] == 200]
    assert served, f"{rows}\n{said}"
    assert len(ended.stdout.strip()) > 1, said
    assert served[0] == rows[0], "the first request is answered; a model so small may then fill its context"
    assert all(row["status"] in (200, 400, 499) for row in rows), rows
