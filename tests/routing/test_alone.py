"""The library needs msgspec and numpy and nothing else, and loads nothing of the gateway's."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
LIBRARY = ("msgspec", "numpy")
"""What `pip install paceline` installs beside it."""
OF_THE_GATEWAY = ("httptools", "uvloop", "prometheus_client", "threadpoolctl", "backports")
ROUTE = """
from paceline import Lane, Outcome, Request, Router, Strategy
router = Router([Lane("plain", "e", Strategy()), Lane("ngram", "e", Strategy("ngram", 8))])
decision = router.choose(Request.of({"messages": [{"role": "user", "content": "Write a poem."}]}))
router.observe(decision, Outcome(decision.lane, 200, 1.0))
assert router.knowledge.measured
"""


def run(code: str | list[str], folder: Path, *packages: str) -> subprocess.CompletedProcess[str]:
    """Python in a process that has Paceline's source and some packages, without metadata, and no others.

    Args:
        code: a program, or the words behind ``python``.
        folder: to link the packages into.
    """
    for package in packages:
        spec = find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            found = Path(next(iter(spec.submodule_search_locations)))
            (folder / package).symlink_to(found)
            if (libraries := found.with_name(f"{package}.libs")).exists():  # those of a wheel
                (folder / libraries.name).symlink_to(libraries)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{SOURCE}:{folder}"}
    words = ["-c", code] if isinstance(code, str) else code
    return subprocess.run(
        [sys.executable, "-S", *words], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_msgspec_and_numpy_are_enough_to_route(tmp_path: Path) -> None:
    program = f"{ROUTE}router.save('learned.sqlite'); router.load('learned.sqlite'); assert router.knowledge.measured"
    done = run(program, tmp_path, *LIBRARY)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["paceline", "paceline.routing", "paceline.decision", "paceline.inspection"])
def test_nothing_of_the_gateway_is_loaded(module: str) -> None:
    rooms = [f"paceline.{room}" for room in ("http", "serving", "processes", "wire", "engines", "cli")]
    program = (
        f"import sys, {module}; print([name for name in {[*OF_THE_GATEWAY, *rooms, 'asyncio']} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("module", ["paceline", "paceline.cli"])
def test_the_command_says_what_to_install(module: str, tmp_path: Path) -> None:
    done = run(["-m", module, "lanes"], tmp_path, *LIBRARY)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "pip install 'paceline[serve]'" in done.stderr


def test_whoever_chooses_or_learns_does_it_by_the_router() -> None:
    own = [SOURCE / "paceline" / room for room in ("decision", "routing")]
    benchmarks = SOURCE.parent / "benchmarks"
    for module in (*(SOURCE / "paceline").rglob("*.py"), *benchmarks.rglob("*.py")):
        if module.parent in own:
            continue
        taken = {name for source, name in imports_of(module) if source.startswith("paceline.decision")}
        assert not taken & {"decide", "learn", "predict"}, module


def imports_of(module: Path) -> list[tuple[str, str]]:
    """Of Paceline's modules: from where, and what."""
    return [
        (node.module, alias.name)
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("paceline.")
        for alias in node.names
    ]


def test_the_library_alone_tells_its_version(tmp_path: Path) -> None:
    done = run(["-m", "paceline", "--version"], tmp_path, *LIBRARY)
    assert (done.returncode, done.stdout) == (0, "paceline from source\n"), done.stderr


def test_the_command_runs_from_its_source_without_being_installed(tmp_path: Path) -> None:
    done = run(["-m", "paceline", "check", "--help"], tmp_path, *LIBRARY, *OF_THE_GATEWAY)
    assert (done.returncode, "usage: paceline check" in done.stdout) == (0, True), done.stderr


def test_it_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "paceline", "--help"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, "serve" in done.stdout) == (0, True), done.stderr
