"""What all commands share: where the state is kept."""

from pathlib import Path

import pytest

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
