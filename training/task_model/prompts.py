"""The training prompts: instructions of each task, their alternatives chosen and their given texts filled in."""

import json
import re
from pathlib import Path
from random import Random
from typing import NamedTuple

HERE = Path(__file__).parent
FORMS = 12
"""Most prompts made of one instruction."""
LONG = ("prose", "passages")
"""Kinds of given texts of which several may come in a row."""
_FILLED = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\(([^()|]*(?:\|[^()|]*)+)\)")


class Prompt(NamedTuple):
    task: str
    text: str
    instruction: str
    """What it was made of; prompts of one instruction must not stand on both sides of a split."""


def own_prompts(seed: int = 0) -> list[Prompt]:
    """All instructions of ``prompts/*.txt``, in several forms where they have any.

    A line is one instruction: ``(a|b|)`` stands for one of the alternatives, ``{text}`` for one of the texts in
    ``given/text.txt``, ``\\n`` for a line break.
    """
    random = Random(seed)
    given = {path.stem: path.read_text("utf-8").strip("\n").split("\n---\n") for path in (HERE / "given").glob("*.txt")}

    def form(instruction: str) -> str:
        chosen = _CHOICE.sub(lambda match: random.choice(match[1].split("|")), instruction).replace("\\n", "\n")
        return _FILLED.sub(lambda match: _text(match, given, random), chosen)

    prompts = []
    for path in sorted((HERE / "prompts").glob("*.txt")):
        for instruction in path.read_text("utf-8").splitlines():
            prompts += [
                Prompt(path.stem, text, instruction) for text in sorted({form(instruction) for _ in range(FORMS)})
            ]
    return prompts


def one_of_each_instruction() -> dict[str, list[Prompt]]:
    """By task, the first form of every instruction."""
    by_task: dict[str, dict[str, Prompt]] = {}
    for prompt in own_prompts():
        by_task.setdefault(prompt.task, {}).setdefault(prompt.instruction, prompt)
    return {task: list(instructions.values()) for task, instructions in by_task.items()}


def _text(match: re.Match[str], given: dict[str, list[str]], random: Random) -> str:
    """A given text for a placeholder; long kinds come as up to five texts in a row, so that no length tells a task."""
    name = match[1]
    if name not in given:
        return match[0]
    most = 5 if name in LONG else 1
    return "\n\n".join(random.sample(given[name], min(random.randint(1, most), len(given[name]))))


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a JSON Lines file with ``id``, ``task`` and ``turns``, a list of texts of which the first is taken."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [
        Prompt({"summarize": "summarise"}.get(row["task"], row["task"]), row["turns"][0], row["id"]) for row in rows
    ]


def lexicons() -> dict[str, frozenset[str]]:
    """Word lists by name: what is known about words that no training prompt holds."""
    return {path.stem: frozenset(path.read_text("utf-8").split()) for path in (HERE / "lexicon").glob("*.txt")}
