"""What is released: wheel and sdist are built, installed into fresh environments, and answer a first request; and the
workflow that does so for a release."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from scripts.release_notes import NotReady, release_notes
from tests.answering import answering
from tests.patient import PATIENCE_S

ROOT = Path(__file__).parents[1]
PROJECT: Mapping[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT = "PACELINE_DIST"
"""A folder with wheel and sdist that were built already."""
BIN = "Scripts" if sys.platform == "win32" else "bin"


def run(*words: object, cwd: Path | None = None, **environment: str) -> str:
    """What a program prints; it has to succeed."""
    command = [str(word) for word in words]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    done = subprocess.run(
        command, cwd=cwd, env=clean | environment, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def environment_with(folder: Path, *packages: object) -> Path:
    """The programs of a fresh environment; skips the test where packages can't be had."""
    run(sys.executable, "-m", "venv", folder)
    words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *map(str, packages)]
    done = subprocess.run([folder / BIN / "python", *words], capture_output=True, text=True, timeout=500, check=False)
    if "Could not find a version" in done.stderr or "Connection" in done.stderr:
        pytest.skip(f"no package index: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder / BIN


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist."""
    if given := os.environ.get(BUILT):
        return Path(given).absolute()
    folder = tmp_path_factory.mktemp("build")
    programs = environment_with(folder / "environment", *_build_requirements())
    run(programs / "python", "-m", "hatchling", "build", "-d", folder / "dist", cwd=ROOT)
    return folder / "dist"


def _build_requirements() -> list[str]:
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    return list(system["requires"])


@pytest.fixture(scope="module")
def programs(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment in which the wheel is installed."""
    (wheel,) = dist.glob("*.whl")
    return environment_with(tmp_path_factory.mktemp("installed"), f"{wheel}[serve]")


@pytest.mark.slow
def test_the_wheel_has_what_the_source_has(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("paceline/")}
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "src/paceline", cwd=ROOT)
    source = {name.removeprefix("src/") for name in tracked.split() if (ROOT / name).exists()}
    assert names == source
    assert "paceline/py.typed" in names


@pytest.mark.slow
def test_the_sdist_builds_and_has_no_more_than_it_should(dist: Path, tmp_path: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "src/paceline/py.typed"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", "tests"))]


@pytest.mark.slow
def test_an_installation_answers_its_first_request(programs: Path, tmp_path: Path) -> None:
    assert run(programs / "paceline", "--version").strip() == f"paceline {PROJECT['version']}"
    answer = {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]}
    documents = {"/v1/models": {"data": [{"id": "m"}]}, "/v1/chat/completions": answer}
    with answering(documents) as url:
        home = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
        run(programs / "paceline", "init", "--engine", url, "--yes", cwd=tmp_path, **home)
        run(programs / "paceline", "check", "--config", "paceline.toml", cwd=tmp_path, **home)
        port = json.loads(run(programs / "python", "-c", FREE_PORT))
        process = subprocess.Popen(
            [programs / "paceline", "serve", "--config", "paceline.toml", "--port", str(port)],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | home,
            stdout=subprocess.DEVNULL,
        )
        try:
            asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            assert first_answer(f"http://127.0.0.1:{port}/v1/chat/completions", asked) == answer
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 0


FREE_PORT = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"


def first_answer(url: str, body: Mapping[str, Any]) -> Any:
    until_s = time.monotonic() + PATIENCE_S
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError):  # it is not there yet, or its engine is not
            assert time.monotonic() < until_s
            time.sleep(0.1)


@pytest.mark.slow
def test_every_command_of_an_installation_has_its_help(programs: Path, tmp_path: Path) -> None:
    listed = re.findall(r"^    ([a-z]+) ", run(programs / "paceline", "--help"), re.MULTILINE)
    assert {"serve", "init", "doctor", "service", "bench"} <= set(listed)
    for command in listed:
        assert f"usage: paceline {command}" in run(programs / "paceline", command, "--help", cwd=tmp_path)
    assert "complete -" in run(programs / "paceline", "completion", "bash")


CHANGELOG = """# Changelog

## [Unreleased]

- next

## [0.2.0] - 2026-12-01

### Added

- a thing

## [0.1.0] - 2026-11-26

- the first
"""


def test_the_notes_of_a_release_are_its_section() -> None:
    assert release_notes("0.2.0", CHANGELOG, "0.2.0") == "### Added\n\n- a thing"
    assert release_notes("0.1.0", CHANGELOG, "0.1.0") == "- the first"


@pytest.mark.parametrize(
    ("version", "changelog", "said"),
    [
        ("0.3.0", CHANGELOG, "pyproject.toml has the version 0.2.0"),
        ("0.2.0", CHANGELOG.replace("[0.2.0]", "[0.2.1]"), "no section"),
        ("0.2.0", CHANGELOG.replace(" - 2026-12-01", ""), "needs a date"),
        ("0.2.0", CHANGELOG.replace("### Added\n\n- a thing\n", ""), "is empty"),
    ],
)
def test_what_keeps_a_release_back(version: str, changelog: str, said: str) -> None:
    with pytest.raises(NotReady, match=re.escape(said)):
        release_notes(version, changelog, "0.2.0")


def test_the_changelog_is_in_its_form() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading), heading


def test_pythons_are_the_same_everywhere() -> None:
    """In the classifiers, the workflows, and what an installation wants."""
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={classified[0]}"
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        for matrix in re.findall(r"python: \[(.+)\]", workflow.read_text()):
            assert re.findall(r"3\.\d+", matrix) == classified, workflow.name


def test_extras_are_explained() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    extras = PROJECT["optional-dependencies"]
    assert not [extra for extra in extras if extra not in ("dev", "serve") and f"paceline[{extra}]" not in page]
    for package in extras["serve"]:
        assert f"[{re.split('[><=;]', package)[0].strip()}](https://" in page, package
