"""What the rooms on a request's way know of one another."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "paceline"


def imported(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("room", ["serving", "wire"])
def test_a_room_that_does_not_speak_apis_knows_nothing_of_the_one_that_does(room: str) -> None:
    for module in (SOURCE / room).rglob("*.py"):
        assert not [name for name in imported(module) if name.startswith(("paceline.http", "paceline.cli"))], module


def test_loggers_are_named_after_their_rooms() -> None:
    for module in SOURCE.rglob("*.py"):
        room = module.relative_to(SOURCE).parts[0]
        for name in re.findall(r"getLogger\(\"(paceline[\w.]*)\"\)", module.read_text()):
            assert name == f"paceline.{room}", module
