"""What shells complete, by the scripts that are in the places that the help of ``paceline completion`` names."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.patient import PATIENCE_S

from paceline.cli import main

TYPED = [
    ("paceline do", {"doctor"}),
    ("paceline bench ", {"run", "show", "compare", "lossless", "calibrate"}),
    ("paceline bench run --qu", {"--quick"}),
    ("paceline bench calibrate --llama-s", {"--llama-server"}),
    ("paceline completion ", {"bash", "zsh", "fish"}),
    ("paceline check --config ~/.pac", {".paceline.toml"}),
]
"""A line before the tab key is pressed, and what has to be offered."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Of a user who has a configuration there, and a program of this name to complete for."""
    (tmp_path / ".paceline.toml").touch()
    program = tmp_path / "bin" / "paceline"
    program.parent.mkdir()
    program.touch(0o755)
    return tmp_path


def written(file: Path, shell: str, capsys: pytest.CaptureFixture[str]) -> Path:
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(capsys.readouterr().out)
    return file


def said(home: Path, *command: str) -> str:
    """By a shell at this user's, who has no other settings."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    environment = {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}", "TERM": "dumb", "LC_ALL": "C"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment, cwd=home
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def words(text: str) -> set[str]:
    """Of files, the last part of their names."""
    return {word.rpartition("/")[2] for word in text.split()}


BASH = """
source "$0"
COMP_LINE=$1; COMP_POINT=${#COMP_LINE}
read -ra COMP_WORDS <<< "${1/#\\~/$HOME}"; [[ $1 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
read -r _ _ name _ <<< "$(complete -p paceline | sed 's/.* -F //; s/^/x x /')"
"$name" paceline "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(("typed", "wanted"), TYPED)
def test_bash_completes(typed: str, wanted: set[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = written(home / "paceline.bash", "bash", capsys)
    offered = words(said(home, "bash", "-c", BASH, str(script), typed.replace("~", str(home))))
    assert wanted <= offered
    begun = typed.rpartition(" ")[2].rpartition("/")[2]
    assert all(word.startswith(begun) for word in offered)


ZSHRC = """
fpath=(~/.zsh/completions $fpath)
autoload -Uz compinit; compinit -D -u
show() { print -r -- "<typed $BUFFER>" }
zle -N show; bindkey '^O' show
PS1='ready> '
"""
"""With a key that shows what the line is now."""
ZSH = """
zmodload zsh/zpty
zpty shell zsh -d -i
zpty -r -m shell before '*ready> *'
zpty -w -n shell "$0"$'\\t\\x0f'
zpty -r -m shell after '*<typed *>*'
print -r -- $after
zpty -d shell
"""


@pytest.mark.parametrize(("typed", "wanted"), TYPED)
def test_zsh_completes(typed: str, wanted: set[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a terminal, where the tab key is pressed."""
    written(home / ".zsh" / "completions" / "_paceline", "zsh", capsys)
    (home / ".zshrc").write_text(ZSHRC)
    offered, _, line = said(home, "zsh", "-f", "-c", ZSH, typed).rpartition("<typed ")
    if len(wanted) > 1:
        assert wanted <= words(offered)
    else:
        assert wanted == words(line.partition(">")[0].removeprefix(typed.rpartition(" ")[0]))


@pytest.mark.parametrize(("typed", "wanted"), TYPED)
def test_fish_completes(typed: str, wanted: set[str], home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(home / ".config" / "fish" / "completions" / "paceline.fish", "fish", capsys)
    lines = said(home, "fish", "-c", "complete --do-complete $argv", typed).splitlines()
    assert {line.partition("\t")[0].rpartition("/")[2] for line in lines} == wanted


def test_a_command_is_offered_with_its_summary(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And not with a line of its description that ends within a sentence."""
    for shell in ("zsh", "fish"):
        assert "find out what is wrong, and how to mend it" in written(home / shell, shell, capsys).read_text()
