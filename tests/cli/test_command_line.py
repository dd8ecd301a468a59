"""Names and complaints of the command line, and its reference."""

from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

import pytest

from paceline.cli import main
from paceline.cli.colour import Colour, painted
from paceline.cli.commands import command_parser
from paceline.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


def every_command(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from every_command(command)


def test_the_page_of_the_command_line_is_what_the_code_says() -> None:
    _, _, generated = PAGE.read_text().partition("<!-- generated: python -m paceline.cli.reference -->\n")
    assert generated.partition("<!-- end of generated -->")[0].strip() == reference().strip()


def test_the_reference_has_values_in_the_place_of_their_names() -> None:
    assert "%(" not in reference()


def test_every_argument_of_every_command_is_explained() -> None:
    for command in every_command(command_parser()):
        for action in command._actions:
            assert action.help or isinstance(action, _SubParsersAction), f"{command.prog} {action.dest}"
        assert command.description, command.prog


def test_a_configuration_has_one_name() -> None:
    """No command takes one by another name, or by none."""
    for command in every_command(command_parser()):
        for action in command._actions:
            says_configuration = "configuration" in (action.help or "").split(";")[0].split(",")[0]
            if says_configuration and action.type is Path:
                assert action.option_strings in (["--config"], ["--write"]), f"{command.prog} {action.option_strings}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serv"], "did you mean serve?"),
        (["bench", "--quick"], "there are: run, show, compare, lossless"),
        (["bench", "run", "--quik"], "did you mean --quick?"),
        (["serve", "paceline.toml"], "--config paceline.toml"),
        (["serve", "model.gguf"], "--model model.gguf"),
        (["lanes", "--", "-ngl", "9"], "only commands that start an engine"),
        (["bench", "run", "--temperature", "hot"], "is no list of numbers"),
        (["bench", "run", "--temperature", "-1"], "from 0 to 5"),
        (["bench", "run", "--concurrency", "0"], "from 1 to 1024"),
        (["bench", "run", "--rounds", "0"], "--rounds: is 0"),
        (["calibrate", "--seconds", "inf"], "above 0"),
        (["completion", "tcsh"], "choose from"),
        (["check"], "paceline check --config FILE"),
    ],
)
def test_a_complaint_says_what_was_meant(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_options_have_no_short_forms(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "--conf", "paceline.toml"])
    assert "--config" in capsys.readouterr().err


class Terminal:
    """A stream that says whether it is one."""

    def __init__(self, is_terminal: bool) -> None:
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize(
    ("is_terminal", "environment", "is_painted"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_that_have_them(
    is_terminal: bool, environment: dict[str, str], is_painted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"NO_COLOR": "", "FORCE_COLOR": "", "TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    text = painted("fine", Colour.GREEN, Terminal(is_terminal))  # type: ignore[arg-type]
    assert (text == "\x1b[32mfine\x1b[0m", text == "fine") == (is_painted, not is_painted)
