"""The site of the docs is built without a warning, and its pages ask no other server for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = (
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*\bsrc=\"([^\"]+)"
    r"|<link\b(?![^>]*rel=\"canonical\")[^>]*\bhref=\"([^\"]+)"
)
"""What a page loads by itself."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_every_page_of_the_docs_is_there(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        built = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        built = built.with_name("index.html") if page.name == "README.md" else built
        assert built.exists(), page


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loaded = 0
    for page in site.rglob("*.html"):
        for groups in re.findall(LOADED, page.read_text()):
            address = "".join(groups)
            assert not re.match(r"(?:https?:)?//", address), f"{page}: {address}"
            loaded += 1
    assert loaded > 100


def test_the_search_finds_a_setting(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text()
    assert "first_byte_timeout_s" in index
