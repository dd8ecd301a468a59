"""The program on the page about the library runs as it stands there, and does what the page says."""

import re
from pathlib import Path

import pytest

import paceline

NUMBER = re.compile(r"[0-9]+\.[0-9]+")
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
    printed, shown = capsys.readouterr().out.splitlines()[-2:], block("text").splitlines()
    assert [NUMBER.sub("?", line) for line in printed] == [NUMBER.sub("?", line) for line in shown]
    for line, other in zip(printed, shown, strict=True):
        numbers = [[float(number) for number in NUMBER.findall(each)] for each in (line, other)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.1), "tuning may change them a little"
    again = paceline.Router([])
    again.load("learned.sqlite")
    assert again.knowledge.measured.keys() == {("plain", "plain"), ("ngram", "ngram")}


def test_the_names_on_the_page_are_there() -> None:
    for name in re.findall(r"`(?:router|Router)\.(\w+)", PAGE):
        assert hasattr(paceline.Router([]), name), name
    for name in ("RoutingSettings", "Rule", "LaneState", "Policy", "Task"):
        assert name in PAGE
        assert name in paceline.__all__
