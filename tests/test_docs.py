"""What the documents point to is there."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from paceline.configuration import parse
from paceline.engines import ENGINES

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_commands_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+?)\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    for module in re.findall(r"python -m ((?:paceline|benchmarks)[\w.]*)", text):
        assert find_spec(module), module
    for make_target in re.findall(r"^ +make (\w+)", text, re.MULTILINE):
        assert re.search(rf"^{make_target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), make_target


def test_the_readmes_configuration_is_valid() -> None:
    parse((ROOT / "README.md").read_text().partition("```toml\n")[2].partition("```")[0])


def test_every_engine_kind_has_its_row() -> None:
    table = (ROOT / "docs" / "engines.md").read_text()
    for kind in ENGINES:
        assert f"| `{kind}`" in table


@pytest.mark.parametrize("part", ["inspection", "decision", "engines"])
def test_parts_that_meet_in_the_gateway_know_nothing_of_one_another(part: str) -> None:
    others = {"inspection", "decision", "engines", "gateway"} - {part}
    for module in (ROOT / "src" / "paceline" / part).rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.startswith(f"paceline.{other}") for name in names for other in others), module
