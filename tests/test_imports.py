"""Who may import whom in ``src/paceline``. A change of this table is a change of the house: say why in its commit."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "paceline"
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "settings": set(),
    "wire": set(),
    "inspection": set(),
    "decision": set(),
    "inside": set(),
    "engines": {"settings", "wire", "inside"},
    "configuration": {"settings", "engines"},
    "processes": {"settings", "engines", "wire"},
    "planning": {"settings", "configuration", "engines"},
    "records": {"settings"},
    "money": {"settings"},
    "routing": {"settings", "inspection", "decision", "records", "money"},
    "sharing": {"settings", "decision", "routing"},
    "serving": {
        *("settings", "wire", "inspection", "decision", "routing", "engines", "processes", "records", "money"),
        "translation",
    },
    "evidence": {"settings", "decision", "routing", "records", "money"},
    "translation": {"engines"},
    "http": {
        *("settings", "configuration", "wire", "inspection", "decision", "routing", "engines", "processes"),
        *("records", "evidence", "serving", "sharing", "money", "translation"),
    },
    "integrations": {
        *("settings", "configuration", "wire", "engines", "processes", "routing", "serving", "sharing", "http"),
    },
    "workers": {
        *("settings", "configuration", "engines", "processes", "records", "routing", "serving", "sharing", "http"),
    },
    "bench": {"wire", "decision", "processes"},
    "discovery": {"settings", "wire", "engines", "planning"},
    "service": {"settings"},
    "doctor": {"settings", "configuration", "wire", "engines", "planning", "money", "service"},
}
"""For each room, the others that it may import beside ``types``, which all may, and the small files beside it.
``cli`` stands above all and may import everything."""
KNOWS_NOTHING = {"types", "wire", "inside"}
"""They do not import ``types`` or the small files either, so that they can be taken out and used elsewhere."""
EVERYTHING = {"cli", "__main__"}
PUBLIC = "__init__"
"""The names for use as a library: nobody imports them from there but ``__version__``."""
MAY_IMPORT_PUBLIC = {"types", "settings", "routing"}


class Import(NamedTuple):
    """In a ``line`` of the module ``by``: of the module ``of``, a name or all."""

    by: str
    of: str
    name: str | None
    line: int

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {self.of}{f' ({self.name})' if self.name else ''}"


def modules() -> dict[str, ast.Module]:
    """By their names, such as ``routing.router``; a package goes by its own name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    return found


MODULES = modules()


def imports() -> Iterator[Import]:
    """Of Paceline's own modules, also within functions."""
    for by, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.partition(".")[0] == "paceline":
                        yield Import(by, alias.name.partition(".")[2] or PUBLIC, None, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{by}:{node.lineno}: an import is written with its whole name"
                package, _, module = (node.module or "").partition(".")
                for alias in node.names if package == "paceline" else ():
                    within = f"{module}.{alias.name}".removeprefix(".")
                    if within in MODULES:
                        yield Import(by, within, None, node.lineno)
                    else:
                        yield Import(by, module or PUBLIC, alias.name, node.lineno)


IMPORTS = [one for one in imports() if (one.of, one.name) != (PUBLIC, "__version__")]


def room(module: str) -> str:
    return module.partition(".")[0]


def small_files() -> set[str]:
    """Those beside ``types.py`` that hold one function or two."""
    return {path.stem for path in SOURCE.glob("*.py")} - MAY_IMPORT.keys() - EVERYTHING - {PUBLIC}


def allowed(by: str) -> set[str]:
    """The rooms that a room may import."""
    if by in KNOWS_NOTHING:
        return {by}
    if by == PUBLIC:
        return MAY_IMPORT_PUBLIC
    if by in small_files():
        return {"types", "settings"} | small_files()
    return {by, "types"} | MAY_IMPORT[by] | small_files()


def test_a_room_imports_only_what_its_row_says() -> None:
    wrong = [one for one in IMPORTS if room(one.by) not in EVERYTHING and room(one.of) not in allowed(room(one.by))]
    assert not wrong, "\n" + "\n".join(map(str, wrong))


def test_every_room_has_a_row() -> None:
    assert {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()} <= MAY_IMPORT.keys() | EVERYTHING
    missing = {name for name in MAY_IMPORT if not (SOURCE / name).is_dir() and not (SOURCE / f"{name}.py").exists()}
    assert not missing, "rows of rooms that there are not"


def test_no_room_stands_on_one_that_stands_on_it() -> None:
    list(TopologicalSorter(MAY_IMPORT).static_order())


def test_no_module_imports_itself_by_a_detour() -> None:
    graph: dict[str, set[str]] = {}
    for one in IMPORTS:
        graph.setdefault(one.by, set()).add(one.of)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_private_names_stay_private() -> None:
    """A name that begins with ``_`` belongs to its module, and a module that does to its folder."""
    wrong = [f"{one}" for one in IMPORTS if one.name and is_private(one.name)]
    wrong += [f"{one}" for one in IMPORTS if is_private(one.of.rpartition(".")[2]) and outside(one)]
    for module, tree in MODULES.items():
        bound = {name for node in ast.walk(tree) for name in modules_bound_by(node)}
        wrong += [
            f"{module}:{node.lineno} uses {node.value.id}.{node.attr}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
            if node.value.id in bound and is_private(node.attr)
        ]
    assert not wrong, "\n" + "\n".join(wrong)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def outside(one: Import) -> bool:
    """Whether the module stands in another folder than the one that imports it."""
    return one.by.rpartition(".")[0] != one.of.rpartition(".")[0]


def modules_bound_by(node: ast.AST) -> Iterator[str]:
    """The names by which a module of Paceline's is known after an import."""
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "paceline":
        package = (node.module or "").partition(".")[2]
        for alias in node.names:
            if f"{package}.{alias.name}".removeprefix(".") in MODULES:
                yield alias.asname or alias.name


def test_contributing_says_the_same() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Who may import whom\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert ("cli", "everything") in rows
    assert {name: set(re.findall(r"`(\w+)`", others)) for name, others in rows if name != "cli"} == MAY_IMPORT


def test_no_test_imports_another() -> None:
    """What they share stands in a module of its own, such as ``conftest.py`` or ``fake_engine.py``."""
    paths = (ROOT / "tests").rglob("*.py")
    wrong = [
        path for path in paths if re.search(r"^(from|import) tests\b.*\btest_", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert not wrong
