"""What all commands share: where the state is kept, and what is said of what takes long."""

import threading
from pathlib import Path

import pytest
from tests.patient import PATIENCE_S

from paceline.cli import common
from paceline.paths import state_directory


@pytest.mark.parametrize("given", [None, "", "state", "./state"])
def test_a_state_directory_is_the_same_from_every_folder(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_STATE_HOME", given)
    assert state_directory() == Path("/home/a/.local/state/paceline")


def test_a_user_who_has_no_home_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_none(_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(has_none))
    assert state_directory() == Path("/.local/state/paceline")


def test_what_takes_long_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(common, "TELL_AFTER_S", 0.01)
    said = threading.Event()

    def say(text: str) -> None:
        print(text)
        said.set()

    monkeypatch.setattr(common, "say", say)
    with common.said_while("reading the log"):
        assert said.wait(PATIENCE_S)
    assert capsys.readouterr().out.startswith("reading the log ... 0 s")


def test_what_takes_no_time_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    with common.said_while("reading the log"):
        pass
    assert capsys.readouterr().err == ""
