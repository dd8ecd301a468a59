"""What the documents name is there: links, commands, options, files, functions, endpoints, metrics; and their form."""

import ast
import io
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from paceline import cli
from paceline.configuration import parse
from paceline.engines import ENGINES
from paceline.http.routes import route
from paceline.integrations.endpoint_picker.metrics import PickerMetrics
from paceline.integrations.endpoint_picker.picking import Picker
from paceline.records.metrics import Metrics, Sharing

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "paceline"
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md"), *ROOT.glob("benchmarks/*.md")])
DECISIONS = sorted(DOCS.glob("decisions/0*.md"))
TABLES = DOCS / "the-finding" / "tables.md"
"""Printed by ``benchmarks/the_finding``."""
MAX_COLUMNS = 120
"""Of a line of prose."""
GONE = {"gateway/", "memory.py"}
"""What decisions name as it was before them."""
OTHERS_OPTIONS = {
    "--cache-ram", "--ctx-checkpoints", "--fit", "--help", "--kv-unified", "--n-cpu-moe", "--no-spec-type",
    "--scheduler-cls", "--spec-synth-len", "--spec-synth-rates", "--spec-type", "--tensor-split",
}  # fmt: skip
"""Of engines and of every program."""
BRINGS = {"ray-serve.md": ("ray",)}
"""Packages that the installation which a page begins with brings."""
OTHERS_FILES = ("docs/content/", "docs/my-website/")
"""Where files of other projects stand, which are cited."""
HEADINGS = ("Context", "Decision", "Measured", "Consequences")
CHANGES = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def _each(pages: Sequence[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=[str(page.relative_to(ROOT)) for page in pages])


every_page = _each(PAGES)


# Links and commands


@every_page
def test_links_and_commands_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", text):
        if target.startswith("https://"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not _left_out_of_clones(file), target
        assert not anchor or anchor in _anchors(file), f"{target}#{anchor}"
    for module in re.findall(r"python -m ((?:paceline|benchmarks|training)[\w.]*)", text):
        assert find_spec(module), module
    makefile = (ROOT / "Makefile").read_text()
    for make_target in re.findall(r"(?:^ {4}|`)make ([\w.-]\S*?)[`\s]", text, re.MULTILINE):
        assert re.search(rf"^{re.escape(make_target)}:", makefile, re.MULTILINE), make_target


def test_the_readme_leads_to_every_page() -> None:
    links = set(re.findall(r"\]\((docs/[\w/.-]+\.md)\)", (ROOT / "README.md").read_text()))
    assert {f"docs/{page.name}" for page in DOCS.glob("*.md")} - {"docs/llama-cpp-patch.md"} <= links


def _left_out_of_clones(file: Path) -> bool:
    """Whether git ignores it: it is here, and in no clone."""
    ignored = subprocess.run(["git", "check-ignore", "--quiet", file.resolve()], cwd=ROOT, check=False)
    return ignored.returncode == 0


def _anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for name, words in _commands(page.read_text()):
        options = COMMANDS[name]
        for option in re.findall(r"(?:^|\s)(--[a-z][\w-]*)", words.partition(" -- ")[0]):
            assert option in options, f"paceline {name} {option}"


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands in blocks of code and between backticks: ``("engine build", "--backend cuda")``."""
    names = "|".join(sorted(filter(None, COMMANDS), key=len, reverse=True))
    yield from re.findall(rf"(?:^ +|`|\$ |bin/)paceline ({names})\b([^`\n#]*)", text, re.MULTILINE)


def _all_commands(*words: str) -> dict[str, set[str]]:
    """The options of a command and of those below it, as its help has them."""
    out = io.StringIO()
    with redirect_stdout(out), suppress(SystemExit):
        cli.main([*words, "--help"])
    commands = {" ".join(words): set(re.findall(r"(?<![\w-])--[a-z][\w-]*", out.getvalue()))}
    has_commands = re.search(r"^  (COMMAND|ACTION)$", out.getvalue(), re.MULTILINE)
    for name in re.findall(r"^    ([a-z-]+)", out.getvalue(), re.MULTILINE) if has_commands else ():
        commands |= _all_commands(*words, name)
    return commands


COMMANDS = _all_commands()
"""The options of each command of ``paceline``, by its words."""


@every_page
def test_options_that_stand_alone_exist(page: Path) -> None:
    ours = set[str]().union(*COMMANDS.values(), OTHERS_OPTIONS)
    elsewhere = [file for folder in ("benchmarks", "training") for file in (ROOT / folder).rglob("*.py")]
    scripts = "\n".join(file.read_text() for file in elsewhere)
    for option in re.findall(r"`(--[a-z][\w-]*)[^`]*`", page.read_text()):
        assert option in ours or f'"{option}"' in scripts or option in scripts, option


def test_every_command_is_in_the_docs() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for name in COMMANDS:
        if name not in ("", "engine"):  # its own commands are
            assert f"paceline {name}" in text, name


@every_page
def test_programs_need_no_package_that_an_installation_does_not_bring(page: Path) -> None:
    for program in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for package in re.findall(r"^(?:import|from) (\w+)", program, re.MULTILINE):
            is_brought = package in ("paceline", *BRINGS.get(page.name, ()))
            assert is_brought or package in sys.stdlib_module_names, package


@every_page
def test_programs_can_be_parsed(page: Path) -> None:
    for program in re.findall(r"^```python[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        ast.parse(program, page.name)


# Files and functions


@every_page
def test_files_and_folders_that_are_named_exist(page: Path) -> None:
    names = re.findall(r"`([\w./-]+\.(?:py|md|json|patch)|[\w.-]+(?:/[\w.-]+)*/)`", page.read_text())
    for name in names:
        if name in GONE or name.startswith(("/", *OTHERS_FILES)):
            continue
        places = (ROOT, SOURCE, page.parent)
        is_there = any((place / name).exists() for place in places)
        is_somewhere = "/" not in name and any(any(folder.rglob(name)) for folder in (SOURCE, ROOT / "tests"))
        assert is_there or is_somewhere, name


def test_the_trace_of_a_request_names_functions_that_exist() -> None:
    trace = _section(DOCS / "architecture.md", "The trace of one request")
    rows = re.findall(r"^\| \d+\..*?\| (.+?) \| (.+?) \|$", trace, re.MULTILINE)
    assert len(rows) > 10
    for functions, files in rows:
        texts = [(SOURCE / file).read_text() for file in re.findall(r"`(.+?)`", files)]
        for function in re.findall(r"`(.+?)`", functions):
            assert any(_defines(text, function) for text in texts), f"{function} in {files}"


def _defines(text: str, function: str) -> bool:
    """Whether a module has ``name``, or a class with ``Class.name``."""
    first, _, method = function.partition(".")
    is_there = re.search(rf"^ *(?:async )?(?:def|class) {first}\b", text, re.MULTILINE)
    return bool(is_there) and (not method or bool(re.search(rf"^    (?:async )?def {method}\b", text, re.MULTILINE)))


def test_the_architecture_has_every_folder() -> None:
    table = _section(DOCS / "architecture.md", "The folders of")
    listed = set(re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE))
    assert listed == {folder.parent.name for folder in SOURCE.glob("*/__init__.py")}


# Endpoints, headers, variables, metrics, settings


@every_page
def test_endpoints_of_the_gateways_own_exist(page: Path) -> None:
    own = r"/paceline/[a-z][^`?{\s]*|/livez|/readyz|/metrics|/health"
    for path in re.findall(rf"`(?:[A-Z]+ )?({own})[^`]*`", page.read_text()):
        rows = [route(method, path)[0] for method in ("GET", "POST")]
        assert any(row and row.methods for row in rows), path


