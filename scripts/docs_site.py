"""What the site of the docs has beyond the files in ``docs/``: a hook of MkDocs (``mkdocs.yml`` names it).

Pages that stand beside ``docs/`` belong to the site, too, and links to them stay right. Links to source files, which
are no pages, become plain words.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md")
"""Pages of the repository that are pages of the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand beside ``docs/``."""
    for name in BESIDE:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set the links right that lead out of ``docs/``, and those of the pages that stand beside it."""
    here = (ROOT / "docs" / page.file.src_uri).parent
    if page.file.src_uri in BESIDE:
        here = (ROOT / page.file.src_uri).parent
    up = "../" * page.file.src_uri.count("/")

    def set_right(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        if target.startswith(("http://", "https://", "mailto:")):
            return link[0]
        place = (here / target).resolve().relative_to(ROOT).as_posix()
        place = "docs/index.md" if place == "README.md" else place
        in_site = place.removeprefix("docs/")
        if place.startswith("docs/") or place in BESIDE:
            return f"[{text}]({up}{in_site}{anchor})"
        return text

    return re.sub(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)", set_right, markdown)
