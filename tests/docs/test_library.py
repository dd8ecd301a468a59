"""The program on the page about the library runs as it stands there, and does what the page says."""

import re
from pathlib import Path

import pytest

import paceline

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found, language
    return found[1]


def test_the_program_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python"), "library.md", "exec"), {})
    printed, shown = capsys.readouterr().out, block("text")
    assert printed.endswith(shown)
    again = paceline.Router([])
    again.load("learned.sqlite")
    assert again.knowledge.measured.keys() == {("plain", "plain"), ("ngram", "ngram")}


def test_the_names_on_the_page_are_there() -> None:
    for name in re.findall(r"`(?:router|Router)\.(\w+)", PAGE):
        assert hasattr(paceline.Router([]), name), name
    for name in ("RoutingSettings", "Rule", "LaneState", "Policy", "Task"):
        assert name in PAGE
        assert name in paceline.__all__