def test_headers_and_variables_are_those_of_the_code() -> None:
    code = "\n".join(file.read_text() for file in SOURCE.rglob("*.py"))
    docs = "\n".join(page.read_text() for page in PAGES)
    headers = r"x-paceline-[a-z-]*[a-z]"
    assert set(re.findall(headers, docs)) == set(re.findall(headers, code))
    assert "PACELINE_API_KEY" in code
    assert "PACELINE_API_KEY" in docs


def test_the_table_of_metrics_is_what_the_gateway_has() -> None:
    table = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| `(paceline_\w+)` \| (\w+) \|", table, re.MULTILINE)
    assert dict(rows) == _metrics()


@_each([*PAGES, DOCS / "grafana-dashboard.json"])
def test_metrics_that_are_named_exist(page: Path) -> None:
    for name in re.findall(r"\bpaceline_(?!n_max|control)\w+", page.read_text()):
        assert name in _metrics() or re.sub(r"_(bucket|sum|count)$", "", name) in _metrics(), name


def _metrics() -> dict[str, str]:
    """The kind of each metric, by its name."""
    metrics = Metrics()
    metrics.add(PickerMetrics(Picker()))
    sharing = Sharing(is_up=True, peers=0, told=0, learned=0, lost=0, refused=0)
    text = metrics.text({"plain": (True, 0, 0)}, {}, 0, sharing=sharing).decode()
    kinds = dict(re.findall(r"^# TYPE (paceline_\w+) (\w+)$", text, re.MULTILINE))
    return {name: kind for name, kind in kinds.items() if not name.endswith("_created")}


@every_page
def test_settings_that_are_named_exist(page: Path) -> None:
    reference = DOCS / "configuration.md"
    for table, key in re.findall(r"`(server|routing|evidence)\.([a-z_]+)\b(?!\.)[^`/]*`", page.read_text()):
        assert f"| `{key}` |" in _section(reference, f"`[{table}]`"), f"{table}.{key}"


def test_the_readmes_configuration_is_valid() -> None:
    parse((ROOT / "README.md").read_text().partition("```toml\n")[2].partition("```")[0])


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_every_engine_kind_has_its_row() -> None:
    table = (DOCS / "engines.md").read_text()
    for kind in ENGINES:
        assert f"| `{kind}`" in table


# Form


@_each([page for page in PAGES if page != TABLES])
def test_prose_has_one_width(page: Path) -> None:
    not_prose = r"^ *```.*?^ *```$|^<!-- generated.*?^<!-- end of generated -->$"
    for line in re.sub(not_prose, "", page.read_text(), flags=re.MULTILINE | re.DOTALL).splitlines():
        is_prose = line and not line.startswith(("|", "    ", "![", "["))
        assert not is_prose or len(line) <= MAX_COLUMNS or "`" in line[MAX_COLUMNS - 90 :], line


@_each(DECISIONS)
def test_a_decision_has_date_and_status_and_the_one_form(page: Path) -> None:
    text = page.read_text()
    assert re.match(
        rf"# {page.name[:4]} \w.*\n\n- Date: \d{{4}}-\d\d-\d\d\n- Status: (proposed|accepted|superseded by)", text
    )
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == HEADINGS
    assert f"[{page.name[:4]}]({page.name})" in (DOCS / "decisions" / "README.md").read_text()


def test_the_changelog_keeps_the_order_of_keep_a_changelog() -> None:
    for version in (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1:]:
        sections = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert sections == [section for section in CHANGES if section in sections]


def _section(page: Path, heading: str) -> str:
    """What stands under a heading of the second level that begins so, up to the next one."""
    text = page.read_text()
    begin = text.index(f"\n## {heading}") + 1
    end = text.find("\n## ", begin)
    return text[begin : None if end < 0 else end]
