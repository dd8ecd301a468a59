"""The commands that the README and the guides show: in blocks of code, and between backticks."""

import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "tools.md"
"""Its blocks are run by ``tests/clients``."""
PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
OURS = r"(?:sudo )?(?:\S*bin/)?(?:paceline|python3?|curl|make|pip|pipx|uvx) "
"""Programs whose command lines are also read between backticks, where other programs are only named."""
INDENTED = rf"{OURS}|(?:docker|gh|kubectl|mkdir|serve|vllm) "
FILLED = {
    "BEFORE AFTER": "before.jsonl after.jsonl",
    "COMMAND --help": "serve --help",
    "bench show FILE": "bench show before.jsonl",
    "completion SHELL": "completion bash",
    "--config FILE": "--config paceline.toml",
    "--endpoints FILE": "--endpoints endpoints.txt",
    "--log-file FILE": "--log-file serve.log",
    "--model FILE": "--model model.gguf",
    "--workers N": "--workers 2",
}
"""What stands for the words that readers replace."""


class Command(Struct, frozen=True):
    """A command line.

    Args:
        text: as it is typed; lines that a backslash continues are one.
        shown: what the page shows of its output.
    """

    page: str
    text: str
    shown: str = ""


def commands() -> list[Command]:
    """Those of all pages, each once, with files and numbers in the place of words that stand for them."""
    found: dict[tuple[str, str], Command] = {}
    for page in PAGES:
        for command in _of_page(page):
            for placeholder, value in FILLED.items():
                command = replace(command, text=command.text.replace(placeholder, value))
            found.setdefault((command.text, command.shown), command)
    return list(found.values())


def _of_page(page: Path) -> Iterator[Command]:
    name, text = page.relative_to(ROOT).as_posix(), page.read_text()
    for language, block in re.findall(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language == "console":
            for shown in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                line, _, output = shown.partition("\n")
                yield Command(name, line, output)
        elif language == "sh" and page != GUIDES:
            yield from (Command(name, line) for line in _lines(block))
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.findall(r"(?:^    .*\n?)+", prose, re.MULTILINE):
        for line in _lines(block):
            if re.match(INDENTED, line):
                yield Command(name, line)
    for words in re.findall(r"`([^`]+)`", re.sub(r"^    .*", "", prose, flags=re.MULTILINE)):
        if re.match(OURS, words):
            yield Command(name, " ".join(words.split()))


def _lines(block: str) -> Iterator[str]:
    """Without the explanations, which stand apart by two spaces."""
    for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines():
        if text := re.split(r" {2,}", line.strip())[0]:
            yield text
