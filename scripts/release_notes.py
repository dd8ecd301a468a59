"""Prints what the changelog says of a version: ``python scripts/release_notes.py 0.2.0``.

Fails where the version is not that of ``pyproject.toml``, or has no section with a date. Standard library only.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class NotReady(Exception):
    """The version can't be released; ``str()`` says why."""


def release_notes(version: str, changelog: str, project_version: str) -> str:
    """The text of the version's section.

    Raises:
        NotReady: there is none, it is empty or has no date, or it is another version.
    """
    if version != project_version:
        raise NotReady(f"pyproject.toml has the version {project_version}, and {version} is to be released")
    section = re.search(
        rf"^## \[{re.escape(version)}\](?P<rest>.*)\n(?P<text>(?:(?!^## ).*\n?)*)", changelog, re.MULTILINE
    )
    if section is None:
        raise NotReady(f"CHANGELOG.md has no section [{version}]: rename [Unreleased], and begin a new one")
    if not re.fullmatch(r" - \d{4}-\d\d-\d\d", section["rest"]):
        raise NotReady(f"CHANGELOG.md: the section [{version}] needs a date, as in: ## [{version}] - 2026-11-26")
    if not (text := section["text"].strip()):
        raise NotReady(f"CHANGELOG.md: the section [{version}] is empty")
    return text


def main(version: str) -> int:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    try:
        print(release_notes(version, (ROOT / "CHANGELOG.md").read_text("utf-8"), project["project"]["version"]))
    except NotReady as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: release_notes.py VERSION")
    sys.exit(main(sys.argv[1].removeprefix("v")))
